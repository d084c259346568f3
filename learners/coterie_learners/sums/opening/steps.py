"""The steps of the opening: labels of all sites' rows, then the pool's counts of levels, or bits on them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Literal, TypeVar

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
from coterie_learners.sums.opening.stages import Stage

# How a masked study opens: by counts of the pool, by bits on them alone, or not at all, which release gates refuse.
OpeningMode = Literal["counts", "bits", "none"]


def schedule_opening(mode: OpeningMode, *openings: Opening) -> tuple[str, ...]:
    """The kinds of the opening's steps: labels, then each stage of the counts of all models, or the bits."""
    if mode == "none":
        return ()
    return ("each",) * (3 if mode == "bits" else 1 + len(_pair_stages(dict(enumerate(openings)))))


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
    counts, pooled = opening.begin(), dict[str, tuple[float, float]]()
    for stage in opening.stages:
        shapes = opening.shapes_of(stage)
        posts = yield from each(
            opening.topic_of(stage),
            share_counts,
            opening,
            stage,
            expects=Schema({"masked": masked_sum.form_masked_field(shapes)}),
            reveals=partial(
                expose_counts, opening, labels, "Masked counts of levels", _list_opened(opening, pooled, stage)
            ),
            bare=partial(opening.count_stage, stage),
        )
        counts = stage.add(counts, masked_sum.unmask_sums(posts, shapes))
        pooled = dict(read_pool(opening, counts))
    return pooled


def _list_opened(opening: Opening, pooled: PooledCounts, stage: Stage) -> PooledCounts:
    """The levels that stages before this one have opened."""
    return {name: pooled[name] for name, at in zip(opening.names, opening.levels_at, strict=True) if at < stage.number}


def read_pool(opening: Opening, counts: Mapping[str, Array]) -> PooledCounts:
    """The pool's patients and events by level, NaN where events are not counted; Withheld if a level is too small."""
    opening.check(counts)
    events = counts["events"]
    if opening.outcome_levels:
        events = np.where(opening.is_of_outcome, 0.0, events[1:].sum(axis=0))
    events = events if opening.events_by_level else np.full_like(events, np.nan)
    by_level = zip(opening.names, counts["patients"].tolist(), events.tolist(), strict=True)
    return {name: (patients, events) for name, patients, events in by_level}


def open_pools(
    lead: Opening, openings: Mapping[str, Opening], merge: Callable[[Mapping[str, PooledCounts]], PooledCounts]
) -> Generator[Step, Posts, dict[str, PooledCounts]]:
    """The labels, then the pool's counts for each of several models in one sum; Withheld names the model.

    `lead` has the columns of all models together; `merge` makes the counts of all models one.
    """
    labels = yield from exchange_labels(lead.design.read, lambda site: lead.rows_of(site).n, lead.by_patient)
    counts = {name: opening.begin() for name, opening in openings.items()}
    pools: dict[str, PooledCounts] = {}
    for stages in _pair_stages(openings):
        shapes = {f"{n}.{key}": shape for n, s in stages.items() for key, shape in openings[n].shapes_of(s).items()}
        first, stage = next(iter(stages.items()))
        topic, what = openings[first].topic_of(stage), "Masked counts of levels of all models"
        opened = merge({name: _list_opened(openings[name], own, stage) for name, own in pools.items()})
        posts = yield from each(
            topic,
            share_all_counts,
            topic,
            openings,
            stages,
            expects=Schema({"masked": masked_sum.form_masked_field(shapes)}),
            reveals=partial(expose_counts, lead, labels, what, opened),
            bare=partial(_count_all, openings, stages),
        )
        sums = masked_sum.unmask_sums(posts, shapes)
        for name, stage in stages.items():
            counts[name] = stage.add(counts[name], {key: sums[f"{name}.{key}"] for key in counts[name]})
            pools[name] = _read_model(name, openings[name], counts[name])
    return pools


_Name = TypeVar("_Name")


def _pair_stages(openings: Mapping[_Name, Opening]) -> list[dict[_Name, Stage]]:
    """The stages that are opened together, by model; a model has none where it counts nothing then."""
    own = {name: {stage.number: stage for stage in opening.stages} for name, opening in openings.items()}
    numbers = sorted({number for stages in own.values() for number in stages})
    return [{name: stages[k] for name, stages in own.items() if k in stages} for k in numbers]


def _read_model(name: str, opening: Opening, counts: Mapping[str, Array]) -> PooledCounts:
    try:
        return read_pool(opening, counts)
    except Withheld as error:
        raise Withheld(error.code, f"Model {name}: {error.message}") from None


def share_all_counts(site: Site, topic: str, openings: Mapping[str, Opening], stages: Mapping[str, Stage]) -> Payload:
    """A stage's counts of this site for all models under masks."""
    for name, stage in stages.items():
        if stage.number == 1:
            check_numbers(site, openings[name])
    return masked_sum.mask_sums(site, topic, _count_all(openings, stages, site))


def _count_all(openings: Mapping[str, Opening], stages: Mapping[str, Stage], site: Site) -> dict[str, Array]:
    return {f"{n}.{key}": value for n, s in stages.items() for key, value in openings[n].count_stage(s, site).items()}


def _open_bits(opening: Opening, labels: PostedLabels) -> Generator[Step, Posts, PooledCounts]:
    what = "A commitment to counts of levels, which are compared with the floor on shares,"
    yield from each(
        OPENING,
        commit_counts,
        opening,
        expects=COUNT_COMMITMENT,
        reveals=partial(expose_counts, opening, labels, what, {}),
    )
    answers = yield from interactive(BITS_TOPIC, compare_counts, opening, expects=form_bits(opening))
    check_bits(opening, answers)
    return {}
