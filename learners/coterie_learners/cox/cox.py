"""Cox models of patients at several sites: a baseline hazard for each site, or one in common on a grid of time."""

from __future__ import annotations

from coterie_learners.core import masked_sum
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Script, Site, conclude
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.cox.common_baseline import fit_common_baseline
from coterie_learners.cox.cox_disclosure import disclose_cox
from coterie_learners.cox.cox_plan import CoxOptions, CoxPlan, check_cox_plan
from coterie_learners.cox.cox_result import build_cox_fit
from coterie_learners.cox.site_baseline import fit_site_baseline
from coterie_learners.study.document import Schedule, Study
from coterie_learners.sums.opening.steps import open_pool, schedule_opening

_VERSION = "3"


def cox(site: Site) -> Script:
    """The pool's counts of levels, then the fit, then the sums at the end."""
    plan = CoxPlan.of(site.study)
    pooled = (yield from open_pool(plan.opening)) if _opens(plan) else None
    fit = fit_common_baseline if plan.options.baseline == "common" else fit_site_baseline
    end = yield from fit(plan, pooled)
    result = build_cox_fit(end["plan"], end)
    yield from conclude()
    return result


def _opens(plan: CoxPlan) -> bool:
    return plan.masked and plan.options.opening != "none"


def _check_study(study: Study) -> None:
    """StudyError for a study that this learner cannot run."""
    check_cox_plan(CoxPlan.of(study))


def _schedule(study: Study) -> Schedule:
    """Rounds of each and server until a server's post says converged, and the sums at the end."""
    plan = CoxPlan.of(study)
    opening = schedule_opening(plan.options.opening, plan.opening) if _opens(plan) else ()
    grid = ("each", "each") if plan.options.baseline == "common" else ()
    return Schedule(
        opening=(*opening, *grid),
        loop=("each", "server"),
        closing=("each", "server", "server"),
        max_rounds=plan.options.max_rounds,
    )


def _discloses(study: Study) -> Disclosure:
    return disclose_cox(CoxPlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """For studies that name a time and covariates, and for no others."""
    if not isinstance(study.learner.options.get("time"), str):
        return Suitability(8, False, "it models times to an event; the study names no `time`.")
    if study.learner.options.get("baseline") == "common":
        return Suitability(
            -1, True, "it fits hazard ratios with one baseline hazard; all learn numbers at risk by step."
        )
    if len(study.sites) < masked_sum.MIN_PARTIES:
        return Suitability(8, False, f"it needs three sites or more; the study has {len(study.sites)}.")
    return Suitability(-1, True, "it fits hazard ratios, with a baseline hazard for each site: no time leaves a site.")


def _needs_channel(study: Study) -> bool:
    plan = CoxPlan.of(study)
    return plan.masked and plan.options.opening == "bits"


COX = Learner(
    "cox",
    _VERSION,
    CoxOptions,
    _check_study,
    _schedule,
    cox,
    _discloses,
    reads="codes",
    talks_if=_needs_channel,
    profile=Profile(
        _assess,
        examples=(
            {"baseline": "site"},
            {"baseline": "common", "time_grid": {"width": 1, "horizon": 60}},
        ),
        method="Cox proportional-hazards model",
    ),
)
