"""Sums of a model's scores: who chooses the coefficients may choose such as set few patients apart.

The sums are those of one column, by outcome. So the logit is judged as a column is, and fewer patients than the floor
may not have nearly all of the probabilities, or of what these lack to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.values import DOMINANCE, Sample, is_dominated, judge_dominance, judge_levels

_NAME = "the score"


def judge_scores(exposure: Exposure, rows: RawRows, design: Design, floor: int) -> Iterator[Objection]:
    """Objections by the scores of these rows; in the clear also by the levels of scores and of a published model."""
    if exposure.sums_only:
        for objection in _find_dominant(exposure, floor):
            yield replace(objection, grade=Grade.ASK)
        return
    yield from _find_dominant(exposure, floor)
    outcome = design.formula.outcome
    names = [outcome, *(design.list_covariates() if design.study.learner.name == "validate" else ())]
    values = {name: rows.values[name] for name in names if name in rows.values} | {_NAME: exposure.scores["logit"]}
    if len({len(column) for column in values.values()}) == 1:
        yield from judge_levels(Sample(values, outcome, categories=rows.levels.keys()), floor)


def _find_dominant(exposure: Exposure, floor: int) -> Iterator[Objection]:
    objections = list(judge_dominance(_NAME, exposure.scores["logit"]))
    yield from objections
    score = exposure.scores["probability"]
    if not objections and len(score) and (_is_of_few(score, floor) or _is_of_few(1.0 - score, floor)):
        sentence = (
            f"fewer than {floor} patients make up nearly all of a sum of the scores (dominance): the coefficients set "
            "these patients apart. Leave out the column that sets them apart, or let a person say yes with a reason "
            "(coterie release allow)."
        )
        yield Objection(Grade.REFUSE, "dominance", sentence, subject=_NAME)


def _is_of_few(parts: Array, floor: int) -> bool:
    """Whether all patients but fewer than the floor have less than the share DOMINANCE of what the largest has."""
    ordered = np.sort(parts)[::-1]
    few = max(floor - 1, 2)
    return is_dominated(parts) or bool(ordered[0] > 0 and ordered[few:].sum() < DOMINANCE * ordered[0])
