"""What a model's family sums beside the columns themselves: functions of the outcome, and rows weighed by an offset.

The likelihood of an inverse Gaussian outcome has its reciprocal, that of a gamma outcome its logarithm. From the
deviance and the sums of the outcome follows the sum of these, and one patient may have nearly all of it who has little
of the outcome. An offset moves each row's mean, and with it what the row weighs in the score and in the information:
of counts those with the largest mean weigh most, of measurements above zero often those with the least.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from coterie_learners.study.design import Design
from coterie_learners.sums.families import all_families, choose_family
from coterie_learners.sums.family import Family
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.values import DOMINANCE, is_dominated

_Numbers = NDArray[np.float64]


def name_family(design: Design) -> str:
    """The family and link that a model asks for, in one word; empty for a learner without families."""
    options = design.study.learner.options
    return f"{options['family']}/{options.get('link') or ''}" if options.get("family") in all_families() else ""


def judge_family_terms(design: Design, raw: RawRows, floor: int) -> Iterator[Objection]:
    """Objections to the sums of one model's likelihood that are nearly one patient's, or a few patients'."""
    name, offset, family = design.formula.outcome, design.formula.offset or "", _family_of(design)
    if family is None or name not in raw.values:
        return
    read = [name, *(column for column in (offset, design.weights) if column in raw.values)]
    numbers = {column: np.asarray(raw.values[column], dtype=np.float64) for column in read}
    present = np.all([np.isfinite(column) for column in numbers.values()], axis=0)
    y, *_ = rows = [column[present] for column in numbers.values()]
    weights = rows[-1] if design.weights in read else np.ones(len(y))
    yield from _judge_alone(name, family, y, weights)
    if offset in read and floor > 1 and len(y):
        yield from _judge_offset(offset, family, y, rows[1], weights, floor)


def _family_of(design: Design) -> Family | None:
    named = name_family(design)
    return choose_family(*_split(named)) if named else None


def _split(named: str) -> tuple[str, str | None]:
    family, _, link = named.partition("/")
    return family, link or None


def _judge_alone(name: str, family: Family, y: _Numbers, weights: _Numbers) -> Iterator[Objection]:
    """Objections to functions of the outcome whose sum the deviance tells."""
    for form, values in family.list_summed(y).items():
        if is_dominated(np.abs(values * weights)):
            subject = form.format(name)
            sentence = (
                f"one patient makes up nearly all of the sum of {subject} (dominance), which the deviance of this "
                f"family tells: the others are less than {DOMINANCE:.0%} of it. Correct the value, take another "
                "family, or use masked sums (three sites or more)."
            )
            yield Objection(Grade.REFUSE, "dominance", sentence, subject=subject)


def _judge_offset(
    name: str, family: Family, y: _Numbers, offset: _Numbers, weights: _Numbers, floor: int
) -> Iterator[Objection]:
    """Objections to an offset under which few patients have nearly all of the first sums, at the model without terms.

    `y`, `offset` and `weights` (n,). A score that is a sum of whole outcomes counts events, and other rules judge
    these.
    """
    mean = float(y @ weights / weights.sum())
    low, high = family.ends
    if not low < mean < high or (family.binary and not 0.0 < mean < 1.0) or (family.whole and mean <= 0.0):
        return
    # A log link has no scale of its own: a row too far from the centre to be summed is judged about the ends too.
    centres = [float(offset @ weights / weights.sum()), *([offset.min(), offset.max()] if family.link == "log" else [])]
    shares = [share for centre in centres for share in _weigh_rows(family, y, offset - centre + family.start(mean))]
    few = max(floor - 1, 2)
    for share in shares:
        ordered = np.sort(np.abs(share * weights))[::-1]
        if float(ordered[few:].sum()) < DOMINANCE * float(ordered[0]):
            sentence = (
                f"under the offset {name} fewer than {floor} patients have nearly all weight in the sums of this "
                "family (dominance). Correct the offset, or leave such rows out."
            )
            yield Objection(Grade.REFUSE, "dominance", sentence, subject=name)
            return


def _weigh_rows(family: Family, y: _Numbers, eta: _Numbers) -> list[_Numbers]:
    """What each row (n,) weighs in the information at eta, and, of a measured outcome, what it brings to the score."""
    low, high = family.probes
    here, there = (family.parts(eta, np.full(len(y), probe)) for probe in (low, high))
    return [here.weight] if family.whole else [here.weight, y * (there.residual - here.residual) / (high - low)]
