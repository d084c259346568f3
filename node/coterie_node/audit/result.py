"""The result of a study as statisticians know it: text like R's, JSON with stable keys, CSV like broom's tidy."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie_learners.core.fit import LEVEL, Fit, Row, coefficient_table, count_warnings
from coterie_learners.errors import pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT
from coterie_node.audit.printed.characteristics import print_characteristics
from coterie_node.audit.printed.evaluation import find_evaluation, print_evaluation
from coterie_node.audit.printed.forest_picture import draw_rows, draw_rows_on
from coterie_node.audit.printed.notebook import Plot, ResultSummary, render_block
from coterie_node.audit.printed.printed_table import INDENT, PrintedTable, escape_formula
from coterie_node.audit.replay import PASS, Verdict
from coterie_node.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNKNOWN = "NA"
# The family of a result that evaluates a given model.
VALIDATION = "validation"
DIGITS = 4
# Below this six decimals leave fewer than four digits.
SMALL = 1e-3
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))

# e to more than this is no float.
LARGEST_EXPONENT = 709.0

PARTS = ("compute", "ledger", "store", "total", "round")


@dataclass(frozen=True)
class Cost:
    """The cost of a study: records, payload bytes and gas on the ledger; seconds by compute, ledger, store and in all.

    Seconds of compute, ledger and store are those of the site that spent most; the total is the wall clock from the
    first step to the last site's end, and "round" the total by the number of rounds. None: nobody measured it.
    """

    records: int
    payload_bytes: int
    gas: int | None
    seconds: Mapping[str, float | None]


@dataclass(frozen=True)
class Result:
    """A fit with its provenance; `model` is its model card, with which rows can be predicted.

    `pooled` are the largest differences to a pooled fit where one could be made.

    `beside`: the pooled estimates by term, shown beside those of a method without standard errors. `rows`: what each
    site read, used and left out, and `warnings` of that, if the analysis has the files of all sites.
    """

    study: str
    sites: tuple[str, ...]
    fit: Fit
    cost: Cost
    replay: Verdict | None
    model: Mapping[str, Any] = field(default_factory=dict)
    pooled: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()
    beside: Mapping[str, float] | None = None
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    level: float = LEVEL

    @property
    def params(self) -> Array:
        """Coefficients (p,), in the order of `fit.terms`."""
        return self.fit.estimates

    @property
    def bse(self) -> Array:
        """Standard errors (p,)."""
        return self.fit.std_errors

    @property
    def pvalues(self) -> Array:
        """Two-sided Wald p-values (p,)."""
        return np.array([row.p_value for row in coefficient_table(self.fit)])

    def conf_int(self, alpha: float = 0.05) -> Array:
        """Confidence limits (p, 2) at level 1 - alpha."""
        return np.array([(row.ci_low, row.ci_high) for row in coefficient_table(self.fit, 1.0 - alpha)])

    @property
    def vcov(self) -> Array:
        """Covariance matrix (p, p) of the coefficients; NaN for a method without standard errors."""
        p = len(self.fit.terms)
        return np.full((p, p), np.nan) if self.fit.covariance is None else self.fit.covariance

    def summary(self) -> ResultSummary:
        """The result for a terminal; its table in other formats by `as_latex`, `as_html`, `as_csv`, `as_markdown`."""
        return ResultSummary(self.text(), self.table)

    def columns(self, level: float | None = None) -> dict[str, list[Any]]:
        """The coefficient table by broom's column names; of several models with a column `model`."""
        parts = self.fit.models.items() or (("", self.fit),)
        rows = [(name, row) for name, model in parts for row in coefficient_table(model, level or self.level)]
        names = {"term": "term", "estimate": "estimate", "std.error": "std_error", "statistic": "z"}
        names |= {"p.value": "p_value", "conf.low": "ci_low", "conf.high": "ci_high"}
        models = {"model": [name for name, _ in rows]} if self.fit.models else {}
        return models | {column: [getattr(row, field) for _, row in rows] for column, field in names.items()}

    def to_pandas(self) -> Any:
        """The coefficient table as a DataFrame of pandas; ConfigError (CO-F231) if it is not installed."""
        return _import_package("pandas", "pandas").DataFrame(self.columns())

    def to_polars(self) -> Any:
        """The coefficient table as a DataFrame of polars; ConfigError (CO-F231) if it is not installed."""
        return _import_package("polars", "polars").DataFrame(self.columns())

    def plot(self, cause: str = "") -> Plot:
        """Survival curves (of a cause, if it is named) where the result has some, else the coefficients as a forest."""
        curves = self.fit.details.get("survival")
        if curves:
            from coterie_node.audit.report.survival_figure import draw_survival  # a report imports its template

            return Plot(draw_survival(curves, cause))
        return Plot(draw_rows(coefficient_table(self.fit, self.level), self._measure))

    def figure(self, axes: Axes | None = None, cause: str = "") -> Axes:
        """The same plot by matplotlib, on axes of one's own or of a new figure; returns the axes.

        ConfigError (CO-F231) if matplotlib is not installed: it comes with the extra `plot`.
        """
        axes = axes or _import_package("matplotlib.figure", "coterie[plot]").Figure(layout="tight").subplots()
        if curves := self.fit.details.get("survival"):
            from coterie_node.audit.report.survival_figure import draw_survival_on  # a report imports its template

            draw_survival_on(axes, curves, cause)
        else:
            draw_rows_on(axes, coefficient_table(self.fit, self.level), self._measure)
        return axes

    @property
    def _measure(self) -> str:
        """The label of a forest's axis."""
        return f"log {self.fit.ratio}" if self.fit.ratio else "estimate"

    def _repr_html_(self) -> str:
        table = print_fit(self.fit, self.beside, self.level)
        lines = [
            soundness_line((*self.fit.warnings, *self.warnings)),
            *self.notes,
            *self.warnings,
            self._format_replay(),
        ]
        return render_block(title_of(self.fit, self.study), table.head, table.lines, [*self.fit.notes, *lines])

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        plain = {
            "study": self.study,
            **numbers(self.fit, self.sites, self.level),
            "ledger": {k: getattr(self.cost, k) for k in ("records", "payload_bytes", "gas")},
            "seconds": dict(self.cost.seconds),
            "replay": _replay(self.replay),
            "soundness": soundness_of((*self.fit.warnings, *self.warnings)),
            "notes": [*self.fit.notes, *self.notes, *self.warnings],
            "details": dict(self.fit.details),
            "model": dict(self.model),
        }
        document = plain | ({"pooled": dict(self.pooled)} if self.pooled is not None else {})
        document |= {"rows": dict(self.rows)} if self.rows else {}
        document |= {"row_warnings": list(self.warnings)} if self.warnings else {}
        return {name: finite(value) for name, value in document.items()}

    def text(self) -> str:
        """The result for a terminal."""
        seconds = self.cost.seconds
        lines = [
            *fit_lines(self.fit, self.study, self.sites, self.beside, self.level),
            *self.notes,
            *self.warnings,
            f"Ledger: {pluralise(self.cost.records, 'record')}, {self.cost.payload_bytes} payload bytes, "
            f"{UNKNOWN if self.cost.gas is None else self.cost.gas} gas.",
            "Seconds: " + ", ".join(f"{k} {_format_seconds(seconds[k])}" for k in PARTS if k in seconds) + ".",
        ]
        soundness = soundness_line((*self.fit.warnings, *self.warnings))
        return "\n".join([*lines, *self._format_pooled_difference(), soundness, self._format_replay()])

    def csv(self) -> str:
        """The coefficient table with broom's column names and full precision."""
        return format_csv(self.fit, self.level)

    def table(self, shape: str) -> str:
        """The table of characteristics, of a validation, or of coefficients: "csv", "markdown", "latex" or "html"."""
        return format_table(self.fit, shape, self.beside, self.level)

    def _format_pooled_difference(self) -> list[str]:
        if self.pooled is None:
            return []
        message = f"Largest difference to the pooled fit: coefficients {self.pooled['max_abs_estimate']:.1e}"
        error = self.pooled.get("max_abs_std_error")
        return [f"{message}." if error is None else f"{message}, standard errors {error:.1e}."]

    def _format_replay(self) -> str:
        if self.replay is None:
            return "Replay: not run (coterie audit replay)."
        return replay_line(self.replay)


def _format_seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.3f}"


def numbers(fit: Fit, sites: Sequence[str], level: float = LEVEL) -> dict[str, Any]:
    """The stable JSON keys of a fit, from its learner to its dispersion; of several models those of each by name."""
    if fit.models:
        return _numbers_of_models(fit, sites, level)
    return {
        "learner": fit.learner,
        "family": fit.family,
        "link": fit.link,
        "sites": list(sites),
        "n": fit.n,
        "events": fit.events,
        "rounds": fit.rounds,
        "converged": fit.converged,
        "terms": [row.as_dict() for row in coefficient_table(fit, level)],
        "level": level,
        "statistic": fit.statistic,
        "statistic_name": fit.statistic,
        "deviance": fit.deviance,
        "df_residual": fit.df_residual,
        "null_deviance": fit.null_deviance,
        "df_null": None if fit.null_deviance is None else fit.df_null,
        "aic": fit.aic,
        "bic": fit.bic,
        "log_likelihood": fit.log_likelihood,
        "dispersion": fit.dispersion,
        "soundness": soundness_of(fit.warnings),
        "vcov": None if fit.covariance is None else fit.covariance.tolist(),
    }


def _numbers_of_models(fit: Fit, sites: Sequence[str], level: float) -> dict[str, Any]:
    models = {
        name: numbers(model, sites, level) | {"notes": list(model.notes), "details": dict(model.details)}
        for name, model in fit.models.items()
    }
    whole = {"learner": fit.learner, "sites": list(sites), "n": fit.n, "rounds": fit.rounds, "converged": fit.converged}
    return whole | {"level": level, "soundness": soundness_of(fit.warnings), "models": models}


def fit_lines(
    fit: Fit, study: str, sites: Sequence[str], beside: Mapping[str, float] | None = None, level: float = LEVEL
) -> tuple[str, ...]:
    """A fit for a terminal: heading, coefficients, deviances, criteria and notes; of several models one by one."""
    if fit.models:
        parts = [fit_lines(m, f"{study}, model {name}", sites, None, level) for name, m in fit.models.items()]
        return (*(line for part in parts for line in (*part, "")), *fit.notes)
    rounds = pluralise(fit.rounds, "round") + ("" if fit.converged else ", not known to have converged")
    events = "" if fit.events is None else f", {pluralise(fit.events, 'event')}"
    title = f"{fit.learner.upper()}, {fit.family} ({fit.link})"
    return (
        f"{title}    study {study}    {pluralise(len(sites), 'site')}: {', '.join(sites)}",
        f"{pluralise(fit.n, 'row')}{events}; {rounds}",
        "",
        *_table_lines(fit, beside, level),
        "",
        *_format_dispersion(fit),
        *_format_deviances(fit),
        *_format_criteria(fit),
        *_joint_tests(fit),
        *_unit_hints(fit),
        *_agreement(fit),
        *_conditioning(fit),
        *fit.notes,
        *_evaluation(fit),
    )


def _table_lines(fit: Fit, beside: Mapping[str, float] | None, level: float) -> list[str]:
    table = _own_table(fit)
    return coefficient_lines(fit, beside, level) if table is None else table.text_lines()


def _own_table(fit: Fit) -> PrintedTable | None:
    """The table of a result without a model: of characteristics, or of an evaluation."""
    table, evaluation = fit.details.get("table"), find_evaluation(fit.details)
    if table is not None:
        return print_characteristics(table)
    return print_evaluation(evaluation) if evaluation is not None and fit.family == VALIDATION else None


def _evaluation(fit: Fit) -> list[str]:
    """The evaluation of the model that was fitted."""
    evaluation = find_evaluation(fit.details)
    return [] if evaluation is None or fit.family == VALIDATION else print_evaluation(evaluation).text_lines()


def format_table(fit: Fit, shape: str, beside: Mapping[str, float] | None = None, level: float = LEVEL) -> str:
    """A fit's table in a format of `PrintedTable`; coefficients as CSV have broom's names and full precision."""
    if shape == "csv" and _own_table(fit) is None:
        return format_csv(fit, level).rstrip()
    return print_fit(fit, beside, level).writers[shape]()


def print_fit(fit: Fit, beside: Mapping[str, float] | None = None, level: float = LEVEL) -> PrintedTable:
    """A fit's table: of characteristics, of a validation, or of the coefficients of one model or of several."""
    table = _own_table(fit)
    if table is not None:
        return table
    if fit.models:
        return _print_models(fit, level)
    head, body = coefficient_cells(fit, beside, level)
    return PrintedTable(tuple(head), tuple(map(tuple, body)))


def title_of(fit: Fit, study: str) -> str:
    """The title of a fit's table."""
    kind = f", {fit.family} ({fit.link})" if fit.family and not fit.models else ""
    return f"{study}: {fit.learner.upper()}{kind}"


def _print_models(fit: Fit, level: float) -> PrintedTable:
    """The coefficients of several models in one table, each under its name."""
    cells = {name: coefficient_cells(model, None, level) for name, model in fit.models.items()}
    heads = [head for head, _ in cells.values()]
    width = max(len(head) for head in heads)
    # Models of other families have another statistic, or no ratio.
    words = ("", "Estimate", "Std.Error", "statistic", "p", "", "ratio")
    head = tuple(
        text if all(h[k : k + 1] == [text] for h in heads) else words[k] if k < len(words) else ""
        for k, text in enumerate(next(head for head in heads if len(head) == width))
    )
    lines: list[tuple[str, ...]] = []
    for name, (_, body) in cells.items():
        lines.append((name, *("",) * (width - 1)))
        lines += [(f"{INDENT}{row[0]}", *row[1:], *("",) * (width - len(row))) for row in body]
    return PrintedTable(head, tuple(lines))


def _import_package(module: str, what: str) -> Any:
    """A module of a package that the first installation lacks; ConfigError (CO-F231) if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        message = f"The package {name} is not installed. Install it: pip install '{what}'."
        raise ConfigError("CO-F231", message) from None


def soundness_of(warnings: Sequence[str]) -> dict[str, Any]:
    """The verdict on the model with its warnings, as JSON has them."""
    return {"verdict": count_warnings(warnings), "warnings": list(warnings)}


def soundness_line(warnings: Sequence[str]) -> str:
    """The verdict on the model in one sentence; its warnings are among the notes."""
    return f"Soundness: {count_warnings(warnings)}{', among the lines above' if warnings else ''}."


def _unit_hints(fit: Fit) -> list[str]:
    """The unit to choose if a ratio is too large or too small for a number."""
    rows = [row for row in coefficient_table(fit) if fit.ratio and row.term != INTERCEPT]
    beyond = [row for row in rows if abs(row.estimate) > LARGEST_EXPONENT]
    return [_describe_unit(row, fit.ratio) for row in beyond]


def _describe_unit(row: Row, ratio: str) -> str:
    unit = 10.0 ** -math.ceil(math.log10(abs(row.estimate)))
    return (
        f"The {ratio} of {row.term} is for a change by 1, which no number can show. Per {unit:g} it is "
        f"{math.exp(row.estimate * unit):.4g}: declare the variable in a unit of {unit:g}."
    )


def _agreement(fit: Fit) -> list[str]:
    """The test whether one model holds at all sites, if the learner makes it."""
    test = fit.details.get("agreement", {})
    if not test.get("df") or not math.isfinite(test["p"]):
        return []
    document = f"Agreement of the sites: chi-squared {test['chi2']:.2f} on {test['df']} df, p = {test['p']:.2g}"
    terms = [term for term in test["terms"] if math.isfinite(term["p"])]
    least = min(terms, key=lambda term: float(term["p"]), default=None)
    return [f"{document}." if least is None else f"{document}; least on {least['term']}, p = {least['p']:.2g}."]


def _joint_tests(fit: Fit) -> list[str]:
    """Wald tests of the terms that have more than one coefficient."""
    statistic = "chi-squared" if fit.dispersion_known else "F"
    several = [test for test in fit.details.get("tests", ()) if test["df"] > 1 and math.isfinite(test["p"])]
    tests = (f"{t['term']} {statistic} {t['statistic']:.2f} on {t['df']} df, p = {t['p']:.2g}" for t in several)
    return [f"Joint tests: {'; '.join(tests)}."] if several else []


def _conditioning(fit: Fit) -> list[str]:
    """The number of digits that can be trusted, if the learner knows it."""
    found = fit.details.get("conditioning")
    if found is None:
        return []
    least = min(found.get("digits", {}).values(), default=None)
    estimates = "" if least is None else f"at least {math.floor(least)} of the estimates, "
    return [
        f"Condition number {found['condition_number']:.3g}; digits that are sure: {estimates}"
        f"{math.floor(found['std_error_digits'])} of the standard errors."
    ]


def format_csv(fit: Fit, level: float = LEVEL) -> str:
    """The coefficient table as CSV, with broom's column names and full precision; of several models a column more."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["term", "estimate", "std.error", "statistic", "p.value", "conf.low", "conf.high"]
    writer.writerow(["model", *head] if fit.models else head)
    for name, model in fit.models.items() or (("", fit),):
        for row in coefficient_table(model, level):
            values = (row.estimate, row.std_error, row.z, row.p_value, row.ci_low, row.ci_high)
            cells = [escape_formula(row.term), *("" if v != v else repr(v) for v in values)]
            writer.writerow([name, *cells] if name else cells)
    return out.getvalue()


def replay_line(verdict: Verdict) -> str:
    """A verdict in one sentence."""
    if not verdict.intact:
        return f"Replay: {verdict.verdict} [{verdict.code}] {verdict.problem}"
    sealed = f", {pluralise(verdict.unchecked, 'step')} sealed to others" if verdict.unchecked else ""
    largest = f"{verdict.max_difference:.1e}" if verdict.max_difference else "0"
    steps = f"{pluralise(verdict.steps, 'server step')} recomputed{sealed}, largest difference {largest}"
    model = "" if verdict.verdict == PASS else ", model not recomputed"
    seals = "; on a chain without seals" if verdict.unsealed else ""
    return f"Replay: {verdict.verdict}{model}, {verdict.grade} ({steps}){seals}."


def coefficient_lines(fit: Fit, beside: Mapping[str, float] | None = None, level: float = LEVEL) -> list[str]:
    """The coefficient table, aligned, as R prints it; pooled estimates `beside` those without standard errors."""
    head, body = coefficient_cells(fit, beside, level)
    aligned = PrintedTable(tuple(head), tuple(map(tuple, body))).text_lines()
    return aligned if fit.covariance is None else [*aligned, "Signif.: 0 *** 0.001 ** 0.01 * 0.05 . 0.1"]


def coefficient_cells(
    fit: Fit, beside: Mapping[str, float] | None = None, level: float = LEVEL
) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the coefficient table, in words."""
    rows = coefficient_table(fit, level)
    statistic = fit.statistic
    head = ["", "Estimate", "Std.Error", statistic, f"Pr(>|{statistic}|)", "", fit.ratio or "", f"{100 * level:g}% CI"]
    body = [_format_cells(row, fit.ratio) for row in rows]
    if fit.sites:
        head, body = [*head, "site"], [[*cells, row.site] for cells, row in zip(body, rows, strict=True)]
    if fit.covariance is None:
        head, body = head[:2] + head[8:], [cells[:2] + cells[8:] for cells in body]
        if beside is not None:
            head = [*head[:2], "Pooled", *head[2:]]
            body = [[*c[:2], number(beside[c[0]]), *c[2:]] for c in body]
    return head, body


def _format_cells(row: Row, ratio: str) -> list[str]:
    times, interval = limits(row, ratio)
    if row.std_error != row.std_error:  # this term's site keeps it, or nobody has it
        return [row.term, number(row.estimate), UNKNOWN, UNKNOWN, UNKNOWN, "", times, UNKNOWN]
    star = next((mark for bound, mark in STARS if row.p_value < bound), "")
    p_value = "<2e-16" if row.p_value < 2e-16 else f"{row.p_value:.3g}"
    tests = [number(row.std_error), f"{row.z:.3f}", p_value, star]
    return [row.term, number(row.estimate), *tests, times, interval]


def number(value: float) -> str:
    """Six decimals, or four digits where these would be lost: a covariate in large units has a small coefficient."""
    return f"{value:.3e}" if 0.0 < abs(value) < SMALL else f"{value + 0.0:.6f}"


def limits(row: Row, ratio: str) -> tuple[str, str]:
    """The ratio if there is one, and its confidence limits, else those of the coefficient; digits tell it from 1."""
    scale = _exp if ratio else float
    low, middle, high = scale(row.ci_low), scale(row.estimate), scale(row.ci_high)
    digits = DIGITS
    if len({f"{value:.{digits}g}" for value in (low, middle, high)}) < 3 and 0.0 < high - low < abs(middle):
        digits = min(2 - math.floor(math.log10((high - low) / abs(middle))), 15)
    return f"{middle:.{digits}g}" if ratio else "", f"[{low:.{digits}g}, {high:.{digits}g}]"


def _exp(x: float) -> float:
    """e^x, infinite where it is too large for a float: a covariate in large units has such ratios."""
    return math.exp(x) if x < LARGEST_EXPONENT else math.inf


def _format_dispersion(fit: Fit) -> list[str]:
    """The dispersion as in R's summary; known dispersions are 1."""
    theta = fit.details.get("theta")
    if theta is not None:
        return [f"Theta {theta['estimate']:.6g}, standard error {theta['std_error']:.4g} (variance mu + mu^2 / theta)"]
    if fit.dispersion_known or fit.covariance is None:
        return []
    return [f"Dispersion parameter for {fit.family} taken to be {fit.dispersion:.6g}"]


def _format_deviances(fit: Fit) -> list[str]:
    if fit.deviance is None:
        return []
    residual = f"Residual deviance {fit.deviance:.2f}{_describe_df(fit.df_residual)}"
    if fit.null_deviance is None:
        return [residual]
    return [f"Null deviance {fit.null_deviance:.2f}{_describe_df(fit.df_null)}   {residual}"]


def _describe_df(count: int | None) -> str:
    return "" if count is None else f" on {count} df"


def _format_criteria(fit: Fit) -> list[str]:
    if fit.log_likelihood is None:
        return []
    return [f"Log-likelihood {fit.log_likelihood:.4f}   AIC {fit.aic:.2f}   BIC {fit.bic:.2f}"]


def _replay(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"verdict": "NOT RUN", "grade": "none", "steps": 0, "max_difference": None}
    return verdict.as_dict()


def finite(value: Any) -> Any:
    """A value as JSON can have it: None for NaN and infinities, at any depth."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
