"""The screen on a ledger: honest sites pass, poisoned ones are named with the coefficients that they move."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts
from support.node.worlds import World, cohort, sweep, until

from coterie_chain.ledger.protocol import State
from coterie_learners.errors import LearnerError, NotConverged, ProtocolError
from coterie_learners.glore.glore import GlorePlan
from coterie_learners.study.document import Study
from coterie_node.audit.influence import UNFINISHED, Screen, screen
from coterie_node.errors import AuditFailed

Change = Callable[[dict[str, Any]], None]
ROWS = 800


def poison(change: Change, *names: str, count: int = 4) -> World:
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


def screen_world(world: World) -> Screen:
    return screen(world.ledger(), world.blobs, world.number)


def flip_labels(world: World, name: str) -> None:
    """A site whose outcome is coded the wrong way round."""
    codes = cohorts.split_sizes(cohorts.draw(ROWS), cohorts.even_sizes(ROWS, 4))[world.study.sites.index(name)]
    codes["died"] = 1.0 - codes["died"]
    world.rows = {**world.rows, name: cohorts.rows(world.study, codes)}


def test_honest_sites_are_not_named() -> None:
    outcome = screen_world(poison(honest))
    assert outcome.outliers == ()
    assert "No site stands out against the rest." in outcome.statements
    assert outcome.comparison is not None
    assert np.abs(outcome.comparison.moved).max() < 3


def test_the_screen_compares_at_the_published_estimate() -> None:
    world = poison(honest)
    fit, outcome = world.rerun("north"), screen_world(world).comparison
    assert outcome is not None
    assert outcome.estimates == pytest.approx(fit.estimates, abs=1e-12)
    assert outcome.std_errors == pytest.approx(fit.std_errors, rel=1e-9)


def test_the_screen_has_the_dispersion_of_the_fit() -> None:
    """Counts that vary three times as much as Poisson's would make every site stand apart."""
    codes = cohorts.draw(ROWS)
    codes["visits"] = 3.0 * codes["visits"]
    variables = {"visits": {"type": "count", "range": [0, 10_000]}}
    options = {"family": "quasipoisson", "formula": "visits ~ age + crp + male", "variables": variables}
    world = cohort(4, n=ROWS, codes=codes, aggregation="plain", **options)
    sweep(world.crew().values())
    fit, outcome = world.rerun("north"), screen_world(world)
    assert fit.dispersion > 2.5
    assert outcome.comparison is not None
    assert outcome.comparison.std_errors == pytest.approx(fit.std_errors, rel=1e-6)
    assert outcome.outliers == ()


@pytest.mark.parametrize("seed", range(3))
def test_labels_the_wrong_way_round_are_named_with_the_coefficients_they_move(seed: int) -> None:
    world = cohort(4, n=ROWS, aggregation="plain")
    flip_labels(world, "south")
    sweep(world.crew().values())
    outcome = screen_world(world)
    assert outcome.outliers == ("south",)
    sentence = next(line for line in outcome.statements if line.startswith("south does not go together"))
    assert "standard errors" in sentence
    assert outcome.comparison is not None
    moved = dict(zip(outcome.comparison.terms, outcome.comparison.moved[1], strict=True))
    assert abs(moved["age"]) > 2


def turn_signs(p: dict[str, Any]) -> None:
    p["score"] *= -1


def test_a_score_with_its_sign_turned_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"east posted a bad 'stats/0'.* contradicts an outcome") as caught:
        poison(turn_signs, "east")
    assert caught.value.site == "east"


def turn_signs_of_rounds(p: dict[str, Any]) -> None:
    if "saturated" in p:  # a round, not a look
        p["score"] *= -1


def test_scores_with_their_sign_turned_after_the_look_lead_to_no_fit() -> None:
    """Near the estimate scores are small, so that the screen names nobody; but nothing is published either."""
    world = poison(turn_signs_of_rounds, "east")
    assert world.view().state == State.ABORTED
    assert screen_world(world).statements[0] == UNFINISHED


def scale(p: dict[str, Any]) -> None:
    for name in ("score", "information", "deviance"):
        p[name] *= 10


def test_sums_scaled_up_are_refused_at_once_as_more_than_the_rows_can_carry() -> None:
    world = cohort(4, n=ROWS, aggregation="plain")
    world.forge("south", scale)
    crew = world.crew(("north", "east", "west"))
    with pytest.raises(LearnerError, match="south posted a bad 'stats/0'") as caught:
        sweep(crew.values())
    assert (caught.value.code, caught.value.site) == ("CO-P508", "south")  # type: ignore[attr-defined]


def bias(p: dict[str, Any]) -> None:
    p["score"][1] += 40


def test_a_drop_of_poison_in_one_coefficient_is_named_with_it() -> None:
    outcome = screen_world(poison(bias, "west"))
    assert outcome.outliers[:1] == ("west",)
    sentence = next(line for line in outcome.statements if line.startswith("west does not"))
    assert "moves age" in sentence


def test_half_of_the_sites_in_league_are_seen_as_disagreement_and_no_side_is_taken() -> None:
    world = cohort(4, n=ROWS, aggregation="plain")
    flip_labels(world, "south")
    flip_labels(world, "west")
    sweep(world.crew().values())
    outcome = screen_world(world)
    assert outcome.outliers
    (sentence,) = (line for line in outcome.statements if line.startswith("Cochran's Q has p < 0.05 for "))
    assert re.search(r"; of \d+ tests 0\.\d would have that by chance\.$", sentence)
    assert "it cannot know which are right" in outcome.statements[-1]


def test_masked_sums_are_described_in_words() -> None:
    world = cohort(3)
    sweep(world.crew().values())
    outcome = screen_world(world)
    assert outcome.comparison is None
    assert "only sums over the sites exist" in outcome.statements[0]
    assert outcome.as_dict()["sites"] == []
    assert outcome.text() == outcome.statements[0]


def test_a_study_without_a_fit_is_compared_as_far_as_it_came() -> None:
    world = cohort(3, aggregation="plain")
    with pytest.raises(AuditFailed, match="No site has posted"):
        screen_world(world)
    until(lambda: len(world.records()) == 11, world.crew().values())
    assert "last round that there is" in screen_world(world).statements[0]


def test_the_json_and_the_text_hold_what_was_found() -> None:
    outcome = screen_world(poison(honest))
    plain = outcome.as_dict()
    assert [s["site"] for s in plain["sites"]] == list(cohorts.sites(4))
    assert [t["term"] for t in plain["terms"]] == list(GlorePlan.of(study_of(4)).design.names)
    assert all(len(s["moved"]) == len(plain["terms"]) for s in plain["sites"])
    assert all(0 <= t["i2"] <= 1 for t in plain["terms"])
    text = outcome.text()
    assert "I2" in text
    assert "north moves" in text


def study_of(count: int) -> Study:
    return cohorts.study(count=count, aggregation="plain")
