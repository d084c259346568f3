"""The same study over the twin and over a chain: the same payloads, byte for byte, and the same result."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.node.experiments import write_plan, write_rows

from coterie_chain.errors import PostRejected
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger
from coterie_learners.errors import Separation
from coterie_node.errors import ConfigError
from coterie_node.experiment.cohort import load_experiment_rows
from coterie_node.experiment.models import TrialRows, read_site_rows
from coterie_node.experiment.plan import read_plan
from coterie_node.experiment.run import run_experiment
from coterie_node.experiment.splits import split_trial
from coterie_node.experiment.transports import Handles, conduct_over, conduct_runners, open_transport
from coterie_node.run.simulate import simulate


def read_trial(folder: Path, **changes: str) -> TrialRows:
    plan = read_plan(write_plan(folder, **changes))
    cohort = load_experiment_rows(plan, folder)
    return TrialRows(plan, cohort, split_trial(plan, cohort, 0), 1)


@pytest.mark.parametrize(
    "text",
    [
        "memory",
        pytest.param("anvil", marks=pytest.mark.anvil),
        pytest.param("clique", marks=[pytest.mark.devnet, pytest.mark.xdist_group("clique")]),
    ],
)
def test_payloads_and_estimates_are_those_of_a_simulation(tmp_path: Path, text: str) -> None:
    write_rows(tmp_path)
    rows = read_trial(tmp_path)
    study = rows.plan.study_of_rows(tuple(rows.split.sites), {"aggregation": "plain"})
    data = read_site_rows(rows, study)
    _, expected, _ = simulate(study, data)
    with open_transport(text) as transport:
        conducted, _ = conduct_runners(transport, study, data, gated=False)
    for name, runner in conducted.runners.items():
        assert runner.payload_bytes == expected[name].payload_bytes
        assert np.array_equal(runner.machine.result.estimates, expected[name].machine.result.estimates)
    assert conducted.payload_bytes > 0


class LateLedger:
    """A site's ledger whose node receives the block with a proposal only after a while."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.waited = ledger, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)

    def studies(self) -> tuple[int, ...]:
        return self.ledger.studies() if self.waited else ()

    def wait(self, seconds: float) -> None:
        self.waited = True

    def join(self, study: int, hash: bytes) -> None:
        if not self.waited:
            raise PostRejected("NotParticipant")
        self.ledger.join(study, hash)


def test_a_site_joins_when_its_own_node_knows_the_study(tmp_path: Path) -> None:
    write_rows(tmp_path)
    rows = read_trial(tmp_path)
    study = rows.plan.study_of_rows(tuple(rows.split.sites), {"aggregation": "plain"})
    last = study.sites[-1]

    @contextmanager
    def connect(keys: Mapping[str, SiteKeys]) -> Iterator[Handles]:
        with open_transport("memory") as transport, transport(keys) as handles:
            late = cast(Ledger, LateLedger(handles.ledgers[last]))
            yield Handles({**handles.ledgers, last: late}, handles.stores)

    fits, _ = conduct_over(connect, study, read_site_rows(rows, study), gated=False)
    assert all(fit is not None for fit in fits.values())


def test_a_fit_without_a_solution_ends_at_all_sites_with_its_error(tmp_path: Path) -> None:
    write_rows(tmp_path, separated=True)
    rows = read_trial(tmp_path)
    study = rows.plan.study_of_rows(tuple(rows.split.sites), {})
    with open_transport("memory") as transport, pytest.raises(Separation):
        conduct_over(transport, study, read_site_rows(rows, study), gated=False)
    assert [thread.name for thread in threading.enumerate() if "_attend" in thread.name] == []


def test_local_compute_takes_its_time_in_each_round(tmp_path: Path) -> None:
    write_rows(tmp_path)
    rows = read_trial(tmp_path)
    study = rows.plan.study_of_rows(tuple(rows.split.sites), {})
    with open_transport("memory") as transport:
        results, seconds = conduct_over(transport, study, read_site_rows(rows, study), False, compute=0.05)
    (rounds,) = {fit.rounds for fit in results.values() if fit is not None}
    assert seconds >= 0.05 * rounds


def test_an_experiment_states_the_seconds_over_another_transport(tmp_path: Path) -> None:
    write_rows(tmp_path)
    plan = read_plan(write_plan(tmp_path, trials="2", models='["centralised", "glore"]'))
    for _ in range(2):  # the second run reads what the first one wrote
        experiment = run_experiment(plan, tmp_path, tmp_path / "trials", over=("memory",))
    assert {name: len(values) for name, values in experiment.seconds.items()} == {"glore": 2, "glore over memory": 2}
    assert len(list((tmp_path / "trials" / "memory").iterdir())) == 2


@pytest.mark.parametrize("text", ["", "ethereum", "redis://", "amqp://here", "redis://host:port", "http://host:80"])
def test_what_is_no_transport_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught, open_transport(text):
        pass
    assert caught.value.code == "CO-F362"
