"""Three daemons fit a Secure GLM over TLS; one is killed at a message and starts again; then the record is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from support.lanes import later
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
# What a party of a study of two hospitals with 120 rows each and two columns sends, by its size. The first two are the
# greeting and the number of rows; the last two shares of the rows and the digits of a comparison by row.
ELEMENT = 22


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
    assert quiet.phases() == {name: ["done"] for name in SITES}
    assert_pooled(quiet, 1)
    verdict = replay(quiet.chain.ledger(None), quiet.blobs, 1).verdict
    assert (verdict.verdict, verdict.grade) == ("RECORD INTACT", "opened results")
