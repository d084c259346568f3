"""What every site derives from a study of a treatment's effect alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field as Within
from pydantic import SerializerFunctionWrapHandler, model_serializer

from coterie_learners.causal.balancing_weights import Estimand
from coterie_learners.core.masked_sum import MIN_PARTIES, UNIT
from coterie_learners.core.model_warnings import advise_on_separation
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import ColumnName, Frozen, LearnerChoice, Study
from coterie_learners.study.rows import Block, CodedBlocks, Rows
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.newton import FitRules
from coterie_learners.sums.opening.counts import Opening
from coterie_learners.sums.penalty import Penalty
from coterie_learners.sums.rounds import Model
from coterie_learners.survival.plan import check_roles

Effect = Literal["difference", "ratio", "odds_ratio", "hazard_ratio"]
# Numbers of bins of equal width in which scores may be counted, the finest first.
BINS = (10, 5, 4, 2)


class PropensityOptions(Frozen):
    """The learner section of a study of a treatment's effect.

    `treatment`: a binary variable of the formula; the formula's other terms make the propensity score. `estimand`: the
    effect in all patients (ATE), in the treated (ATT), or in those who might have either treatment (overlap). `effect`:
    difference, ratio or odds ratio of the outcome's weighted means. `stabilised`: weights are shown times the share of
    their arm; a hazard ratio is then of these weights. `time`: the time to the formula's event, for a hazard ratio,
    with ties after `ties`; `entry`: the time from which each patient is at risk. `truncate`: the least and
    largest score; scores beyond are taken to be these. `tolerance` is that of the score's fit, in standard errors.
    `aggregation` auto: masked with three sites or more.
    """

    treatment: ColumnName
    estimand: Estimand = "ATE"
    effect: Effect = "difference"
    stabilised: bool = False
    time: ColumnName | None = None
    entry: ColumnName | None = None
    ties: Literal["efron", "breslow"] = "efron"
    truncate: tuple[float, ...] = ()
    aggregation: Literal["auto", "masked", "plain"] = "auto"
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 25
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without late entry there is no such key, so that older studies keep their hashes."""
        return {name: v for name, v in write(self).items() if name != "entry" or v is not None}


class ScoreRows:
    """A site's rows with the treatment as their outcome, and without it among their columns."""

    def __init__(self, rows: Rows, at: int) -> None:
        self._rows, self._at = rows, at

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._rows.n

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block."""
        return (split_treatment(block, self._at) for block in self._rows.blocks())


def split_treatment(block: Block, at: int) -> Block:
    """Rows of the formula with their column `at` as the outcome."""
    kept = [j for j in range(block.x.shape[1]) if j != at]
    return Block(np.asfortranarray(block.x[:, kept]), np.ascontiguousarray(block.x[:, at]))


class ArmOpening(Opening):
    """The pool's counts of each level, and of those in it with and without the treatment.

    So no level is opened if an arm has few patients of it, or has them at only one or two sites.
    """

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """The outcome's own levels, in all patients and in each arm."""
        return tuple(f"{level}{arm}" for level in super().outcome_names for arm in ("", *self._arm_names))

    @property
    def _arm_names(self) -> tuple[str, str]:
        name = self.design.study.learner.options["treatment"]
        return f", {name} = 1", f", {name} = 0"

    def _parts(self, block: Block) -> Iterator[tuple[str, int, Array]]:
        name = str(self.design.study.learner.options["treatment"])
        with_treatment, without = self._arm_names
        treated = (block.x[:, self.design.names.index(name)] != 0).astype(np.float64)
        own, more = {name, f"{name} = 0"}, self.joins[name]
        for level, joined, inside in super()._parts(block):
            yield level, joined, inside
            if level not in own and level != "the pool":
                yield level + with_treatment, joined + more, inside * treated
                yield level + without, joined + more, inside * (1.0 - treated)


@dataclass(frozen=True)
class PropensityPlan:
    """What every site derives from the study alone. `design`: that of the formula; `scores`: that of the score."""

    study: Study
    design: Design
    scores: Design
    options: PropensityOptions
    masked: bool

    @classmethod
    def of(cls, study: Study) -> PropensityPlan:
        """The plan of a study."""
        options, design = options_of(study, PropensityOptions), Design(study)
        masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= MIN_PARTIES)
        return cls(study, design, _make_score_design(study, design, options.treatment), options, masked)

    @property
    def treatment_column(self) -> int:
        """The place of the treatment among the formula's columns."""
        return self.design.names.index(self.options.treatment)

    @property
    def p(self) -> int:
        """Number of coefficients of the score."""
        return len(self.scores.columns)

    @cached_property
    def model(self) -> Model:
        """What is summed for the score."""
        return Model.of(self.scores, choose_family("binomial", None, by_rows=True))

    @cached_property
    def rules(self) -> FitRules:
        """How the fit of the score goes."""
        unit = UNIT * len(self.study.sites) if self.masked else 0.0
        advice = advise_on_separation(self.study)
        return FitRules(self.model, Penalty.ridge(self.p, 0.0, True), self.options.tolerance, unit, advice)

    @property
    def opening(self) -> ArmOpening:
        """The opening step."""
        floor, events = self.study.disclosure.cell, self.design.outcome.type != "number"
        return ArmOpening(self.design, floor, events, self.read_rows, by_rows=True)

    @cached_property
    def balanced(self) -> tuple[int, ...]:
        """The columns of the score (k,) whose balance is shown: each level, and each number by itself."""
        columns = enumerate(self.scores.columns)
        return tuple(j for j, c in columns if len(c.factors) == 1 and c.factors[0].power == 1)

    @property
    def outcome_place(self) -> tuple[float, float]:
        """Centre and scale by which the outcome is summed."""
        low, high = (float(b) for b in self.design.outcome.bounds) if self.design.outcome.type != "binary" else (0.0, 1)
        return (0.0, 1.0) if self.design.outcome.type == "binary" else (0.5 * (low + high), 0.5 * (high - low))

    @property
    def hazards(self) -> bool:
        """Whether the effect is a hazard ratio."""
        return self.options.effect == "hazard_ratio"

    def read_rows(self, site: Site) -> Rows:
        """The rows of a site as its formula makes them."""
        return CodedBlocks(self.design, site.codes) if self.hazards else site.rows

    def read_scores(self, site: Site) -> ScoreRows:
        """A site's rows as the score's fit takes them."""
        return ScoreRows(self.read_rows(site), self.treatment_column)

    def scale_outcome(self, y: Array) -> Array:
        """The outcome (m,) as it is summed."""
        centre, scale = self.outcome_place
        return (y - centre) / scale


def _make_score_design(study: Study, design: Design, treatment: str) -> Design:
    """The design of `treatment ~` the formula's other terms; StudyError where the formula has no such parts."""
    formula = design.formula
    alone = ((treatment, 1),)
    others = [name for term in formula.terms if term != alone for name, _ in term]
    sources = {source for name in others for part in design.parts_of(name) for source in design.sources_of(part)}
    if alone not in formula.terms or treatment in sources:
        message = f"The treatment {treatment!r} is not a term by itself in the formula, or is in a product"
        raise StudyError("CO-S351", f"{message}. Write `outcome ~ {treatment}` and the covariates of the score.")
    covariates = [":".join(_write_factor(*factor) for factor in term) for term in formula.terms if term != alone]
    text = f"{treatment} ~ {' + '.join(covariates) or '1'}"
    return Design(study.model_copy(update={"formula": text, "learner": LearnerChoice(name=study.learner.name)}))


def _write_factor(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"


def check_propensity_plan(plan: PropensityPlan) -> None:
    """StudyError for a study of which no effect can be estimated here."""
    options, formula, outcome = plan.options, plan.design.formula, plan.design.outcome
    if plan.study.variables[options.treatment].type != "binary":
        declared, name = plan.study.variables[options.treatment], options.treatment
        message = f"The treatment {name!r} is declared as {declared.type}, and a treatment is binary"
        level = declared.levels[-1] if declared.levels else "new"
        remedy = f"Derive one that compares two: treated = '{name} == \"{level}\"' under [derive], say"
        raise StudyError("CO-S351", f"{message}. {remedy}.")
    if not formula.intercept or formula.offset or plan.p < 2:
        message = f"The formula is {plan.study.formula!r}"
        advice = f"Write `{formula.outcome} ~ {options.treatment}` and one covariate or more, without offset() and -1"
        raise StudyError("CO-S351", f"{message}. {advice}.")
    kinds = {"difference": ("number", "count", "binary"), "ratio": ("count", "binary")}
    kinds |= dict.fromkeys(("odds_ratio", "hazard_ratio"), ("binary",))
    if outcome.type not in kinds[options.effect]:
        message = f"The effect {options.effect!r} is of an outcome of type {' or '.join(kinds[options.effect])}"
        raise StudyError("CO-S352", f"{message}; {formula.outcome!r} is declared as {outcome.type}.")
    _check_time(plan)
    _check_truncation(options)
    _check_sites(plan)


def _check_time(plan: PropensityPlan) -> None:
    """StudyError where a hazard ratio has no time, or something else has one; and where its sums are not masked."""
    time, hazards = plan.options.time, plan.hazards
    if hazards != (time is not None):
        message = f"The effect is {plan.options.effect!r}, and `time` is {'missing' if time is None else repr(time)}"
        raise StudyError("CO-S352", f"{message}. A hazard ratio needs the time to the event, and nothing else has one.")
    if time is None and plan.options.entry is not None:
        message = f"The effect is {plan.options.effect!r}, and `entry` is {plan.options.entry!r}"
        raise StudyError("CO-S352", f"{message}. Late entry belongs to a hazard ratio. Leave it out.")
    if time is None:
        return
    roles = {"time": time, "entry": plan.options.entry}
    check_roles(plan.study, {**roles, "event": plan.design.formula.outcome})
    for role, name in roles.items():
        if name in plan.design.list_covariates():
            raise StudyError("CO-S204", f"The formula and `{role}` both use {name!r}. Use each once.")
    if not plan.masked:
        message = "The sums of a weighted Cox model would show a site's events in the clear"
        raise StudyError("CO-S305", f'{message}. Take part with three sites or more, aggregation = "masked".')


def _check_truncation(options: PropensityOptions) -> None:
    low, high = options.truncate if len(options.truncate) == 2 else (0.25, 0.75)
    if len(options.truncate) not in (0, 2) or not 0.0 < low < high < 1.0:
        message = f"`truncate` is {list(options.truncate)}, not two scores"
        raise StudyError("CO-S353", f"{message}. Write the least and the largest, as in truncate = [0.01, 0.99].")


def _check_sites(plan: PropensityPlan) -> None:
    count = len(plan.study.sites)
    if plan.masked and count < MIN_PARTIES:
        message = f"A masked sum over {count} sites would give each the other's share"
        raise StudyError(
            "CO-S305", f'{message}. Take part with three sites or more, or choose aggregation = "plain" knowingly.'
        )
    if plan.study.ledger.silent_site == "exclude":
        message = "Scores of all sites and an effect over fewer would not belong together"
        raise StudyError("CO-S306", f'{message}. Set silent_site = "wait" or "abort".')


def list_effect_terms(plan: PropensityPlan) -> tuple[str, ...]:
    """Names of the coefficients: of the mean without the treatment, which no hazard has, and of the effect."""
    return (plan.options.treatment,) if plan.hazards else (INTERCEPT, plan.options.treatment)
