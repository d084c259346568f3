"""What a refusal tells people to do is an option of their own learner, or another learner, and leads to a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.learners import strata
from support.learners.cohorts import Codes

from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Data
from coterie_node.errors import ReleaseRefused
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate

REMEDIES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "plain sums": (
        {"name": "glore", "aggregation": "plain"},
        'set aggregation = "masked"',
        {"name": "glore", "aggregation": "masked"},
    ),
    "tables": ({"name": "cola"}, "take the learner secure_cola", {"name": "secure_cola", "scheme": "newton"}),
    "the opened sum": ({"name": "secure_cola"}, 'set scheme = "newton"', {"name": "secure_cola", "scheme": "newton"}),
}


def cohort(events: int) -> Codes:
    """600 patients; few smokers among them have the event."""
    codes = strata.draw()
    smokers = np.flatnonzero(codes["smoker"] == 1.0)
    codes["died"] = np.where(codes["smoker"] == 1.0, 0.0, codes["died"])
    codes["died"][smokers[:: max(len(smokers) // events, 1)][:events]] = 1.0
    return codes


def run(learner: dict[str, Any], codes: Codes) -> int:
    plain = strata.study("died ~ male + smoker", floor=5).model_dump()
    study = complete_study(Study.model_validate({**plain, "learner": learner}))
    rows: dict[str, Data] = dict(strata.split(study, codes))
    if learner_of(study).reads == "rows":
        for name, part in strata.split(study, codes).items():
            block = Design(study).block(next(iter(part.codes())))
            rows[name] = ArrayRows(block.x, block.y, block.offset)
    _, runners, _ = simulate(study, rows, gates={name: Gate(study) for name in study.sites})
    return int(runners[study.sites[0]].machine.result.n)


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_of_a_refused_release_leads_to_a_fit(name: str) -> None:
    learner, sentence, instead = REMEDIES[name]
    codes = cohort(4)
    with pytest.raises(ReleaseRefused, match="counts below 5 patients") as refused:
        run(learner, codes)
    assert sentence in refused.value.message
    assert run(instead, codes) == strata.N
