"""What every site derives from a Cox study alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field as Within

from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import ColumnName, Frozen, Study
from coterie_learners.study.rows import CodedBlocks, Rows
from coterie_learners.sums.opening.counts import Opening
from coterie_learners.sums.opening.steps import OpeningMode, check_opening
from coterie_learners.survival.plan import check_roles


class CoxOptions(Frozen):
    """The learner section of a Cox study; each site has a baseline hazard of its own.

    `time`, `event`, `entry` and `strata` name columns. `tolerance` is in standard errors. `opening`: whether the sums
    begin with the pool's counts of levels, or with bits on them; without either release gates refuse.
    """

    time: ColumnName
    event: ColumnName
    entry: ColumnName | None = None
    strata: ColumnName | None = None
    ties: Literal["efron", "breslow"] = "efron"
    opening: OpeningMode = "counts"
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 25
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


@dataclass(frozen=True)
class CoxPlan:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    options: CoxOptions

    @classmethod
    def of(cls, study: Study) -> CoxPlan:
        """The plan of a study."""
        return cls(study, Design(study), options_of(study, CoxOptions))

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients; the baseline hazards stand for an intercept."""
        return tuple(name for name in self.design.names if name != INTERCEPT)

    @property
    def p(self) -> int:
        """Number of coefficients."""
        return len(self.terms)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one site's sums."""
        upper = self.p * (self.p + 1) // 2
        return {"score": (self.p,), "information": (upper,), "value": (), "n": (), "events": ()}

    @property
    def opening(self) -> Opening:
        """The opening step: the pool's counts of levels."""
        return Opening(
            self.design,
            self.study.disclosure.cell,
            True,
            self.read_rows,
            by_rows=True,
            by_bits=self.options.opening == "bits",
        )

    def read_rows(self, site: Site) -> Rows:
        """A site's rows as blocks of the design."""
        return CodedBlocks(self.design, site.codes)


def check_cox_plan(plan: CoxPlan) -> None:
    """StudyError for a study that has no Cox model here."""
    options, formula = plan.options, plan.design.formula
    roles = {"time": options.time, "event": options.event, "entry": options.entry, "strata": options.strata}
    check_roles(plan.study, roles)
    check_opening(plan.study, options.opening)
    covariates = {source for name in plan.design.list_covariates() for source in plan.design.sources_of(name)}
    twice = sorted(covariates & {name for name in roles.values() if name is not None})
    if twice:
        raise StudyError("CO-S204", f"The formula and the learner section both use {', '.join(twice)}. Use each once.")
    if formula.outcome != options.event or not formula.terms or formula.offset or not formula.intercept:
        message = f"The formula is {plan.study.formula!r}"
        advice = f"Write `{options.event} ~` and the covariates, without offset() and -1"
        raise StudyError("CO-S337", f"{message}. {advice}; baseline hazards stand for the intercept.")
    if len(plan.study.sites) < MIN_PARTIES:
        message = f"A Cox study has masked sums, and over {len(plan.study.sites)} sites each would learn the other's"
        raise StudyError("CO-S305", f"{message}. Take part with three sites or more.")
    if plan.study.ledger.silent_site == "exclude":
        message = "Sums over all sites and then over fewer would show what the excluded site holds"
        raise StudyError("CO-S306", f'{message}. Set silent_site = "wait" or "abort".')
