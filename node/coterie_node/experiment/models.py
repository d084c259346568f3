"""The models of one trial: each fits the training rows in its own way and scores the test rows.

Decentralised models run their whole protocol over the memory ledger and store. The pooled fit is Newton's method on all
training rows, of none of the learners' code. Siloed fits are GLORE's at one site.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.errors import Collinear, DataError, LearnerError, NotConverged, Separation
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Codes, Data, OwnColumns
from coterie_node.analysis.certificate import fit_pooled_rows
from coterie_node.errors import ReleaseRefused
from coterie_node.experiment.cohort import Cohort
from coterie_node.experiment.comparison import compute_auc
from coterie_node.experiment.estimators import fit_quietly, make_estimator
from coterie_node.experiment.plan import EVERY_KIND, ExperimentPlan, ModelKind
from coterie_node.experiment.splits import TrialSplit
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate

# A linear predictor beyond this says that Newton's method runs away: the rows are then looked at for separation.
RUNAWAY = 25.0
FIRTH_ROUNDS = 200
# Models that are protocols between sites, and may run over other ledgers and stores.
PROTOCOLS: tuple[ModelKind, ...] = ("glore", "vertigo", "valoris")
NO_SOLUTION = (Separation, Collinear, NotConverged, np.linalg.LinAlgError)
Options = dict[str, Any]
# Runs a study over its sites' data: the results by site, and the seconds from the last joining to the last result.
Conduct = Callable[[Study, Mapping[str, Data], bool], tuple[Mapping[str, Fit | None], float]]


@dataclass(frozen=True)
class ModelScore:
    """One model in one trial: its area, seconds of the whole fit and rounds; `policy` if plain fitting had no solution.

    `auc` is None where the model was skipped; `cause` is the error's code then.
    """

    model: str
    auc: float | None
    seconds: float | None = None
    rounds: int | None = None
    policy: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Scores:
    """Scores (m,) of the test rows; seconds and rounds where a protocol made them."""

    values: Array
    seconds: float | None = None
    rounds: int | None = None


def conduct_in_memory(study: Study, data: Mapping[str, Data], gated: bool) -> tuple[Mapping[str, Fit | None], float]:
    """Run a study as `simulate` does, with a release gate at each site or with none."""
    gates = {name: Gate(study) for name in study.sites} if gated and len(study.sites) > 1 else None
    _, runners, seconds = simulate(study, data, gates=gates)
    return {name: runner.machine.result for name, runner in runners.items()}, seconds


FitModel = Callable[[Options], Scores]
NamedFits = Iterator[tuple[str, FitModel]]


@dataclass(frozen=True)
class TrialRows:
    """What the models of one trial fit and score."""

    plan: ExperimentPlan
    cohort: Cohort
    split: TrialSplit
    seed: int
    gated: bool = False
    conduct: Conduct = conduct_in_memory

    @property
    def train(self) -> Codes:
        """Values of all training rows."""
        return self.cohort.take(self.split.train)

    @property
    def test(self) -> Codes:
        """Values of the test rows."""
        return self.cohort.take(self.split.test)

    @property
    def outcome(self) -> Array:
        """The test rows' outcomes (m,)."""
        return np.asarray(self.cohort.codes[self.plan.outcome][self.split.test], dtype=np.float64)

    def score_terms(self, study: Study, terms: Mapping[str, float]) -> Array:
        """Linear predictors (m,) of the test rows, from estimates by term."""
        design, codes = Design(study), self.test
        block = design.block(codes)
        eta = block.x @ np.array([terms[name] for name in design.names])
        return np.asarray(eta if block.offset is None else eta + block.offset)


def list_fits(rows: TrialRows, only: Collection[ModelKind] = EVERY_KIND) -> NamedFits:
    """Name of each model of these kinds with its fit, which takes the options of the policy on separation."""
    for kind in rows.plan.kinds:
        if kind in only:
            yield from MAKERS[kind](rows)


def score_model(rows: TrialRows, name: str, fit: FitModel) -> ModelScore:
    """A model's area on the test rows, fitted again by the plan's policy if the rows have no plain solution."""
    policy = ""
    try:
        scores = fit({})
    except NO_SOLUTION as first:
        policy = rows.plan.separation
        options = _list_policy_options(rows.plan, name)
        if not options:
            return ModelScore(name, None, policy="skip", cause=_code_of(first))
        try:
            scores = fit(options)
        except (LearnerError, ReleaseRefused, np.linalg.LinAlgError) as second:
            return ModelScore(name, None, policy="skip", cause=_code_of(second))
    except (LearnerError, ReleaseRefused) as error:
        return ModelScore(name, None, policy="skip", cause=error.code)
    return ModelScore(name, compute_auc(scores.values, rows.outcome), scores.seconds, scores.rounds, policy)


def _list_policy_options(plan: ExperimentPlan, model: str) -> Options:
    """The options of the plan's policy; none where a model is skipped. Split columns know no Firth's penalty."""
    if plan.separation == "ridge":
        return {"ridge": plan.penalty}
    # Firth's estimates on separated rows lie far out, and Newton's steps towards them are short.
    by_rows = plan.separation == "firth" and model not in ("vertigo", "valoris")
    return {"firth": True, "max_rounds": FIRTH_ROUNDS} if by_rows else {}


def _code_of(error: Exception) -> str:
    return getattr(error, "code", "singular")


# Rows


def _list_siloed_rows(rows: TrialRows) -> NamedFits:
    for site, at in rows.split.sites.items():
        yield f"siloed_rows:{site}", partial(fit_alone, rows, at, site)


def fit_alone(rows: TrialRows, at: Any, site: str, options: Options, formula: str = "") -> Scores:
    """GLORE on the rows of one site, with nobody else."""
    study = rows.plan.study_of_rows((site,), {"aggregation": "plain", **options}, formula)
    block = Design(study).block(rows.cohort.take(at))
    return _conduct(rows, study, {site: ArrayRows.of(block)})


def _list_glore(rows: TrialRows) -> NamedFits:
    yield "glore", partial(fit_glore, rows)


def fit_glore(rows: TrialRows, options: Options) -> Scores:
    """GLORE over all sites."""
    study = rows.plan.study_of_rows(tuple(rows.split.sites), options)
    return _conduct(rows, study, read_site_rows(rows, study))


def read_site_rows(rows: TrialRows, study: Study) -> dict[str, Data]:
    """Each site's training rows as GLORE reads them."""
    design = Design(study)
    return {site: ArrayRows.of(design.block(rows.cohort.take(at))) for site, at in rows.split.sites.items()}


def _list_centralised(rows: TrialRows) -> NamedFits:
    yield "centralised", partial(fit_centrally, rows)


def fit_centrally(rows: TrialRows, options: Options) -> Scores:
    """The pooled fit; rows on which it runs away are fitted by GLORE at one site, which knows separation."""
    study = rows.plan.study_of_rows(("pool",), {"aggregation": "plain"})
    if not options and not any(rows.plan.learner.get(name) for name in ("firth", "weights")):
        design, start = Design(study), time.perf_counter()
        block = design.block(rows.train)
        with np.errstate(all="ignore"):
            beta, _ = fit_pooled_rows(study, design, [block])
            reach = float(np.max(np.abs(block.x @ beta)))
        if reach < RUNAWAY:
            seconds = time.perf_counter() - start
            return Scores(rows.score_terms(study, dict(zip(design.names, beta.tolist(), strict=True))), seconds)
    return replace(fit_alone(rows, rows.split.train, "pool", options), rounds=None)


def _list_ensemble_rows(rows: TrialRows) -> NamedFits:
    for name in rows.plan.estimators:
        yield f"ensemble_rows:{name}", partial(_average_rows, rows, name)


def _average_rows(rows: TrialRows, name: str, _: Options) -> Scores:
    """The mean chance of the sites' estimators, each fitted on the site's own rows."""
    design = Design(rows.plan.study_of_rows(("pool",), {"aggregation": "plain"}))
    blocks = [design.block(rows.cohort.take(at)) for at in rows.split.sites.values()]
    x = design.raw(rows.test, len(rows.split.test))
    return Scores(_average([_fit_estimator(rows, name, b.x[:, 1:], b.y, x[:, 1:]) for b in blocks]))


# Columns


def _list_siloed_columns(rows: TrialRows) -> NamedFits:
    for site in rows.plan.columns:
        formula = restrict_formula(rows.plan, site)
        if formula:
            yield f"siloed_columns:{site}", partial(fit_alone, rows, rows.split.train, site, formula=formula)


def restrict_formula(plan: ExperimentPlan, site: str) -> str:
    """The formula with the terms, functions and offset whose variables one site has; empty without a term."""
    design, here = Design(plan.base), plan.columns[site]
    formula = design.formula
    own = [term for term in formula.terms if all(s in here for name, _ in term for s in design.sources_of(name))]
    terms = [":".join(name if power == 1 else f"{name}^{power}" for name, power in term) for term in own]
    if not terms:
        return ""
    offset = [f"offset({formula.offset})"] if formula.offset in here else []
    return f"{formula.outcome} ~ {' + '.join([*([] if formula.intercept else ['0']), *terms, *offset])}"


def _list_vertical(learner: str) -> Callable[[TrialRows], NamedFits]:
    def list_one(rows: TrialRows) -> NamedFits:
        yield learner, partial(fit_columns, rows, learner)

    return list_one


def fit_columns(rows: TrialRows, learner: str, options: Options) -> Scores:
    """A learner of split columns over all sites."""
    study = rows.plan.study_of_columns(learner, options)
    return _conduct(rows, study, read_site_columns(rows, study))


def read_site_columns(rows: TrialRows, study: Study) -> dict[str, Data]:
    """Each site's columns of the training rows; rows are identified by their number in the files."""
    codes = {name: np.asarray(values, dtype=np.float64) for name, values in rows.train.items()}
    people = tuple((str(k),) for k in rows.split.train.tolist())
    parts: dict[str, Data] = {}
    for site in study.owners:
        design = Design(study, site)
        outcome, offset = (
            codes[name] if name is not None and name in study.columns[site] else None
            for name in (design.formula.outcome, design.formula.offset)
        )
        parts[site] = OwnColumns(people, design.names, design.matrix(codes, len(people)), outcome, offset)
    return parts


def _list_ensemble_columns(rows: TrialRows) -> NamedFits:
    for name in rows.plan.estimators:
        yield f"ensemble_columns:{name}", partial(_average_columns, rows, name)


def _average_columns(rows: TrialRows, name: str, _: Options) -> Scores:
    """The mean chance of the sites' estimators, each fitted on the site's own columns of all training rows."""
    chances = []
    for site in rows.plan.columns:
        formula = restrict_formula(rows.plan, site)
        if formula:
            design = Design(rows.plan.study_of_rows(("pool",), {"aggregation": "plain"}, formula))
            train, x = design.block(rows.train), design.raw(rows.test, len(rows.split.test))
            chances.append(_fit_estimator(rows, name, train.x[:, 1:], train.y, x[:, 1:]))
    return Scores(_average(chances))


# Both


def _average(chances: list[Array | None]) -> Array:
    usable = [values for values in chances if values is not None]
    if not usable:
        raise DataError("CO-D121", "No site has both outcomes. Give the sites more rows.")
    return np.asarray(np.mean(usable, axis=0))


def _fit_estimator(rows: TrialRows, name: str, x: Array, y: Array, new: Array) -> Array | None:
    """Chances (m,) of new rows; None where the rows have one outcome only, from which nothing is learnt."""
    if len(np.unique(y)) < 2:
        return None
    estimator = make_estimator(name, rows.seed)
    fit_quietly(estimator, np.ascontiguousarray(x), y)
    return np.asarray(estimator.predict_proba(np.ascontiguousarray(new))[:, 1], dtype=np.float64)


def _conduct(rows: TrialRows, study: Study, data: Mapping[str, Data]) -> Scores:
    conduct = rows.conduct if len(study.sites) > 1 else conduct_in_memory
    results, seconds = conduct(study, data, rows.gated)
    if not any(results.values()):
        raise NotConverged("CO-N101", "The protocol ended without a result. Raise max_rounds.")
    fit = merge_fits(results, Design(study).names)
    terms = dict(zip(fit.terms, fit.estimates.tolist(), strict=True))
    return Scores(rows.score_terms(study, terms), seconds, fit.rounds)


MAKERS: dict[ModelKind, Callable[[TrialRows], NamedFits]] = {
    "siloed_rows": _list_siloed_rows,
    "siloed_columns": _list_siloed_columns,
    "centralised": _list_centralised,
    "glore": _list_glore,
    "vertigo": _list_vertical("vertigo"),
    "valoris": _list_vertical("valoris"),
    "ensemble_rows": _list_ensemble_rows,
    "ensemble_columns": _list_ensemble_columns,
}
