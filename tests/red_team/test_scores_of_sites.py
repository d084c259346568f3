"""Sandwich errors by site: their sum of squared scores may not be taken where it would tell one site's scores."""

from __future__ import annotations

from typing import Any

import pytest

from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study

LEVELS: dict[str, Any] = {"ward": {"type": "category", "levels": ["a", "b", "c", "d", "e"]}}
NUMBERS: dict[str, Any] = {f"x{k}": {"type": "number", "range": [-9, 9]} for k in range(5)}
ONE, BY_SITE = [{"name": "first", "formula": "y ~ x0"}], {"robust": "site"}
LONG = {"name": "second", "formula": "y ~ x1 + x2 + x3 + x4"}
EXCLUDES = {"ledger": {"silent_site": "exclude"}}


def complete(sites: int, options: dict[str, Any], **keys: Any) -> Study:
    variables = {"y": {"type": "binary"}, **NUMBERS, **LEVELS}
    plain = {"name": "scores", "sites": [f"s{k}" for k in range(sites)], "variables": variables}
    return complete_study(Study.model_validate(plain | {"learner": {"name": "glore", **options}} | keys))


# With one coefficient more than sites have differences the scores of all sites follow from their squares.
STORIES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "four sites of one model among several": (4, BY_SITE, {"models": ONE}),
    "the option of one model alone": (4, {}, {"models": [*ONE, {**ONE[0], "name": "second", "robust": "site"}]}),
    "a second model with as many coefficients as sites": (5, BY_SITE, {"models": [*ONE, LONG]}),
    "levels that make as many coefficients as sites": (5, BY_SITE, {"formula": "y ~ ward"}),
    "a column of its own for each level": (5, BY_SITE, {"formula": "y ~ 0 + ward"}),
    "several models over sites of which one may be excluded": (5, BY_SITE, {"models": ONE, **EXCLUDES}),
    "intercepts of sites beside as many slopes as sites": (
        5,
        {**BY_SITE, "site_intercepts": True},
        {"formula": "y ~ ward + x0 + x1"},
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_squared_scores_that_would_tell_a_sites_scores_are_refused(story: str) -> None:
    sites, options, keys = STORIES[story]
    with pytest.raises(StudyError, match='robust = "site"') as error:
        complete(sites, options, **keys)
    assert error.value.code == "CO-S324"


@pytest.mark.parametrize("keys", [{"formula": "y ~ x0"}, {"models": ONE}], ids=["one model", "several"])
def test_a_study_says_that_all_but_two_sites_together_know_the_scores_of_these(keys: dict[str, Any]) -> None:
    study = complete(5, BY_SITE, **keys)
    sentences = " ".join(learner_of(study).discloses(study).everybody)
    assert "All but two sites together can compute the scores of these two" in sentences
