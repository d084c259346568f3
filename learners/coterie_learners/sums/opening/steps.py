"""The steps of the opening: labels of all sites' rows, then the pool's counts of levels, or bits on them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import Literal

import numpy as np

from coterie_learners.core import masked_sum
from coterie_learners.core.payload import Payload, Schema
from coterie_learners.core.protocol import Posts, Site, Step, each, interactive
from coterie_learners.errors import StudyError, Withheld
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Study
from coterie_learners.sums.opening.bits import (
    BITS_TOPIC,
    COUNT_COMMITMENT,
    check_bits,
    commit_counts,
    compare_counts,
    form_bits,
)
from coterie_learners.sums.opening.counts import (
    OPENING,
    Opening,
    PooledCounts,
    check_numbers,
    expose_counts,
    share_counts,
)
from coterie_learners.sums.opening.labels import PostedLabels, exchange_labels

# How a masked study opens: by counts of the pool, by bits on them alone, or not at all, which release gates refuse.
OpeningMode = Literal["counts", "bits", "none"]
_STEPS: dict[OpeningMode, tuple[str, ...]] = {
    "counts": ("each", "each"),
    "bits": ("each", "each", "each"),
    "none": (),
}


def schedule_opening(mode: OpeningMode) -> tuple[str, ...]:
    """The kinds of the opening's steps."""
    return _STEPS[mode]


def check_opening(study: Study, mode: OpeningMode, weighs: bool = False) -> None:
    """StudyError for an opening by bits in a study that excludes silent sites: the parties must stay.

    `weighs`: rows weigh by a column or an offset, which only counts can judge.
    """
    if mode == "bits" and weighs:
        message = 'opening = "bits" does not judge whether one hospital has nearly all weight'
        raise StudyError("CO-S212", f'{message}. Set opening to "counts", or leave weights and offset out.')
    if mode == "bits" and study.ledger.silent_site == "exclude":
        message = "The parties of a secure computation cannot go on without one of them"
        raise StudyError(
            "CO-S542", f'{message}, so opening = "bits" excludes none. Set silent_site to "wait" or "abort".'
        )


def open_pool(opening: Opening) -> Generator[Step, Posts, PooledCounts]:
    """The labels of all sites' rows, then the pool; Withheld at every site if a level is too small.

    Returns the pool's patients and events by level; nothing where it was judged by bits.
    """
    labels = yield from exchange_labels(
        opening.design.read, lambda site: opening.rows_of(site).n, opening.by_patient, opening.prefix
    )
    compare = _open_bits if opening.by_bits else _open_counts
    return (yield from compare(opening, labels))


def _open_counts(opening: Opening, labels: PostedLabels) -> Generator[Step, Posts, PooledCounts]:
    posts = yield from each(
        opening.topic,
        share_counts,
        opening,
        expects=Schema({"masked": masked_sum.form_masked_field(opening.shapes)}),
        reveals=partial(expose_counts, opening, labels, "Masked counts of levels"),
        bare=opening.count,
    )
    return read_pool(opening, masked_sum.unmask_sums(posts, opening.shapes))


def read_pool(opening: Opening, counts: Mapping[str, Array]) -> PooledCounts:
    """The pool's patients and events by level, NaN where events are not counted; Withheld if a level is too small."""
    opening.check(counts)
    events = counts["events"]
    if opening.outcome_levels:
        events = np.where(opening.is_of_outcome, 0.0, events[1:].sum(axis=0))
    events = events if opening.events_by_level else np.full_like(events, np.nan)
    by_level = zip(opening.names, counts["patients"].tolist(), events.tolist(), strict=True)
    return {name: (patients, events) for name, patients, events in by_level}


def open_pools(lead: Opening, openings: Mapping[str, Opening]) -> Generator[Step, Posts, dict[str, PooledCounts]]:
    """The labels, then the pool's counts for each of several models in one sum; Withheld names the model.

    `lead` has the columns of all models together.
    """
    labels = yield from exchange_labels(lead.design.read, lambda site: lead.rows_of(site).n, lead.by_patient)
    shapes = {f"{name}.{key}": shape for name, opening in openings.items() for key, shape in opening.shapes.items()}
    posts = yield from each(
        OPENING,
        share_all_counts,
        openings,
        expects=Schema({"masked": masked_sum.form_masked_field(shapes)}),
        reveals=partial(expose_counts, lead, labels, "Masked counts of levels of all models"),
        bare=partial(_count_all, openings),
    )
    counts = masked_sum.unmask_sums(posts, shapes)
    pools = {}
    for name, opening in openings.items():
        try:
            pools[name] = read_pool(opening, {key: counts[f"{name}.{key}"] for key in opening.shapes})
        except Withheld as error:
            raise Withheld(error.code, f"Model {name}: {error.message}") from None
    return pools


def share_all_counts(site: Site, openings: Mapping[str, Opening]) -> Payload:
    """This site's counts for all models under masks."""
    for opening in openings.values():
        check_numbers(site, opening)
    return masked_sum.mask_sums(site, OPENING, _count_all(openings, site))


def _count_all(openings: Mapping[str, Opening], site: Site) -> dict[str, Array]:
    return {f"{name}.{key}": value for name, opening in openings.items() for key, value in opening.count(site).items()}


def _open_bits(opening: Opening, labels: PostedLabels) -> Generator[Step, Posts, PooledCounts]:
    what = "A commitment to counts of levels, which are compared with the floor on shares,"
    yield from each(
        OPENING, commit_counts, opening, expects=COUNT_COMMITMENT, reveals=partial(expose_counts, opening, labels, what)
    )
    answers = yield from interactive(BITS_TOPIC, compare_counts, opening, expects=form_bits(opening))
    check_bits(opening, answers)
    return {}
