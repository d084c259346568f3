"""The steps of an evaluation: what may be counted, the counts, and a few rounds for the calibration.

What leaves a site. On the scale "spread" first the number of patients, the sum of their logits and of the squares of
these, by outcome. Then how far its own patients allow the grid to be halved (`score_grid`), for each group. For each
group, the ranges that all sites allow are counted. Then, once, in each range the patients with and without the outcome
and the sum of their scores, and by group the squares of score minus outcome. Then, in each of a few rounds, score and
information of the calibration (7 numbers a group). Masked: only their sums over the sites exist outside a site.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.masked_sum import SiteSums, check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Reveals, Script, Site, Step, each, server
from coterie_learners.errors import ProtocolError
from coterie_learners.evaluate.calibration import check_sums, move, start_on_grid
from coterie_learners.evaluate.evaluation_plan import PREFIX, ROUNDS, EvaluationPlan, ShownRanges
from coterie_learners.evaluate.evaluation_result import describe_evaluation
from coterie_learners.evaluate.score_grid import find_spread
from coterie_learners.evaluate.site_scores import (
    ScoreModel,
    list_scores,
    mark_groups,
    place_shown,
    sum_calibration,
    sum_logits,
    sum_scores,
)
from coterie_learners.numeric.array import Array
from coterie_learners.study.rows import CodedBlocks
from coterie_learners.sums.opening.counts import Opening, PooledCounts, describe_pool
from coterie_learners.sums.opening.steps import open_pool

# What the rounds do not touch.
_POOLED = ("counts", "scores", "squares")
_Steps = Generator[Step, Posts, dict[str, Any]]


def evaluate_model(model: ScoreModel) -> _Steps:
    """The evaluation of a model on the rows of all sites."""
    if model.plan.grid.scale == "spread":
        model = yield from spread_grid(model)
    plan = model.plan
    flags = SiteSums(plan.flags, plan.masked)
    posts = yield from each(
        "evaluation/halves", share_halves, model, flags, expects=flags.form, reveals=partial(expose_halves, plan)
    )
    shown = ShownRanges.of(plan, flags.add(posts)["halves"], len(posts))
    counts = SiteSums(shown.shapes, plan.masked)
    posts = yield from each(
        "evaluation/scores",
        share_scores,
        model,
        shown,
        counts,
        expects=counts.form,
        reveals=partial(expose_scores, model, shown),
    )
    pool = yield from server("evaluation/pool", pool_scores, shown, counts, posts)
    for number in range(ROUNDS):
        sums = SiteSums(shown.calibration, plan.masked)
        topic = f"evaluation/calibration/{number}"
        posts = yield from each(
            topic, share_calibration, model, shown, sums, topic, pool,
            expects=sums.form, reveals=partial(expose_calibration, plan),
        )  # fmt: skip
        pool = yield from server(f"evaluation/calibrated/{number}", calibrate, sums, pool, posts)
    return describe_evaluation(shown, pool)


def spread_grid(model: ScoreModel) -> Generator[Step, Posts, ScoreModel]:
    """The model with the grid about the mean logit of the patients of the rarer outcome, by its standard deviation."""
    plan = model.plan
    sums, judged = SiteSums({"moments": (2, 3)}, plan.masked), partial(expose_logits, model)
    posts = yield from each("evaluation/logits", share_logits, model, sums, expects=sums.form, reveals=judged)
    spread = yield from server("evaluation/spread", pool_logits, sums, posts)
    return replace(model, plan=replace(plan, spread=(float(spread["centre"]), float(spread["width"]))))


def open_evaluated(plan: EvaluationPlan) -> Generator[Step, Posts, PooledCounts]:
    """Labels of the evaluated rows, then the pool's patients among them by level of the formula and of the outcome.

    Events are not counted by level: those of a level of one patient would show that patient's outcome.
    """
    return (yield from open_pool(build_evaluated_opening(plan)))


def build_evaluated_opening(plan: EvaluationPlan) -> Opening:
    """The opening of the evaluated rows."""
    return Opening(
        plan.design,
        plan.floor,
        True,
        lambda site: CodedBlocks(plan.design, site.codes),
        prefix=PREFIX,
        events_by_level=False,
    )


def add_pool(steps: Script, pooled: PooledCounts) -> Script:
    """The same steps; the gate also gets the pool's counts that were opened before them."""
    try:
        step = next(steps)
        while True:
            judged = step if step.reveals is None else replace(step, reveals=partial(_expose, step.reveals, pooled))
            step = steps.send((yield judged))
    except StopIteration as stop:
        return stop.value


def _expose(reveals: Reveals, pooled: PooledCounts, site: Site, payload: Payload) -> Exposure:
    return describe_pool(reveals(site, payload), pooled)


def stand_on_part(steps: Script, select: Callable[[Site], Site]) -> Script:
    """The same steps on a part of each site's rows."""
    try:
        step = next(steps)
        while True:
            posts = yield replace(step, select=select)
            step = steps.send(posts)
    except StopIteration as stop:
        return stop.value


# At a site


def share_logits(site: Site, model: ScoreModel, sums: SiteSums) -> Payload:
    """Number, sum and squares of this site's logits."""
    return sums.post(site, "evaluation/logits", sum_logits(model, site))


def share_halves(site: Site, model: ScoreModel, sums: SiteSums) -> Payload:
    """How far this site's patients allow the grid to be halved."""
    return sums.post(site, "evaluation/halves", mark_groups(model, site))


def share_scores(site: Site, model: ScoreModel, shown: ShownRanges, sums: SiteSums) -> Payload:
    """This site's counts and sums on the grid."""
    return sums.post(site, "evaluation/scores", sum_scores(model, site, shown))


def share_calibration(
    site: Site, model: ScoreModel, shown: ShownRanges, sums: SiteSums, topic: str, pool: Payload
) -> Payload:
    """This site's sums of a calibration round."""
    return sums.post(site, topic, sum_calibration(model, site, shown, np.asarray(pool["state"])))


# What leaves


def expose_logits(model: ScoreModel, site: Site, payload: Payload) -> Exposure:
    """Mean and standard deviation of the logits by outcome: no count but those of the outcome."""
    what, rows, plan = "Number of patients, sum and squares of the model's logits, by outcome", site.codes.n, model.plan
    exposure = Exposure(what=what, rows=rows, scores=list_scores(model, site))
    if plan.masked:
        return replace(exposure, sums_only=True, parties=len(site.parties))
    counts = np.asarray(payload["moments"])[:, 0].tolist()
    cells = {f"outcome {outcome}": round(count) for outcome, count in enumerate(counts)}
    return replace(exposure, cells=cells, kinds=dict.fromkeys(cells, "the outcome"), parameters=2)


def expose_halves(plan: EvaluationPlan, site: Site, payload: Payload) -> Exposure:
    """How far the grid can be halved: bounds on counts, and no count."""
    what = "How far the grid of scores can be halved"
    return Exposure(what=what, rows=site.codes.n, sums_only=plan.masked, parties=len(site.parties))


def expose_scores(model: ScoreModel, shown: ShownRanges, site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's counts: each count; and which range each patient is in."""
    what, ranges = "Counts of patients by range of the score and by outcome", place_shown(model, site, shown)
    rows, parties = site.codes.n, len(site.parties)
    exposure = Exposure(what=what, rows=rows, ranges=ranges, scores=list_scores(model, site), parties=parties)
    if shown.plan.masked:
        return replace(exposure, sums_only=True) if agrees(model, site, shown) else _refuse_ranges(exposure)
    cells, kinds = _list_cells(shown, np.asarray(payload["counts"]))
    enough = len(shown.plan.study.sites) > 2
    return replace(exposure, cells=cells, kinds=kinds, instead="mask the sums" if enough else "")


def agrees(model: ScoreModel, site: Site, shown: ShownRanges) -> bool:
    """Whether this site's own patients allow all ranges that are counted.

    Nobody sees who set a flag: a member that sets one twice would speak for a site that did not set it.
    """
    own = ShownRanges.of(shown.plan, mark_groups(model, site)["halves"], 1)
    return all(set(cuts) <= set(mine) for cuts, mine in zip(shown.cuts, own.cuts, strict=True))


def _refuse_ranges(exposure: Exposure) -> Exposure:
    """What floors refuse: counts that this site's flags have ruled out."""
    cell = "ranges of the score that this site has not agreed to"
    return replace(exposure, cells={cell: 1}, kinds={cell: cell})


def _list_cells(shown: ShownRanges, counts: Array) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Each count by name, and the kinds of the names."""
    cells, kinds = {}, {}
    for name, part in zip(shown.names, shown.split(counts), strict=True):
        for k, row in enumerate(part.tolist()):
            for outcome, count in enumerate(row):
                cell = f"{name}, range {k + 1}, outcome {outcome}"
                cells[cell], kinds[cell] = round(count), f"the score by the outcome ({name})"
    return cells, kinds


def expose_calibration(plan: EvaluationPlan, site: Site, payload: Payload) -> Exposure:
    """Score and information of two coefficients: no count, but in the clear equations about the outcomes."""
    what, parameters = "Score and information of the model's calibration", 0 if plan.masked else 2
    parties = len(site.parties)
    return Exposure(what=what, rows=site.codes.n, sums_only=plan.masked, parties=parties, parameters=parameters)


# From the posts of all sites


def pool_logits(sums: SiteSums, posts: Posts) -> Payload:
    """What the server posts before the counts: centre and width of the grid."""
    moments = sums.add(posts)["moments"]
    check_patient_counts("moments", moments[:, 0])
    if not moments[:, 0].any() or np.any(moments[:, 2] < 0.0):
        raise ProtocolError("CO-P503", f"Sums of squares {moments[:, 2].tolist()} of logits cannot come from patients.")
    n = moments[:, 0]
    rarer = int(n[1] > 0 and (n[1] <= n[0] or not n[0]))
    centre, width = find_spread(*moments[rarer].tolist())
    return {"centre": np.asarray(centre), "width": np.asarray(width)}


def pool_scores(shown: ShownRanges, sums: SiteSums, posts: Posts) -> Payload:
    """What the server posts first: the pooled counts and sums, and where the calibration starts."""
    pooled = sums.add(posts)
    check_patient_counts("counts", pooled["counts"])
    n = pooled["counts"].sum(axis=1)
    off = (
        np.any(pooled["scores"] < 0.0) or np.any(pooled["scores"] > n * (1.0 + 1e-9)) or np.any(pooled["squares"] < 0.0)
    )
    if off:
        raise ProtocolError("CO-P502", "Sums of scores or of squares contradict the counts of patients.")
    state = start_on_grid(shown, pooled)
    empty = np.zeros(shown.calibration["calibration"])
    return {**pooled, "state": state, "calibration": empty, "length": np.zeros(len(state))}


def calibrate(sums: SiteSums, pool: Payload, posts: Posts) -> Payload:
    """What the server posts in a round: the next state, the sums at the last one, and the length of the step."""
    added = sums.add(posts)["calibration"]
    check_sums(added)
    state, length = move(np.asarray(pool["state"]), added)
    if not np.all(np.isfinite(state)):
        raise ProtocolError("CO-P505", "The sums of a calibration cannot come from patients.")
    return {**{name: pool[name] for name in _POOLED}, "state": state, "calibration": added, "length": length}
