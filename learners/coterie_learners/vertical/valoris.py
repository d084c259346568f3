"""VALORIS: a generalised linear model on columns split over sites in one shot; the outcome never leaves its site.

After the method of the same name for vertically partitioned data without ridge tuning (Sci Rep 2026;16:12558; public
code OpenLHS/Distrib_analysis, read at 4dee882): the covariate sites send what the response site needs once, it solves
once, and returns to each site what that site needs for its own coefficients and standard errors.

Three things are other than published. A covariate site sends a thin factor L_k (n x r_k) instead of its Gram matrix,
which says the same. The ridge is 0 unless the study sets one, and the intercept is not penalised. And the answer is
gamma_k (r_k) and T_k (r_k x r_k, with the dispersion) in the rotated coordinates of that site, not an n-vector and an n
x n matrix: from the published second message any covariate site can compute every patient's p (1 - p) and the column
space of all other sites (red-team tests keep that attack). No message to a covariate site has n entries, and what it
learns is exactly its own coefficients and their covariance.

A linear model is solved by the first step, the others (logistic, probit, cloglog, Poisson, ...) by a few. All of them
are taken at home, so that every family takes the same posts. An offset stays with the outcome.

What leaves a site: blinded identifiers, sealed to all sites (see `alignment`); from each covariate site its factor and
r_k numbers that tell the means of its rotated columns, sealed to the response site, which can rebuild binary columns
from it exactly, columns on a grid by lattice reduction, and all rows from r_k known ones (the study must say
disclosure.rebuild = "allow"). From the response site the answers, each sealed to its site, after the check of
`outcome_leakage`: if an answer could be solved for the outcome, nothing is returned to anybody.

Mode "aggregated" (two covariate sites or more): these agree on a rotation Q of all their columns together, and the
response site learns only the sum S = sum Z_k Q_k, under pairwise masks: S S' is the sum of the Gram matrices, so that
it sees no single site's factor; but it is a factor of all these columns, and gives back what one does. The answer is
for all of S, so each covariate site can read the coefficients of all covariate sites; and the response site must not
collude with one of them, which knows Q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.masked_sum import mask_short, unmask_short
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Script, Site, acknowledge, only
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import Collinear, NotConverged, ProtocolError, StudyError, Withheld
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.numeric.tall_matrix import TallMatrix, round_to_grid
from coterie_learners.study.document import Schedule, Study
from coterie_learners.vertical.alignment import align, list_steps
from coterie_learners.vertical.outcome_leakage import AnswerKind, FactorEstimate, LeakageVerdict, assess
from coterie_learners.vertical.site_columns import (
    ColumnSplit,
    SiteColumns,
    SplitOptions,
    blocks_of,
    build_split_fit,
    check_separation,
    check_split,
    prepend_intercept,
)
from coterie_learners.vertical.split_model import ModelPoint, SplitModel, newton_step, shorten_step, summarise_fit
from coterie_learners.vertical.valoris_disclosure import disclose_valoris

_VERSION = "3"
ALL = "covariates"
_FACTOR = Schema({"factor": Field("<f8", (None, None)), "shift": Field("<f8", (None,))})
MASKED = Schema({"masked": Field("<u8", (None, None))})
SEED = Schema({"seed": Field("|u1", (32,))})
ANSWER = Schema(
    {"gamma": Field("<f8", (None,)), "covariance": Field("<f8", (None,)), "freedom": Field("<i8")},
    optional=frozenset({"covariance", "freedom"}),
)


class ValorisOptions(SplitOptions):
    """The learner section of a study.

    `mode` "per_site" sends each covariate site's factor to the response site, "aggregated" only their masked sum.
    `standard_errors`: whether answers carry the covariance from which the sites compute them.
    """

    mode: Literal["per_site", "aggregated"] = "per_site"
    standard_errors: bool = True


def valoris(site: Site) -> Script:
    """Factors to the response site, one solution there, one answer to each covariate site."""
    plan = plan_valoris(site.study)
    part = SiteColumns(plan.split, site, (yield from align(site)))
    rotation = None
    if plan.aggregated:
        first, *others = plan.covariate_sites
        readers = tuple(others)
        rotation = Rotation(
            plan, (yield from only(first, "seed", draw_seed, expects=SEED, readers=readers, reveals=expose_randomness))
        )
    posts = {}
    for name in plan.covariate_sites:
        posts[name] = yield from only(
            name,
            f"factor/{name}",
            _share,
            plan,
            part,
            rotation,
            expects=plan.form,
            readers=(plan.response,),
            reveals=part.reveals_masked if plan.aggregated else part.reveals_factor,
            bare=None if rotation is None else partial(_list_rotated_columns, part=part, rotation=rotation),
        )
    solution = ValorisSolution(plan, part, posts)
    answers = {}
    for name, readers in plan.answers.items():
        answers[name] = yield from only(
            plan.response,
            f"answer/{name}",
            answer,
            solution,
            name,
            expects=ANSWER,
            readers=readers,
            reveals=part.reveals_result,
        )
    fit = build_valoris_result(plan, part, solution, answers, rotation)
    yield from acknowledge()
    return fit


@dataclass(frozen=True)
class ValorisPlan:
    """What every site derives from the study alone."""

    split: ColumnSplit
    options: ValorisOptions

    @property
    def response(self) -> str:
        """The site that holds the outcome."""
        return self.split.outcome_site

    @property
    def aggregated(self) -> bool:
        """Whether the response site sees only the sum of the factors."""
        return self.options.mode == "aggregated"

    @property
    def knows_dispersion(self) -> bool:
        """Whether the dispersion is 1; else its degrees of freedom go with the covariance."""
        return self.split.family.dispersion == "known"

    @property
    def form(self) -> Schema:
        """Form of a covariate site's post."""
        return MASKED if self.aggregated else _FACTOR

    @property
    def covariate_sites(self) -> tuple[str, ...]:
        """The other sites, in the study's order."""
        return tuple(name for name in self.split.study.sites if name != self.response)

    @property
    def answers(self) -> dict[str, tuple[str, ...]]:
        """Names of the answers and their readers."""
        if self.aggregated:
            return {ALL: self.covariate_sites}
        return {name: (name,) for name in self.covariate_sites}

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """The places of each covariate site's columns in the sum of all columns."""
        at, out = 0, {}
        for name in self.covariate_sites:
            out[name] = slice(at, at + self.split.width(name))
            at += self.split.width(name)
        return out

    @property
    def width(self) -> int:
        """Columns of all covariate sites together."""
        return sum(self.split.width(name) for name in self.covariate_sites)


def plan_valoris(study: Study) -> ValorisPlan:
    """The plan of a study."""
    options = options_of(study, ValorisOptions)
    return ValorisPlan(ColumnSplit.of(study, options), options)


# At a covariate site


def expose_randomness(site: Site, payload: Payload) -> Exposure:
    """What random bytes disclose: nothing of any patient."""
    return Exposure("A random number", site.columns.n)


def draw_seed(site: Site) -> Payload:
    """32 random bytes from which the covariate sites, and nobody else, make the same rotation."""
    return {"seed": np.frombuffer(site.stream("valoris/rotation", 32), np.uint8)}


@dataclass(frozen=True, eq=False)
class Rotation:
    """A rotation Q (p, p) of all covariate sites' columns, uniformly distributed, from their common seed."""

    plan: ValorisPlan
    post: Payload

    @cached_property
    def q(self) -> Array:
        """Q, by the QR decomposition of p x p normal numbers."""
        p, key = self.plan.width, self.post["seed"].tobytes()
        words = np.frombuffer(Site(self.plan.split.study, "", secret=key).stream("valoris/normal", 8 * p * p), "<u8")
        normal = special().ndtri(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).reshape(p, p)
        q, r = np.linalg.qr(normal)
        rotation: Array = q * np.sign(np.diag(r))
        return rotation

    def of(self, site: str) -> Array:
        """The rows (p_k, p) of a site's columns."""
        rows: Array = self.q[self.plan.blocks[site]]
        return rows


def _share(site: Site, plan: ValorisPlan, part: SiteColumns, rotation: Rotation | None) -> Payload:
    """What a covariate site sends: its factor, or its part of the masked sum; with the shift of the intercept."""
    if rotation is None:
        return {"factor": part.thin.factor, "shift": part.thin.rotation.T @ part.shift}
    if part.thin.factor.shape[1] < plan.split.width(site.name):
        raise Collinear(
            "CO-N207",
            f"The columns of {site.name} are collinear, which the mode aggregated cannot use. Leave one of them out.",
        )
    values = np.vstack(list(_list_rotated_columns(site, part, rotation).values()))
    peers = [name for name in plan.covariate_sites if name != site.name]
    return {"masked": mask_short(site, "valoris/factor", values, peers)}


def _list_rotated_columns(site: Site, part: SiteColumns, rotation: Rotation) -> dict[str, Array]:
    """What a covariate site adds to the sum: its rotated columns (n, p) and the shift of the intercept (p,)."""
    turned = rotation.of(site.name)
    return {"columns": part.columns.z @ turned, "shift": part.shift @ turned}


# At the response site


def answer(site: Site, solution: ValorisSolution, name: str) -> Payload:
    """The answer to a covariate site; Withheld if the check finds that any answer discloses outcomes."""
    unsafe = [verdict for verdict in solution.verdicts.values() if not verdict.safe]
    if unsafe:
        message = " ".join(verdict.words for verdict in unsafe)
        raise Withheld(
            "CO-D401",
            f"{site.name} returns nothing to any site. {message} Use fewer columns or more patients, "
            "or let the study do without standard errors.",
        )
    site_answer = solution.answers[name]
    upper = site_answer.covariance[np.triu_indices(len(site_answer.gamma))]
    with_errors: dict[str, Any] = {"covariance": upper} if solution.plan.options.standard_errors else {}
    if with_errors and not solution.plan.knows_dispersion:
        with_errors["freedom"] = np.int64(solution.model.freedom)
    return {"gamma": site_answer.gamma, **with_errors}


@dataclass(frozen=True, eq=False)
class ValorisSolution:
    """The response site's solution from the factors and its own columns, computed on demand."""

    plan: ValorisPlan
    part: SiteColumns
    posts: Mapping[str, Payload]

    @cached_property
    def received(self) -> dict[str, tuple[Array, Array]]:
        """Factor (n, r) and shift (r,) of each answer's site, checked."""
        if self.plan.aggregated:
            return {ALL: self._sum()}
        out = {}
        for name, post in self.posts.items():
            self.plan.split.check_factor(name, post["factor"], self.part.n)
            if len(post["shift"]) != post["factor"].shape[1]:
                raise ProtocolError(
                    "CO-P544",
                    f"The shift of {name} does not fit its factor. Ask that site to check its node and version.",
                    name,
                    f"factor/{name}",
                )
            out[name] = (np.asarray(post["factor"]), np.asarray(post["shift"]))
        return out

    def _sum(self) -> tuple[Array, Array]:
        shape = (self.part.n + 1, self.plan.width)
        for name, post in self.posts.items():
            if post["masked"].shape != shape:
                message = f"{name} posted {post['masked'].shape} numbers; the sum has {shape}."
                raise ProtocolError("CO-P543", message, name, f"factor/{name}")
        total = unmask_short([post["masked"] for post in self.posts.values()])
        if float(np.max(np.abs(total[:-1]))) > self.plan.split.largest(self.part.n, self.plan.width):
            raise ProtocolError(
                "CO-P544",
                "The sum of the covariate sites' columns cannot come from standardised columns. "
                "Ask these sites to check their nodes and versions.",
            )
        return round_to_grid(total[:-1]), total[-1]

    @cached_property
    def factors(self) -> dict[str, Array]:
        """This site's own factor, if it has columns, and those of the answers."""
        own = {self.plan.response: self.part.thin.factor} if self.plan.split.width(self.plan.response) else {}
        return own | {name: factor for name, (factor, _) in self.received.items()}

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """The places of each factor's coefficients in theta; an intercept is the first."""
        return blocks_of(self.factors, self.plan.split.intercept)

    @cached_property
    def model(self) -> SplitModel:
        """The problem to solve."""
        ones = [np.ones((self.part.n, 1))] if self.plan.split.intercept else []
        names = [f"component {j + 1} of {s}" for s, f in self.factors.items() for j in range(f.shape[1])]
        penalty = self.plan.split.penalty(len(names))
        z = TallMatrix.of([*ones, *self.factors.values()])
        inside = self.part.outcome.inside(self.plan.split.intercept)
        return SplitModel(z, inside, penalty, [*["(Intercept)"] * len(ones), *names])

    @cached_property
    def optimum(self) -> tuple[Array, ModelPoint, int]:
        """Coefficients theta (q,) in the frame, the model there, and the number of Newton steps."""
        model, options = self.model, self.plan.options
        self.part.outcome.check(len(model.names))
        theta, before = model.start(self.plan.split.intercept), np.zeros(len(model.names))
        for t in range(options.max_rounds):
            here = newton_step(model, theta)
            if model.is_at_rest(here.at, here.gain, options.tolerance):
                return theta, here.at, t
            check_separation(self.plan.split, self.blocks, here, before)
            objective = here.at.loss + model.penalty_at(theta)
            theta, before = shorten_step(model.objective, theta, here.step, objective, here.gain), here.step
        raise NotConverged("CO-N101", f"No convergence in {options.max_rounds} steps. Raise max_rounds.")

    @cached_property
    def estimates(self) -> tuple[Array, Array]:
        """Coefficients (q,) and their covariance (q, q) in the outcome's own units."""
        theta, at, _ = self.optimum
        return self.part.outcome.leave_frame(theta, self.model.covariance(at), self.plan.split.intercept)

    @cached_property
    def answers(self) -> dict[str, FactorEstimate]:
        """What each covariate site would receive."""
        theta, covariance = self.estimates
        intercept = float(theta[0]) if self.plan.split.intercept else 0.0
        out = {}
        for name in self.received:
            block = self.blocks[name]
            out[name] = FactorEstimate(theta[block], covariance[block, block], intercept)
        return out

    @cached_property
    def verdicts(self) -> dict[str, LeakageVerdict]:
        """What each answer would let its readers find out."""
        options, family, (theta, at, _) = self.plan.options, self.plan.split.family, self.optimum
        twins = family.binary and family.canonical and self.plan.split.intercept and not options.ridge
        offset = bool(self.plan.split.design.formula.offset)
        eta = self.model.predictor(theta) if twins and not offset else None
        kind = AnswerKind.of(family, self.plan.split.intercept)
        return {
            name: assess(name, factor, at.residual, kind, self.answers[name] if options.standard_errors else None, eta)
            for name, (factor, _) in self.received.items()
        }

    def fit(self) -> Fit:
        """The response site's own terms and the intercept, with what only this site knows: events and deviances."""
        theta, covariance = self.estimates
        own = self.blocks.get(self.plan.response, slice(0, 0))
        estimates, own_covariance = self.part.back(theta[own], covariance[own, own])
        if self.plan.split.intercept:
            estimates, own_covariance = self._with_intercept(estimates, own_covariance)
        terms = prepend_intercept(self.part.design.names, self.plan.split.intercept)
        facts = {
            **summarise_fit(self.model, self.part.outcome, self.optimum[0], self.plan.split.intercept),
            "rounds": self.optimum[2],
            "notes": (*self.part.alignment.notes, *(verdict.words for verdict in self.verdicts.values())),
            "details": {
                "alignment": dict(self.part.alignment.counts),
                "privacy": {name: verdict.as_dict() for name, verdict in self.verdicts.items()},
            },
        }
        return build_split_fit(self.plan.split, terms, estimates, own_covariance, facts)

    def _with_intercept(self, estimates: Array, covariance: Array) -> tuple[Array, Array]:
        """Own estimates and covariance with those of the intercept in the variables' own units before them."""
        theta, whole = self.estimates
        shifts = {name: shift for name, (_, shift) in self.received.items()}
        if self.plan.response in self.blocks:
            shifts[self.plan.response] = self.part.thin.rotation.T @ self.part.shift
        direction = np.concatenate([np.ones(1), *(-shifts[name] for name in self.blocks)])
        turned = np.zeros((len(theta), len(estimates) + 1))
        turned[:, 0] = direction
        scale = np.array([c.scale for c in self.part.design.columns])
        if len(scale):
            back = self.part.thin.rotation / (self.part.columns.sd * scale)[:, None]
            turned[self.blocks[self.plan.response], 1:] = back.T
        joint = linalg.matmul(turned.T, linalg.matmul(whole, turned))
        return np.concatenate([[linalg.dot(direction, theta)], estimates]), joint


# Results of each site


def build_valoris_result(
    plan: ValorisPlan,
    part: SiteColumns,
    solution: ValorisSolution,
    answers: Mapping[str, Payload],
    rotation: Rotation | None,
) -> Fit | None:
    """At the response site its own terms and the intercept; at a covariate site its own terms; else nothing."""
    site = part.site
    if site.data is None:
        return None
    if site.name == plan.response:
        return solution.fit()
    turned = part.thin.rotation if rotation is None else rotation.of(site.name)
    name = ALL if plan.aggregated else site.name
    gamma, covariance = _check_answer(plan, answers[name], turned.shape[1], f"answer/{name}")
    estimates, own = part.back(gamma, covariance, turned)
    factor_disclosure = part.disclosure
    facts: dict[str, Any] = {
        "n": part.n,
        "notes": (f"{site.name}: {factor_disclosure.words}",),
        "details": {f"disclosure/{site.name}": factor_disclosure.as_dict()},
    }
    if "freedom" in answers[name]:
        facts["freedom"] = int(answers[name]["freedom"])
    known_covariance = own if plan.options.standard_errors else None
    return build_split_fit(plan.split, part.design.names, estimates, known_covariance, facts)


def _check_answer(plan: ValorisPlan, answer: Payload, r: int, topic: str) -> tuple[Array, Array]:
    """gamma (r,) and its covariance (r, r), zeros if the study does without; ProtocolError for other lengths."""
    upper = answer.get("covariance", np.zeros(0))
    expected = r * (r + 1) // 2 if plan.options.standard_errors else 0
    if (len(answer["gamma"]), len(upper)) != (r, expected):
        message = f"{plan.response} answered with {len(answer['gamma'])} coefficients and {len(upper)} covariances"
        raise ProtocolError(
            "CO-P547", f"{message}; this site's {r} columns have {r} and {expected}.", plan.response, topic
        )
    return answer["gamma"], linalg.symmetric(upper, r) if expected else np.zeros((r, r))


def _check_study(study: Study) -> None:
    """StudyError for a study that VALORIS cannot run."""
    plan = plan_valoris(study)
    check_split(plan.split)
    empty = [name for name in plan.covariate_sites if not plan.split.width(name)]
    if empty:
        raise StudyError("CO-S330", f"The formula has no term of {', '.join(empty)}; leave that site out.")
    if plan.aggregated and len(plan.covariate_sites) < 2:
        message = "The sum over one covariate site is that site's own factor"
        raise StudyError("CO-S335", f'{message}. Take part with two or more, or choose mode = "per_site" knowingly.')


def _schedule(study: Study) -> Schedule:
    """Alignment, factors to the response site, answers from it, and a word of every site that it has read its own."""
    plan = plan_valoris(study)
    agreed = (f"only:{plan.covariate_sites[0]}",) if plan.aggregated else ()
    factors = tuple(f"only:{name}" for name in plan.covariate_sites)
    answers = (f"only:{plan.response}",) * len(plan.answers)
    return Schedule(opening=(*list_steps(study), *agreed, *factors), closing=(*answers, "each"))


def _discloses(study: Study) -> Disclosure:
    """What a study discloses."""
    plan = plan_valoris(study)
    errors = plan.options.standard_errors
    return disclose_valoris(study, plan.response, plan.answers, plan.aggregated, errors, plan.split.family)


def _assess(study: Study, rows: int | None) -> Suitability:
    why = "regression in one exchange, equal to the pooled fit; only the outcome's site reads factors."
    return Suitability(0, True, why)


VALORIS = Learner(
    "valoris",
    _VERSION,
    ValorisOptions,
    _check_study,
    _schedule,
    valoris,
    _discloses,
    splits=("columns",),
    profile=Profile(
        _assess,
        alternatives=({"mode": "aggregated"},),
        examples=({"mode": "per_site"}, {"mode": "aggregated"}),
        equals_pooled=True,
    ),
)
