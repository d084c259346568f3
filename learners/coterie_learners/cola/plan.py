"""What every site derives from a study of pattern tables: options, grid, family, and the form of a site's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field as Within

from coterie_learners.cola.model.likelihood import Choice
from coterie_learners.cola.tables.pattern_counts import CountPlan
from coterie_learners.cola.tables.patterns import Grid
from coterie_learners.core.model_warnings import advise_on_separation
from coterie_learners.core.payload import Field
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.study.design import Design
from coterie_learners.study.document import ColumnName, Frozen, Study
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.family import Family
from coterie_learners.sums.frame import Layout


class TableOptions(Frozen):
    """What COLA-GLM and its secure form have in common in the learner section of a study.

    `cells`: share the outcome per pattern also where X'y would do, for AUC and calibration. `suppress`: what becomes of
    patterns with fewer rows than the study's floor. `site_intercepts`: an intercept for each site (GLM-H) instead of a
    common one. `grids`: allowed values of numeric covariates (a count may have all whole numbers of its range).
    `tolerance` is in standard errors.
    """

    family: str = "binomial"
    link: str | None = None
    cells: bool = False
    robust: bool = False
    firth: bool = False
    suppress: Literal["drop", "impute", "none"] = "drop"
    site_intercepts: bool = False
    grids: Mapping[ColumnName, tuple[float, ...]] = Within(default_factory=dict)
    max_iterations: Annotated[int, Within(ge=1, le=10_000)] = 500
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


# Sums of the outcome, which are pairs where it is measured.
PAIRED = ("outcome", "s", "cross", "q")


@dataclass(frozen=True)
class TablePlan:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    options: TableOptions
    family: Family
    grid: Grid

    @classmethod
    def of(cls, study: Study, model: type[TableOptions]) -> TablePlan:
        """The plan of a study."""
        options, design = options_of(study, model), Design(study)
        return cls(
            study,
            design,
            options,
            choose_family(options.family, options.link, tabled=True),
            Grid.of(design, options.grids),
        )

    @property
    def p(self) -> int:
        """Number of columns."""
        return len(self.design.columns)

    @property
    def tally(self) -> CountPlan:
        """What is counted."""
        return CountPlan(self.design, self.grid, self.family)

    @property
    def choice(self) -> Choice:
        """How the table is fitted."""
        o = self.options
        return Choice(self.family, o.firth, o.robust, o.tolerance, o.max_iterations, self.advice)

    @property
    def levels(self) -> int:
        """Levels of a multinomial outcome after the first, 0 for another outcome."""
        return max(self.tally.levels - 1, 0)

    @property
    def cells(self) -> bool:
        """Whether the outcome is summed per pattern."""
        o = self.options
        return not self.family.canonical or self.family.dispersion == "pearson" or o.robust or o.cells

    @property
    def squares(self) -> bool:
        """Whether the outcome's squares are summed per pattern."""
        pearson = self.family.dispersion == "pearson" or self.options.robust
        return pearson and not self.family.binary

    @property
    def floor(self) -> int:
        """Fewest rows of a pattern that is shared as it is; 0 for any."""
        return 0 if self.options.suppress == "none" else self.study.disclosure.cell

    @property
    def drops(self) -> bool:
        """Whether patterns below the floor are left out, rather than imputed."""
        return self.options.suppress != "impute"

    @property
    def site_intercepts(self) -> bool:
        """Whether each site has its own intercept."""
        return self.options.site_intercepts

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients with a common intercept; of a multinomial outcome by level."""
        if not self.levels:
            return self.design.names
        return tuple(f"{level}:{name}" for level in self.design.outcome.levels[1:] for name in self.design.names)

    @property
    def fields(self) -> dict[str, Field]:
        """Form of one site's table."""
        rows, single = (None,), {"outcome": Field("<f8", self._shape(()))}
        out = {"keys": Field("<i8", rows), **single}
        out |= (
            {"exposure": Field("<f8", rows), "rows": Field("<i8")} if self.tally.exposure else {"n": Field("<i8", rows)}
        )
        out |= {"s": Field("<f8", self._shape(rows))} if self.cells else {"cross": Field("<f8", self._shape((self.p,)))}
        out |= {"q": Field("<f8", rows)} if self.squares else {}
        out |= {f"{name}_low": out[name] for name in PAIRED if name in out and self.family.pairs}
        out |= dict.fromkeys(self.family.whole_sums, Field("<f8"))
        return out | ({"suppressed": Field("<i8", (2,))} if self.floor else {})

    def _shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (self.levels, *shape) if self.levels else shape

    @property
    def per_pattern(self) -> tuple[str, ...]:
        """Fields with a number for each pattern."""
        return tuple(n for n in ("n", "exposure", "s", "s_low", "q", "q_low") if n in self.fields)

    @property
    def single(self) -> tuple[str, ...]:
        """Fields that are sums over all patterns."""
        names = ("cross", "cross_low", "outcome", "outcome_low", "rows", *self.family.whole_sums)
        return tuple(name for name in names if name in self.fields)

    @cached_property
    def layout(self) -> Layout:
        """How the columns are made in a frame."""
        return Layout.of(self.design, linear=self.family.linear)

    @property
    def advice(self) -> str:
        """What this study can do about a separated outcome."""
        return advise_on_separation(self.study)


def check_plan(plan: TablePlan) -> None:
    """StudyError for a model that no table can give, in any form of COLA-GLM."""
    formula, family, options = plan.design.formula, plan.family, plan.options
    family.check_outcome(formula.outcome, plan.design.outcome)
    if not family.by_tables:
        raise StudyError("CO-S308", f"No table is fitted with {family.name}/{family.link}. Choose GLORE.")
    if formula.offset and not family.exposures:
        message = "A table takes an offset as the exposure of counts with the log link, or with a linear model"
        raise StudyError("CO-S304", f"{message}. Choose GLORE.")
    if not plan.design.columns:
        raise StudyError("CO-S201", "The formula makes no columns.")
    if options.firth and (family.link not in family.firth_links or options.robust):
        raise StudyError("CO-S324", "firth is for a binomial model with the logit link, without robust.")
    if options.robust and (plan.tally.exposure or plan.levels):
        raise StudyError("CO-S324", "robust needs a model without exposure, of one outcome.")
    _ = plan.grid.size
