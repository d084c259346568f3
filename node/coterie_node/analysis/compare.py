"""Two results side by side: information criteria, and the test of the larger model against the smaller one.

The likelihood ratio (Wilks, Ann Math Stat 1938;9:60-62) is chi-squared on the difference of the degrees of freedom
where the dispersion is known; elsewhere the difference of the deviances over the larger model's dispersion is F, as R's
`anova(small, large, test = "F")` has it. Models of other rows are not compared.

Two deviances differ by the likelihood ratio only if both are against one saturated model. Those of negative binomial
models are not, because each has its own shape: likelihoods themselves are compared, as R's `anova` of `glm.nb` does. So
are the partial likelihoods of Cox models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coterie_learners.numeric.distributions import chi_squared_above, f_above
from coterie_node.errors import ConfigError

# Deviances without covariates of the same outcomes agree to this, whatever order they were added up in.
SAME = 1e-9
# What a model has that gives each site an intercept which it keeps, beside the terms of its table.
SITES, INTERCEPT = "intercepts of the sites", "(Intercept)"
CRITERIA = ("aic", "bic", "log_likelihood", "deviance", "df_residual")


@dataclass(frozen=True)
class ModelTest:
    """The larger model against the smaller one. `kind`: "chi-squared" or "F"; `added`: the terms that it adds."""

    kind: str
    statistic: float
    df: int
    p: float
    added: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Names of the two studies, the criteria of each, and the test; `reason`: why there is no test."""

    names: tuple[str, str]
    criteria: Mapping[str, tuple[Any, Any]]
    test: ModelTest | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        criteria = {name: list(pair) for name, pair in self.criteria.items()}
        test = None if self.test is None else asdict(self.test)
        return {"studies": list(self.names), "criteria": criteria, "test": test, "reason": self.reason}

    def text(self) -> str:
        """The same for a terminal."""
        width = max(len(name) for name in self.names) + 2
        lines = ["".ljust(16) + "".join(name.rjust(max(width, 14)) for name in self.names)]
        for label, pair in self.criteria.items():
            cells = ("NA" if value is None else f"{value:.10g}" for value in pair)
            lines.append(label.ljust(16) + "".join(cell.rjust(max(width, 14)) for cell in cells))
        return "\n".join([*lines, "", self.reason if self.test is None else _describe_test(self.test)])


def compare_results(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Two results as `--json` prints them; ConfigError (CO-F349) if they have other rows, or are other models."""
    _check_rows(first, second)
    criteria = {name: (first.get(name), second.get(name)) for name in CRITERIA}
    test, reason = _test_models(first, second)
    names = tell_apart([str(first["study"]), str(second["study"])])
    return Comparison((names[0], names[1]), criteria, test, reason)


def tell_apart(names: Sequence[str]) -> list[str]:
    """Names of results, each with its place in brackets where two of them are the same."""
    several = [name for name in names if names.count(name) > 1]
    return [f"{name} ({k})" if name in several else name for k, name in enumerate(names, 1)]


def _check_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    _check_cohorts(first, second)
    differences = list(_list_differences(first, second))
    if differences:
        message = f"The results have other rows or outcomes: {'; '.join(differences)}"
        remedy = "Let both studies name one cohort, with the columns that it has complete: [cohort] name, complete"
        raise ConfigError("CO-F349", f"{message}. {remedy}.")


def _check_cohorts(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """ConfigError where the documents on the ledger name two cohorts, or a cohort with other complete columns."""
    cohorts = [_find_cohort(result) for result in (first, second)]
    if None in cohorts or cohorts[0] == cohorts[1]:
        return
    names = " and ".join(_name_cohort(result) for result in (first, second))
    message = f"The studies have other patients, as their documents on the ledger say: {names}"
    raise ConfigError("CO-F349", f"{message}. Let both name one cohort, with the same columns complete.")


def _find_cohort(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The cohort of the document on the ledger, or that of a published model card; None where nothing is said."""
    cohort = result.get("cohort") or (result.get("model") or {}).get("cohort")
    return cohort if isinstance(cohort, Mapping) else None


def _name_cohort(result: Mapping[str, Any]) -> str:
    cohort = _find_cohort(result) or {"name": "", "complete": []}
    complete = f" with {', '.join(cohort['complete'])} complete" if cohort["complete"] else ""
    named = f"the cohort {cohort['name']!r}" if cohort["name"] else "no cohort"
    return f"{result['study']} on {named}{complete}"


def _list_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for name, word in (("sites", "sites"), ("n", "rows"), ("events", "events"), ("family", "family"), ("link", "link")):
        if first.get(name) != second.get(name):
            yield f"{word} {_show(first.get(name))} and {_show(second.get(name))}"
    one, other = _find_null(first), _find_null(second)
    # Without covariates a model with the sites' own intercepts is another model than one with a common intercept.
    alike = _keeps_intercepts(first) == _keeps_intercepts(second)
    if alike and one is not None and other is not None and abs(one[1] - other[1]) > SAME * (abs(one[1]) + 1e-300):
        yield f"{one[0]} {one[1]:.10g} and {other[1]:.10g}"
    rows = first.get("rows"), second.get("rows")
    if rows[0] and rows[1] and _list_used(rows[0]) != _list_used(rows[1]):
        yield "rows used at each site"


def _find_null(result: Mapping[str, Any]) -> tuple[str, float] | None:
    """What the model without covariates says of the rows, and what it is called; None where it says nothing.

    The null deviance of a model with a shape of its own depends on that shape, not on the rows alone.
    """
    if _has_shape(result):
        return None
    null = (result.get("details") or {}).get("cox", {}).get("null_log_likelihood")
    if null is not None:
        return "null log-likelihood", float(null)
    deviance = result.get("null_deviance")
    return None if deviance is None else ("null deviance", float(deviance))


def _has_shape(result: Mapping[str, Any]) -> bool:
    """Whether the variance has a shape that the fit estimates."""
    return "theta" in (result.get("details") or {})


def _list_used(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {site: values.get("used") for site, values in rows.items()}


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _test_models(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[ModelTest | None, str]:
    small, large = sorted((first, second), key=lambda result: len(_list_terms(result)))
    terms = [_list_terms(result) for result in (small, large)]
    if not set(terms[0]) < set(terms[1]):
        return None, "No test: neither model holds all terms of the other and more."
    measure = -2.0 if any(_has_shape(r) or r.get("deviance") is None for r in (small, large)) else 1.0
    key = "deviance" if measure > 0.0 else "log_likelihood"
    names = [(result, name) for result in (small, large) for name in (key, "df_residual")]
    if any(result.get(name) is None for result, name in names) or _is_penalised(small) or _is_penalised(large):
        return None, "No test: the fits have no likelihood to compare, or one with a penalty or of a sample."
    if _is_robust_cox(small) or _is_robust_cox(large):
        return None, "No test: the rows of a robust Cox model depend on each other, which its likelihood leaves out."
    values = [float(result[name]) for result, name in names]
    df, fall = round(values[1] - values[3]), max(measure * (values[0] - values[2]), 0.0)
    added = tuple(name for name in terms[1] if name not in terms[0])
    if large.get("statistic") == "z":
        return ModelTest("chi-squared", fall, df, chi_squared_above(fall, df), added), ""
    value, freedom = fall / df / float(large["dispersion"]), values[3]
    p = float(f_above(np.array([value]), np.array([float(df)]), freedom)[0])
    return ModelTest("F", value, df, p, added), ""


def _is_robust_cox(result: Mapping[str, Any]) -> bool:
    """Whether R's `anova` would refuse a Cox model for its robust variances."""
    ratios = (result.get("details") or {}).get("cox", {}).get("hazard_ratios", ())
    return any("robust se" in row for row in ratios)


def _list_terms(result: Mapping[str, Any]) -> list[str]:
    """The terms of a result; the sites' own intercepts count as a common one and their differences from it."""
    own = [INTERCEPT, SITES] if _keeps_intercepts(result) else []
    return own + [str(row["term"]) for row in result["terms"]]


def _keeps_intercepts(result: Mapping[str, Any]) -> bool:
    """Whether each site has an intercept that it keeps: there are more parameters than terms, and none in common."""
    terms, freedom = {str(row["term"]) for row in result["terms"]}, result.get("df_residual")
    return freedom is not None and INTERCEPT not in terms and int(result["n"]) - int(freedom) > len(terms)


def _is_penalised(result: Mapping[str, Any]) -> bool:
    words = ("Ridge", "Firth", "sampling weights")
    return any(word in str(note) for note in result.get("notes", ()) for word in words)


def _describe_test(test: ModelTest) -> str:
    return f"{', '.join(test.added)}: {test.kind} {test.statistic:.4f} on {test.df} df, p = {test.p:.3g}."
