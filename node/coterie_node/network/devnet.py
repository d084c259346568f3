"""A development network in a folder: every site's keys, chain node and store on this machine, and the Catalog."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.network import Network, verify
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.keys.private_files import write_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import CHAIN_LAUNCHERS, STORE_LAUNCHERS
from coterie_chain.network.programs.service import Service, scale_wait
from coterie_node.errors import ConfigError
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.site.folder import KEYS, PASSPHRASE
from coterie_node.site.run_folder import RunFolder, RunSettings

# A devnet's keys guard nothing: a light key derivation keeps the start quick.
LIGHT_SCRYPT = 1 << 12
SPREAD_WITHIN = 60.0


def founders(place: RunFolder, sites: Sequence[str]) -> tuple[SiteEntry, ...]:
    """Make each site's keys; returns what the Catalog is founded with."""
    entries = []
    for number, name in enumerate(sites, start=1):
        root = place.site_root(name)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        passphrase = secrets.token_urlsafe(24)
        write_private(root / PASSPHRASE, passphrase + "\n")
        keys = SiteKeys.create(root / KEYS, passphrase, scrypt=LIGHT_SCRYPT)
        entries.append(SiteEntry(number, name, keys.address, keys.sealing))
    return tuple(entries)


def start_network(place: RunFolder, sites: Sequence[str], settings: RunSettings) -> Network:
    """Make and start a network of these sites in a folder, with its Catalog; returns what `network.json` holds.

    What was started runs on, also after an error: `down` ends it.
    """
    settings = replace(settings, sites=tuple(sites))
    place.save_settings(settings)
    entries = founders(place, sites)
    chain, store = place.chain(), place.store()
    store.prepare()
    chain.prepare([entry.address for entry in entries])
    chain.start()
    store.start()
    # The account that deploys the Catalog gets no rights by it, but it must pay the gas.
    payer = place.site(sites[0]).load_keys().signer
    network = deploy(chain.url(sites[0]), entries, payer, confirmations=chain.confirmations)
    place.save(settings, network)
    for name in sites:
        await_catalog(place.network(name), scale_wait(SPREAD_WITHIN, len(sites)), name)
    return network


def start_programs(place: RunFolder) -> None:
    """Start again whatever of a network does not run, the sites' daemons last."""
    place.chain().start()
    place.store().start()
    SiteDaemons(place).start()


def stop_programs(place: RunFolder) -> None:
    """End every program of a network, the sites' daemons first; its chain and its blocks stay."""
    SiteDaemons(place).stop()
    place.store().stop()
    place.chain().stop()


@dataclass(frozen=True)
class ProgramStatus:
    """One program of a network: its process (None: not running), memory in bytes, and what it tells of itself."""

    site: str
    program: str
    pid: int | None
    memory: int
    facts: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return asdict(self)


def list_programs(place: RunFolder) -> list[ProgramStatus]:
    """Every program of a network, by site."""
    parts = (place.chain(), place.store(), SiteDaemons(place))
    lines = [_read_status(site, service, part.facts) for part in parts for site, service in part.services().items()]
    return sorted(lines, key=lambda line: (line.site, line.program))


def check_programs(place: RunFolder) -> None:
    """ConfigError (CO-F506) if a program of a network does not run."""
    away = [f"{site}'s {name}" for (site, name), service in services(place).items() if service.pid is None]
    if away:
        more = f" and {len(away) - 3} more" * (len(away) > 3)
        message = f"Not all programs of {place.root} run: {', '.join(away[:3])}{more}"
        raise ConfigError("CO-F506", f"{message}. Start them: coterie devnet up {place.root}")


def services(place: RunFolder) -> dict[tuple[str, str], Service]:
    """Every program of a network, by site and name."""
    parts = (place.chain(), place.store(), SiteDaemons(place))
    return {(site, service.name): service for part in parts for site, service in part.services().items()}


def _read_status(site: str, service: Service, facts: Callable[[str], Mapping[str, int]]) -> ProgramStatus:
    pid = service.pid
    return ProgramStatus(site, service.name, pid, service.memory, facts(site) if pid else {})


@contextmanager
def run_network(place: RunFolder, sites: Sequence[str], settings: RunSettings) -> Iterator[Network]:
    """A new network that runs as long as the block."""
    try:
        yield start_network(place, sites, settings)
    finally:
        stop_programs(place)


def make_settings(chain: str, store: str, period: int | None = None, *, sleep: bool = False) -> RunSettings:
    """Settings of a network of these kinds; ConfigError lists those there are."""
    for what, kind, kinds in (("chain", chain, CHAIN_LAUNCHERS), ("store", store, STORE_LAUNCHERS)):
        if kind not in kinds:
            raise ConfigError("CO-F305", f"There is no {what} {kind!r} to launch. Name one of {', '.join(kinds)}.")
    return RunSettings(chain, store, (), period, sleep)


def await_catalog(network: Network, within: float = SPREAD_WITHIN, site: str = "") -> None:
    """Wait until a site's own node has the Catalog; the fault after `within` seconds names the site."""
    deadline = time.monotonic() + within
    with Rpc(network.url) as rpc:
        while True:
            try:
                verify(network, rpc)
                return
            except LedgerUnreachable as error:
                if time.monotonic() > deadline:
                    whose = f"{site}, after {within:.0f} s: " * bool(site)
                    raise LedgerUnreachable(error.code, f"{whose}{error.message}") from None
                time.sleep(0.05)
