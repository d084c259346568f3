"""What a study of several models discloses, and what a site's record of one round reveals: all models together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import PATTERNS, Exposure, list_cell_kinds, name_events
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure
from coterie_learners.glore.glore import GlorePlan, expose_agreement, expose_stats
from coterie_learners.glore.glore_disclosure import Extras, disclose_rounds
from coterie_learners.glore.many_plan import ModelsPlan
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Study
from coterie_learners.sums.opening.counts import PooledCounts
from coterie_learners.sums.sums_disclosure import ModelPath, solve_jointly

JOINT_PATTERNS = f"{PATTERNS} of all models"
Path = tuple[Array | None, ...]
# A model's plan with the views of all its sums, whether the last are those of the test alone, and their shapes.
ModelRound = tuple[GlorePlan, Path, bool, Mapping[str, tuple[int, ...]]]


def disclose_models(study: Study) -> Disclosure:
    """What a study discloses: the sums of all models, whose counts are those of all their columns together."""
    plan = ModelsPlan.of(study)
    plans = tuple(plan.plans.values())
    extras = Extras(
        robust=any(own.robust for own in plans),
        apart=False,
        weights=any(own.options.weights or (own.masked and own.design.formula.offset) for own in plans),
        profiled=all(own.options.site_intercepts for own in plans),
        shaped=any(own.family.shaped for own in plans),
        by_site=any(own.robust == "site" for own in plans),
    )
    whole = disclose_rounds(study, plan.masked, "counts" if plan.opens else "none", extras)
    steps = tuple(step for step in whole.steps if not step.occasional)
    cohort = (
        "All models use one cohort: the rows that lack none of the columns of any of them. So no two of them "
        "differ by a patient.",
    )
    return replace(whole, steps=tuple(map(partial(_of_each, plan), steps)), everybody=(*whole.everybody, *cohort))


def _of_each(plan: ModelsPlan, step: StepDisclosure) -> StepDisclosure:
    """The step with the counts that the models show, each by its own columns."""
    if step.topic != "stats/*":
        return step
    kinds = (kind for own in plan.plans.values() for kind in list_cell_kinds(own.design))
    what = f"For each model: {step.what[0].lower()}{step.what[1:]}"
    return replace(step, what=what, cells=tuple(dict.fromkeys((*step.cells, *kinds, JOINT_PATTERNS))))


def expose_models(
    plan: ModelsPlan,
    rounds: Mapping[str, ModelRound],
    past: Mapping[str, ModelRound],
    site: Site,
    payload: Payload,
) -> Exposure:
    """What readers can solve from one site's record of a round: of each model, and of all their sums so far together.

    `past`: models that have come to their end before, with the views of all their sums.
    """
    exposures = [_expose_one(plan, name, own, site, payload) for name, own in rounds.items()]
    whole = merge_exposures(exposures)
    pooled = merge_pools(plan, plan.pools) if plan.opens else {}
    if plan.masked:
        return replace(whole, pooled=pooled, unopened=not plan.opens)
    paths = (*rounds.items(), *past.items())
    jointly = solve_jointly([_path_of(plan, name, own, site) for name, own in paths])
    kinds = dict.fromkeys(jointly, JOINT_PATTERNS)
    return replace(whole, cells={**whole.cells, **jointly}, kinds={**whole.kinds, **kinds})


def _expose_one(plan: ModelsPlan, name: str, own: ModelRound, site: Site, payload: Payload) -> Exposure:
    model, path, tests, shapes = own
    seated = plan.rows.seat(name, site)
    if tests:
        return expose_agreement(model, path, seated, payload)
    sums = {} if plan.masked else masked_sum.split_sums(np.asarray(payload[name]), shapes)
    return expose_stats(model, path, seated, sums)


def _path_of(plan: ModelsPlan, name: str, own: ModelRound, site: Site) -> ModelPath:
    model, path, tests, _ = own
    return ModelPath(model.design, model.family, plan.rows.read(name, site), path, tests and bool(model.robust))


def merge_exposures(exposures: Sequence[Exposure]) -> Exposure:
    """What several payloads of the same rows reveal, where each is judged by its own cells.

    Events and parameters are those of the model that has the fewest events for each of its coefficients.
    """
    scarcest = min(exposures, key=_events_per_parameter)
    first = exposures[0]
    return replace(
        first,
        events=scarcest.events,
        parameters=scarcest.parameters,
        cells={name: count for exposure in exposures for name, count in exposure.cells.items()},
        kinds={name: kind for exposure in exposures for name, kind in exposure.kinds.items()},
        by_columns=any(exposure.by_columns for exposure in exposures),
        by_patient=all(exposure.by_patient for exposure in exposures),
        instead=next((exposure.instead for exposure in exposures if exposure.instead), ""),
    )


def _events_per_parameter(exposure: Exposure) -> float:
    events = exposure.rows if exposure.events is None else min(exposure.events, exposure.rows - exposure.events)
    return events / exposure.parameters if exposure.parameters else float("inf")


def merge_pools(plan: ModelsPlan, pools: Mapping[str, PooledCounts]) -> PooledCounts:
    """The pool's patients and events by level, the events being of the first outcome; those of others by name."""
    out: dict[str, tuple[float, float]] = {}
    first = plan.design.formula.outcome
    outcomes = {name: model.design.formula.outcome for name, model in plan.plans.items()}
    for name, outcome in sorted(outcomes.items(), key=lambda own: own[1] != first):
        for level, (patients, events) in pools.get(name, {}).items():
            out.setdefault(level, (patients, events if outcome == first else float("nan")))
            out.setdefault(name_events(level, first, outcome), (patients, events))
    return out
