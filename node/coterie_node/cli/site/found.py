"""`coterie site found`, and the programs of one site: `start`, `stop`, `restart`, `status`, `run`, `install`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.keys.private_files import replace_private
from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_rows
from coterie_node.cli.site.init import locate_typed_rows, make_node
from coterie_node.errors import ConfigError
from coterie_node.network.checks.examine import examine
from coterie_node.network.founding import FounderCard, make_keys, propose_addresses
from coterie_node.network.guided_founding import (
    FOUNDING,
    OWN_CARD,
    FoundingPlan,
    await_network,
    follow_plan,
    format_card,
    parse_card,
    write_plan,
)
from coterie_node.network.site_ports import SitePorts
from coterie_node.network.site_programs import SitePrograms
from coterie_node.network.systemd_units import render_units
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import NETWORK

WAIT_SECONDS = 3600.0
SEEN_CHECKS = ("chain peers", "swarm peers", "ports of others", "seat")
_Folder = Annotated[Path, typer.Argument(help="The site's folder.")]
_Only = Annotated[str | None, typer.Option(help="One program: geth, kubo or node (the daemon).")]


def create_network_command(
    folder: _Folder,
    site: Annotated[str | None, typer.Option(help="First step: name of this site.")] = None,
    host: Annotated[str | None, typer.Option(help="First step: address of this site for the other sites.")] = None,
    ports: Annotated[int | None, typer.Option(help="First step: the first of five ports in a row.")] = None,
    data: Annotated[
        str, typer.Option(help="Second step: this site's rows, a file in the site's folder or the working folder.")
    ] = "data.csv",
    card: Annotated[list[str] | None, typer.Option(help="First founder: another site's card, text or file.")] = None,
    founding: Annotated[Path | None, typer.Option(help="Other founders: the first one's founding.json.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Its fingerprint, as the first founder read it.")] = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="First founder: no blocks at rest (3 sites).")] = False,
    start: Annotated[bool, typer.Option(help="Start the programs and wait for the network.")] = True,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the other sites.")] = WAIT_SECONDS,
) -> None:
    """Found a network with other sites, in two steps: this site's card, then the network.

    First step: --site and --host make this site's keys, and its card for the others. Second step: the first founder
    gives the others' cards with --card; the others give its founding.json with --founding. Then this site's programs
    start, and the command ends when the network is there.
    """
    if not (folder / OWN_CARD).exists():
        make_site_keys(folder, site, host, ports)
    own = FounderCard.read(folder / OWN_CARD)
    if not card and founding is None:
        _print_card(folder, own)
        return
    plan = _make_plan(folder, own, card or [], founding, fingerprint, sleep=sleep)
    if not (folder / CONFIG).exists():
        rows = locate_typed_rows(folder, data)
        make_node(folder, own.site, rows, propose_addresses(folder), SitePorts.read(folder).health)
    if start:
        _start_network(folder, plan, deploys=founding is None, wait=wait)


def make_site_keys(folder: Path, site: str | None, host: str | None, ports: int | None) -> None:
    """Make a new site's folder with keys, ports and card; ConfigError (CO-F303) without name and address."""
    if site is None or host is None:
        message = f"{folder} has no card yet, and needs the site's name and its address for the other sites"
        raise ConfigError("CO-F303", f"{message}. Give --site and --host.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    (SitePorts() if ports is None else SitePorts.count_from(ports)).write(folder)
    card = make_keys(folder, site, host, host)
    replace_private(folder / OWN_CARD, card.to_json())


def _print_card(folder: Path, own: FounderCard) -> None:
    print(f"\nThe card of {own.site}; nothing in it is secret. Send it to the first founder:\n\n{format_card(own)}\n")
    print(f"Next, the first founder:  coterie site found {folder} --card CARD --card CARD ...")
    print(f"Next, all other sites:    coterie site found {folder} --founding founding.json")


def _make_plan(
    folder: Path, own: FounderCard, cards: list[str], founding: Path | None, fingerprint: str | None, *, sleep: bool
) -> FoundingPlan:
    """The plan, and this site's files by it."""
    if founding is None:
        others = [parse_card(text) for text in cards]
        plan = write_plan(folder, sorted([own, *others], key=lambda c: c.site), sleep=sleep)
        print(f"Send {folder / FOUNDING} to all other sites; the swarm's key in it is sealed to each of them.")
    else:
        plan = FoundingPlan.load(founding)
        wanted = "".join((fingerprint or "").lower().split())
        if wanted and wanted != plan.fingerprint.replace(" ", ""):
            message = f"The fingerprint of {founding} is {plan.fingerprint}, and --fingerprint is {fingerprint}"
            raise ConfigError("CO-F509", f"{message}. Do not use the file; ask the first founder for it again.")
        follow_plan(folder, plan)
    print(f"Compare by telephone, at all sites: {plan.fingerprint}")
    return plan


def _start_network(folder: Path, plan: FoundingPlan, *, deploys: bool, wait: float) -> None:
    programs = SitePrograms(folder)
    programs.start()
    network = await_network(folder, plan, deploys=deploys, seconds=wait, tell=print_reason, check=programs.check_alive)
    programs.start()
    print(f"The network is there: Catalog {network.catalog}, chain {network.chain_id}. {folder / NETWORK} names it.")
    print_seen(folder)


def print_seen(folder: Path) -> bool:
    """Print who is seen on the chain and in the swarm, and the seat; False if the store meets nobody."""
    seen = {result.check: result for result in examine(open_node_folder(folder)) if result.check in SEEN_CHECKS}
    for result in seen.values():
        print(f"{result.check}: {result.found}")
    return "swarm peers" not in seen or seen["swarm peers"].well is not False


def print_reason(line: str) -> None:
    """Say on standard error what a command waits for."""
    print(line, file=sys.stderr, flush=True)


def start_command(node: NodeOption = None) -> None:
    """Start this site's chain node, store and daemon, which run on; those that run stay as they are."""
    SitePrograms(open_node_folder(node).root).start()


def stop_command(node: NodeOption = None, only: _Only = None) -> None:
    """End this site's daemon, store and chain node; the daemon finishes the step at hand."""
    SitePrograms(open_node_folder(node).root).stop(only)


def restart_command(node: NodeOption = None, only: _Only = None) -> None:
    """End this site's programs, and start them again; `--only node` after a change of node.toml."""
    programs = SitePrograms(open_node_folder(node).root)
    programs.stop(only)
    programs.start()


def status_command(node: NodeOption = None, as_json: Json = False) -> None:
    """Which of this site's programs run; status 1 if one does not. `coterie doctor` says how they are."""
    rows: list[dict[str, Any]] = [
        {"program": name, "pid": service.pid, "memory_mb": service.memory >> 20, "log": str(service.log)}
        for name, service in SitePrograms(open_node_folder(node).root).services().items()
    ]
    print_rows(rows, as_json, ("program", "pid", "memory_mb", "log"))
    if not all(row["pid"] for row in rows):
        raise typer.Exit(1)


def install_command(
    to: Annotated[Path, typer.Option(help="Folder of the units.")] = Path("/etc/systemd/system"),
    node: NodeOption = None,
) -> None:
    """Write the systemd units of this site's three programs; the user `coterie` must own the folder."""
    root = open_node_folder(node).root
    for name, text in render_units(root).items():
        (to / name).write_text(text)
        print(to / name)
    print("Next: systemctl daemon-reload && systemctl enable --now coterie-geth coterie-kubo coterie")


def run_command(node: NodeOption = None) -> None:
    """Run this site's programs in the foreground: start again what ends, and end all of them at Ctrl-C or SIGTERM."""
    home, stop = open_node_folder(node), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    SitePrograms(home.root).watch(stop, print_reason)
