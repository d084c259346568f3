"""From estimates and their covariance to the table that a statistician reads.

Wald tests and intervals (McCullagh and Nelder 1989, section 4.4): normal where the dispersion is known, Student's t
with n - p degrees of freedom where it is estimated, as R's summary.glm does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from coterie_learners.errors import pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import (
    chi_squared_above,
    f_above,
    normal_quantile,
    t_quantile,
    two_sided_normal,
    two_sided_t,
)
from coterie_learners.study.design import INTERCEPT

LEVEL = 0.95


@dataclass(frozen=True)
class Fit:
    """A fitted model in the variables' own units.

    `covariance` includes the dispersion; None where the method has no standard errors; NaN between terms of sites that
    keep their covariance apart. Deviances and likelihood are None where they are not known (to this site). `events`:
    rows with outcome 1, or the sum of counts. `ratio` names what exp(estimate) is ("OR", "IRR"), or is empty. `sites`:
    whose each term is, where columns are split. `notes` are sentences for people, those of `warnings` on
    whether the model is sound; `details` further results of the
    learner as JSON has them. `equations`: linear predictors of a row. `selected`: a penalty chose the coefficients that
    are not zero, and n - p counts nothing. `converged` is False also where nobody looked whether the fit had settled.
    `absorbed`: estimated parameters that no table shows, as each site keeps its own. `elsewhere`: coefficients of the
    model that other sites' tables show, less those that collinear columns share.
    `shapes`: estimated parameters of the family, beside the coefficients and the dispersion. `thresholds`: terms that
    stand for the intercept of an outcome whose levels have an order. `informative`: the observations that BIC counts
    where these are not the rows, as the events of a Cox model. `models`: the fits of a
    study of several models by name, whose terms and estimates this one lists under the models' names.
    """

    learner: str
    family: str
    link: str
    terms: tuple[str, ...]
    estimates: Array
    covariance: Array | None
    n: int
    events: int | None
    rounds: int
    converged: bool
    dispersion: float
    dispersion_known: bool
    deviance: float | None
    null_deviance: float | None
    log_likelihood: float | None
    ratio: str = ""
    notes: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    equations: int = 1
    selected: bool = False
    absorbed: int = 0
    elsewhere: int = 0
    shapes: int = 0
    thresholds: int = 0
    informative: int | None = None
    warnings: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    models: Mapping[str, Fit] = field(default_factory=dict)

    @property
    def intercepts(self) -> int:
        """Intercepts that all sites have in common, one for each linear predictor or none; or thresholds."""
        return self.thresholds + sum(term == INTERCEPT or term.endswith(f":{INTERCEPT}") for term in self.terms)

    @property
    def statistic(self) -> str:
        """Whose table the p-values come from: "z" where the dispersion is known, "t" where it is estimated."""
        return "z" if self.dispersion_known else "t"

    @property
    def coefficients(self) -> int:
        """Estimated coefficients of the model, whichever table shows them."""
        return len(self.terms) + self.absorbed + self.elsewhere

    @property
    def df_residual(self) -> int | None:
        """Degrees of freedom of the residual deviance."""
        return None if self.selected else self.n * self.equations - self.coefficients

    @property
    def df_null(self) -> int | None:
        """Degrees of freedom of the null deviance."""
        return None if self.selected else self.n * self.equations - self.intercepts - self.absorbed

    @property
    def std_errors(self) -> Array:
        """Standard errors (p,); NaN where the method has none."""
        return np.full(len(self.terms), np.nan) if self.covariance is None else np.sqrt(np.diag(self.covariance))

    @property
    def soundness(self) -> str:
        """The verdict on the model, beside that on the arithmetic: how many warnings there are."""
        return count_warnings(self.warnings)

    @property
    def parameters(self) -> int:
        """Estimated parameters, the dispersion among them where it is estimated."""
        return self.coefficients + self.shapes + (0 if self.dispersion_known else 1)

    @property
    def aic(self) -> float | None:
        """Akaike's information criterion."""
        return None if self.log_likelihood is None else 2.0 * self.parameters - 2.0 * self.log_likelihood

    @property
    def bic(self) -> float | None:
        """Schwarz's information criterion; of a Cox model by its events (Volinsky and Raftery, Biometrics 2000)."""
        if self.log_likelihood is None:
            return None
        count = self.n if self.informative is None else self.informative
        return self.parameters * float(np.log(count)) - 2.0 * self.log_likelihood


def count_warnings(warnings: Sequence[str]) -> str:
    """How many warnings there are, in words."""
    count = len(warnings)
    return "no warnings" if not count else pluralise(count, "warning")


@dataclass(frozen=True)
class Row:
    """One line of the coefficient table; z is t where the dispersion is estimated, NaN is what the method has not."""

    term: str
    estimate: float
    std_error: float
    z: float
    p_value: float
    ci_low: float
    ci_high: float
    site: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys; None for what there is not, and `site` only where columns are split."""
        plain = {name: None if value != value else value for name, value in asdict(self).items()}
        return plain if self.site else {name: value for name, value in plain.items() if name != "site"}


def coefficient_table(fit: Fit, level: float = LEVEL) -> tuple[Row, ...]:
    """The coefficient table with two-sided Wald p-values, and intervals at `level`: Wald's, or the learner's own."""
    # Without any error nothing can be tested.
    errors = np.where(fit.std_errors > 0.0, fit.std_errors, np.nan)
    z = fit.estimates / errors
    if fit.dispersion_known:
        p_values, quantile = two_sided_normal(z), normal_quantile(0.5 + level / 2)
    else:
        freedom = fit.n - fit.coefficients
        p_values, quantile = two_sided_t(z, freedom), t_quantile(0.5 + level / 2, freedom)
    half = quantile * fit.std_errors
    low, high = _find_own_limits(fit, level) or (fit.estimates - half, fit.estimates + half)
    columns: Sequence[Array] = (fit.estimates, fit.std_errors, z, p_values, low, high)
    sites = fit.sites or ("",) * len(fit.terms)
    lines = zip(fit.terms, *(c.tolist() for c in columns), sites, strict=True)
    return tuple(Row(*line) for line in lines)


def _find_own_limits(fit: Fit, level: float) -> tuple[Array, Array] | None:
    """The limits that the learner found by itself, as it does at one level; None where Wald's hold."""
    own = fit.details.get("intervals")
    if own is None or own["level"] != level:
        return None
    low, high = (
        np.array([np.nan if v is None else v for v in own[name]], dtype=np.float64) for name in ("low", "high")
    )
    return low, high


def joint_tests(fit: Fit, columns: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A line for each term of the formula, by the columns that it made, as JSON has it: chi-squared or F, df and p.

    Rao, Linear Statistical Inference, 2nd ed. 1973, section 6e: b' V^-1 b of a term's coefficients b with covariance V
    is about chi-squared; over its degrees of freedom it is F where the dispersion is estimated (survey::regTermTest).
    """
    covariance = fit.covariance
    if covariance is None:
        return []
    places = {name: k for k, name in enumerate(fit.terms)}
    present = {term: [places[name] for name in names if name in places] for term, names in columns.items()}
    known = {term: at for term, at in present.items() if at and np.all(np.isfinite(covariance[np.ix_(at, at)]))}
    return [describe_test(fit, term, at) for term, at in known.items()]


def describe_test(fit: Fit, term: str, at: Sequence[int]) -> dict[str, Any]:
    """The test of the coefficients at these places."""
    assert fit.covariance is not None
    estimates, covariance = fit.estimates[list(at)], fit.covariance[np.ix_(at, at)]
    scale = np.sqrt(np.diag(covariance))
    if not np.all(scale > 0.0):
        return {"term": term, "df": len(at), "statistic": float("nan"), "p": float("nan")}
    z = estimates / scale
    if len(at) == 1:
        chi2 = float(z[0] * (z[0] / (covariance[0, 0] / (scale[0] * scale[0]))))
    else:
        chi2 = max(float(z @ np.linalg.solve(covariance / np.outer(scale, scale), z)), 0.0)
    if fit.dispersion_known or fit.df_residual is None:
        return {"term": term, "df": len(at), "statistic": chi2, "p": chi_squared_above(chi2, len(at))}
    value, df = np.array([chi2 / len(at)]), np.array([float(len(at))])
    p = float(f_above(value, df, fit.df_residual)[0])
    return {"term": term, "df": len(at), "statistic": float(value[0]), "p": p}


def merge_fits(fits: Mapping[str, Fit | None], order: Sequence[str]) -> Fit:
    """One fit of the fits that the sites ended with, for a reader of them all; its terms in the given order.

    The numbers that belong to no term come from the fit that knows the deviance, or else the most terms.
    """
    fitted = [fit for fit in fits.values() if fit is not None]
    base = max(fitted, key=lambda fit: (fit.deviance is not None, len(fit.terms)))
    notes = tuple(dict.fromkeys(note for fit in fitted for note in fit.notes))
    warnings = tuple(dict.fromkeys(warning for fit in fitted for warning in fit.warnings))
    details = {key: value for fit in fitted for key, value in fit.details.items()}
    lists = [fit.details.get("tests") for fit in fitted]
    tests = {test["term"]: test for tests in lists if isinstance(tests, list) for test in tests}
    details |= {"tests": list(tests.values())} if tests else {}
    if all(set(fit.terms) <= set(base.terms) for fit in fitted):
        models = {name: replace(model, own=()) for name, model in base.models.items()}
        return replace(base, notes=notes, warnings=warnings, details=details, own=(), models=models)
    place = {name: k for k, name in enumerate(order)}
    rows = sorted({t: (fit, j) for fit in fitted for j, t in enumerate(fit.terms)}.items(), key=lambda r: place[r[0]])
    covariance = np.full((len(rows), len(rows)), np.nan)
    for a, (_, (fit, j)) in enumerate(rows):
        for b, (_, (other, k)) in enumerate(rows):
            if fit is other and fit.covariance is not None:
                covariance[a, b] = fit.covariance[j, k]
    return replace(
        base,
        terms=tuple(term for term, _ in rows),
        estimates=np.array([fit.estimates[j] for _, (fit, j) in rows]),
        covariance=covariance,
        sites=tuple(fit.sites[j] if fit.sites else "" for _, (fit, j) in rows),
        elsewhere=base.elsewhere + len(base.terms) - len(rows),
        notes=notes,
        warnings=warnings,
        details=details,
        own=(),
    )


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """A fit as JSON has it."""
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(fit).items()}
    models = {name: fit_to_json(model) for name, model in plain.pop("models").items()}
    return plain | ({"models": models} if models else {})


def fit_from_json(values: Mapping[str, Any]) -> Fit:
    """The inverse of plain."""
    covariance = values["covariance"]
    lists = {name: tuple(values.get(name, ())) for name in ("terms", "notes", "sites", "warnings", "own")}
    arrays = {
        "estimates": np.array(values["estimates"], dtype=np.float64),
        "covariance": None if covariance is None else np.array(covariance, dtype=np.float64),
    }
    models = {name: fit_from_json(model) for name, model in values.get("models", {}).items()}
    return Fit(**{**values, **lists, **arrays, "models": models})


def join_fits(fits: Mapping[str, Fit], n: int, rounds: int, ended: Mapping[str, str]) -> Fit:
    """One fit that holds those of several models on `n` rows by name; `ended`: why others have none, in sentences."""
    first = next(iter(fits.values()))
    notes = tuple(f"Model {name} has no fit. {sentence}" for name, sentence in ended.items())
    warnings = tuple(f"{name}: {warning}" for name, fit in fits.items() for warning in fit.warnings)
    return Fit(
        learner=first.learner,
        family="several",
        link="",
        terms=tuple(f"{name}: {term}" for name, fit in fits.items() for term in fit.terms),
        estimates=np.concatenate([fit.estimates for fit in fits.values()]),
        covariance=None,
        n=n,
        events=None,
        rounds=rounds,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None,
        notes=notes,
        warnings=(*notes, *warnings),
        details={"ended": dict(ended)} if ended else {},
        models=dict(fits),
    )
