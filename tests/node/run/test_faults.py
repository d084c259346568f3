"""Studies under seeded faults: how many seeds is COTERIE_FAULT_SEEDS, one alone is COTERIE_FAULT_SEED.

`make test` tells the first of the stories, `make test-long` all others.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from support.node.faults import LAST, Ending, stories

from coterie_chain.ledger.protocol import State
from coterie_node.run.runner import Runner

PART, FEW = 25, 20
ONE = os.environ.get("COTERIE_FAULT_SEED")
COUNT = int(os.environ.get("COTERIE_FAULT_SEEDS", "150"))
LATER = [range(at, min(at + PART, COUNT)) for at in range(FEW, COUNT, PART)]
PARTS = (
    [pytest.param(range(int(ONE), int(ONE) + 1))]
    if ONE
    else [pytest.param(range(FEW)), *(pytest.param(seeds, marks=pytest.mark.long) for seeds in LATER)]
)


def run_stories(seeds: range) -> list[Ending]:
    return [ending for _, ending in stories(seeds)]


@pytest.mark.parametrize("seeds", PARTS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_study_ends_with_its_model_or_for_a_coded_reason(seeds: range) -> None:
    endings = run_stories(seeds)
    assert all(ending.events < LAST for ending in endings)
    assert all(ending.state in (State.COMPLETED, State.ABORTED) for ending in endings)


@pytest.mark.long
def test_the_faults_do_strike_and_most_studies_survive_them() -> None:
    endings = run_stories(range(100))
    struck = sum((ending.struck for ending in endings), Counter[str]())
    assert {"crash", "pause", "fork", "gone", "CO-C301", "CO-C304", "CO-C201", "CO-C204"} <= set(struck)
    assert Counter(ending.state for ending in endings)[State.COMPLETED] > 60


def test_a_story_runs_twice_in_the_same_words() -> None:
    assert run_stories(range(5)) == run_stories(range(5))


@pytest.mark.long
def test_a_runner_that_trusts_a_forked_ledger_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, "matches_ledger", lambda self: True)
    with pytest.raises(AssertionError, match=r"make faults SEED="):
        run_stories(range(100))


@pytest.mark.long
def test_a_runner_that_believes_its_own_guess_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(self: Runner, guess: object, records: object) -> bool:
        self._prediction = None
        return True

    monkeypatch.setattr(Runner, "_confirm", believe)
    with pytest.raises(AssertionError, match=r"make faults SEED="):
        run_stories(range(350, 430))  # a lying server meets sites that go on ahead in one story of some hundred
