"""Three daemons fit a Secure GLM over TLS; one is killed at a message and starts again; then the record is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from support.node.houses import SITES, study_file
from support.node.results import read_result
from support.node.talking_houses import Fatal, TalkingNetwork

from coterie_chain.ledger.protocol import Event
from coterie_node.audit.replay import replay
from coterie_node.run.reasons import Reason

HELPER = "west"
WORDS = {
    'name = "glore"': 'name = "secure_glm"\nquestions = 5',
    'sites = ["north", "south", "west"]': f'sites = ["north", "south", "west"]\nhelpers = ["{HELPER}"]',
}
# What a site sends, by the size of its first message of this kind: two hospitals with 120 rows each and two columns, so
# that a row is 3 elements of 22 bytes, and a helper. Elements go in a deal, an opening or a product's new shares.
KINDS = {
    "greeting": 48,
    "number of rows": 8,
    "shares of its rows": 120 * 3 * 22,
    "variances": 2 * 22,
    "digits of variances": 2 * 13 * 22,
    "bits of a comparison of variances": 1664,
    "the information's upper triangle": 6 * 22,
    "a matrix under masks": 9 * 22,
    "one bit": 22,
    "digits of one number": 114,
    "a vector of three": 3 * 22,
    "a number of each row": 240 * 22,
    "digits of a number of each row": 4560,
    "two numbers of each row": 2 * 240 * 22,
    "three numbers of each row": 3 * 240 * 22,
    "digits of three numbers of each row": 13680,
    "digits of the stopping rule": 140,
    "closing statement": 144,
}
OWNERS_ONLY = ("number of rows", "shares of its rows")


# Each kind once in the sweep, of the helper and the owners in turn.
SWEEP = [
    pytest.param(kind, "north" if kind in OWNERS_ONLY else ("west", "north", "south")[k % 3], marks=pytest.mark.long)
    for k, kind in enumerate(KINDS)
]


def run_study(network: TalkingNetwork, name: str) -> None:
    """Propose, approve and run to an end."""
    study = network.propose(study_file(network.root, name, texts=WORDS))
    network.approve(study, "south", HELPER)
    network.settle_talking()


def assert_pooled(network: TalkingNetwork, number: int) -> None:
    """All sites have one result, within 1e-4 standard errors of statsmodels on the rows of both hospitals."""
    fits = [read_result(network.root / name / "results" / f"{number}.json")["fit"] for name in SITES]
    assert fits[0] == fits[1] == fits[2]
    rows = np.vstack([np.loadtxt(network.root / n / "data.csv", delimiter=",", skiprows=1) for n in ("north", "south")])
    pooled = sm.GLM(rows[:, 0], sm.add_constant(rows[:, 1:]), family=sm.families.Binomial()).fit(tol=1e-13)
    assert np.abs((np.array(fits[0]["estimates"]) - pooled.params) / pooled.bse).max() < 1e-4


def end_reasons(network: TalkingNetwork) -> list[int]:
    events = (e for e in network.chain.log if isinstance(e, Event) and e.name == "StudyAborted")
    return [int(dict(event.details)["reason"]) for event in events]


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[TalkingNetwork]:
    network = TalkingNetwork(tmp_path)
    yield network
    network.close()


def test_three_daemons_open_one_result_and_an_auditor_finds_the_record_intact(quiet: TalkingNetwork) -> None:
    run_study(quiet, "cohort")
    for name, exchange in quiet.exchanges.items():
        expected = {size for kind, size in KINDS.items() if name != HELPER or kind not in OWNERS_ONLY}
        assert set(exchange.sizes) == expected
    assert quiet.phases() == {name: ["done"] for name in SITES}
    assert_pooled(quiet, 1)
    verdict = replay(quiet.chain.ledger(None), quiet.blobs, 1).verdict
    assert (verdict.verdict, verdict.grade) == ("RECORD INTACT", "opened results")


def die_at_first(size: int) -> Fatal:
    return lambda _, data, __: len(data) == size


@pytest.mark.parametrize(("kind", "victim"), [("a number of each row", "south"), *SWEEP])
def test_a_daemon_killed_at_any_kind_of_message_ends_the_study_and_the_next_one_is_done(
    tmp_path: Path, kind: str, victim: str
) -> None:
    """Nothing is opened by a run that lost a site, and the fresh process takes part in the next one."""
    network = TalkingNetwork(tmp_path, {victim: die_at_first(KINDS[kind])})
    try:
        run_study(network, "cohort")
        assert network.deaths == [victim]
        assert end_reasons(network) == [Reason.SESSION_LOST]
        assert all(set(phases) <= {"aborted", "stopped"} for phases in network.phases().values())
        assert not any((network.root / name / "results" / "1.json").exists() for name in SITES)
        run_study(network, "again")
        assert {phases[1] for phases in network.phases().values()} == {"done"}
        assert_pooled(network, 2)
    finally:
        network.close()
