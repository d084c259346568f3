"""What every site derives from a study of several models: the plan of each, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.glore.category_plan import has_levels
from coterie_learners.glore.glore import GloreOptions, GlorePlan, check_glore
from coterie_learners.glore.model_rows import ModelRows
from coterie_learners.study.design import Design, design_of
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.formula import MAX_COLUMNS
from coterie_learners.sums.opening.counts import Opening, PooledCounts
from coterie_learners.sums.opening.steps import schedule_opening

# Options that all models of a study have in common.
COMMON = ("aggregation", "opening", "max_rounds")


@dataclass(frozen=True)
class ModelsPlan:
    """The plans of all models by name, their rows, and the design of all together; `pools`: the pool's counts."""

    study: Study
    plans: Mapping[str, GlorePlan]
    rows: ModelRows
    design: Design
    pools: Mapping[str, PooledCounts] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study) -> ModelsPlan:
        """The plan of a study."""
        plans = {name: GlorePlan.of(part) for name, part in study.by_model.items()}
        by_patient = frozenset(name for name, plan in plans.items() if plan.options.robust == "patient")
        rows = ModelRows({name: plan.design for name, plan in plans.items()}, by_patient)
        # What the script asks a plan for is worked out once, so that no plan is made again after this.
        seated = {name: replace(plan, rows_of=partial(rows.read, name)) for name, plan in plans.items()}
        return cls(study, seated, rows, design_of(study))

    @property
    def masked(self) -> bool:
        """Whether only sums over the sites exist outside a site."""
        return self._first.masked

    @property
    def opens(self) -> bool:
        """Whether the pool's counts of levels are opened before its sums."""
        return self._first.opens == "counts"

    @property
    def most_rounds(self) -> int:
        """Rounds of all models: one more for the tests, and for each exclusion."""
        return self._first.options.max_rounds + len(self.study.sites)

    @property
    def openings(self) -> dict[str, Opening]:
        """What is counted before the sums, by model: of all of them in the same stages."""
        own = {name: plan.opening for name, plan in self.plans.items()}
        beside = tuple(sorted({joined for opening in own.values() for joined in opening.joined if joined}))
        return {name: replace(opening, beside=beside) for name, opening in own.items()}

    @property
    def lead(self) -> Opening:
        """The opening of all models together: whose columns are labelled."""
        by_patient = all(plan.by_patient for plan in self.plans.values())
        return replace(self._first.opening, design=self.design, by_patient=by_patient)

    def with_pools(self, pools: Mapping[str, PooledCounts]) -> ModelsPlan:
        """The plan once the pool's counts are open."""
        return replace(self, pools=pools)

    @property
    def _first(self) -> GlorePlan:
        return next(iter(self.plans.values()))


def check_models(study: Study) -> None:
    """StudyError, with the model named, for a study of which GLORE cannot fit one, or not together."""
    for model in study.models:
        own = [name for name in COMMON if name in model.options]
        if own:
            message = f"Model {model.name} sets {', '.join(own)}, which all models of a study have in common"
            raise StudyError("CO-S420", f"{message}. Set it in the section of the learner.")
    _check_columns(study)
    for name, part in study.by_model.items():
        options = options_of(part, GloreOptions)
        if has_levels(options.family):
            message = f"Model {name}: the {options.family} family shares no rounds with others"
            raise StudyError("CO-S420", f"{message}. Propose a study of this model alone.")
        if options.intervals != "wald" or options.standardise:
            message = f"Model {name}: profile intervals and standardised means have rounds of their own"
            raise StudyError("CO-S420", f"{message}. Propose a study of this model alone on the same cohort.")
        if options.opening == "bits":
            message = 'opening = "bits" compares the levels of one model'
            raise StudyError("CO-S420", f'{message}. Set opening to "counts", or propose a study for each model.')
        try:
            check_glore(part)
        except StudyError as error:
            raise StudyError(error.code, f"Model {name}: {error.message}") from None


def _check_columns(study: Study) -> None:
    """StudyError if all models together have more columns than one may have."""
    count = 0
    for model in design_of(study).models:
        count += len(model.columns)
        if count > MAX_COLUMNS:
            message = f"The models make more than {MAX_COLUMNS} columns together"
            raise StudyError("CO-S203", f"{message}. Propose them in several studies on one cohort.")


def schedule_models(study: Study) -> Schedule:
    """The steps of the opening, then rounds of each and server until all models have come to their ends."""
    plan = ModelsPlan.of(study)
    opening = schedule_opening("counts" if plan.opens else "none", *plan.openings.values())
    return Schedule(opening=opening, loop=("each", "server"), closing=("server",), max_rounds=plan.most_rounds)
