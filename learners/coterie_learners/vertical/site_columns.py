"""One site's part of a logistic model whose columns are split over sites: what VERTIGO and VALORIS have in common."""

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
from coterie_learners.core.fit import Fit
from coterie_learners.core.model_warnings import advise_on_few_events
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Site
from coterie_learners.errors import ProtocolError, Separation, StudyError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Frozen, Study
from coterie_learners.vertical.alignment import Alignment
from coterie_learners.vertical.factor_disclosure import FactorDisclosure, assess_factor
from coterie_learners.vertical.gram_factor import Standardised, ThinFactor, standardise, thin_factor, unstandardise

# No column in units of its standard deviation comes near this, even if it is not centred.
_MAX_SHIFT = 1e9
# Share of its largest entry that the mean of a centred column may be, after all rounding.
CENTRED = 1e-6


class SplitOptions(Frozen):
    """What the learners on split columns have in common in the learner section of a study.

    `ridge` penalises half the squared coefficients of the standardised columns (0: none, the exact maximum likelihood),
    the intercept only if asked for. `tolerance` is in standard errors.
    """

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
            raise ProtocolError("CO-P543", f"{message}; the sites have {n} patients in common.", site)
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
    def outcome(self) -> Array:
        """The outcome (n,) at the site that holds it."""
        y = self.site.columns.y
        if y is None:
            raise ProtocolError(
                "CO-P302",
                f"{self.site.name} does not hold the outcome. Name the site that holds it under [columns].",
                self.site.name,
            )
        outcome: Array = y[self.order]
        return outcome

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
        exposure_of_factor = self.disclosure.exposure(what)
        if "outcome" not in payload:
            return exposure_of_factor
        # Who holds the outcome adds it where all are to compute with it.
        rebuilt = (self.split.design.formula.outcome, *exposure_of_factor.rebuilt)
        return replace(exposure_of_factor, rebuilt=rebuilt, **self._counts(site))

    def reveals_masked(self, site: Site, payload: Payload) -> Exposure:
        """What leaves under masks: of this site alone nothing, but its columns are in the span of the sum.

        The sum is all covariate sites' columns side by side, up to one rotation: a factor of their union.
        """
        sites = len(self.split.study.sites) - 1
        columns = self.disclosure.exposure("Its part of a rotated sum")
        return replace(columns, sums_only=True, parties=sites)

    def reveals_result(self, site: Site, payload: Payload) -> Exposure:
        """What coefficients and covariances disclose: they are the result of the study."""
        return Exposure("Coefficients with their covariance", self.n, **self._counts(site))

    def _counts(self, site: Site) -> dict[str, Any]:
        """Events and coefficients, for the floor on them, at the site that knows the events."""
        if site.name != self.split.outcome_site:
            return {}
        return {"events": int(self.outcome.sum()), "parameters": len(self.split.design.columns)}

    def back(self, gamma: Array, covariance: Array, rotation: Array | None = None) -> tuple[Array, Array]:
        """Coefficients (p,) and covariance (p, p) in the variables' own units, from those of the factor."""
        scale = np.array([c.scale for c in self.design.columns])
        turned = self.thin.rotation if rotation is None else rotation
        return unstandardise(turned, self.columns.sd * scale if len(scale) else np.zeros(0), gamma, covariance)


FACTOR_FORM = Schema(
    {"factor": Field("<f8", (None, None)), "shift": Field("<f8", (None,)), "outcome": Field("|u1", (None,))},
    optional=frozenset({"outcome"}),
)


def check_counts(n: int, events: int, q: int) -> None:
    """StudyError or Separation for outcomes that cannot carry a model of q coefficients."""
    if n <= q:
        raise StudyError(
            "CO-N203", f"{n} patients in common cannot carry {q} coefficients. Use a shorter formula, or more patients."
        )
    if events in (0, n):
        raise Separation(
            "CO-N301",
            "The common patients have only one value of the outcome, so no model can be fitted. "
            "Find patients with both values.",
        )


def check_split(split: ColumnSplit) -> None:
    """StudyError for a study on split columns that no logistic learner can run."""
    study, formula = split.study, split.design.formula
    if split.design.outcome.type != "binary":
        raise StudyError(
            "CO-S301",
            f"The outcome {formula.outcome!r} must be declared as binary, not as {split.design.outcome.type}.",
        )
    if formula.offset:
        raise StudyError(
            "CO-S304", "An offset needs the log or the identity link. Remove it, or choose another family."
        )
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


def build_split_fit(
    split: ColumnSplit, terms: tuple[str, ...], estimates: Array, covariance: Array | None, facts: Mapping[str, Any]
) -> Fit:
    """A Fit of some terms; `facts` are n, events, rounds, deviance and null deviance as far as they are known."""
    holder = dict(zip(split.design.names, split.sites_of_terms, strict=True))
    n, events, deviance = int(facts["n"]), facts.get("events"), facts.get("deviance")
    slopes = len(split.design.names) - split.intercept
    advice = advise_on_few_events(split.study)
    small = () if events is None else model_warnings.warn_of_few_events(n, events, slopes, binary=True, advice=advice)
    return Fit(
        learner=split.study.learner.name,
        family="binomial",
        link="logit",
        terms=terms,
        estimates=estimates,
        covariance=covariance,
        n=n,
        events=events,
        rounds=int(facts.get("rounds", 1)),
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=deviance,
        null_deviance=facts.get("null_deviance"),
        log_likelihood=None if deviance is None else -0.5 * deviance,
        ratio="OR",
        notes=(*model_warnings.warn_of_ridge(split.options.ridge), *small, *facts.get("notes", ())),
        sites=tuple(holder[term] for term in terms),
        warnings=small,
        details=facts.get("details", {}),
    )


def prepend_intercept(terms: tuple[str, ...], intercept: bool) -> tuple[str, ...]:
    """A site's terms with the intercept before them, if the model has one."""
    return (INTERCEPT, *terms) if intercept else terms


def blocks_of(factors: Mapping[str, Array], intercept: bool) -> dict[str, slice]:
    """Where among all coefficients each factor's are; an intercept is the first."""
    at, out = int(intercept), {}
    for name, factor in factors.items():
        out[name] = slice(at, at + factor.shape[1])
        at += factor.shape[1]
    return out
