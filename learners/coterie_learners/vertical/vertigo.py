"""VERTIGO: a logistic model on columns split over sites, equal to the fit on the joined columns.

Li, Jiang, Wang, Xiong, Ohno-Machado, "VERTIcal Grid lOgistic regression (VERTIGO)", JAMIA 2016;23:570-579
(doi:10.1093/jamia/ocv146), as D-CLEF runs it (Kuo et al., Nat Commun 2025;16:1371, D-CLEF-V): the sites send what the
dual problem needs of their columns, a rotating server takes Newton steps, each site turns the solution into its own
coefficients, and these are put together.

`exchange = "gram"` is the paper: each site sends K_k = Z_k Z_k' (n x n) of its standardised columns, and the steps go
over the dual variable alpha (n), which needs a ridge above 0. `exchange = "thin"` (the default) sends a factor L_k
(n x r_k) with L_k L_k' = K_k, which says the same and no more, and steps over the primal coefficients of the rotated
columns. The ridge does not feel a rotation, so both have the same solution; and thin may have the ridge 0, which is
the exact maximum likelihood. Intercept: one column of ones at the server, not penalised unless the study says so (the
paper lets one site append it, penalised). Standard errors come from the information at the solution, in the rotated
coordinates, so that nothing more is sent: VERTIGO-CI's second message discloses X_k exactly and is not implemented.

What leaves a site: blinded identifiers and the linkage report (see `alignment`); K_k or L_k, and r_k numbers that
tell the means of the rotated columns; the site with the outcome adds it. All of this is sealed to the study's sites, as
the server's steps are: every site is the server in its turn, so every member learns what D-CLEF's members learn, the
outcome and every site's columns up to one rotation. That discloses binary columns exactly, and all rows to anybody who
knows r_k of them: the study must say disclosure.rebuild = "allow". Each site last posts its coefficients with their
covariance; those are the result, open to all readers of the ledger, and the only thing that an auditor without a view
key reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from coterie_learners.core.divergence import diverging_coefficients
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import MAX_RAW, Field, Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import NotConverged, ProtocolError, Separation, StudyError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.tall_matrix import TallMatrix
from coterie_learners.study.design import INTERCEPT
from coterie_learners.study.document import Schedule, Study
from coterie_learners.vertical.alignment import align, list_steps
from coterie_learners.vertical.gram_factor import factor_of_gram, gram_upper_triangle, rotation_of
from coterie_learners.vertical.logistic import Dual, Logistic, NewtonStep, newton_step, shorten_step
from coterie_learners.vertical.site_columns import (
    FACTOR_FORM,
    ColumnSplit,
    SiteColumns,
    SplitOptions,
    blocks_of,
    build_split_fit,
    check_counts,
    check_split,
)
from coterie_learners.vertical.vertigo_disclosure import disclose_vertigo

_VERSION = "2"
# The n (n + 1) / 2 numbers of a Gram matrix's upper triangle must fit into one payload, with room for the rest of it.
MAX_GRAM = math.isqrt((MAX_RAW - (1 << 17)) // 4) - 1


class VertigoOptions(SplitOptions):
    """The learner section of a study: `exchange` "thin" sends n x r factors, "gram" the paper's n x n matrices."""

    exchange: Literal["thin", "gram"] = "thin"


def vertigo(site: Site) -> Script:
    """Factors from every site, Newton steps by the site whose turn it is until they are at rest, parts put together."""
    plan = plan_vertigo(site.study)
    members = site.study.sites
    part = SiteColumns(plan.split, site, (yield from align(site)))
    posts = yield from each(
        "factor", _share, plan, part, expects=plan.form, readers=members, reveals=part.reveals_factor
    )
    problem = VertigoProblem(plan, posts)
    state = yield from server("start", start_model, problem, readers=members)
    for t in range(plan.options.max_rounds):
        state = yield from server(f"step/{t}", newton_step_of, problem, state, readers=members)
        if state["converged"]:
            break
    else:
        raise NotConverged("CO-N101", f"No convergence in {plan.options.max_rounds} rounds. Raise max_rounds.")
    own = yield from each(
        "part", solve_own_part, plan, part, problem, state, expects=_PART, reveals=part.reveals_result
    )
    model = yield from server("model", assemble_parts, plan, own)
    fit = build_vertigo_result(plan, part, own, model, t + 1)
    yield from conclude()
    return fit


@dataclass(frozen=True)
class VertigoPlan:
    """What every site derives from the study alone."""

    split: ColumnSplit
    options: VertigoOptions

    @property
    def form(self) -> Schema:
        """Form of one site's post."""
        if self.options.exchange == "thin":
            return FACTOR_FORM
        fields = {name: field for name, field in FACTOR_FORM.fields.items() if name != "factor"}
        return Schema({**fields, "gram": Field("<f8", (None,))}, optional=FACTOR_FORM.optional)


_PART = Schema(
    {
        "estimates": Field("<f8", (None,)),
        "covariance": Field("<f8", (None, None)),
        "intercept": Field("<f8", (2,)),
        "summary": Field("<f8", (4,)),
    },
    optional=frozenset({"intercept", "summary"}),
)


def plan_vertigo(study: Study) -> VertigoPlan:
    """The plan of a study."""
    options = options_of(study, VertigoOptions)
    return VertigoPlan(ColumnSplit.of(study, options), options)


def _share(site: Site, plan: VertigoPlan, part: SiteColumns) -> Payload:
    """What one site posts: its factor or Gram matrix, the shift of the intercept, and the outcome if it holds it."""
    outcome = {"outcome": part.outcome.astype(np.uint8)} if site.name == plan.split.outcome_site else {}
    if plan.options.exchange == "thin":
        return {"factor": part.thin.factor, "shift": part.thin.rotation.T @ part.shift, **outcome}
    if part.n > MAX_GRAM:
        message = f"A Gram matrix of {part.n} patients has {part.n * (part.n + 1) // 2} numbers"
        raise StudyError("CO-N206", f'{message}; the limit is {MAX_GRAM} patients. Choose exchange = "thin".')
    upper = gram_upper_triangle(part.columns.z)
    return {"gram": upper, "shift": gram_rotation(part, upper).T @ part.shift, **outcome}


def gram_rotation(part: SiteColumns, upper: Array) -> Array:
    """The rotation (m, r) of this site's columns that the factor of its Gram matrix is."""
    width = part.split.width(part.site.name)
    return rotation_of(factor_of_gram(upper, part.n, width), part.columns.z)


@dataclass(frozen=True, eq=False)
class VertigoProblem:
    """The common problem that the sites' posts pose. Computed when asked for: who may not read them carries it."""

    plan: VertigoPlan
    posts: Posts

    @cached_property
    def y(self) -> Array:
        """The outcome (n,)."""
        site = self.plan.split.outcome_site
        outcome = self.posts[site].get("outcome", np.zeros(0))
        if not np.all((outcome == 0) | (outcome == 1)) or not len(outcome):
            raise ProtocolError(
                "CO-P545",
                f"The outcome that {site} posted is not of zeros and ones. "
                "Ask that site to check its node and version.",
                site,
                "factor",
            )
        return np.asarray(outcome, dtype=np.float64)

    @cached_property
    def factors(self) -> dict[str, Array]:
        """Each site's factor (n, r_k), checked."""
        n, out = len(self.y), {}
        for name, post in self.posts.items():
            if self.plan.options.exchange == "thin":
                out[name] = np.asarray(post["factor"])
            elif len(post["gram"]) != n * (n + 1) // 2:
                message = f"The Gram matrix of {name} has {len(post['gram'])} numbers, not those of {n} patients."
                raise ProtocolError("CO-P543", message, name, "factor")
            else:
                out[name] = factor_of_gram(post["gram"], n, self.plan.split.width(name))
            self.plan.split.check_factor(name, out[name], n)
            if len(post["shift"]) != out[name].shape[1]:
                raise ProtocolError(
                    "CO-P544",
                    f"The shift of {name} does not fit its factor. Ask that site to check its node and version.",
                    name,
                    "factor",
                )
        return out

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Where in the coefficients each site's are; an intercept is the first."""
        return blocks_of(self.factors, self.plan.split.intercept)

    @property
    def width(self) -> int:
        """Columns of all factors together."""
        return sum(factor.shape[1] for factor in self.factors.values())

    @cached_property
    def ones(self) -> list[Array]:
        """The column of the intercept, if the model has one."""
        return [np.ones((len(self.y), 1))] if self.plan.split.intercept else []

    @cached_property
    def model(self) -> Logistic:
        """The primal problem."""
        z = TallMatrix.of([*self.ones, *self.factors.values()])
        return Logistic(z, self.y, self.plan.split.penalty(self.width), self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients for messages."""
        each_site = [f"component {j + 1} of {s}" for s, f in self.factors.items() for j in range(f.shape[1])]
        return tuple([INTERCEPT] * len(self.ones) + each_site)

    @cached_property
    def dual(self) -> Dual:
        """The dual problem."""
        options = self.plan.options
        columns = [*(self.ones if options.penalise_intercept else []), *self.factors.values()]
        names = self.names[-sum(c.shape[1] for c in columns) :]
        free = self.plan.split.intercept and not options.penalise_intercept
        return Dual(TallMatrix.of(columns), 2.0 * self.y - 1.0, options.ridge, free, names)


def start_model(problem: VertigoProblem) -> Payload:
    """The null model, from which the steps begin."""
    n, events = len(problem.y), int(np.sum(problem.y))
    check_counts(n, events, len(problem.model.names))
    theta = np.zeros(len(problem.model.names))
    rate = events / n
    if problem.plan.split.intercept:
        theta[0] = linalg.log(rate / (1.0 - rate))
    null = -2.0 * (events * linalg.log(rate) + (n - events) * linalg.log(1.0 - rate))
    begin = {"theta": theta} if problem.plan.options.exchange == "thin" else {"alpha": problem.dual.start()}
    shared_fields = {
        "n": n,
        "events": events,
        "null_deviance": null if problem.plan.split.intercept else 2 * n * linalg.log(2),
    }
    return {**shared_fields, **begin, "step": np.zeros_like(next(iter(begin.values())))}


def newton_step_of(problem: VertigoProblem, last: Payload) -> Payload:
    """One Newton step from the last state, or the end if it would be shorter than the tolerance."""
    shared_fields = {name: last[name] for name in ("n", "events", "null_deviance")}
    if problem.plan.options.exchange == "gram":
        return {**shared_fields, **dual_step(problem, last["alpha"], float(last.get("gain", math.inf)))}
    return {**shared_fields, **primal_step(problem, last["theta"], last["step"])}


def primal_step(problem: VertigoProblem, theta: Array, before: Array) -> dict[str, Any]:
    """A step over the coefficients (q,) of the rotated columns."""
    model = problem.model
    here = newton_step(model, theta)
    shared_fields = {"step": here.step, "gain": here.gain, "deviance": 2.0 * here.at.loss}
    if here.gain <= problem.plan.options.tolerance**2:
        covariance = model.covariance(here.information)
        return {**shared_fields, "theta": theta, "covariance": covariance, "converged": True}
    _check_separation(problem, here, before)
    objective = here.at.loss + model.penalty_at(theta)
    return {
        **shared_fields,
        "theta": shorten_step(model.objective, theta, here.step, objective, here.gain),
        "converged": False,
    }


def dual_step(problem: VertigoProblem, alpha: Array, before: float) -> dict[str, Any]:
    """A step over the dual variable (n,) after one that gained `before`; at the end the primal solution."""
    dual = problem.dual
    move, gain = dual.step(alpha)
    here = dual.objective(alpha)
    # Near the end a step gains the square of what the last one gained, until all that is left is rounding.
    rounding = gain < 1e-12 * (1.0 + abs(here)) and gain > 0.01 * before
    if gain > problem.plan.options.tolerance**2 and not rounding:
        alpha = shorten_step(dual.objective, alpha, move, here, gain)
        return {"alpha": alpha, "step": move, "gain": gain, "converged": False}
    gamma = dual.f.sums(dual.s * alpha) / dual.ridge
    theta = np.concatenate([[dual.intercept(alpha)], gamma]) if dual.free else gamma
    information = problem.model.z.gram(alpha * (1.0 - alpha))
    deviance = 2.0 * problem.model.at(problem.model.z.times(theta)).loss
    solution = {"theta": theta, "covariance": problem.model.covariance(information), "deviance": deviance}
    return {"alpha": alpha, "step": move, "gain": gain, **solution, "converged": True}


def _check_separation(problem: VertigoProblem, here: NewtonStep, before: Array) -> None:
    """Separation (naming sites) if the likelihood is flat and the steps go on in one direction."""
    grown = diverging_coefficients(here.gain, here.step, before)
    sites = [name for name, block in problem.blocks.items() if np.any(grown[block])]
    if sites:
        raise Separation(
            "CO-N302",
            f"The outcome is separated: coefficients at {', '.join(sites)} grow without bound, because columns of "
            "these sites predict it without error. Merge rare levels, leave the term out, or set a ridge.",
        )


def solve_own_part(
    site: Site, plan: VertigoPlan, part: SiteColumns, problem: VertigoProblem, state: Payload
) -> Payload:
    """This site's coefficients and covariance in the variables' own units; with the outcome goes what is common."""
    block = problem.blocks[site.name]
    covariance = state["covariance"][block, block]
    if plan.options.exchange == "thin":
        estimates, own = part.back(state["theta"][block], covariance)
    else:
        estimates, own = part.back(
            state["theta"][block], covariance, gram_rotation(part, problem.posts[site.name]["gram"])
        )
        estimates = dual_coefficients(part, state["alpha"], problem)
    return {"estimates": estimates, "covariance": own, **summarise_common(site, plan, problem, state)}


def dual_coefficients(part: SiteColumns, alpha: Array, problem: VertigoProblem) -> Array:
    """b_k = Z_k' (s alpha) / lambda (paper, equation for the primal variables), in the variables' own units."""
    scale = part.columns.sd * np.array([c.scale for c in part.design.columns])
    coefficients: Array = part.columns.z.T @ (problem.dual.s * alpha) / problem.dual.ridge / scale
    return coefficients


def summarise_common(site: Site, plan: VertigoPlan, problem: VertigoProblem, state: Payload) -> dict[str, Any]:
    """Counts, deviances and the intercept with its standard error, which the site with the outcome posts."""
    if site.name != plan.split.outcome_site:
        return {}
    summary = np.array([float(state[name]) for name in ("n", "events", "deviance", "null_deviance")])
    if not plan.split.intercept:
        return {"summary": summary}
    shifts = [-problem.posts[name]["shift"] for name in problem.blocks]
    direction = np.concatenate([np.ones(1), *shifts])
    intercept = linalg.dot(direction, state["theta"])
    variance = linalg.dot(direction, linalg.matvec(state["covariance"], direction))
    return {"summary": summary, "intercept": np.array([intercept, math.sqrt(variance)])}


def assemble_parts(plan: VertigoPlan, parts: Posts) -> Payload:
    """All coefficients and standard errors in the order of the design, and what is common."""
    by_term: dict[str, tuple[float, float]] = {}
    for name, post in parts.items():
        terms = plan.split.parts[name].names
        if len(post["estimates"]) != len(terms) or post["covariance"].shape != (len(terms), len(terms)):
            raise ProtocolError(
                "CO-P546",
                f"The part of {name} does not have the form of its {len(terms)} terms. "
                "Ask that site to check its node and version.",
                name,
            )
        variances = np.diag(post["covariance"])
        if not np.all(variances >= 0):
            raise ProtocolError(
                "CO-P546",
                f"The part of {name} has a negative variance. Ask that site to check its node and version.",
                name,
            )
        pairs = zip(post["estimates"].tolist(), np.sqrt(variances).tolist(), strict=True)
        by_term.update(zip(terms, pairs, strict=True))
    first = parts[plan.split.outcome_site]
    if "summary" not in first or ("intercept" in first) != plan.split.intercept:
        message = f"{plan.split.outcome_site} holds the outcome but posted no summary or intercept that fits the model."
        raise ProtocolError("CO-P546", message, plan.split.outcome_site)
    if plan.split.intercept:
        by_term[INTERCEPT] = (float(first["intercept"][0]), float(first["intercept"][1]))
    pairs_in_order = np.array([by_term[name] for name in plan.split.design.names])
    n, events, deviance, null_deviance = first["summary"].tolist()
    facts = {"n": n, "events": events, "deviance": deviance, "null_deviance": null_deviance}
    return {"estimates": pairs_in_order[:, 0], "std_errors": pairs_in_order[:, 1], **facts}


def build_vertigo_result(plan: VertigoPlan, part: SiteColumns, parts: Posts, model: Payload, rounds: int) -> Fit:
    """The result in the variables' own units; covariances between sites are nobody's to know (NaN)."""
    names = plan.split.design.names
    covariance = np.full((len(names), len(names)), np.nan)
    place = {name: k for k, name in enumerate(names)}
    for name, post in parts.items():
        at = [place[term] for term in plan.split.parts[name].names]
        covariance[np.ix_(at, at)] = post["covariance"]
    if plan.split.intercept:
        covariance[0, 0] = float(model["std_errors"][0]) ** 2
    facts: dict[str, Any] = {name: float(model[name]) for name in ("deviance", "null_deviance")}
    facts |= {"n": int(model["n"]), "events": int(model["events"]), "rounds": rounds}
    return build_split_fit(plan.split, names, model["estimates"], covariance, {**facts, **_site_facts(part)})


def _site_facts(part: SiteColumns) -> Mapping[str, Any]:
    """What a site, unlike an auditor, can say of its patients and its factor."""
    if part.site.data is None:
        return {}
    factor_disclosure = part.disclosure
    return {
        "notes": (*part.alignment.notes, f"{part.site.name}: {factor_disclosure.words}"),
        "details": {
            "alignment": dict(part.alignment.counts),
            f"disclosure/{part.site.name}": factor_disclosure.as_dict(),
        },
    }


def _check_study(study: Study) -> None:
    """StudyError for a study that VERTIGO cannot run."""
    plan = plan_vertigo(study)
    check_split(plan.split)
    if plan.options.exchange == "gram" and not plan.options.ridge:
        message = "The dual problem of the paper needs a ridge above 0"
        raise StudyError("CO-S334", f'{message}. Set a ridge, or choose exchange = "thin", which is exact without one.')


def _schedule(study: Study) -> Schedule:
    """Alignment, factors and start; steps until the server's post says converged; parts put together."""
    rounds = options_of(study, VertigoOptions).max_rounds
    opening = (*list_steps(study), "each", "server")
    return Schedule(opening=opening, loop=("server",), closing=("each", "server", "server"), max_rounds=rounds)


def _discloses(study: Study) -> Disclosure:
    """What a study discloses."""
    plan = plan_vertigo(study)
    return disclose_vertigo(study, plan.split.outcome_site, plan.options.exchange)


def _assess(study: Study, rows: int | None) -> Suitability:
    why = "logistic regression in rounds, equal to the pooled fit; all sites read the outcome and all factors."
    return Suitability(1, True, why)


VERTIGO = Learner(
    "vertigo",
    _VERSION,
    VertigoOptions,
    _check_study,
    _schedule,
    vertigo,
    _discloses,
    splits=("columns",),
    profile=Profile(
        _assess,
        examples=({"exchange": "thin"}, {"exchange": "gram", "ridge": 1.0}),
        model=("binomial", "logit"),
        equals_pooled=True,
    ),
)
