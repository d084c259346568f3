"""Three empty machines: network namespaces on one bridge, each with its own loopback and standard ports.

Where namespaces cannot be made, the machines are folders of this one with ports of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from support.devnet.founding import find_first_ports

from coterie_node.network.site_programs import SitePrograms

BRIDGE, PREFIX, NETWORK_OF_TESTS = "cotbridge", "cot-", "10.77.9"
COMMAND_SECONDS = 280.0


@dataclass(frozen=True)
class Machines:
    """The machines by their sites; `apart` says whether each has a network of its own."""

    root: Path
    sites: Sequence[str]
    apart: bool
    ports: Sequence[int]

    def folder(self, site: str) -> Path:
        """The folder in which a site's people work."""
        return self.root / site

    def host(self, site: str) -> str:
        """The address at which the others reach a machine."""
        return f"{NETWORK_OF_TESTS}.{self.sites.index(site) + 1}" if self.apart else "127.0.0.1"

    def locate(self, site: str) -> list[str]:
        """Options of the first step that say where a site is."""
        return [] if self.apart else ["--ports", str(self.ports[self.sites.index(site)])]

    def start(self, site: str, *words: str) -> subprocess.Popen[str]:
        """Start a command at a site, in its people's folder."""
        place = ["ip", "netns", "exec", PREFIX + site] if self.apart else []
        command = [*place, sys.executable, "-m", "coterie_node", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=self.folder(site))

    def run(self, site: str, *words: str) -> str:
        """Run a command at a site; what it prints."""
        return finish(self.start(site, *words))

    def set_cable(self, site: str, *, plugged: bool) -> None:
        """Pull a machine's cable, or put it back."""
        run_ip("-n", PREFIX + site, "link", "set", "eth0", "up" if plugged else "down")


def finish(process: subprocess.Popen[str]) -> str:
    """What a command printed; it must end well."""
    printed, said = process.communicate(timeout=COMMAND_SECONDS)
    assert process.returncode == 0, printed + said
    return printed


def run_ip(*words: str) -> None:
    """The command `ip` of iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def can_part() -> bool:
    """Whether this user may make network namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextmanager
def open_machines(sites: Sequence[str]) -> Iterator[Machines]:
    """Empty machines, which are gone afterwards with all that ran there."""
    # Short: a unix socket's path has little room.
    machines = Machines(Path(mkdtemp(prefix="cot")), sites, can_part(), find_first_ports(len(sites)))
    try:
        for site in sites:
            machines.folder(site).mkdir()
        if machines.apart:
            _wire(sites, machines)
        yield machines
    finally:
        for site in sites:
            for folder in machines.folder(site).glob("*/founder.json"):
                with suppress(Exception):
                    SitePrograms(folder.parent).stop()
        if machines.apart:
            _unwire(sites)
        shutil.rmtree(machines.root)


def name_plug(number: int) -> str:
    """The end of a machine's cable at the bridge."""
    return f"cotplug{number}"


def _wire(sites: Sequence[str], machines: Machines) -> None:
    _unwire(sites)
    run_ip("link", "add", BRIDGE, "type", "bridge")
    run_ip("link", "set", BRIDGE, "up")
    for number, site in enumerate(sites, 1):
        space, plug = PREFIX + site, name_plug(number)
        run_ip("netns", "add", space)
        run_ip("link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", space)
        run_ip("link", "set", plug, "master", BRIDGE, "up")
        run_ip("-n", space, "addr", "add", f"{machines.host(site)}/24", "dev", "eth0")
        run_ip("-n", space, "link", "set", "eth0", "up")
        run_ip("-n", space, "link", "set", "lo", "up")


def _unwire(sites: Sequence[str]) -> None:
    # A namespace in which a process was left keeps its end of a cable, and with it the name of the other end.
    for number, site in enumerate(sites, 1):
        for words in (("netns", "del", PREFIX + site), ("link", "del", name_plug(number))):
            with suppress(subprocess.CalledProcessError):
                run_ip(*words)
    with suppress(subprocess.CalledProcessError):
        run_ip("link", "del", BRIDGE)
