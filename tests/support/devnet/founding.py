"""Administrators at work: the command `coterie` as they type it, on sites of this machine with ports of their own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.devnet.bed import SITES, scale_with_load, skip_without_programs

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.programs.ports import find_free_port
from coterie_node.network.guided_founding import CARD_PREFIX
from coterie_node.network.site_programs import SitePrograms

ADMIN_PATIENCE = 240.0
# Below the ports that Linux hands out to outgoing calls, one of which may be the daemon's when it starts.
SITE_PORTS, PORT_DRAWS = (12000, 32000), 50


def scale_patience() -> float:
    """How long a command may take: longer where more programs want to run than there are processors."""
    return scale_with_load(ADMIN_PATIENCE)


def _call(words: tuple[str | Path, ...]) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; AssertionError with what it said if it takes too long."""
    command, patience = [sys.executable, "-m", "coterie_node", *map(str, words)], scale_patience()
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as late:
        said = b"".join(part for part in (late.stdout, late.stderr) if isinstance(part, bytes)).decode()
        raise AssertionError(f"not done after {patience:.0f} s: coterie {' '.join(map(str, words))}\n{said}") from None


def run_coterie(*words: str | Path, code: int | None = 0) -> str:
    """Run the command; returns what it prints."""
    done = _call(words)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout


def run_and_fail(*words: str | Path) -> str:
    """What a command that is refused says."""
    done = _call(words)
    assert done.returncode != 0
    return done.stderr


def await_true(look: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    patience = scale_patience()
    deadline = time.monotonic() + patience
    while not look():
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.5)


def make_card(root: Path, site: str, first_port: int, verb: str = "found") -> str:
    """First step: a site's card as text."""
    words = ("--site", site, "--host", "127.0.0.1", "--ports", str(first_port))
    printed = run_coterie("site", verb, root / site, *words)
    return next(line for line in printed.splitlines() if line.startswith(CARD_PREFIX))


def find_first_ports(count: int) -> list[int]:
    """A first port for each site, with four free ones behind it, below those that systems hand out to calls."""
    for _ in range(PORT_DRAWS):
        base = random.randrange(*SITE_PORTS, 10)
        with suppress(LedgerUnreachable):
            for port in range(base, base + 10 * count):
                find_free_port(port)
            return [base + 10 * k for k in range(count)]
    raise AssertionError(f"no {count} blocks of free ports between {SITE_PORTS}")


def found_network(root: Path, ports: list[int]) -> list[str]:
    """Found a network of the three sites, each by its own commands; returns what each second step printed."""
    cards = {site: make_card(root, site, port) for site, port in zip(SITES, ports, strict=True)}
    first, *others = SITES
    plan = root / first / "founding.json"
    with ThreadPoolExecutor() as pool:
        words = [word for site in others for word in ("--card", cards[site])]
        deployer = pool.submit(run_coterie, "site", "found", root / first, *words)
        await_true(plan.exists, "founding.json")
        followers = [pool.submit(run_coterie, "site", "found", root / site, "--founding", plan) for site in others]
        return [done.result() for done in (deployer, *followers)]


@contextmanager
def open_founded(root: Path) -> Iterator[list[str]]:
    """A network of the three sites that each founded by its own commands; gives what they printed, and stops it."""
    skip_without_programs()
    try:
        yield found_network(root, find_first_ports(len(SITES)))
    finally:
        for site in SITES:
            if (root / site / "node.toml").exists():
                SitePrograms(root / site).stop()


def examine_site(folder: Path) -> dict[str, dict[str, Any]]:
    """What the doctor says of a site, by check."""
    return {c["check"]: c for c in json.loads(run_coterie("doctor", "--node", folder, "--json", code=None))}


def failed_checks(folder: Path) -> list[str]:
    """The checks of the doctor that fail."""
    return [name for name, check in examine_site(folder).items() if check["result"] == "FAILED"]
