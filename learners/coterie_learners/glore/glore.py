"""GLORE: generalised linear models on rows split over sites, equal to the fit on the pooled rows.

Wu, Jiang, Kim, Ohno-Machado, "Grid Binary LOgistic REgression (GLORE)", JAMIA 2012;19:758-764
(doi:10.1136/amiajnl-2012-000862), as D-CLEF runs it (Kuo et al., Nat Commun 2025;16:1371, D-CLEF-H). Newton-Raphson
on sums that each site computes over its own rows: the iterates are those of the pooled rows.

What leaves a site. First a look: X'X, X'y, y'y of a measurement, the number of rows and the sum of the outcome, in the
scale of the declared ranges (a second look, from nearer by, where a range is so wide that the first cannot tell a
column's spread).
Then, per round: the score (p), the upper triangle of the expected information (p (p + 1) / 2; of the observed one too,
unless the link is canonical) and the deviance, all at the coefficients of that round; and the number of rows, the sum
of the outcome and the saturated log-likelihood (in every round, because a site may be excluded between two). With the
last of them its part of the test whether the sites agree (`sums.agreement`).

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
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field as Within
from pydantic import SerializerFunctionWrapHandler, model_serializer

from coterie_learners.core import masked_sum, model_warnings
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.model_warnings import advise_on_separation
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import NotConverged, StudyError, pluralise
from coterie_learners.glore import firth, robust, site_profile
from coterie_learners.glore.category_fit import fit_category
from coterie_learners.glore.category_plan import CategoryPlan, check_category, has_levels
from coterie_learners.glore.glore_disclosure import Extras, disclose_category, disclose_rounds
from coterie_learners.glore.likelihood_limits import (
    LIMIT_ROUNDS,
    add_limits,
    check_limits,
    disclose_limits,
    find_limits,
    looks_for_limits,
)
from coterie_learners.glore.robust import Robust, root_of_sandwich
from coterie_learners.glore.standardised_means import (
    add_means,
    check_standardised,
    disclose_means,
    standardise_means,
)
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design, design_of
from coterie_learners.study.document import Frozen, Schedule, Study
from coterie_learners.study.rows import Rows
from coterie_learners.sums import agreement, newton, result, sums_disclosure
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.family import Family
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import FitRules
from coterie_learners.sums.opening.counts import Opening, PooledCounts, describe_pool
from coterie_learners.sums.opening.steps import OpeningMode, check_opening, open_pool, schedule_opening
from coterie_learners.sums.penalty import Penalty
from coterie_learners.sums.rounds import Model, Weighting

_VERSION = "5"
# The most values of an outcome that are counted before sums for its shape.
MOST_VALUES = 2000
# Options that studies of this version had not from the beginning.
LATER = frozenset({"firth", "robust", "site_intercepts", "weights", "weight_kind", "intervals", "standardise"})


class GloreOptions(Frozen):
    """The learner section of a study.

    `ridge` penalises half the squared coefficients in the variables' own units, the intercept only if asked for.
    `tolerance` is in standard errors. `aggregation` auto: masked with three sites or more. `opening`: whether masked
    sums begin with the pool's counts of levels, or with bits on them; without either release gates refuse. `firth`:
    Firth's penalty. `robust`: sandwich standard errors; true means HC0, "patient" and "site" clusters of rows.
    `site_intercepts`: each site has an intercept, which it keeps. `weights`: the variable that weighs rows;
    `weight_kind`: as R's glm takes weights, numbers of patients, or inverse chances to be sampled (with sandwich
    errors). `intervals`: Wald's, or those of the profile likelihood.
    `standardise`: the variable at whose levels the means of all rows are taken.
    """

    family: str = "binomial"
    link: str | None = None
    aggregation: Literal["auto", "masked", "plain"] = "auto"
    opening: OpeningMode = "counts"
    ridge: Annotated[float, Within(ge=0)] = 0.0
    penalise_intercept: bool = False
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 25
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10
    firth: bool = False
    robust: bool | Robust = False
    site_intercepts: bool = False
    weights: Annotated[str, Within(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""
    weight_kind: Literal["prior", "frequency", "sampling"] = "prior"
    intervals: Literal["wald", "profile"] = "wald"
    standardise: Annotated[str, Within(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Options with their former fixed values are left out, so that older studies keep their hashes."""
        fields = type(self).model_fields
        return {name: v for name, v in write(self).items() if name not in LATER or v != fields[name].default}


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
        return cls(study, design_of(study), options, choose_family(options.family, options.link, by_rows=True), masked)

    @property
    def p(self) -> int:
        """Number of columns."""
        return len(self.design.columns)

    @property
    def opens(self) -> OpeningMode:
        """Whether the pool's counts of levels, or bits on them, are opened before its sums."""
        return self.options.opening if self.masked else "none"

    @property
    def opening(self) -> Opening:
        """The opening step."""
        events = self.family.whole or self.design.outcome.type != "number"
        floor, by_patient = self.study.disclosure.cell, self.by_patient
        bits = self.opens == "bits"
        low, high = self.design.outcome.bounds if self.family.shaped else (0, -1)
        values = range(int(low), int(high) + 1)
        return Opening(
            self.design, floor, events, self.rows_of, {}, by_patient, by_rows=True, by_bits=bits, values=values
        )

    @property
    def by_patient(self) -> bool:
        """Whether a patient may have several rows, which the sums count as one patient's."""
        return self.masked and self.robust == "patient"

    @cached_property
    def model(self) -> Model:
        """The model whose sums the sites make."""
        o = self.options
        return Model.of(self.design, self.family, self.weighting, o.site_intercepts, o.firth)

    @property
    def weighting(self) -> Weighting:
        """The kind of the weights of rows; empty without any."""
        return self.options.weight_kind if self.options.weights else ""

    @property
    def terms(self) -> int:
        """Number of coefficients that all sites have in common."""
        return self.p - self.options.site_intercepts

    @property
    def robust(self) -> Robust | None:
        """The sandwich of the standard errors, None for those of the model."""
        if isinstance(self.options.robust, str):
            return self.options.robust
        return "HC0" if self.options.robust or self.weighting == "sampling" else None

    @property
    def profiles(self) -> bool:
        """Whether the limits of the profile likelihood are looked for after the fit."""
        return self.options.intervals == "profile"

    @cached_property
    def rules(self) -> FitRules:
        """The rules of the fit."""
        spare = self.design.formula.intercept and not self.options.penalise_intercept
        penalty = Penalty.ridge(self.p, self.options.ridge, spare)
        unit = masked_sum.UNIT * len(self.study.sites) if self.masked else 0.0
        return FitRules(self.model, penalty, self.options.tolerance, unit, advise_on_separation(self.study))

    def closes(self, model: Payload) -> bool:
        """Whether the sites' next sums hold their parts of the test of agreement too."""
        return newton.closes(model) and not self.tests_apart

    @property
    def tests_apart(self) -> bool:
        """Whether the test of agreement is always a round of its own.

        Firth's score and leverages need the pooled information at the same coefficients, and the gate judges a sandwich
        in the clear by itself.
        """
        leverages = robust.POWERS.get(self.robust or "", 0)
        return self.options.firth or (bool(self.robust) and (not self.masked or bool(leverages)))

    def shapes(self, model: Payload) -> dict[str, tuple[int, ...]]:
        """Shapes of the sums that the last server post asks for."""
        part = agreement_shapes(self) if self.closes(model) else {}
        return self.model.shapes(newton.kind_of(model)) | part

    def form(self, model: Payload) -> Schema:
        """Form of one site's post after a server's."""
        if self.masked:
            return Schema({"masked": masked_sum.form_masked_field(self.shapes(model))})
        form = self.model.form(newton.kind_of(model))
        return replace(form, fields={name: Field("<f8", shape) for name, shape in self.shapes(model).items()})

    def frame(self, model: Payload) -> Frame:
        """The frame that a server posted."""
        return Frame.from_payload(self.model.layout, model)

    def view(self, model: Payload) -> Array | None:
        """The point of the sites' next sums: coefficients in the variables' own units; None for moments."""
        if self.model.linear or newton.kind_of(model) == "look":
            return None
        return self.frame(model).outside(model["beta"])


def glore(site: Site) -> Script:
    """The fit of a study."""
    options = options_of(site.study, GloreOptions)
    if has_levels(options.family):
        return (yield from fit_category(CategoryPlan.of(site.study, options), site))
    return (yield from fit_rounds(GlorePlan.of(site.study), site))


def fit_rounds(plan: GlorePlan, site: Site) -> Script:
    """First moments, then distributed Newton-Raphson: sums from every site, one step by the server, until it converges.

    Masked sums come after the pool's counts of levels. Whether the sites agree is tested by the last sums: where a
    step was so short that the next ones should rest, they hold the parts of the test, and the fit ends with them.
    If no step announced the end, the test is a round of its own. It ends the fit only if its sites are those of the
    last sums. If the ledger excluded a site between the two, that site's rows are still in the model: the rounds go on
    without it.
    """
    if plan.opens != "none":
        plan = replace(plan, pooled=(yield from open_pool(plan.opening)))
    model = newton.begin(plan.rules)
    path: tuple[Array | None, ...] = ()
    for t in range(plan.options.max_rounds):
        topic, path, form = f"stats/{t}", (*path, plan.view(model)), plan.form(model)
        stats = yield from each(
            topic, share_stats, plan, topic, model, expects=form, reveals=partial(expose_stats, plan, path)
        )
        model = yield from server(f"model/{t}", next_model, plan, model, stats)
        if model["rests"] and "converged" not in model:
            topic, form = f"agreement/{t}", agreement_form(plan)
            judged = partial(expose_agreement, plan, (*path, plan.frame(model).outside(model["beta"])))
            parts = yield from each(topic, share_agreement, plan, topic, model, expects=form, reveals=judged)
            model = yield from server(f"end/{t}", end_fit, plan, model, stats, parts)
        if model["rests"]:
            limited, means = looks_for_limits(plan, float(model["n"])), None
            if plan.options.standardise:
                means = yield from standardise_means(plan, t + 1, model, not limited)
            limits = (yield from find_limits(plan, t + 1, model)) if limited else None
            sandwich = root_of_sandwich(plan.model, model, plan.robust) if plan.robust else None
            fit = finish_fit(site, plan, model, t + 1)
            fit = add_limits(fit, limits) if plan.profiles else fit
            fit = fit if means is None else add_means(plan, fit, model, means, sandwich)
            yield from conclude()
            return fit
    raise rounds_ran_out(plan, model)


def finish_fit(site: Site, plan: GlorePlan, model: Payload, rounds: int) -> Fit:
    """The fit of the last server post, with the sentences about this site's rows for its own people."""
    sandwich = root_of_sandwich(plan.model, model, plan.robust) if plan.robust else None
    fit = result.build_fit(plan.learner, plan.rules, model, rounds, describe_method(plan, model), sandwich)
    return replace(fit, own=() if plan.options.site_intercepts else describe_own_distance(site, plan, model))


def rounds_ran_out(plan: GlorePlan, model: Payload) -> NotConverged:
    """The error of a fit that did not converge in its rounds."""
    return NotConverged(
        "CO-N101", f"No convergence in {pluralise(plan.options.max_rounds, 'round')}: {_explain_nonconvergence(model)}"
    )


def describe_method(plan: GlorePlan, model: Payload) -> tuple[str, ...]:
    """Facts that people must know about a fit with these options and this last server post, in sentences."""
    o = plan.options
    weights = (f"Rows are weighed by {o.weights} ({o.weight_kind} weights).",) if o.weights else ()
    own = ("Each site has an intercept of its own, which it keeps.",) if o.site_intercepts else ()
    groups = int(model["groups"]) if plan.robust else 0
    sandwich = model_warnings.describe_sandwich(plan.robust or "", plan.model.weighting == "sampling", groups)
    firth_notes = model_warnings.FIRTH if o.firth else ()
    return (*model_warnings.warn_of_ridge(o.ridge), *weights, *own, *sandwich, *firth_notes)


def _explain_nonconvergence(model: Payload) -> str:
    """The distance of the last step from convergence, and what to do."""
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
    """The sums of this site's rows that the last server post asks for, with its part of the test where that is due."""
    kind, frame, rows = newton.kind_of(model), plan.frame(model), plan.rows_of(site)
    if plan.options.site_intercepts and kind == "look":
        return site_profile.sum_moments(plan.model, rows, frame)
    if plan.options.site_intercepts:
        sums = site_profile.sum_round(plan.model, rows, frame, model["beta"])
        return sums | (measure_agreement(plan, site, model) if plan.closes(model) else {})
    if kind == "look":
        return plan.model.look(rows, frame)
    closes = plan.closes(model)
    sums = plan.model.at_state(model).round(kind, rows, frame, model["beta"], float(model["null"]), fits=closes)
    if plan.options.firth:
        sums["score"] = sums["score"] + firth.correct_score(plan.model, rows, frame, model)
    return (sums | _measure_agreement_of_sums(plan, site, model, sums)) if closes else sums


def _measure_agreement_of_sums(plan: GlorePlan, site: Site, model: Payload, sums: Payload) -> dict[str, Array]:
    gradient, note = plan.rules.penalty.gradient(plan.frame(model), model["beta"]), partial(note_own_sums, site, plan)
    part = agreement.measure_of_sums(plan.model, sums, model, gradient, note)
    return part | _measure_meat(plan, site, model)


def share_agreement(site: Site, plan: GlorePlan, topic: str, model: Payload) -> Payload:
    """A site's part of the test whether the sites agree, under masks where the study says so."""
    part = measure_agreement(plan, site, model)
    return masked_sum.mask_sums(site, topic, part) if plan.masked else part


def measure_agreement(plan: GlorePlan, site: Site, model: Payload) -> dict[str, Array]:
    """A site's part of that test, and of the sandwich, at the coefficients of a server's post."""
    rows, frame = plan.rows_of(site), plan.frame(model)
    if plan.options.site_intercepts:
        part = site_profile.measure_part(plan.model, rows, frame, model)
    else:
        gradient = plan.rules.penalty.gradient(frame, model["beta"])
        if plan.options.firth:
            gradient = gradient - firth.correct_score(plan.model, rows, frame, model)
        part = agreement.measure(
            plan.model.at_state(model), rows, frame, model, gradient, partial(note_own_sums, site, plan)
        )
    return part | _measure_meat(plan, site, model)


def _measure_meat(plan: GlorePlan, site: Site, model: Payload) -> dict[str, Array]:
    if not plan.robust:
        return {}
    return robust.measure_meat(plan.model.at_state(model), plan.rows_of(site), plan.frame(model), model, plan.robust)


def note_own_sums(site: Site, plan: GlorePlan, score: Array, information: Array) -> None:
    """Keep this site's own sums at the final coefficients, which no payload has."""
    site.vault[_own_sums_label(site, plan)] = np.concatenate([score, information.ravel()]).astype("<f8").tobytes()


def describe_own_distance(site: Site, plan: GlorePlan, model: Payload) -> tuple[str, ...]:
    """The distance of this site from the others, for its own people; nothing at an auditor or a single site."""
    raw = site.vault.get(_own_sums_label(site, plan), b"")
    if not raw or len(plan.study.sites) < 2:
        return ()
    sums, p = np.frombuffer(raw, "<f8"), plan.p
    whole = linalg.symmetric(model["information"], p)
    # Sampling weights have no scale that a chi-squared could have.
    sampled = plan.model.weighting == "sampling"
    scale = 0.0 if sampled else result.estimate_dispersion(plan.rules, model) / plan.frame(model).deviance_unit
    freedom = 0 if plan.family.dispersion == "known" else int(model["n"]) - p
    return (agreement.stand_apart(sums[:p], sums[p:].reshape(p, p), whole, scale, freedom).sentence,)


def _own_sums_label(site: Site, plan: GlorePlan) -> str:
    return f"own sums/{site.session}/{plan.study.hash.hex()}"


def agreement_form(plan: GlorePlan) -> Schema:
    """Form of that part."""
    if plan.masked:
        return Schema({"masked": masked_sum.form_masked_field(agreement_shapes(plan))})
    return Schema({name: Field("<f8", shape) for name, shape in agreement_shapes(plan).items()})


def agreement_shapes(plan: GlorePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of that part."""
    return agreement.shapes(plan.terms) | (robust.meat_shapes(plan.p) if plan.robust else {})


# What leaves


def expose_stats(plan: GlorePlan, path: tuple[Array | None, ...], site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's post, after the views of `path`."""
    if plan.masked:
        masked = sums_disclosure.expose_masked_sums(plan.design, plan.family, path, site, plan.rows_of(site))
        return describe_pool(replace(masked, by_patient=plan.by_patient), plan.pooled)
    exposure = sums_disclosure.expose_sums(
        plan.design, plan.family, path, site, payload, profiled=plan.options.site_intercepts
    )
    enough = len(plan.study.sites) >= masked_sum.MIN_PARTIES
    return replace(exposure, instead='set aggregation = "masked"' if enough else "")


def expose_agreement(plan: GlorePlan, path: tuple[Array | None, ...], site: Site, payload: Payload) -> Exposure:
    """The part of the test: of plain sums it follows from the last round's, except three numbers of the whole site.

    A sandwich adds equations at the last of the views.
    """
    if plan.robust and not plan.masked:
        return sums_disclosure.expose_meat(plan.design, plan.family, path, site)
    what = "Masked part of the test whether the sites agree" if plan.masked else "Part of the test of agreement"
    rows, parties = plan.rows_of(site).n, len(site.parties)
    return Exposure(what=what, rows=rows, sums_only=plan.masked, parties=parties, by_patient=plan.by_patient)


# From the sums of all sites


def next_model(plan: GlorePlan, last: Payload, stats: Posts) -> Payload:
    """The next server post from the sites' sums: a frame, one Newton-Raphson step, half of the last again, or the end.

    It is the end if the steps have converged and the sums have the test.
    """
    return advance_model(plan, last, pool_stats(plan, last, stats), len(stats))


def advance_model(plan: GlorePlan, last: Payload, sums: Payload, sites: int) -> Payload:
    """The same from the pooled sums of so many sites."""
    model = newton.advance(plan.rules, last, sums)
    if not plan.closes(last) or not model["rests"]:
        return model
    return end_model(plan, model, {name: sums[name] for name in agreement_shapes(plan)}, sites)


def pool_stats(plan: GlorePlan, last: Payload, stats: Posts) -> Payload:
    """The sums over all sites, exact in either aggregation; ProtocolError if no rows could have them."""
    shapes = plan.shapes(last)
    if not plan.masked:
        return add_up(stats, shapes)
    sums = masked_sum.unmask_sums(stats, shapes)
    plan.model.check(newton.kind_of(last), sums)
    return sums


def add_up(posts: Posts, shapes: masked_sum.Shapes) -> Payload:
    """Plain sums over the sites, each correctly rounded."""
    return {name: linalg.total([np.asarray(p[name]) for p in posts.values()]) for name in shapes}


def end_fit(plan: GlorePlan, model: Payload, stats: Posts, parts: Posts) -> Payload:
    """The last server post: the model with the sums of the test; or the model, not converged, if a site is missing."""
    if set(parts) != set(stats):
        return resume_model(model)
    shapes = agreement_shapes(plan)
    sums = masked_sum.unmask_sums(parts, shapes) if plan.masked else add_up(parts, shapes)
    return end_model(plan, model, sums, len(parts))


def resume_model(model: Payload) -> Payload:
    """A converged model that must move again, because a site is missing from its test."""
    return {**model, "rests": np.False_, "converged": np.False_}


def end_model(plan: GlorePlan, model: Payload, sums: Payload, sites: int) -> Payload:
    """A converged model with the sums of the test; if sites keep intercepts, with the number of sites."""
    count = {"sites": np.asarray(float(sites))} if plan.options.site_intercepts else {}
    goes_on = bool(plan.options.standardise) or looks_for_limits(plan, float(model["n"]))
    return {**model, **sums, **count, "converged": np.bool_(not goes_on)}


# Which studies it can run


def check_glore(study: Study) -> None:
    """StudyError for a study that GLORE cannot run."""
    options = options_of(study, GloreOptions)
    if has_levels(options.family):
        check_category(study, options)
        return
    plan = GlorePlan.of(study)
    plan.family.check_outcome(plan.design.formula.outcome, plan.design.outcome)
    if plan.design.formula.offset:
        plan.family.check_offset()
    check_opening(study, plan.opens, bool(plan.design.weights or plan.design.formula.offset))
    _check_values(plan)
    if plan.masked and len(study.sites) < masked_sum.MIN_PARTIES:
        raise StudyError(
            "CO-S305",
            f"A masked sum over {len(study.sites)} sites would give each the other's share. "
            'Take part with three sites or more, or choose aggregation = "plain" knowingly.',
        )
    if not plan.design.columns:
        raise StudyError("CO-S201", "The formula makes no columns.")
    _check_options(plan)


def _check_options(plan: GlorePlan) -> None:
    """StudyError for options that contradict each other or the document."""
    o, formula = plan.options, plan.design.formula
    if plan.profiles:
        check_limits(plan)
    if o.standardise:
        check_standardised(plan)
    if o.site_intercepts and (not formula.intercept or len(plan.study.sites) < 2 or plan.p < 2):
        raise StudyError("CO-S325", "site_intercepts needs an intercept, another term, and two sites or more.")
    if o.site_intercepts and plan.family.shaped:
        raise StudyError("CO-S325", f"site_intercepts has no {plan.family.name} family. Choose quasipoisson.")
    if o.site_intercepts and (o.ridge or o.firth):
        raise StudyError("CO-S325", "site_intercepts goes without ridge and without firth. Leave one of them out.")
    if o.firth and (plan.family.link not in plan.family.firth_links or plan.robust or o.ridge):
        raise StudyError("CO-S324", "firth is for a binomial model with the logit link, without robust and ridge.")
    if plan.robust and plan.options.ridge:
        raise StudyError("CO-S324", "Sandwich errors say nothing of a ridge's bias. Leave out robust or ridge.")
    if plan.robust == "patient" and not plan.study.patient:
        message = 'robust = "patient" needs the column that identifies patients'
        raise StudyError("CO-S324", f'{message}. Name it in the document: patient = "column".')
    if plan.robust == "site":
        robust.check_site_clusters(plan.terms, len(plan.study.sites), plan.study.ledger.silent_site == "exclude")
    frequency = plan.options.weights and plan.options.weight_kind == "frequency"
    if frequency and plan.study.variables[plan.options.weights].type != "count":
        message = f"Frequency weights are numbers of patients; {plan.options.weights!r} is no count"
        raise StudyError("CO-S210", f'{message}. Declare it as one, or choose weight_kind = "prior".')


def _check_values(plan: GlorePlan) -> None:
    """StudyError if the pool cannot count each value of an outcome whose shape is fitted under masks."""
    if plan.masked and len(plan.opening.values) > MOST_VALUES:
        message = f"The range of {plan.design.formula.outcome!r} holds more than {MOST_VALUES} counts"
        cause = "and masked sums for their shape tell how many patients have each, which is counted first"
        raise StudyError("CO-S211", f'{message}, {cause}. Declare a narrower range, or choose family = "quasipoisson".')


def _schedule(study: Study) -> Schedule:
    """Rounds of each and server until a server's post says converged."""
    options = options_of(study, GloreOptions)
    if has_levels(options.family):
        opening, rounds = schedule_opening(options.opening, CategoryPlan.of(study, options).opening), options.max_rounds
        return Schedule(opening=opening, loop=("each", "server"), closing=("server",), max_rounds=rounds)
    return schedule_rounds(GlorePlan.of(study))


def schedule_rounds(plan: GlorePlan) -> Schedule:
    """The schedule of `fit_rounds`: one more round for the test whether the sites agree, and for each exclusion."""
    opening, rounds = schedule_opening(plan.opens, plan.opening), plan.options.max_rounds + len(plan.study.sites)
    rounds += (LIMIT_ROUNDS if plan.profiles else 0) + bool(plan.options.standardise)
    return Schedule(opening=opening, loop=("each", "server"), closing=("server",), max_rounds=rounds)


def disclose_glore(study: Study) -> Disclosure:
    """What a study discloses."""
    options = options_of(study, GloreOptions)
    if has_levels(options.family):
        return disclose_category(study, options.opening != "none")
    plan = GlorePlan.of(study)
    o = plan.options
    by_site = plan.robust == "site"
    extras = Extras(
        bool(plan.robust), plan.tests_apart, bool(o.weights), o.site_intercepts, plan.family.shaped, by_site
    )
    disclosure = disclose_rounds(study, plan.masked, plan.opens, extras)
    disclosure = disclose_means(disclosure, plan.masked, o.standardise) if o.standardise else disclosure
    return disclose_limits(disclosure, plan.masked) if plan.profiles else disclosure


def _assess(study: Study, rows: int | None) -> Suitability:
    """GLORE is advised for every study for which no table is."""
    several = len(study.sites) >= masked_sum.MIN_PARTIES
    masks = "under masks" if several else "without masks, because fewer than three sites take part"
    return Suitability(2, True, f"it takes any covariates, in several rounds of sums {masks}.")


def _read_choice(study: Study) -> tuple[str | None, bool]:
    """The link, and whether sums are masked."""
    options = options_of(study, GloreOptions)
    masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= 3)
    return options.link, masked


def _opens_bits(study: Study) -> bool:
    """Whether the sites talk: they compare counts on shares."""
    return not has_levels(options_of(study, GloreOptions).family) and GlorePlan.of(study).opens == "bits"


def _is_by_blocks(study: Study) -> bool:
    """Whether sums of blocks suffice: an intercept that a site keeps, and scores of patients, need all rows at once."""
    options = options_of(study, GloreOptions)
    return not options.site_intercepts and options.robust != "patient"


def _load_several() -> Learner:
    """GLORE for a study of several models."""
    from coterie_learners.glore.many_models import GLORE_OF_MANY  # only such studies need what it imports

    return GLORE_OF_MANY


def _evaluate(learner: Learner) -> Learner:
    """The learner with an evaluation on held-out rows after its fit."""
    from coterie_learners.evaluate.held_out import evaluate_after  # only such studies need what it imports

    return evaluate_after(_read_choice)(learner)


GLORE = Learner(
    "glore",
    _VERSION,
    GloreOptions,
    check_glore,
    _schedule,
    glore,
    disclose_glore,
    talks_if=_opens_bits,
    several=_load_several,
    evaluate=_evaluate,
    by_blocks=_is_by_blocks,
    profile=Profile(
        _assess,
        alternatives=({"aggregation": "masked"},),
        examples=(
            {"aggregation": "masked"},
            {"aggregation": "masked", "opening": "bits"},
            {"aggregation": "masked", "intervals": "profile", "standardise": "male"},
            {"aggregation": "plain"},
        ),
        equals_pooled=True,
    ),
)
