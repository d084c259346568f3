"""Survival curves of patients at several sites, equal to those of the pooled rows on the study's grid of time.

What leaves a site. Under masks, labels of its rows (`sums.opening.labels`). Then, for each width of steps that the
study allows (the declared one times a divisor of the number of steps), whether the site's own counts pass the floor:
each is 0 or at least `disclosure.cell`, or the stricter floor of the site's own policy, and nowhere have all patients
at risk an event. The narrowest width at which every site passes is taken; so even all other sites together see no small
count of one. Then, once, the numbers of events, of censored patients and, with late entry, of entries, by stratum,
group and step of that width. Events of competing causes are counted by cause, and the floor holds for each count.

Masked (the default with three sites or more): only their sums over the sites exist outside a site. Plain: every member
reads each site's counts. The product-limit estimate is a function of these sums (Kaplan and Meier, JASA 1958;53:457).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from coterie_learners.core.disclosure import Exposure, TimeSteps
from coterie_learners.core.masked_sum import SiteSums, check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Schedule, Study
from coterie_learners.sums.opening.labels import PostedLabels, count_coded_rows, exchange_labels
from coterie_learners.survival.curve_result import build_curve_fit
from coterie_learners.survival.curves_disclosure import disclose_curves
from coterie_learners.survival.plan import CurveOptions, CurvePlan, check_curve_plan, choose_multiple
from coterie_learners.survival.step_counts import StepCounts, count_steps, passes_floor

_VERSION = "2"
_COUNTS = ("events", "censored", "entries", "causes")


def survival_curves(site: Site) -> Script:
    """The width of steps that passes everywhere, the counts, then the curves."""
    plan = CurvePlan.of(site.study)
    labels = (yield from exchange_labels(plan.design.read, count_coded_rows)) if plan.masked else {}
    shapes: dict[str, tuple[int, ...]] = {"passes": (len(plan.multiples),)}
    flags = yield from each(
        "grid",
        share_widths,
        plan,
        expects=SiteSums(shapes, plan.masked).form,
        reveals=partial(expose_widths, plan, labels),
    )
    passing = _add_posts(plan, flags, shapes)["passes"].tolist()
    multiple = choose_multiple(plan.options.time, plan.grid, plan.floor, passing, len(flags))
    shapes = list_shapes(plan, multiple)
    posts = yield from each(
        "counts",
        share_counts_of_steps,
        plan,
        multiple,
        expects=SiteSums(shapes, plan.masked).form,
        reveals=partial(expose_steps, plan, multiple, labels),
    )
    end = yield from server("curves", pool_counts, plan, multiple, posts)
    fit = build_curve_fit(plan, StepCounts(**{name: end[name] for name in _COUNTS if name in end}), multiple)
    yield from conclude()
    return fit


def list_shapes(plan: CurvePlan, multiple: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the counts; entries are posted only where patients enter late, and events by cause if there are any."""
    shape = (len(plan.strata), len(plan.groups), plan.grid.steps // multiple)
    events = {"causes": (len(plan.causes), *shape)} if plan.causes else {"events": shape}
    late = {} if plan.options.entry is None else {"entries": shape}
    return {**events, "censored": shape, **late}


# At a site


def share_widths(site: Site, plan: CurvePlan) -> Payload:
    """Whether this site's counts pass the study's floor and its own, by width of the steps."""
    counts = count_steps(plan, site.codes)
    floor = max(plan.floor, site.own_floor)
    passes = [float(passes_floor(counts.coarsen(multiple), floor)) for multiple in plan.multiples]
    sums = {"passes": np.array(passes)}
    return SiteSums({"passes": (len(plan.multiples),)}, plan.masked).post(site, "grid", sums)


def share_counts_of_steps(site: Site, plan: CurvePlan, multiple: int) -> Payload:
    """This site's counts on steps of so many declared widths."""
    counts = count_steps(plan, site.codes).coarsen(multiple)
    shapes = list_shapes(plan, multiple)
    return SiteSums(shapes, plan.masked).post(site, "counts", {name: getattr(counts, name) for name in shapes})


# What leaves


def expose_widths(plan: CurvePlan, labels: PostedLabels, site: Site, payload: Payload) -> Exposure:
    """Which widths pass: bounds on counts, and no count."""
    return Exposure(
        what="Which widths of steps pass the floor",
        rows=site.codes.n,
        sums_only=plan.masked,
        parties=len(site.parties),
        labels=labels,
    )


def expose_steps(plan: CurvePlan, multiple: int, labels: PostedLabels, site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's counts: each count, and who is at risk."""
    what = "Counts of events and of censored patients by step of time"
    times = list_time_steps(plan, multiple)
    if plan.masked:
        return Exposure(
            what=what, rows=site.codes.n, sums_only=True, parties=len(site.parties), times=times, labels=labels
        )
    counts = _read_counts(plan, payload)
    cells, kinds = _list_cells(plan, counts)
    return Exposure(what=what, rows=site.codes.n, cells=cells, kinds=kinds, times=times)


def list_time_steps(plan: CurvePlan, multiple: int) -> TimeSteps:
    """The grid of steps of so many declared widths, and the counts on it."""
    o, grid = plan.options, plan.grid
    tables = tuple(name for name in (o.strata, o.group) if name is not None)
    return TimeSteps(o.time, o.event, o.entry or "", tables, grid.width * multiple, grid.steps // multiple)


def _list_cells(plan: CurvePlan, counts: StepCounts) -> tuple[dict[str, int], dict[str, str]]:
    arrays = {"events": counts.events, "censored": counts.censored, "entries": counts.entries, "risk": counts.at_risk}
    if counts.causes is not None:
        arrays |= {f"events of {cause}": counts.causes[k] for k, cause in enumerate(plan.causes)}
    cells: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for kind, array in arrays.items():
        for (s, g, t), count in np.ndenumerate(array):
            name = f"{kind} in step {t + 1}, {plan.groups[g]}, {plan.strata[s]}"
            cells[name], kinds[name] = round(float(count)), f"{kind} by step of {plan.options.time}"
    return cells, kinds


# From the posts of all sites


def pool_counts(plan: CurvePlan, multiple: int, posts: Posts) -> Payload:
    """What the server posts: the counts over all sites."""
    counts = _complete(_add_posts(plan, posts, list_shapes(plan, multiple)))
    own = {name: values for name, values in vars(counts).items() if values is not None}
    return {**own, "width": np.float64(plan.grid.width * multiple), "converged": np.True_}


def _add_posts(plan: CurvePlan, posts: Posts, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    sums = SiteSums(shapes, plan.masked).add(posts)
    for name, values in sums.items():
        check_patient_counts(name, values)
    return sums


def _read_counts(plan: CurvePlan, payload: Payload) -> StepCounts:
    return _complete({name: np.asarray(values, dtype=np.float64) for name, values in payload.items()})


def _complete(sums: dict[str, Array]) -> StepCounts:
    """Counts with their entries, all in the first step if none is late; ProtocolError if no patients can have them."""
    entries, causes = sums.get("entries"), sums.get("causes")
    events = sums["events"] if causes is None else causes.sum(axis=0)
    if entries is None:
        entries = np.zeros_like(events)
        entries[..., 0] = (events + sums["censored"]).sum(axis=-1)
    counts = StepCounts(events, sums["censored"], entries, causes)
    if np.any(counts.at_risk < counts.events + counts.censored):
        raise ProtocolError("CO-P508", "More patients leave in a step than are at risk there.")
    return counts


# Which studies it can run


def _check_study(study: Study) -> None:
    """StudyError for a study that this learner cannot run."""
    check_curve_plan(CurvePlan.of(study))


def _schedule(study: Study) -> Schedule:
    """The labels of rows under masks, which widths pass, the counts, the curves."""
    labels = ("each",) if CurvePlan.of(study).masked else ()
    return Schedule(opening=(*labels, "each", "each", "server"), closing=("server",))


def _discloses(study: Study) -> Disclosure:
    return disclose_curves(CurvePlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """For studies that name a time, and for no others."""
    if not isinstance(study.learner.options.get("time"), str):
        return Suitability(8, False, "it compares times to an event; the study names no `time`.")
    return Suitability(-1, True, "it makes curves and tests of times to an event in one round of counts.")


SURVIVAL_CURVES = Learner(
    "survival_curves",
    _VERSION,
    CurveOptions,
    _check_study,
    _schedule,
    survival_curves,
    _discloses,
    reads="codes",
    profile=Profile(
        _assess,
        alternatives=({"aggregation": "masked"},),
        examples=({"aggregation": "masked"}, {"aggregation": "plain"}),
        method="Kaplan-Meier curve for each group, with log-rank tests and restricted means,",
    ),
)
