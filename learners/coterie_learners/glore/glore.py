"""GLORE: generalised linear models on rows split over sites, equal to the fit on the pooled rows.

Wu, Jiang, Kim, Ohno-Machado, "Grid Binary LOgistic REgression (GLORE)", JAMIA 2012;19:758-764
(doi:10.1136/amiajnl-2012-000862), as D-CLEF runs it (Kuo et al., Nat Commun 2025;16:1371, D-CLEF-H). Newton-Raphson
on sums that each site computes over its own rows: the iterates are those of the pooled rows.

What leaves a site, per round: the score (p), the upper triangle of the expected information (p (p + 1) / 2) and the
deviance, all at the coefficients of that round; and the number of rows, the sum of the outcome and the saturated
log-likelihood (in every round, because a site may be excluded between two). Masked (the default with three sites or
more): only their sums over the sites exist outside a site. Plain (as published): every member reads each site's sums,
and at the first round, where all weights are equal, they are 4 X'WX = X'X and X'y: row counts, events, every two-way
table of binary covariates and of covariate by outcome, exactly.

Beyond the paper, on the same messages: other families; ridge; the start at the null model, whose sums follow from
those at zero (so the null deviance costs nothing and rare outcomes converge sooner); standard errors from the
information at the reported coefficients; step halving; separation and collinearity named in words. The fit stops when
the next step would be shorter than `tolerance` standard errors, which is stricter than R's relative deviance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field as Within

from coterie_learners.core import masked_sum, model_warnings
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.divergence import diverging_coefficients
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, each, server
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.errors import NotConverged, ProtocolError, Separation, StudyError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.parallel import in_parallel
from coterie_learners.study.design import Design
from coterie_learners.study.document import Frozen, Schedule, Study
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums import sums_disclosure
from coterie_learners.sums.families import Family, family_of
from coterie_learners.sums.opening_counts import Opening, open_pool

_VERSION = "1"
MAX_HALVINGS = 10
# An objective that grew by less than this share of itself grew by rounding.
_ROUNDING_SHARE = 1e-10
# No sums of real rows come near this; beyond it arithmetic would overflow.
_MAX_SUM = 1e100
# A share of the outcome's variation that is rounding.
EXACT = 1e-20
RATIOS = {"logit": "OR", "log": "IRR", "cloglog": "HR"}

COUNTS = ("n", "outcome", "saturated")

PooledSums = Mapping[str, Array]


class GloreOptions(Frozen):
    """The learner section of a study.

    `ridge` penalises half the squared coefficients in the variables' own units, the intercept only if asked for.
    `tolerance` is in standard errors. `aggregation` auto: masked with three sites or more. `opening`:
    whether masked sums begin with the pool's counts of levels; without them release gates refuse.
    """

    family: Literal["binomial", "poisson", "gaussian"] = "binomial"
    link: Literal["logit", "probit", "cloglog", "log", "identity"] | None = None
    aggregation: Literal["auto", "masked", "plain"] = "auto"
    opening: Literal["counts", "none"] = "counts"
    ridge: Annotated[float, Within(ge=0)] = 0.0
    penalise_intercept: bool = False
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 25
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


@dataclass(frozen=True)
class GlorePlan:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    options: GloreOptions
    family: Family
    masked: bool

    @classmethod
    def of(cls, study: Study) -> GlorePlan:
        """The plan of a study."""
        options = options_of(study, GloreOptions)
        masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= 3)
        return cls(study, Design(study), options, family_of(options.family, options.link), masked)

    @property
    def p(self) -> int:
        """Number of columns."""
        return len(self.design.columns)

    @property
    def opens(self) -> bool:
        """Whether the pool's counts of levels are opened before its sums."""
        return self.masked and self.options.opening == "counts"

    @property
    def opening(self) -> Opening:
        """The opening step."""
        return Opening(self.design, self.study.disclosure.cell, self.family.name != "gaussian")

    @cached_property
    def penalty(self) -> Array:
        """The matrix P (p, p) with penalty b' P b / 2 for coefficients b on the inside scale."""
        weights = np.full(self.p, self.options.ridge)
        if self.design.formula.intercept and not self.options.penalise_intercept:
            weights[0] = 0.0
        back = self.design.back
        return linalg.matmul(back.T * weights, back)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the sums of a round."""
        single = dict.fromkeys(("deviance", *COUNTS), ())
        return {"score": (self.p,), "information": (self.p * (self.p + 1) // 2,), **single}

    @property
    def form(self) -> Schema:
        """Form of one site's post."""
        if self.masked:
            return Schema({"masked": masked_sum.masked_field(self.shapes)})
        return Schema({k: Field("<f8", s) for k, s in self.shapes.items()}, check=self.check)

    def check(self, sums: Payload) -> None:
        """ProtocolError if no rows could have these sums."""
        largest = max(float(np.max(np.abs(value), initial=0.0)) for value in sums.values())
        if largest > _MAX_SUM:
            raise ProtocolError("CO-P505", f"A sum of {largest:.3g} cannot come from rows.")
        spectrum = np.linalg.eigvalsh(linalg.symmetric(sums["information"], self.p))
        if spectrum[0] < -1e-8 * max(spectrum[-1], 1e-8):
            raise ProtocolError("CO-P501", "The information matrix is not positive semi-definite.")
        if float(sums["deviance"]) < 0:
            raise ProtocolError("CO-P502", f"The deviance {float(sums['deviance']):.6g} is negative.")
        self._check_counts(float(sums["n"]), float(sums["outcome"]))
        if self.design.formula.intercept:
            self._check_intercept(sums)

    def _check_counts(self, n: float, outcome: float) -> None:
        if n < 1 or n != round(n):
            raise ProtocolError("CO-P503", f"{n:.6g} cannot be a number of rows.")
        if self.family.name == "binomial" and not (0 <= outcome <= n and outcome == round(outcome)):
            raise ProtocolError("CO-P504", f"{outcome:.6g} events cannot come from {n:.6g} rows.")
        if self.family.name == "poisson" and not (outcome >= 0 and outcome == round(outcome)):
            raise ProtocolError("CO-P504", f"Counts cannot add up to {outcome:.6g}.")

    def _check_intercept(self, sums: Payload) -> None:
        """Scaled sums: each row weighs at most so much, and its residual is bounded by its outcome."""
        n, outcome, weight = (float(v) for v in (sums["n"], sums["outcome"], sums["information"][0]))
        slack = 1.0 + 1e-9
        most = {"logit": 0.25 * n, "identity": n}.get(self.family.link, _MAX_SUM)
        if not 0.0 < weight <= most * slack or (self.family.link == "identity" and weight * slack < n):
            raise ProtocolError("CO-P508", f"{n:.0f} rows cannot carry an information of {weight:.6g}.")
        score = float(sums["score"][0])
        if self.family.link == "logit" and not (outcome - n) * slack <= score <= outcome * slack:
            raise ProtocolError("CO-P508", f"{outcome:.0f} events in {n:.0f} rows cannot give a score of {score:.6g}.")


def glore(site: Site) -> Script:
    """Distributed Newton-Raphson: sums from every site, one step by the site whose turn it is, until it is at rest."""
    plan = GlorePlan.of(site.study)
    if plan.opens:
        yield from open_pool(plan.opening)
    model: Payload = {"beta": np.zeros(plan.p)}
    path: tuple[Array, ...] = ()
    for t in range(plan.options.max_rounds):
        topic, path = f"stats/{t}", (*path, model["beta"])
        revealed = partial(expose_stats, plan, path)
        stats = yield from each(topic, share_stats, plan, topic, model["beta"], expects=plan.form, reveals=revealed)
        model = yield from server(f"model/{t}", newton, plan, t, model, stats)
        if model["converged"]:
            return build_newton_fit(plan, model, t + 1)
    raise NotConverged(
        "CO-N101", f"No convergence in {plan.options.max_rounds} rounds: {_explain_nonconvergence(plan, model)}"
    )


def _explain_nonconvergence(plan: GlorePlan, model: Payload) -> str:
    """How far the last step is from rest, and what to do; a step is measured against what the columns leave open."""
    if plan.family.dispersion and float(model["deviance"]) <= EXACT * float(model.get("null_deviance", np.inf)):
        return "the columns give the outcome without error, so that nothing can be said of chance. Leave one out."
    length = np.sqrt(float(model["gain"]))
    return f"the next step would still be {length:.2g} standard errors long. Raise max_rounds, or look for separation."


def share_stats(site: Site, plan: GlorePlan, topic: str, beta: Array) -> Payload:
    """What one site posts: its sums at beta, under masks where the study says so."""
    sums = compute_local_sums(plan, site.rows, beta)
    return masked_sum.mask_sums(site, topic, sums) if plan.masked else sums


def expose_stats(plan: GlorePlan, path: tuple[Array, ...], site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's post, after the rounds at the coefficients `path`."""
    if plan.masked:
        masked = sums_disclosure.expose_masked_sums(plan.design, plan.family, path, site)
        return replace(masked, unopened=not plan.opens)
    return sums_disclosure.expose_sums(plan.design, plan.family, path, site, payload)


def compute_local_sums(plan: GlorePlan, rows: Rows, beta: Array) -> dict[str, Array]:
    """Score (p,), information (upper triangle) and deviance of this site's rows at beta (p,), and their counts."""
    score, information, single = np.zeros(plan.p), np.zeros((plan.p, plan.p)), np.zeros(3)
    for part in in_parallel(lambda block: block_sums(plan, block, beta), rows.blocks()):
        score += part[0]
        information += part[1]
        single += part[2]
    deviance, outcome, saturated = single.tolist()
    upper = information[np.triu_indices(plan.p)]
    counts = {"n": rows.n, "outcome": outcome, "saturated": saturated}
    named = {"score": score, "information": upper, "deviance": max(deviance, 0.0), **counts}
    return {name: np.asarray(value, dtype=np.float64) for name, value in named.items()}


def block_sums(plan: GlorePlan, block: Block, beta: Array) -> tuple[Array, Array, Array]:
    """One block's score (p,) and information (p, p), and its deviance, outcome and saturated log-likelihood (3,)."""
    eta = block.x @ beta if block.offset is None else block.x @ beta + block.offset
    parts = plan.family.parts(eta, block.y)
    weighted = block.x * np.sqrt(parts.weight)[:, None]
    single = np.array([parts.deviance, float(block.y.sum()), plan.family.saturated(block.y)])
    return block.x.T @ parts.residual, weighted.T @ weighted, single


def newton(plan: GlorePlan, t: int, last: Payload, stats: Posts) -> Payload:
    """One Newton-Raphson step from the sites' sums at the last coefficients, or half of the last step again."""
    sums = pool_stats(plan, stats)
    repeated = null_model(plan, sums) if t == 0 else carry_forward(plan, last, sums)
    here = (
        repeated.pop("start")
        if t == 0
        else NewtonPoint(last["beta"], sums["score"], _matrix(plan, sums), _deviance(sums))
    )
    objective = here.deviance + linalg.dot(here.beta, linalg.matvec(plan.penalty, here.beta))
    if t > 0 and objective - float(last["objective"]) > _ROUNDING_SHARE * (abs(objective) + 0.1):
        return halve_step(plan, last)
    gradient = here.score - linalg.matvec(plan.penalty, here.beta)
    factor = linalg.cholesky(here.information + plan.penalty, plan.design.names)
    step = linalg.solve(factor, gradient)
    if not np.all(np.abs(step) < _MAX_SUM):
        raise ProtocolError("CO-P507", "The sums of the sites lead to no finite step; no rows could have them.")
    gain = max(linalg.dot(gradient, step), 0.0) / _dispersion(plan, here.deviance, float(repeated["n"]))
    model = {
        **repeated,
        "base": here.beta,
        "step": step,
        "objective": objective,
        "deviance": here.deviance,
        "gain": gain,
        "halvings": 0,
    }
    if gain <= plan.options.tolerance**2:
        return _to_arrays({**model, "beta": here.beta, "converged": True, "covariance": _covariance(here, factor)})
    if t > 0:
        _check_separation(plan, gain, step, last["step"])
    return _to_arrays({**model, "beta": here.beta + step, "converged": False})


@dataclass(frozen=True)
class NewtonPoint:
    """Coefficients (p,) with the pooled score (p,), information (p, p) and deviance there."""

    beta: Array
    score: Array
    information: Array
    deviance: float


def pool_stats(plan: GlorePlan, stats: Posts) -> PooledSums:
    """The sums over all sites, exact in either aggregation; ProtocolError if no rows could have them."""
    if not plan.masked:
        return {name: linalg.total([np.asarray(p[name]) for p in stats.values()]) for name in plan.shapes}
    sums = masked_sum.unmask_sums(stats, plan.shapes)
    plan.check(sums)
    return sums


def null_model(plan: GlorePlan, sums: PooledSums) -> dict[str, Any]:
    """Counts and null deviance, and the point to start from, out of the sums at beta = 0.

    At zero every row has the same mean and weight (for the log link: up to its offset), so that X'X, X'1 and X'y
    follow, and with them the score and the information at any intercept.
    """
    n, outcome = float(sums["n"]), float(sums["outcome"])
    zero = NewtonPoint(np.zeros(plan.p), sums["score"], _matrix(plan, sums), _deviance(sums))
    _check_size(plan, n, outcome)
    repeated = {"n": n, "outcome": outcome, "saturated": float(sums["saturated"])}
    if not plan.design.formula.intercept:
        return {**repeated, "null_deviance": zero.deviance, "start": zero}
    starts = {"logit": _start_logit, "log": _start_log, "identity": _start_identity}
    if plan.family.link in starts:
        start = starts[plan.family.link](zero, n, outcome)
        return {**repeated, "null_deviance": start.deviance, "start": start}
    return {**repeated, "null_deviance": _binomial_null(n, outcome), "start": zero}


def _start_logit(zero: NewtonPoint, n: float, outcome: float) -> NewtonPoint:
    mean = outcome / n
    cross = 4.0 * zero.information
    score = zero.score + (0.5 - mean) * cross[0]
    beta = _intercept_only(zero, linalg.log(mean / (1.0 - mean)))
    return NewtonPoint(beta, score, mean * (1.0 - mean) * cross, _binomial_null(n, outcome))


def _start_log(zero: NewtonPoint, n: float, outcome: float) -> NewtonPoint:
    exposure = float(zero.information[0, 0])
    rate = outcome / exposure
    logarithm = linalg.log(rate)
    deviance = zero.deviance - 2.0 * logarithm * outcome + 2.0 * (rate - 1.0) * exposure
    score = zero.score + (1.0 - rate) * zero.information[0]
    return NewtonPoint(_intercept_only(zero, logarithm), score, rate * zero.information, deviance)


def _start_identity(zero: NewtonPoint, n: float, outcome: float) -> NewtonPoint:
    mean = float(zero.score[0]) / n
    score = zero.score - mean * zero.information[0]
    return NewtonPoint(_intercept_only(zero, mean), score, zero.information, zero.deviance - n * mean * mean)


def _intercept_only(zero: NewtonPoint, value: float) -> Array:
    beta = np.zeros_like(zero.beta)
    beta[0] = value
    return beta


def _binomial_null(n: float, events: float) -> float:
    mean = events / n
    return -2.0 * (events * linalg.log(mean) + (n - events) * linalg.log(1.0 - mean))


def _check_size(plan: GlorePlan, n: float, outcome: float) -> None:
    if n <= plan.p:
        raise StudyError("CO-N203", f"{n:.0f} rows at all sites together cannot carry {plan.p} coefficients.")
    if plan.family.name == "binomial" and outcome in (0.0, n):
        raise Separation("CO-N301", "All sites together have only one value of the outcome; nothing can be fitted.")
    if plan.family.name == "poisson" and outcome == 0.0:
        raise Separation("CO-N301", "All counts at all sites are zero; nothing can be fitted.")


def carry_forward(plan: GlorePlan, last: Payload, sums: PooledSums) -> dict[str, Any]:
    """What every model post repeats, so that the last one alone holds the fit.

    After an exclusion the counts are those of the sites that are left, and the null deviance is known only where it
    follows from the counts.
    """
    counts = {name: float(sums[name]) for name in COUNTS}
    if all(counts[name] == float(last[name]) for name in COUNTS):
        return counts | {name: last[name] for name in ("null_deviance",) if name in last}
    _check_size(plan, counts["n"], counts["outcome"])
    if plan.family.name == "binomial" and plan.design.formula.intercept:
        return counts | {"null_deviance": _binomial_null(counts["n"], counts["outcome"])}
    return counts


def halve_step(plan: GlorePlan, last: Payload) -> Payload:
    """The last step again, half as long; NotConverged after ten halvings."""
    count = int(last["halvings"]) + 1
    if count > MAX_HALVINGS:
        raise NotConverged(
            "CO-N102",
            f"The deviance still grows after halving a step {MAX_HALVINGS} times. Check the data and the family.",
        )
    beta = last["base"] + last["step"] * 0.5**count
    return _to_arrays({**last, "beta": beta, "halvings": count})


def _check_separation(plan: GlorePlan, gain: float, step: Array, before: Array) -> None:
    """Separation (naming columns) if the likelihood is flat and the steps go on in one direction."""
    grown = diverging_coefficients(gain, step, before)
    if plan.family.dispersion or not np.any(grown):
        return
    names = [n for n, g in zip(plan.design.names, grown.tolist(), strict=True) if g]
    raise Separation(
        "CO-N302",
        f"The outcome is separated: coefficients of {', '.join(names)} grow without bound, because these columns "
        "predict it without error. Merge rare levels, leave the term out, or set a ridge.",
    )


def build_newton_fit(plan: GlorePlan, model: Payload, rounds: int) -> Fit:
    """The result in the variables' own units, from the last model post."""
    estimates, covariance = plan.design.outside(model["base"], model["covariance"])
    n, deviance, law = float(model["n"]), float(model["deviance"]), plan.family.name
    events = int(model["outcome"]) if law in ("binomial", "poisson") else None
    slopes = plan.p - plan.design.formula.intercept
    dispersion = _dispersion(plan, deviance, n)
    likelihood = float(model["saturated"]) - 0.5 * deviance
    if plan.family.dispersion:
        likelihood = -0.5 * n * (np.log(2 * np.pi * deviance / n) + 1.0)
    return Fit(
        learner="glore",
        family=plan.family.name,
        link=plan.family.link,
        terms=plan.design.names,
        estimates=estimates,
        covariance=dispersion * covariance,
        n=int(n),
        events=events,
        rounds=rounds,
        converged=True,
        dispersion=dispersion,
        dispersion_known=not plan.family.dispersion,
        deviance=deviance,
        null_deviance=float(model["null_deviance"]) if "null_deviance" in model else None,
        log_likelihood=float(likelihood),
        ratio=RATIOS.get(plan.family.link, ""),
        notes=(
            *model_warnings.ridge_warning(plan.options.ridge),
            *model_warnings.few_events_warning(law, int(n), events, slopes),
        ),
    )


def _covariance(here: NewtonPoint, factor: Array) -> Array:
    """(I + P)^-1 I (I + P)^-1: the inverse information without a ridge, the variance of the estimator with one."""
    whole = linalg.inverse(factor)
    return linalg.matmul(linalg.matmul(whole, here.information), whole)


def _dispersion(plan: GlorePlan, deviance: float, n: float) -> float:
    return max(deviance / (n - plan.p), 1e-300) if plan.family.dispersion else 1.0


def _matrix(plan: GlorePlan, sums: PooledSums) -> Array:
    return linalg.symmetric(sums["information"], plan.p)


def _deviance(sums: PooledSums) -> float:
    return float(sums["deviance"])


def _to_arrays(model: Mapping[str, Any]) -> Payload:
    return {name: np.asarray(value) for name, value in model.items()}


def _check_study(study: Study) -> None:
    """StudyError for a study that GLORE cannot run."""
    plan = GlorePlan.of(study)
    plan.family.check_outcome(plan.design.formula.outcome, plan.design.outcome)
    if plan.design.formula.offset and plan.family.name == "binomial":
        raise StudyError("CO-S304", "An offset needs the log or the identity link.")
    if plan.masked and len(study.sites) < masked_sum.MIN_PARTIES:
        raise StudyError(
            "CO-S305",
            f"A masked sum over {len(study.sites)} sites would give each the other's share. "
            'Take part with three sites or more, or choose aggregation = "plain" knowingly.',
        )
    if not plan.design.columns:
        raise StudyError("CO-S201", "The formula makes no columns.")


def _schedule(study: Study) -> Schedule:
    """Rounds of each and server until the server's post says converged."""
    opening = ("each", "each") if GlorePlan.of(study).opens else ()
    return Schedule(opening=opening, loop=("each", "server"), max_rounds=options_of(study, GloreOptions).max_rounds)


GLORE = Learner("glore", _VERSION, GloreOptions, _check_study, _schedule, glore)
