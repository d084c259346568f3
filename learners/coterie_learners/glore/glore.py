"""GLORE: generalised linear models on rows split over sites, equal to the fit on the pooled rows.

Wu, Jiang, Kim, Ohno-Machado, "Grid Binary LOgistic REgression (GLORE)", JAMIA 2012;19:758-764
(doi:10.1136/amiajnl-2012-000862), as D-CLEF runs it (Kuo et al., Nat Commun 2025;16:1371, D-CLEF-H). Newton-Raphson
on sums that each site computes over its own rows: the iterates are those of the pooled rows.

What leaves a site. First a look: X'X, X'y, y'y of a measurement, the number of rows and the sum of the outcome, in the
scale of the declared ranges (a second look, from nearer by, where a range is so wide that the first cannot tell a
column's spread).
Then, per round: the score (p), the upper triangle of the expected information (p (p + 1) / 2; of the observed one too,
unless the link is canonical) and the deviance, all at the coefficients of that round; and the number of rows, the sum
of the outcome and the saturated log-likelihood (in every round, because a site may be excluded between two). At the
end, once, its part of the test whether the sites agree (`sums.agreement`).

Masked (the default with three sites or more): only their sums over the sites exist outside a site. Plain (as
published): every member reads each site's sums, and the look is row counts, events, every two-way table of binary
covariates and of covariate by outcome, exactly.

Beyond the paper, on the same messages: other families; ridge; the start at the null model; arithmetic that does not
depend on units and declared ranges (`sums.frame`); steps by the observed information; standard errors from the expected
one at the reported coefficients; step halving; separation and collinearity named in words. The fit stops when the next
step would be shorter than `tolerance` standard errors, which is stricter than R's relative deviance, or than rounding
can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field as Within

from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.model_warnings import advise_on_separation
from coterie_learners.core.payload import Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, concluding_steps, each, server
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import NotConverged, StudyError
from coterie_learners.glore.glore_disclosure import disclose_rounds
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Frozen, Schedule, Study
from coterie_learners.study.rows import Rows
from coterie_learners.sums import agreement, newton, result, sums_disclosure
from coterie_learners.sums.families import all_families, choose_family
from coterie_learners.sums.family import Family
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import Rules
from coterie_learners.sums.opening_counts import Opening, PooledCounts, open_pool
from coterie_learners.sums.penalty import Penalty
from coterie_learners.sums.rounds import Kind, Model

_VERSION = "2"


class GloreOptions(Frozen):
    """The learner section of a study.

    `ridge` penalises half the squared coefficients in the variables' own units, the intercept only if asked for.
    `tolerance` is in standard errors. `aggregation` auto: masked with three sites or more. `opening`: whether masked
    sums begin with the pool's counts of levels; without them release gates refuse.
    """

    family: str = "binomial"
    link: str | None = None
    aggregation: Literal["auto", "masked", "plain"] = "auto"
    opening: Literal["counts", "none"] = "counts"
    ridge: Annotated[float, Within(ge=0)] = 0.0
    penalise_intercept: bool = False
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 25
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


def own_rows(site: Site) -> Rows:
    """The rows of a site that reads rows."""
    return site.rows


@dataclass(frozen=True)
class GlorePlan:
    """What every site derives from the study alone.

    `rows_of` gives a site's rows, or its patterns with weights. `pooled`: the pool's counts, if it is open.
    """

    study: Study
    design: Design
    options: GloreOptions
    family: Family
    masked: bool
    learner: str = "glore"
    rows_of: Callable[[Site], Rows] = own_rows
    pooled: PooledCounts | None = None

    @classmethod
    def of(cls, study: Study) -> GlorePlan:
        """The plan of a study."""
        options = options_of(study, GloreOptions)
        masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= 3)
        return cls(study, Design(study), options, choose_family(options.family, options.link, by_rows=True), masked)

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
        events = self.family.whole or self.design.outcome.type != "number"
        return Opening(self.design, self.study.disclosure.cell, events, self.rows_of, by_patient=True)

    @cached_property
    def model(self) -> Model:
        """What is summed."""
        return Model.of(self.design, self.family)

    @cached_property
    def rules(self) -> Rules:
        """How the fit goes."""
        spare = self.design.formula.intercept and not self.options.penalise_intercept
        penalty = Penalty.ridge(self.p, self.options.ridge, spare)
        unit = masked_sum.UNIT * len(self.study.sites) if self.masked else 0.0
        return Rules(self.model, penalty, self.options.tolerance, unit, advise_on_separation(self.study))

    def form(self, kind: Kind) -> Schema:
        """Form of one site's post."""
        if self.masked:
            return Schema({"masked": masked_sum.form_masked_field(self.model.shapes(kind))})
        return self.model.form(kind)

    def frame(self, model: Payload) -> Frame:
        """The frame that a server posted."""
        return Frame.from_payload(self.model.layout, model)

    def view(self, model: Payload) -> Array | None:
        """What the sites' next sums are taken at: coefficients in the variables' own units; None for moments."""
        if self.model.linear or newton.kind_of(model) == "look":
            return None
        return self.frame(model).outside(model["beta"])


def glore(site: Site) -> Script:
    """The fit of a study."""
    return (yield from fit_rounds(GlorePlan.of(site.study), site))


def fit_rounds(plan: GlorePlan, site: Site) -> Script:
    """A look, then distributed Newton-Raphson: sums from every site, one step by the server, until it rests.

    Masked sums come after the pool's counts of levels. Then the sites test whether they agree, and a server ends the
    fit. It does so only if the sites of the test are those of the last sums. Where the ledger excluded a site between
    the two, that site's rows are still in the model: the rounds go on without it.
    """
    if plan.opens:
        plan = replace(plan, pooled=(yield from open_pool(plan.opening)))
    model = newton.begin(plan.rules)
    path: tuple[Array | None, ...] = ()
    for t in range(plan.options.max_rounds):
        topic, path, form = f"stats/{t}", (*path, plan.view(model)), plan.form(newton.kind_of(model))
        stats = yield from each(
            topic, share_stats, plan, topic, model, expects=form, reveals=partial(expose_stats, plan, path)
        )
        model = yield from server(f"model/{t}", next_model, plan, model, stats)
        if model["rests"]:
            topic, form, judged = f"agreement/{t}", agreement_form(plan), partial(expose_agreement, plan)
            parts = yield from each(topic, share_agreement, plan, topic, model, expects=form, reveals=judged)
            model = yield from server(f"end/{t}", end_fit, plan, model, stats, parts)
        if model.get("converged", False):
            yield from conclude(plan.study)
            fit = result.build_fit(plan.learner, plan.rules, model, t + 1, plan.options.ridge)
            return replace(fit, own=describe_own_distance(site, plan, model))
    raise NotConverged(
        "CO-N101", f"No convergence in {plan.options.max_rounds} rounds: {_explain_nonconvergence(model)}"
    )


def _explain_nonconvergence(model: Payload) -> str:
    """How far the last step is from rest, and what to do."""
    if "gain" not in model:
        return "they ended before the first step. Raise max_rounds."
    length = np.sqrt(float(model["gain"]))
    return f"the next step would still be {length:.2g} standard errors long. Raise max_rounds, or look for separation."


# At a site


def share_stats(site: Site, plan: GlorePlan, topic: str, model: Payload) -> Payload:
    """What one site posts: its sums after a server's post, under masks where the study says so."""
    sums = compute_local_sums(plan, site, model)
    return masked_sum.mask_sums(site, topic, sums) if plan.masked else sums


def compute_local_sums(plan: GlorePlan, site: Site, model: Payload) -> dict[str, Array]:
    """The sums of this site's rows that the last server post asks for."""
    kind, frame = newton.kind_of(model), plan.frame(model)
    if kind == "look":
        return plan.model.look(plan.rows_of(site), frame)
    return plan.model.round(kind, plan.rows_of(site), frame, model["beta"], float(model["null"]))


def share_agreement(site: Site, plan: GlorePlan, topic: str, model: Payload) -> Payload:
    """A site's part of the test whether the sites agree."""
    gradient = plan.rules.penalty.gradient(plan.frame(model), model["beta"])
    note = partial(note_own_sums, site)
    part = agreement.measure(plan.model, plan.rows_of(site), plan.frame(model), model, gradient, note)
    return masked_sum.mask_sums(site, topic, part) if plan.masked else part


def note_own_sums(site: Site, score: Array, information: Array) -> None:
    """Keep this site's own sums at the final coefficients, of which no payload has the parts."""
    site.vault[_own_sums_label(site)] = np.concatenate([score, information.ravel()]).astype("<f8").tobytes()


def describe_own_distance(site: Site, plan: GlorePlan, model: Payload) -> tuple[str, ...]:
    """How far this site stands from the others, for its own people; nothing at an auditor or a single site."""
    raw = site.vault.get(_own_sums_label(site), b"")
    if not raw or len(plan.study.sites) < 2:
        return ()
    sums, p = np.frombuffer(raw, "<f8"), plan.p
    whole = linalg.symmetric(model["information"], p)
    scale = result.estimate_dispersion(plan.rules, model) / plan.frame(model).outcome_scale ** 2
    freedom = 0 if plan.family.dispersion == "known" else int(model["n"]) - p
    return (agreement.stand_apart(sums[:p], sums[p:].reshape(p, p), whole, scale, freedom).sentence,)


def _own_sums_label(site: Site) -> str:
    return f"own sums/{site.session}/{site.study.hash.hex()}"


def agreement_form(plan: GlorePlan) -> Schema:
    """Form of that part."""
    if plan.masked:
        return Schema({"masked": masked_sum.form_masked_field(agreement.shapes(plan.p))})
    return agreement.form(plan.p)


# What leaves


def expose_stats(plan: GlorePlan, path: tuple[Array | None, ...], site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's post, after the views of `path`."""
    if plan.masked:
        masked = sums_disclosure.expose_masked_sums(plan.design, plan.family, path, site, plan.rows_of(site))
        return replace(masked, unopened=plan.pooled is None, pooled=plan.pooled or {})
    exposure = sums_disclosure.expose_sums(plan.design, plan.family, path, site, payload)
    enough = len(plan.study.sites) >= masked_sum.MIN_PARTIES
    return replace(exposure, instead='set aggregation = "masked"' if enough else "")


def expose_agreement(plan: GlorePlan, site: Site, payload: Payload) -> Exposure:
    """The part of the test: of plain sums it follows from the last round's, except three numbers of the whole site."""
    what = "Masked part of the test whether the sites agree" if plan.masked else "Part of the test of agreement"
    return Exposure(what=what, rows=plan.rows_of(site).n, sums_only=plan.masked, parties=len(site.parties))


# From the sums of all sites


def next_model(plan: GlorePlan, last: Payload, stats: Posts) -> Payload:
    """The next server post from the sites' sums: a frame, or one Newton-Raphson step, or half of the last again."""
    kind = newton.kind_of(last)
    return newton.advance(plan.rules, last, pool_stats(plan, kind, stats))


def pool_stats(plan: GlorePlan, kind: Kind, stats: Posts) -> Payload:
    """The sums over all sites, exact in either aggregation; ProtocolError if no rows could have them."""
    shapes = plan.model.shapes(kind)
    if not plan.masked:
        return add_up(stats, shapes)
    sums = masked_sum.unmask_sums(stats, shapes)
    plan.model.check(kind, sums)
    return sums


def add_up(posts: Posts, shapes: masked_sum.Shapes) -> Payload:
    """Plain sums over the sites, each correctly rounded."""
    return {name: linalg.total([np.asarray(p[name]) for p in posts.values()]) for name in shapes}


def end_fit(plan: GlorePlan, model: Payload, stats: Posts, parts: Posts) -> Payload:
    """The last server post: the model with the sums of the test; or the model, not at rest, if a site is missing."""
    if set(parts) != set(stats):
        return {**model, "rests": np.False_, "converged": np.False_}
    shapes = agreement.shapes(plan.p)
    sums = masked_sum.unmask_sums(parts, shapes) if plan.masked else add_up(parts, shapes)
    return {**model, **sums, "converged": np.True_}


# Which studies it can run


def _check_study(study: Study) -> None:
    """StudyError for a study that GLORE cannot run."""
    plan = GlorePlan.of(study)
    plan.family.check_outcome(plan.design.formula.outcome, plan.design.outcome)
    if plan.design.formula.offset:
        plan.family.check_offset()
    if plan.masked and len(study.sites) < masked_sum.MIN_PARTIES:
        raise StudyError(
            "CO-S305",
            f"A masked sum over {len(study.sites)} sites would give each the other's share. "
            'Take part with three sites or more, or choose aggregation = "plain" knowingly.',
        )
    if not plan.design.columns:
        raise StudyError("CO-S201", "The formula makes no columns.")


def _schedule(study: Study) -> Schedule:
    """Rounds of each and server until a server's post says converged."""
    return schedule_rounds(GlorePlan.of(study))


def schedule_rounds(plan: GlorePlan) -> Schedule:
    """The schedule of `fit_rounds`: one more round for the test whether the sites agree, and for each exclusion."""
    opening = ("each", "each") if plan.opens else ()
    closing, rounds = concluding_steps(plan.study), plan.options.max_rounds + len(plan.study.sites)
    return Schedule(opening=opening, loop=("each", "server"), closing=closing, max_rounds=rounds)


def disclose_glore(study: Study) -> Disclosure:
    """What a study discloses."""
    plan = GlorePlan.of(study)
    return disclose_rounds(study, plan.masked, plan.opens)


def _assess(study: Study, rows: int | None) -> Suitability:
    """GLORE is the advice wherever a table is not."""
    family = study.learner.options.get("family")
    if family in all_families() and not all_families()[family].by_rows:
        return Suitability(2, False, f"it has no {family} family.")
    several = len(study.sites) >= masked_sum.MIN_PARTIES
    masks = "under masks" if several else "in the clear, since fewer than three sites take part"
    return Suitability(2, True, f"it takes any covariates, in several rounds of sums {masks}.")


GLORE = Learner(
    "glore",
    _VERSION,
    GloreOptions,
    _check_study,
    _schedule,
    glore,
    disclose_glore,
    profile=Profile(
        _assess,
        alternatives=({"aggregation": "masked"},),
        examples=({"aggregation": "masked"}, {"aggregation": "plain"}),
        equals_pooled=True,
    ),
)
