"""`coterie study compare`: two results on the same rows, by AIC, BIC and the likelihood ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_node.cli.options import At, Json, NodeOption, Site
from coterie_node.cli.output import print_document
from coterie_node.errors import ConfigError

_WHICH = "A result as --json prints it, or a study on the ledger by number or hash."


def compare_command(
    first: Annotated[str, typer.Argument(help=_WHICH)],
    second: Annotated[str | None, typer.Argument(help="Another one, on the same rows.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Models, if a study has several: two of one study, or one of each.")
    ] = None,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Compare two fits on the same rows: AIC, BIC, and the test of the larger model where it holds the smaller one."""
    from coterie_node.analysis.compare import compare_results

    comparison = compare_results(*_read_two(first, second, model or [], (node, at, site)))
    print_document(comparison.as_dict(), comparison.text(), as_json)


def _read_two(
    first: str, second: str | None, models: Sequence[str], place: tuple[Path | None, Path | None, str | None]
) -> list[Mapping[str, Any]]:
    """Two results, or two models of one; ConfigError (CO-F380) where these are not two."""
    from coterie_node.audit.publication import pick_model

    names = [first] if second is None else [first, second]
    read = [_read(which, *place) for which in names]
    if second is None:
        several = list(models) or list(read[0].get("models", ()))
        if len(several) != 2:
            message = f"{first} alone is compared by two of its models, and {len(several)} are named"
            raise ConfigError("CO-F380", f"{message}. Give two: --model A --model B, or another result.")
        return [pick_model(read[0], name, first) for name in several]
    chosen = [*models, None, None] if len(models) != 1 else [models[0], models[0]]
    return [pick_model(result, chosen[k], names[k]) for k, result in enumerate(read)]


def _read(which: str, node: Path | None, at: Path | None, site: str | None) -> Mapping[str, Any]:
    """A result file; else the result of a study on the ledger, with the cohort that its document names."""
    if Path(which).suffix == ".json" or Path(which).exists():
        from coterie_node.audit.publication import read_publication

        return read_publication(Path(which))
    from coterie_node.cli.options import open_site
    from coterie_node.verbs.stored_results import read_with_cohort

    return read_with_cohort(open_site(node, at, site), which)
