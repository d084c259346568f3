"""`coterie doctor`: what a node needs, checked one by one; each failure with its remedy."""

from __future__ import annotations

from dataclasses import asdict

import typer

from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_rows
from coterie_node.data.findings import printable
from coterie_node.network.checks.examine import examine


def doctor_command(node: NodeOption = None, as_json: Json = False) -> None:
    """Check this site's node: key, journal, disk, chain, seat, peers, clock, store and rows; status 12 if one fails."""
    findings = list(examine(open_node_folder(node)))
    words = {True: "ok", False: "FAILED", None: "-"}
    rows = [asdict(f) | {"result": words[f.well]} for f in findings]
    print_rows(rows, as_json, ("check", "result", "found"))
    failed = [f for f in findings if f.well is False]
    if not as_json and failed:
        print("\n" + "\n".join(f"{f.check}: {printable(f.cure)}" for f in failed))
    if failed:
        raise typer.Exit(12)
