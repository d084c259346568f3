"""`coterie devnet`: a network of this machine, to try things on: start, look, read logs, end."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.network.programs.service import Service
from coterie_node.cli.options import Json
from coterie_node.cli.output import print_json, print_rows
from coterie_node.errors import ConfigError
from coterie_node.network.devnet import (
    ProgramStatus,
    list_programs,
    make_settings,
    services,
    start_network,
    start_programs,
    stop_programs,
)
from coterie_node.site.run_folder import RunFolder, RunSettings

devnet = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Development networks on this machine: a chain node and a store a site.",
)

_Folder = Annotated[Path, typer.Argument(help="Folder of the network.")]
DEFAULT = Path("devnet")


@devnet.command("up")
def up_command(
    folder: _Folder = DEFAULT,
    sites: Annotated[int, typer.Option(min=1, max=50, help="Number of sites.")] = 3,
    chain: Annotated[str, typer.Option(help="clique (one Geth a site) or anvil (one process).")] = "clique",
    store: Annotated[str, typer.Option(help="kubo (one Kubo a site) or folder.")] = "kubo",
    period: Annotated[int | None, typer.Option(min=1, help="Seconds between blocks.", show_default="2")] = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="No blocks at rest; three sites on Clique, period 1.")] = False,
    as_json: Json = False,
) -> None:
    """Start a network in a new folder, or start again what an old one has stopped."""
    place, begun = RunFolder(folder), time.monotonic()
    try:
        if (folder / "place.json").exists():
            start_programs(place)
        else:
            _start_new_network(place, sites, make_settings(chain, store, period, sleep=sleep))
    except BaseException:
        # Nothing of a network that did not come up may run on.
        if (folder / "place.json").exists():
            stop_programs(place)
        raise
    _print_programs(list_programs(place), as_json)
    if not as_json:
        print(f"Up in {time.monotonic() - begun:.1f} s. Fit a model on it: coterie demo --at {folder}")


@devnet.command("status")
def devnet_status_command(folder: _Folder = DEFAULT, as_json: Json = False) -> None:
    """List the network's programs; exit status 1 if one of them does not run."""
    lines = list_programs(RunFolder(folder))
    _print_programs(lines, as_json)
    if not all(line.pid for line in lines):
        raise typer.Exit(1)


@devnet.command("logs")
def logs_command(
    folder: _Folder = DEFAULT,
    site: Annotated[str | None, typer.Option(help="Only the logs of this site.")] = None,
    program: Annotated[
        str | None, typer.Option(help="Only the logs of this program: geth, kubo, anvil or node.")
    ] = None,
    lines: Annotated[int, typer.Option(min=1, help="Number of lines of each log.")] = 20,
) -> None:
    """Show the ends of the programs' logs."""
    for (of_site, name), service in services(RunFolder(folder)).items():
        if site in (None, of_site) and program in (None, name):
            print(f"== {of_site} {name}: {service.log}")
            print("\n".join(_read_log_end(service, lines)))


@devnet.command("down")
def down_command(
    folder: _Folder = DEFAULT,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the folder, too.")] = False,
) -> None:
    """End all programs; the chain and the blocks stay for audits, unless they are deleted."""
    stop_programs(RunFolder(folder))
    if delete:
        shutil.rmtree(folder)
    print(f"Down; {folder} is deleted." if delete else f"Down. Audit it with --at {folder}; start it again with `up`.")


def _start_new_network(place: RunFolder, sites: int, settings: RunSettings) -> None:
    # slow imports that the other commands do not need
    from coterie_node.demo.cases import find_case
    from coterie_node.demo.run import prepare

    if place.root.exists() and (not place.root.is_dir() or any(place.root.iterdir())):
        raise ConfigError(
            "CO-F203",
            f"{place.root} is not an empty folder, and has no network."
            " Name an empty folder, or the folder of a network.",
        )
    case = find_case("glore")
    names = case.site_names(sites)
    prepare(place, case, names)
    start_network(place, names, settings)
    start_programs(place)


def _print_programs(programs: list[ProgramStatus], as_json: bool) -> None:
    if as_json:
        print_json([program.as_dict() for program in programs])
        return
    print_rows([_row(program) for program in programs], False, ("site", "program", "pid", "MiB", "block", "peers"))


def _row(program: ProgramStatus) -> dict[str, object]:
    facts = {name: program.facts.get(name, "-") for name in ("block", "peers")}
    head = {"site": program.site, "program": program.program, "pid": program.pid or "down"}
    return {**head, "MiB": program.memory >> 20, **facts}


def _read_log_end(service: Service, lines: int) -> list[str]:
    try:
        return service.log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ["(no log)"]
