"""`coterie study contrast` and `anova`: tests of a published result's terms, from its coefficients and covariance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie_node.cli.options import Format, Json, Level, ModelName, Out, Shape, choose_shape
from coterie_node.cli.output import format_json, save_or_print, save_or_print_table

if TYPE_CHECKING:
    from coterie_node.analysis.contrasts import Coefficients, Contrast
    from coterie_node.audit.printed.printed_table import PrintedTable

_SUMS = Annotated[list[str], typer.Argument(help="Sums of terms: 'sex[male] - 2 * age'. Several are tested jointly.")]
_RESULT = Annotated[Path, typer.Argument(help="A result as --json prints it.")]


def contrast_command(
    result: _RESULT,
    sums: _SUMS,
    mean: Annotated[bool, typer.Option("--mean", help="Means of the outcome at these linear predictors.")] = False,
    minus: Annotated[
        str | None, typer.Option(help="With --mean: the difference of each mean from the mean at this sum.")
    ] = None,
    model: ModelName = None,
    level: Level = 0.95,
    shape: Shape = Format.text,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Test sums of a result's coefficients, with intervals; or show means at covariate values, and differences."""
    from coterie_node.analysis.contrasts import Coefficients, contrasts_to_json
    from coterie_node.audit.publication import read_published_model
    from coterie_node.audit.result import finite

    shape = choose_shape(shape, as_json, out)
    if minus is not None and not mean:
        raise typer.BadParameter("It is a difference of means. Give --mean as well.", param_hint="--minus")
    published = read_published_model(result, model)
    coefficients = Coefficients.of(published)
    contrasts = [_combine(coefficients, text, mean, minus, level) for text in sums]
    several = len(sums) > 1 and not mean
    joint = coefficients.test([coefficients.parse(text) for text in sums]) if several else None
    if shape is Format.json:
        save_or_print(format_json(finite(contrasts_to_json(contrasts, joint, level))), out)
        return
    test = "" if joint is None else f"{joint.kind} {joint.statistic:.4f} on {joint.df} df, p = {joint.p:.3g}"
    title = f"{published.get('study', '')}: {'means' if mean else 'contrasts'}"
    save_or_print_table(
        _print_contrasts(contrasts, level), shape, out, title, [f"All of them: {test}."] if test else []
    )


def _combine(coefficients: Coefficients, text: str, mean: bool, minus: str | None, level: float) -> Contrast:
    weights = coefficients.parse(text)
    if minus is not None:
        name = f"({text.strip()}) against ({minus.strip()})"
        return coefficients.difference(name, weights, coefficients.parse(minus), level)
    return (coefficients.mean if mean else coefficients.contrast)(text.strip(), weights, level)


def _print_contrasts(contrasts: list[Contrast], level: float) -> PrintedTable:
    from coterie_node.audit.printed.printed_table import PrintedTable

    head = ("", "Estimate", "Std.Error", "statistic", "p", f"{100 * level:g}% CI")
    lines = []
    for c in contrasts:
        tested = ("", "") if c.p != c.p else (f"{c.statistic:.3f}", f"{c.p:.3g}")
        lines.append((c.name, f"{c.estimate:.6g}", f"{c.std_error:.4g}", *tested, f"[{c.low:.4g}, {c.high:.4g}]"))
    return PrintedTable(head, tuple(lines))


def anova_command(
    results: Annotated[list[Path], typer.Argument(help="One result, or results of nested models.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Models of a result with several; two or more are compared.")
    ] = None,
    shape: Shape = Format.text,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Test the terms of one result (Wald), or each of several results against the next smaller one (LR, or F)."""
    from coterie_node.analysis.anova import assess_models, assess_terms, print_tests
    from coterie_node.audit.publication import read_published_model
    from coterie_node.audit.result import finite

    shape = choose_shape(shape, as_json, out)
    published = [read_published_model(path, name) for path in results for name in model or (None,)]
    tests = assess_terms(published[0]) if len(published) == 1 else assess_models(published)
    if shape is Format.json:
        save_or_print(format_json(finite([asdict(test) for test in tests])), out)
    else:
        save_or_print_table(print_tests(tests), shape, out, f"{published[-1].get('study', '')}: tests of terms")
