"""One site's part of a model whose columns are split over sites: what VERTIGO and VALORIS have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field as Within

from coterie_learners.core import model_warnings
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.divergence import diverging_coefficients
from coterie_learners.core.fit import Fit, joint_tests
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Site
from coterie_learners.errors import ProtocolError, Separation, StudyError, pluralise
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Frozen, Study
from coterie_learners.sums import soundness
from coterie_learners.sums.families import all_families, choose_family
from coterie_learners.sums.family import Family
from coterie_learners.vertical.alignment import Alignment
from coterie_learners.vertical.factor_disclosure import FactorDisclosure, assess_factor
from coterie_learners.vertical.gram_factor import Standardised, ThinFactor, standardise, thin_factor, unstandardise
from coterie_learners.vertical.split_model import NewtonStep, SplitOutcome

# No column in units of its standard deviation comes near this, even if it is not centred.
_MAX_SHIFT = 1e9
# Share of its largest entry that the mean of a centred column may be, after all rounding.
CENTRED = 1e-6


class SplitOptions(Frozen):
    """What the learners on split columns have in common in the learner section of a study.

    `family` and `link`: as in GLORE, of those whose likelihood is concave (`Family.by_columns`).
    `ridge` penalises half the squared coefficients of the standardised columns (0: none, the exact maximum likelihood),
    the intercept only if asked for. `tolerance` is in standard errors.
    """

    family: str = "binomial"
    link: str | None = None
    ridge: Annotated[float, Within(ge=0)] = 0.0
    penalise_intercept: bool = False
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 40
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


@dataclass(frozen=True)
class ColumnSplit:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    parts: Mapping[str, Design]
    options: SplitOptions

    @classmethod
    def of(cls, study: Study, options: SplitOptions) -> ColumnSplit:
        """The split of a study."""
        return cls(study, Design(study), {name: Design(study, name) for name in study.sites}, options)

    @property
    def outcome_site(self) -> str:
        """The site that holds the outcome."""
        return next(name for name, part in self.parts.items() if part.outcome_here is not None)

    @cached_property
    def family(self) -> Family:
        """The family of the outcome with its link."""
        return choose_family(self.options.family, self.options.link, by_rows=True)

    @property
    def intercept(self) -> bool:
        """Whether the model has an intercept."""
        return self.design.formula.intercept

    def width(self, site: str) -> int:
        """Number of a site's columns."""
        return len(self.parts[site].columns)

    @cached_property
    def sites_of_terms(self) -> tuple[str, ...]:
        """Whose each term of the design is; the intercept goes with the outcome."""
        holder = {name: site for site, part in self.parts.items() for name in part.names}
        return tuple(holder.get(name, self.outcome_site) for name in self.design.names)

    def penalty(self, width: int) -> Array:
        """The penalty of each coefficient: intercept, if any, then `width` of the factors."""
        first = [self.options.ridge if self.options.penalise_intercept else 0.0] if self.intercept else []
        return np.array(first + [self.options.ridge] * width)

    def largest(self, n: int, width: int) -> float:
        """No entry of a factor of `width` standardised columns is larger: together they have their length."""
        return math.sqrt(2.0 * (n - 1.0) * width) if self.intercept else _MAX_SHIFT

    def check_factor(self, site: str, factor: Array, n: int) -> None:
        """ProtocolError if no standardised columns of this site could have this factor (n, r)."""
        message = f"The factor of {site} is {factor.shape[0]} x {factor.shape[1]}"
        if factor.shape[0] != n:
            raise ProtocolError("CO-P543", f"{message}; the sites have {pluralise(n, 'patient')} in common.", site)
        width = self.width(site)
        largest = float(np.max(np.abs(factor), initial=0.0))
        centre = float(np.max(np.abs(factor.mean(axis=0)), initial=0.0)) if largest < _MAX_SHIFT else _MAX_SHIFT
        off_centre = self.intercept and centre > CENTRED * largest
        if factor.shape[1] > width or largest > self.largest(n, width) or off_centre:
            raise ProtocolError("CO-P544", f"{message}; {width} standardised columns cannot have it.", site)


@dataclass(frozen=True, eq=False)
class SiteColumns:
    """One site's own columns of the common patients. Computed when asked for: an auditor carries an empty one."""

    split: ColumnSplit
    site: Site
    alignment: Alignment

    @cached_property
    def order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Row numbers of the common patients."""
        return self.alignment.order()

    @property
    def n(self) -> int:
        """Number of common patients."""
        return len(self.order)

    @property
    def design(self) -> Design:
        """This site's part of the design."""
        return self.split.parts[self.site.name]

    @cached_property
    def outcome(self) -> SplitOutcome:
        """The outcome (n,) with its offset at the site that holds it."""
        y = self.site.columns.y
        if y is None:
            raise ProtocolError(
                "CO-P302",
                f"{self.site.name} does not hold the outcome. Name the site that holds it under [columns].",
                self.site.name,
            )
        offset = self.site.columns.offset
        return SplitOutcome(
            self.split.family,
            np.asarray(y[self.order], dtype=np.float64),
            np.zeros(self.n) if offset is None else np.asarray(offset[self.order], dtype=np.float64),
        )

    @cached_property
    def columns(self) -> Standardised:
        """This site's columns of the common patients, standardised."""
        return standardise(self.site.columns.x[self.order], self.design.names, self.split.intercept)

    @cached_property
    def thin(self) -> ThinFactor:
        """Their thin factor; Collinear names the columns where some are combinations of others."""
        thin = thin_factor(self.columns.z)
        if thin.factor.shape[1] < self.split.width(self.site.name) and self.split.study.rows.collinear == "refuse":
            linalg.cholesky(self.columns.z.T @ self.columns.z, self.design.names)
        return thin

    @cached_property
    def shift(self) -> Array:
        """What takes the intercept to the columns' own units: intercept - shift' W b of standardised coefficients."""
        columns, scale = self.columns, np.array([c.scale for c in self.design.columns])
        centre = np.array([c.centre for c in self.design.columns])
        shift: Array = (centre / scale + columns.mean) / columns.sd if len(scale) else np.zeros(0)
        return shift

    @cached_property
    def disclosure(self) -> FactorDisclosure:
        """What this site's factor discloses."""
        scale = np.array([column.scale for column in self.design.columns])
        centre = np.array([column.centre for column in self.design.columns])
        x = self.site.columns.x[self.order] * scale + centre
        noise = 2.0 * np.finfo(np.float64).eps * (scale + np.abs(centre))
        return assess_factor(x, self.design.names, self.thin.factor, noise)

    def reveals_factor(self, site: Site, payload: Payload) -> Exposure:
        """What readers can solve from this site's factor or Gram matrix."""
        what = "The Gram matrix of its columns" if "gram" in payload else "A thin factor of its columns"
        exposure_of_factor = replace(self.disclosure.exposure(what), matched=self.order)
        if "outcome" not in payload:
            return exposure_of_factor
        # The site with the outcome adds it, and its offset, if all sites compute with them.
        formula = self.split.design.formula
        rebuilt = (formula.outcome, *((formula.offset,) if formula.offset else ()), *exposure_of_factor.rebuilt)
        return replace(exposure_of_factor, rebuilt=rebuilt, **self._counts(site))

    def reveals_masked(self, site: Site, payload: Payload) -> Exposure:
        """What leaves under masks: of this site alone nothing, but its columns are in the span of the sum.

        The sum is all covariate sites' columns side by side, up to one rotation: a factor of their union.
        """
        sites = len(self.split.study.sites) - 1
        columns = self.disclosure.exposure("Its part of a rotated sum")
        return replace(columns, sums_only=True, parties=sites, matched=self.order)

    def reveals_result(self, site: Site, payload: Payload) -> Exposure:
        """What coefficients and covariances disclose: they are the result of the study."""
        return Exposure("Coefficients with their covariance", self.n, matched=self.order, **self._counts(site))

    def _counts(self, site: Site) -> dict[str, Any]:
        """Events and coefficients, for the floor on them, at the site that knows the events."""
        if site.name != self.split.outcome_site:
            return {}
        counts = {"events": round(self.outcome.total)} if self.split.family.has_events else {}
        return {**counts, "parameters": len(self.split.design.columns)}

    def back(self, gamma: Array, covariance: Array, rotation: Array | None = None) -> tuple[Array, Array]:
        """Coefficients (p,) and covariance (p, p) in the variables' own units, from those of the factor."""
        scale = np.array([c.scale for c in self.design.columns])
        turned = self.thin.rotation if rotation is None else rotation
        return unstandardise(turned, self.columns.sd * scale if len(scale) else np.zeros(0), gamma, covariance)


def form_factor(family: Family, offset: bool) -> Schema:
    """Form of a site's factor; with it the site that holds the outcome posts that, and its offset if there is one."""
    values = Field("|u1" if family.binary else "<f8", (None,))
    more = {"outcome": values} | ({"offset": Field("<f8", (None,))} if offset else {})
    fields = {"factor": Field("<f8", (None, None)), "shift": Field("<f8", (None,))}
    return Schema({**fields, **more}, optional=frozenset(more))


def check_split(split: ColumnSplit) -> None:
    """StudyError for a study on split columns that neither learner can run."""
    study, formula = split.study, split.design.formula
    _check_model(split)
    if not formula.terms:
        raise StudyError("CO-S201", "The formula makes no columns. Add a term.")
    idle = [name for name in study.sites if not study.columns[name]]
    if idle:
        raise StudyError(
            "CO-S330",
            f"{', '.join(idle)} holds no column, and {study.learner.name} has no helper. "
            "Give it a column, or leave it out.",
        )
    if len(study.sites) < 2:
        raise StudyError("CO-S331", "Columns of one site are not split. Take part with two sites or more.")
    if study.ledger.silent_site == "exclude":
        message = "Without one site's columns the model is another one"
        raise StudyError("CO-S332", f'{message}: silent_site = "exclude" is for rows. Choose "wait" or "abort".')
    if split.options.penalise_intercept and not (split.intercept and split.options.ridge):
        raise StudyError(
            "CO-S333", "penalise_intercept needs an intercept and a ridge above 0. Set both, or remove the option."
        )
    if split.options.penalise_intercept and split.family.linear:
        message = "A linear model is fitted about the mean of its outcome, which a penalty on the intercept would feel"
        raise StudyError("CO-S333", f"{message}. Remove penalise_intercept.")


def _check_model(split: ColumnSplit) -> None:
    family, formula = split.family, split.design.formula
    family.check_outcome(formula.outcome, split.design.outcome)
    if not family.by_columns:
        listed = ", ".join(f"{n}/{k}" for n, c in all_families().items() for k in c.links if c(k).by_columns)
        message = f"A {family.name} model with the link {family.link} may have several optima, or none that steps find"
        raise StudyError(
            "CO-S303",
            f"{message}, where columns are split. There are: {listed}. GLORE fits it where rows are split.",
        )
    if formula.offset and formula.offset not in split.study.columns[split.outcome_site]:
        message = f"The offset {formula.offset!r} is not at {split.outcome_site}, which holds the outcome"
        raise StudyError("CO-S304", f"{message}: it would have to leave its site row by row. Move it there.")


def check_separation(split: ColumnSplit, blocks: Mapping[str, slice], here: NewtonStep, before: Array) -> None:
    """Separation (naming sites) if the likelihood is flat and the steps go on in one direction."""
    if not split.family.separable:
        return
    grown = diverging_coefficients(here.gain, here.step, before)
    sites = [name for name, block in blocks.items() if np.any(grown[block])]
    if sites:
        raise Separation(
            "CO-N302",
            f"The outcome is separated: coefficients at {', '.join(sites)} grow without bound, because columns of "
            "these sites predict it without error. Merge rare levels, leave the term out, or set a ridge.",
        )


def build_split_fit(
    split: ColumnSplit, terms: tuple[str, ...], estimates: Array, covariance: Array | None, facts: Mapping[str, Any]
) -> Fit:
    """A Fit of some terms; `facts` are what is known to its reader of n, events, deviances, dispersion and the like.

    `freedom`: degrees of freedom of the residuals, None where the sites' columns count.
    """
    holder = dict(zip(split.design.names, split.sites_of_terms, strict=True))
    family, n, events, deviance = split.family, int(facts["n"]), facts.get("events"), facts.get("deviance")
    freedom = facts.get("freedom", n - len(split.design.names))
    sound = _list_warnings(split, facts)
    fit = Fit(
        learner=split.study.learner.name,
        family=family.name,
        link=family.link,
        terms=terms,
        estimates=estimates,
        covariance=covariance,
        n=n,
        events=events,
        rounds=int(facts.get("rounds", 1)),
        converged=True,
        dispersion=float(facts.get("dispersion", 1.0)),
        dispersion_known=family.dispersion == "known",
        deviance=deviance,
        null_deviance=facts.get("null_deviance"),
        log_likelihood=facts.get("log_likelihood"),
        ratio=family.ratio,
        elsewhere=n - int(freedom) - len(terms),
        notes=(*model_warnings.warn_of_ridge(split.options.ridge), *sound, *facts.get("notes", ())),
        sites=tuple(holder[term] for term in terms),
        warnings=sound,
        details=facts.get("details", {}),
    )
    tests = joint_tests(fit, split.design.by_term)
    return replace(fit, details={**fit.details, "tests": tests}) if tests else fit


def _list_warnings(split: ColumnSplit, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What speaks against the fit, as far as this reader knows it: few events, an exact fit, overdispersion."""
    if "events" not in facts:
        return ()
    family, n, events = split.family, int(facts["n"]), facts.get("events")
    slopes = len(split.design.names) - split.intercept
    few = model_warnings.advise_on_few_events(split.study)
    quasi = model_warnings.advise_on_overdispersion(split.study, family.quasi)
    return (
        *soundness.exact_fit_warning(float(facts.get("dispersion", 1.0)) == 0.0),
        *model_warnings.warn_of_few_events(n, events, slopes, binary=family.has_events, advice=few),
        *soundness.overdispersion_warning(
            family, float(facts.get("pearson", 0.0)), int(facts.get("freedom", n)), quasi
        ),
    )


def prepend_intercept(terms: tuple[str, ...], intercept: bool) -> tuple[str, ...]:
    """A site's terms with the intercept before them, if the model has one."""
    return (INTERCEPT, *terms) if intercept else terms


def blocks_of(factors: Mapping[str, Array], intercept: bool) -> dict[str, slice]:
    """The places of each factor's coefficients among all; an intercept is the first."""
    at, out = int(intercept), {}
    for name, factor in factors.items():
        out[name] = slice(at, at + factor.shape[1])
        at += factor.shape[1]
    return out
