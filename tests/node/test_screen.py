"""The screen on a ledger: honest sites pass, poisoned ones are named with the coefficients that they move."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from learners import cohorts
from node.worlds import World, cohort, sweep, until

from coterie_learners.errors import LearnerError, NotConverged
from coterie_learners.glore import Plan
from coterie_learners.study import Study
from coterie_node.errors import AuditFailed
from coterie_node.screen import Screen, screen

Change = Callable[[dict[str, Any]], None]
ROWS = 800


def poisoned(change: Change, *names: str, count: int = 4) -> World:
    """A plain study in which some sites' posts are changed in every round, to its end, whichever that is."""
    world = cohort(count, n=ROWS, aggregation="plain")
    crew = world.crew()
    while (opened := world.view().open) is not None:
        if opened.kind == "each":
            for name in names:
                world.forge(name, change)
        with suppress(NotConverged):
            until(lambda at=opened.position: (o := world.view().open) is None or o.position > at, crew.values())  # type: ignore[misc]
    return world


def honest(p: dict[str, Any]) -> None:
    """Nothing is changed."""


def screened(world: World) -> Screen:
    return screen(world.ledger(), world.blobs, world.number)


def flipped_labels(world: World, name: str) -> None:
    """A site whose outcome is coded the wrong way round."""
    codes = cohorts.cut(cohorts.draw(ROWS), cohorts.even(ROWS, 4))[world.study.sites.index(name)]
    codes["died"] = 1.0 - codes["died"]
    world.rows = {**world.rows, name: cohorts.rows(world.study, codes)}


def test_honest_sites_are_not_named() -> None:
    found = screened(poisoned(honest))
    assert found.outliers == ()
    assert "No site stands out against the rest." in found.told
    assert found.found is not None
    assert np.abs(found.found.moved).max() < 3


def test_the_screen_compares_at_the_published_estimate() -> None:
    world = poisoned(honest)
    fit, found = world.rerun("north"), screened(world).found
    assert found is not None
    assert found.estimates == pytest.approx(fit.estimates, abs=1e-12)
    assert found.std_errors == pytest.approx(fit.std_errors, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_labels_the_wrong_way_round_are_named_with_the_coefficients_they_move(seed: int) -> None:
    world = cohort(4, n=ROWS, aggregation="plain")
    flipped_labels(world, "south")
    sweep(world.crew().values())
    found = screened(world)
    assert found.outliers == ("south",)
    told = next(line for line in found.told if line.startswith("south does not go together"))
    assert "standard errors" in told
    assert found.found is not None
    moved = dict(zip(found.found.terms, found.found.moved[1], strict=True))
    assert abs(moved["age"]) > 2


def signs_turned(p: dict[str, Any]) -> None:
    p["score"] *= -1


def test_a_gradient_with_its_sign_turned_is_named() -> None:
    world = poisoned(signs_turned, "east")
    found = screened(world)
    assert "east" in found.outliers


def scaled(p: dict[str, Any]) -> None:
    for name in ("score", "information", "deviance"):
        p[name] *= 10


def test_sums_scaled_up_are_refused_at_once_as_more_than_the_rows_can_carry() -> None:
    world = cohort(4, n=ROWS, aggregation="plain")
    world.forge("south", scaled)
    crew = world.crew(("north", "east", "west"))
    with pytest.raises(LearnerError, match="south posted a bad 'stats/0'") as caught:
        sweep(crew.values())
    assert (caught.value.code, caught.value.site) == ("CO-P508", "south")  # type: ignore[attr-defined]


def biased(p: dict[str, Any]) -> None:
    p["score"][1] += 40


def test_a_drop_of_poison_in_one_coefficient_is_named_with_it() -> None:
    found = screened(poisoned(biased, "west"))
    assert found.outliers[:1] == ("west",)
    told = next(line for line in found.told if line.startswith("west does not"))
    assert "moves age" in told


def test_half_of_the_sites_in_league_are_seen_as_disagreement_and_no_side_is_taken() -> None:
    world = cohort(4, n=ROWS, aggregation="plain")
    flipped_labels(world, "south")
    flipped_labels(world, "west")
    sweep(world.crew().values())
    found = screened(world)
    assert found.outliers
    (told,) = (line for line in found.told if line.startswith("Cochran's Q has p < 0.05 for "))
    assert re.search(r"; of \d+ tests 0\.\d would have that by chance\.$", told)
    assert "who disagrees, not who is right" in found.told[-1]


def test_masked_sums_are_told_in_words() -> None:
    world = cohort(3)
    sweep(world.crew().values())
    found = screened(world)
    assert found.found is None
    assert "only sums over the sites exist" in found.told[0]
    assert found.as_dict()["sites"] == []
    assert found.text() == found.told[0]


def test_a_study_without_a_fit_is_compared_as_far_as_it_came() -> None:
    world = cohort(3, aggregation="plain")
    with pytest.raises(AuditFailed, match="No site has posted"):
        screened(world)
    until(lambda: len(world.records()) == 11, world.crew().values())
    assert "last round that there is" in screened(world).told[0]


def test_the_json_and_the_text_hold_what_was_found() -> None:
    found = screened(poisoned(honest))
    plain = found.as_dict()
    assert [s["site"] for s in plain["sites"]] == list(cohorts.sites(4))
    assert [t["term"] for t in plain["terms"]] == list(Plan.of(study_of(4)).design.names)
    assert all(len(s["moved"]) == len(plain["terms"]) for s in plain["sites"])
    assert all(0 <= t["i2"] <= 1 for t in plain["terms"])
    text = found.text()
    assert "I2" in text
    assert "north moves" in text


def study_of(count: int) -> Study:
    return cohorts.study(count=count, aggregation="plain")
