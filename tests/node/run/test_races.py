"""What other sites do between two reads of the ledger must never mislead a runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.learners.plain_study import PLAIN_STUDY, SITES

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import World, make_runner, make_world


class Overtaken:
    """A ledger handle on which the other sites move on after a read of one kind, before its answer is used."""

    def __init__(self, inner: Any, read: str, others: Callable[[], None]) -> None:
        self._inner, self._read, self._others = inner, read, others

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return self._after(attribute) if name == self._read else attribute

    def _after(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object) -> Any:
            answer = read(*arguments)
            if answer is None or self._read == "view":
                self._others()
            return answer

        return call


def rows_of(study: Study, seed: int) -> ArrayRows:
    """A site's simulated rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=80).clip(-4, 4)
    y = (rng.random(80) < 1 / (1 + np.exp(-x))).astype(float)
    block = Design(study).block({"y": y, "x": x})
    return ArrayRows(block.x, block.y)


@pytest.mark.parametrize("read", ["read_finished", "view"])
def test_a_study_that_moves_on_between_two_reads_is_followed_to_its_end(read: str) -> None:
    study = complete_study(Study.from_toml(PLAIN_STUDY))
    world: World = make_world(study)
    rows = {name: rows_of(study, seed) for seed, name in enumerate(SITES)}
    others = [make_runner(world, name, rows[name]) for name in SITES[1:]]
    restarted_runner = make_runner(world, "north", rows["north"])

    def move_on() -> None:
        for peer in (*others, restarted_runner):
            while peer.turn():
                pass

    slow: Runner = make_runner(world, "north", rows["north"])
    slow._ledger = Overtaken(slow._ledger, read, move_on)
    for _ in range(200):
        slow.turn()
    assert slow.done
    assert np.array_equal(slow.machine.result.estimates, restarted_runner.machine.result.estimates)
