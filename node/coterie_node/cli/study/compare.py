"""`coterie study compare`: two results on the same rows, by AIC, BIC and the likelihood ratio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_node.cli.options import At, Json, NodeOption, Site
from coterie_node.cli.output import print_document

_WHICH = "A result as --json prints it, or a study on the ledger by number or hash."


def compare_command(
    first: Annotated[str, typer.Argument(help=_WHICH)],
    second: Annotated[str, typer.Argument(help="Another one, on the same rows.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Compare two fits on the same rows: AIC, BIC, and the test of the larger model where it holds the smaller one."""
    from coterie_node.analysis.compare import compare_results

    comparison = compare_results(*(_read(which, node, at, site) for which in (first, second)))
    print_document(comparison.as_dict(), comparison.text(), as_json)


def _read(which: str, node: Path | None, at: Path | None, site: str | None) -> Mapping[str, Any]:
    """A result file; else the result of a study on the ledger, with the cohort that its document names."""
    if Path(which).suffix == ".json" or Path(which).exists():
        from coterie_node.audit.publication import read_publication

        return read_publication(Path(which))
    from coterie_node.cli.options import open_site
    from coterie_node.cli.study.stored_results import read_with_cohort

    return read_with_cohort(open_site(node, at, site), which)
