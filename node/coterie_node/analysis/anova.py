"""Analysis of deviance: Wald tests of one result's terms, or likelihood-ratio tests of results that hold each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie_node.analysis.compare import compare_results, tell_apart
from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.errors import ConfigError


@dataclass(frozen=True)
class TermTest:
    """One line: a term or a study, the kind of test ("chi-squared" or "F"), its degrees of freedom and p-value."""

    name: str
    kind: str
    df: int | None
    statistic: float | None
    p: float | None
    deviance: float | None = None
    df_residual: float | None = None


def assess_terms(result: Mapping[str, Any]) -> list[TermTest]:
    """Wald tests of all terms of a result (type II where no products are in the formula)."""
    tests = result.get("details", {}).get("tests") or []
    if not tests:
        message = f"The result of {result.get('study', 'a study')!s:.60} has no tests of its terms"
        raise ConfigError("CO-F350", f"{message}. Choose a method with standard errors, and print it with --json.")
    kind = "F" if result.get("statistic") == "t" else "chi-squared"
    return [TermTest(t["term"], kind, int(t["df"]), t["statistic"], t["p"]) for t in tests]


def assess_models(results: Sequence[Mapping[str, Any]]) -> list[TermTest]:
    """Each result against the next smaller one, smallest first; ConfigError where one does not hold the other."""
    ordered = sorted(results, key=lambda result: len(result["terms"]))
    names, first = tell_apart([str(result["study"]) for result in ordered]), ordered[0]
    out = [TermTest(names[0], "", None, None, None, first.get("deviance"), first.get("df_residual"))]
    for name, (small, large) in zip(names[1:], itertools.pairwise(ordered), strict=True):
        comparison = compare_results(small, large)
        test = comparison.test
        if test is None:
            raise ConfigError("CO-F349", f"{small['study']} and {large['study']} are not nested. {comparison.reason}")
        numbers = (test.kind, test.df, test.statistic, test.p, large.get("deviance"), large.get("df_residual"))
        out.append(TermTest(name, *numbers))
    return out


def print_tests(tests: Sequence[TermTest]) -> PrintedTable:
    """The tests as a table; deviances where models are compared."""
    models = any(test.deviance is not None for test in tests)
    head = ("", *(("Resid. df", "Deviance") if models else ()), "df", "test", "statistic", "p")
    return PrintedTable(head, tuple(_print_test(test, models) for test in tests))


def _print_test(test: TermTest, models: bool) -> tuple[str, ...]:
    deviance = (_show(test.df_residual, ".0f"), _show(test.deviance, ".4f")) if models else ()
    df = "" if test.df is None else str(test.df)
    return (test.name, *deviance, df, test.kind, _show(test.statistic, ".4f"), _show(test.p, ".3g"))


def _show(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
