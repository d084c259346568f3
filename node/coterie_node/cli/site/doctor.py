"""`coterie doctor`: what a node needs, checked one by one; each failure with its remedy. `--network`: all sites."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic_core import from_json

from coterie_chain.http_client import WIRE_FAULTS, HttpClient, Waits
from coterie_chain.keys.private_files import read_private
from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_json, print_rows
from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.network.checks.examine import examine
from coterie_node.network.heartbeats.matrix import NetworkMatrix, make_matrix, read_answer
from coterie_node.site.folder import SiteFolder

_FAILED = 12
_WAITS = Waits(connect=3.0, silence=5.0, answer=5.0)
_MAX_ANSWER_BYTES = 1 << 24


def doctor_command(
    node: NodeOption = None,
    network: Annotated[bool, typer.Option("--network", help="All sites, by their heartbeats.")] = False,
    no_daemon: Annotated[bool, typer.Option("--no-daemon", help="The daemon is stopped on purpose.")] = False,
    as_json: Json = False,
) -> None:
    """Check this site's node: key, journal, disk, chain, seat, peers, clock, store and rows; status 12 if one fails."""
    home = open_node_folder(node)
    if network:
        _show_network(home, as_json)
        return
    findings = list(examine(home, daemon=not no_daemon))
    words = {True: "ok", False: "FAILED", None: "-"}
    rows = [asdict(f) | {"result": words[f.well]} for f in findings]
    print_rows(rows, as_json, ("check", "result", "found"))
    failed = [f for f in findings if f.well is False]
    if not as_json and failed:
        print("\n" + "\n".join(f"{f.check}: {printable(f.cure)}" for f in failed))
    if failed:
        raise typer.Exit(_FAILED)


def _show_network(home: SiteFolder, as_json: bool) -> None:
    beats, refused, fault = read_answer(_ask_daemon(home))
    with home.open_ledger() as ledger:
        matrix = make_matrix(ledger.sites(), beats, refused, time.time())
    if as_json:
        print_json(matrix.as_dict() | {"fault": fault})
    else:
        _print_matrix(matrix, fault)
    if matrix.troubles or fault:
        raise typer.Exit(_FAILED)


def _print_matrix(matrix: NetworkMatrix, fault: str) -> None:
    names = [row.site for row in matrix.rows]
    rows = [
        {"site": row.site, "age": "-" if row.age is None else f"{row.age} s", "version": row.version, "block": row.head}
        | {f"sees {name}": row.sees[name] for name in names}
        for row in matrix.rows
    ]
    print_rows(rows, False, ("site", "age", "version", "block", *(f"sees {name}" for name in names)))
    if fault:
        print(f"\nThis site's own heartbeats: {printable(fault)}")
    if matrix.troubles:
        print()
    for trouble in matrix.troubles:
        print(printable(f"{trouble.site}: {trouble.what}. {trouble.cure}"))


def _ask_daemon(home: SiteFolder) -> object:
    api = home.config.api
    token = read_private(home.path(api.token_file), "the API's token file").strip()
    try:
        with HttpClient(f"http://{api.host}:{api.port}", _WAITS, {"Authorization": f"Bearer {token}"}) as client:
            answer = client.get("/heartbeats", limit=_MAX_ANSWER_BYTES)
        return from_json(answer.body)
    except WIRE_FAULTS:
        message = f"The daemon of {home.name} does not answer at {api.host}:{api.port}, and it alone hears the others"
        raise ConfigError("CO-F506", f"{message}. Start it: coterie site start.") from None
    except ValueError:
        return None
