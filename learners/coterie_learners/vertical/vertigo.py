"""VERTIGO: a generalised linear model on columns split over sites, equal to the fit on the joined columns.

Li, Jiang, Wang, Xiong, Ohno-Machado, "VERTIcal Grid lOgistic regression (VERTIGO)", JAMIA 2016;23:570-579
(doi:10.1093/jamia/ocv146), as D-CLEF runs it (Kuo et al., Nat Commun 2025;16:1371, D-CLEF-V): the sites send what the
dual problem needs of their columns, a rotating server takes Newton steps, each site turns the solution into its own
coefficients, and these are put together.

`exchange = "gram"` is the paper: each site sends K_k = Z_k Z_k' (n x n) of its standardised columns, and the steps go
over the dual variable (n), which needs a ridge above 0. `exchange = "thin"` (the default) sends a factor L_k (n x r_k)
with L_k L_k' = K_k, which says the same and no more, and steps over the primal coefficients of the rotated columns. The
ridge does not feel a rotation, so both have the same solution; and thin may have the ridge 0, which is the exact
maximum likelihood. The paper has the logistic model; the dual of the others follows from the same structure (`dual`),
and a linear model is at rest after one step. Intercept: one column of ones at the server, not penalised unless the
study says so (the paper lets one site append it, penalised). Standard errors come from the information at the solution,
in the rotated coordinates, so that nothing more is sent: VERTIGO-CI's second message discloses X_k exactly and is not
implemented.

What leaves a site: blinded identifiers and the linkage report (see `alignment`); K_k or L_k, and r_k numbers that tell
the means of the rotated columns; the site with the outcome adds it, and its offset. All of this is sealed to the
study's sites, as the server's steps are: every site is the server in its turn, so every member learns what D-CLEF's
members learn, the outcome and every site's columns up to one rotation. That discloses binary columns exactly, and all
rows to anybody who knows r_k of them: the study must say disclosure.rebuild = "allow". Each site last posts its
coefficients with their covariance; those are the result, open to all readers of the ledger, and the only thing that an
auditor without a view key reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import MAX_RAW, Field, Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import NotConverged, ProtocolError, StudyError, pluralise
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.tall_matrix import TallMatrix
from coterie_learners.study.design import INTERCEPT
from coterie_learners.study.document import Schedule, Study
from coterie_learners.vertical.alignment import align, list_steps
from coterie_learners.vertical.dual import Dual, has_dual
from coterie_learners.vertical.gram_factor import factor_of_gram, gram_upper_triangle, rotation_of
from coterie_learners.vertical.site_columns import (
    ColumnSplit,
    SiteColumns,
    SplitOptions,
    blocks_of,
    build_split_fit,
    check_separation,
    check_split,
    form_factor,
)
from coterie_learners.vertical.split_model import SplitModel, SplitOutcome, newton_step, shorten_step, summarise_fit
from coterie_learners.vertical.vertigo_disclosure import disclose_vertigo

_VERSION = "3"
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
        raise NotConverged(
            "CO-N101", f"No convergence in {pluralise(plan.options.max_rounds, 'round')}. Raise max_rounds."
        )
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
        form = form_factor(self.split.family, self.split.design.formula.offset is not None)
        if self.options.exchange == "thin":
            return form
        fields = {name: field for name, field in form.fields.items() if name != "factor"}
        return Schema({**fields, "gram": Field("<f8", (None,))}, optional=form.optional)


# What the site with the outcome posts beside its coefficients; a log-likelihood where there is one.
SUMMARY = ("n", "outcome", "deviance", "null_deviance", "dispersion", "freedom", "pearson")
_PART = Schema(
    {
        "estimates": Field("<f8", (None,)),
        "covariance": Field("<f8", (None, None)),
        "intercept": Field("<f8", (2,)),
        "summary": Field("<f8", (len(SUMMARY),)),
        "log_likelihood": Field("<f8"),
    },
    optional=frozenset({"intercept", "summary", "log_likelihood"}),
)


def plan_vertigo(study: Study) -> VertigoPlan:
    """The plan of a study."""
    options = options_of(study, VertigoOptions)
    return VertigoPlan(ColumnSplit.of(study, options), options)


def _share(site: Site, plan: VertigoPlan, part: SiteColumns) -> Payload:
    """What one site posts: its factor or Gram matrix, the shift of the intercept, and the outcome if it holds it."""
    outcome = share_outcome(plan, part.outcome) if site.name == plan.split.outcome_site else {}
    if plan.options.exchange == "thin":
        return {"factor": part.thin.factor, "shift": part.thin.rotation.T @ part.shift, **outcome}
    if part.n > MAX_GRAM:
        message = f"A Gram matrix of {part.n} patients has {part.n * (part.n + 1) // 2} numbers"
        raise StudyError("CO-N206", f'{message}; the limit is {MAX_GRAM} patients. Choose exchange = "thin".')
    upper = gram_upper_triangle(part.columns.z)
    return {"gram": upper, "shift": gram_rotation(part, upper).T @ part.shift, **outcome}


def share_outcome(plan: VertigoPlan, outcome: SplitOutcome) -> Payload:
    """The outcome as every member needs it to compute, with the offset if the model has one."""
    offset = {"offset": outcome.offset} if plan.split.design.formula.offset else {}
    return {"outcome": outcome.y.astype(np.uint8) if outcome.family.binary else outcome.y, **offset}


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
    def outcome(self) -> SplitOutcome:
        """The outcome (n,) and its offset, in their own units."""
        site, family = self.plan.split.outcome_site, self.plan.split.family
        y = np.asarray(self.posts[site].get("outcome", np.zeros(0)), dtype=np.float64)
        expected = np.zeros(0 if self.plan.split.design.formula.offset else len(y))
        offset = np.asarray(self.posts[site].get("offset", expected), dtype=np.float64)
        if not len(y) or len(offset) != len(y) or not _can_be(self.plan.split, y):
            raise ProtocolError(
                "CO-P545",
                f"The outcome that {site} posted does not have the values of {family.name} outcomes. "
                "Ask that site to check its node and version.",
                site,
                "factor",
            )
        return SplitOutcome(family, y, offset)

    @cached_property
    def inside(self) -> SplitOutcome:
        """The outcome that the steps work on."""
        return self.outcome.inside(self.plan.split.intercept)

    @cached_property
    def factors(self) -> dict[str, Array]:
        """Each site's factor (n, r_k), checked."""
        n, out = self.outcome.n, {}
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
        """The places of each site's coefficients; an intercept is the first."""
        return blocks_of(self.factors, self.plan.split.intercept)

    @property
    def width(self) -> int:
        """Columns of all factors together."""
        return sum(factor.shape[1] for factor in self.factors.values())

    @cached_property
    def ones(self) -> list[Array]:
        """The column of the intercept, if the model has one."""
        return [np.ones((self.outcome.n, 1))] if self.plan.split.intercept else []

    @cached_property
    def model(self) -> SplitModel:
        """The primal problem."""
        z = TallMatrix.of([*self.ones, *self.factors.values()])
        return SplitModel(z, self.inside, self.plan.split.penalty(self.width), self.names)

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
        return Dual(TallMatrix.of(columns), self.inside, options.ridge, free, names)


def _can_be(split: ColumnSplit, y: Array) -> bool:
    """Whether outcomes (n,) lie in the declared range, and are whole numbers where the family has these."""
    low, high = split.design.outcome.bounds
    return bool(np.all((y >= low) & (y <= high)) and (not split.family.whole or np.all(y == np.rint(y))))


def start_model(problem: VertigoProblem) -> Payload:
    """The null model, from which the steps begin."""
    problem.outcome.check(len(problem.model.names))
    if problem.plan.options.exchange == "thin":
        theta = problem.model.start(problem.plan.split.intercept)
        return {"theta": theta, "step": np.zeros_like(theta)}
    residual = problem.dual.start()
    return {"residual": residual, "step": np.zeros_like(residual)}


def newton_step_of(problem: VertigoProblem, last: Payload) -> Payload:
    """One Newton step from the last state, or the end if it would be shorter than the tolerance."""
    if problem.plan.options.exchange == "gram":
        return dual_step(problem, last["residual"], float(last.get("gain", math.inf)))
    return primal_step(problem, last["theta"], last["step"])


def primal_step(problem: VertigoProblem, theta: Array, before: Array) -> dict[str, Any]:
    """A step over the coefficients (q,) of the rotated columns."""
    model = problem.model
    here = newton_step(model, theta)
    shared_fields = {"step": here.step, "gain": here.gain, "loss": here.at.loss}
    if model.is_at_rest(here.at, here.gain, problem.plan.options.tolerance):
        covariance = model.covariance(here.at)
        return {**shared_fields, "theta": theta, "covariance": covariance, "converged": True}
    check_separation(problem.plan.split, problem.blocks, here, before)
    objective = here.at.loss + model.penalty_at(theta)
    return {
        **shared_fields,
        "theta": shorten_step(model.objective, theta, here.step, objective, here.gain),
        "converged": False,
    }


def dual_step(problem: VertigoProblem, residual: Array, before: float) -> dict[str, Any]:
    """A step over the dual variable (n,) after one that gained `before`; at the end the primal solution."""
    dual = problem.dual
    move, gain = dual.step(residual)
    here = dual.objective(residual)
    # Near the end a step gains the square of what the last one gained, until all that is left is rounding.
    rounding = gain < 1e-12 * (1.0 + abs(here)) and gain > 0.01 * before
    if gain > problem.plan.options.tolerance**2 and not rounding:
        residual = shorten_step(dual.objective, residual, move, here, gain)
        return {"residual": residual, "step": move, "gain": gain, "converged": False}
    residual = dual.finish(residual, move)
    theta = dual.coefficients(residual)
    at = problem.model.at(problem.model.predictor(theta))
    solution = {"theta": theta, "covariance": problem.model.covariance(at), "loss": at.loss}
    return {"residual": residual, "step": move, "gain": gain, **solution, "converged": True}


def solve_own_part(
    site: Site, plan: VertigoPlan, part: SiteColumns, problem: VertigoProblem, state: Payload
) -> Payload:
    """This site's coefficients and covariance in the variables' own units; with the outcome goes what is common."""
    block = problem.blocks[site.name]
    theta, whole = problem.outcome.leave_frame(state["theta"], state["covariance"], plan.split.intercept)
    if plan.options.exchange == "thin":
        estimates, own = part.back(theta[block], whole[block, block])
    else:
        rotation = gram_rotation(part, problem.posts[site.name]["gram"])
        estimates, own = part.back(theta[block], whole[block, block], rotation)
        estimates = dual_coefficients(part, state["residual"], problem)
    return {"estimates": estimates, "covariance": own, **summarise_common(site, plan, problem, state)}


def dual_coefficients(part: SiteColumns, residual: Array, problem: VertigoProblem) -> Array:
    """b_k = Z_k' r / lambda (paper, equation for the primal variables, r = s alpha), in the variables' own units."""
    scale = part.columns.sd * np.array([c.scale for c in part.design.columns])
    coefficients: Array = problem.outcome.scale * (part.columns.z.T @ residual) / problem.dual.ridge / scale
    return coefficients


def summarise_common(site: Site, plan: VertigoPlan, problem: VertigoProblem, state: Payload) -> dict[str, Any]:
    """Counts, deviances and the intercept with its standard error, which the site with the outcome posts."""
    if site.name != plan.split.outcome_site:
        return {}
    intercept = plan.split.intercept
    facts = summarise_fit(problem.model, problem.outcome, state["theta"], intercept)
    facts["outcome"] = problem.outcome.total
    out: dict[str, Any] = {"summary": np.array([float(facts[name]) for name in SUMMARY])}
    if facts["log_likelihood"] is not None and math.isfinite(facts["log_likelihood"]):
        out["log_likelihood"] = np.float64(facts["log_likelihood"])
    if not intercept:
        return out
    theta, covariance = problem.outcome.leave_frame(state["theta"], state["covariance"], intercept)
    direction = np.concatenate([np.ones(1), *(-problem.posts[name]["shift"] for name in problem.blocks)])
    variance = linalg.dot(direction, linalg.matvec(covariance, direction))
    return {**out, "intercept": np.array([linalg.dot(direction, theta), math.sqrt(variance)])}


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
    facts = dict(zip(SUMMARY, first["summary"].tolist(), strict=True))
    likelihood = {"log_likelihood": float(first["log_likelihood"])} if "log_likelihood" in first else {}
    return {"estimates": pairs_in_order[:, 0], "std_errors": pairs_in_order[:, 1], **facts, **likelihood}


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
    facts: dict[str, Any] = {name: float(model[name]) for name in SUMMARY}
    likelihood = float(model["log_likelihood"]) if "log_likelihood" in model else None
    facts |= {
        "events": plan.split.family.count_events(facts["outcome"]),
        "rounds": rounds,
        "log_likelihood": likelihood,
    }
    return build_split_fit(plan.split, names, model["estimates"], covariance, {**facts, **_site_facts(part)})


def _site_facts(part: SiteColumns) -> Mapping[str, Any]:
    """The facts that a site, unlike an auditor, knows about its patients and its factor."""
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
    if plan.options.exchange == "gram" and not has_dual(plan.split.family):
        message = f"The dual problem of a {plan.split.family.name} model ({plan.split.family.link} link) is not written"
        raise StudyError("CO-S303", f'{message}. Choose exchange = "thin", which says the same and fits it.')


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
    why = "regression in rounds, equal to the pooled fit; all sites read the outcome and all factors."
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
        equals_pooled=True,
    ),
)
