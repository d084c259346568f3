"""Going over to the Catalog that succeeds this site's own: new contracts on the same chain, with the same members.

    1. most sites vote        the old Catalog names its successor (verbs/members.py)
    2. the old studies end    on the old Catalog, by whichever release knows it
    3. each site goes over    `network.json` names the successor; what belongs to the old Catalog is put aside

Nothing is deleted but copies of rows and of the history. Keys, journal and privacy log stay: transactions and keys of a
run carry their network's name there, and the privacy log must know what left under either Catalog. Decisions go aside,
because a decision to propose would propose its study again on the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network, discover, read_keys
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import replace_private
from coterie_chain.ledger.protocol import Ledger, State
from coterie_chain.proof.signatures import list_founders
from coterie_node.errors import ConfigError
from coterie_node.site.folder import NETWORK, SiteFolder

OLD_CATALOGS = "catalogs"
# What is about studies of one Catalog, by their numbers or hashes there.
OWN = ("decisions", "ballots", "releases", "results", "faults", "peers.json")


def follow_successor(home: SiteFolder) -> tuple[Network, Path]:
    """Go over to the succeeding Catalog; returns its network, and where everything of the old one is now.

    ConfigError (CO-F526) if no Catalog succeeds this one, (CO-F527) while a study of this site is open on it, or
    (CO-F520) if its members differ. StoreFault (CO-C320) while the daemon runs.
    """
    with SqliteJournal(home.journal), home.open_ledger() as ledger:
        following = _find_successor(home, ledger)
        if studies := list(_list_open(home.name, ledger)):
            message = f"Open on this Catalog, with {home.name}: {', '.join(studies)}"
            raise ConfigError("CO-F527", f"{message}. Finish these, or decline or abort them, and come back.")
        aside = home.root / OLD_CATALOGS / home.network().catalog
        _put_aside(home.root, aside, following)
    return following, aside


def _find_successor(home: SiteFolder, ledger: Ledger) -> Network:
    catalog = ledger.read_successor()
    if not catalog:
        message = "No Catalog succeeds the one of this site"
        raise ConfigError(
            "CO-F526", f"{message}. More than half of the sites vote first: coterie site succeed CATALOG."
        )
    network = discover(home.chain, catalog, home.config.chain.confirmations)
    with EthereumLedger(network, None) as following:
        names = {site.name for site in following.sites() if site.active}
        founders = [dict(event.details) for event in list_founders(list(following.history(0)))]
    if home.name not in names:
        message = f"{home.name} has no seat in the Catalog {catalog}"
        raise ConfigError("CO-F520", f"{message}. Ask its members for one: coterie site admit.")
    return replace(network, founders=read_keys({str(who["name"]): str(who["key"]) for who in founders}))


def _list_open(name: str, ledger: Ledger) -> Iterator[str]:
    """The studies of a site that have not ended; a proposal that has expired is over."""
    for number in ledger.studies():
        view = ledger.view(number)
        expired = view.state is State.PROPOSED and ledger.now() > view.deadline
        if name in view.terms.sites and view.state not in (State.COMPLETED, State.ABORTED) and not expired:
            yield f"{number} ({view.state.name.lower()})"


def _put_aside(root: Path, aside: Path, following: Network) -> None:
    """Move what is the old Catalog's, `network.json` last; a command that was cut short goes on when it is repeated."""
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in OWN:
        if (root / name).exists():
            (root / name).replace(_find_free(aside / name))
    # Copies are made again: those of rows must get into no backup.
    shutil.rmtree(root / "copies", ignore_errors=True)
    for copy in root.glob("history.sqlite*"):
        copy.unlink()
    (aside / NETWORK).write_bytes((root / NETWORK).read_bytes())
    replace_private(root / NETWORK, following.to_json())


def _find_free(path: Path) -> Path:
    """The path, or with a number where something is there: a daemon ran between two tries."""
    names = chain([path.name], (f"{path.name}-{k}" for k in count(2)))
    return next(free for free in map(path.with_name, names) if not free.exists())
