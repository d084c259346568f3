"""Ledgers of other packages, by the scheme of an address.

An entry point in the group `coterie.ledgers` has the scheme as its name, and as its value a function from an address to
a `Ledger` that reads. http and https are ours: an Ethereum node (`ethereum/`).
"""

from __future__ import annotations

from importlib.metadata import entry_points

from coterie_chain.ledger.protocol import Ledger

LEDGER_GROUP = "coterie.ledgers"
OWN = ("http", "https")


def open_installed(url: str) -> Ledger | None:
    """The reader of another package at an address; None if no package has its scheme."""
    scheme, colon, _ = url.partition(":")
    if not colon or scheme in OWN:
        return None
    entry = next(iter(entry_points(group=LEDGER_GROUP, name=scheme)), None)
    if entry is None:
        return None
    ledger: Ledger = entry.load()(url)
    return ledger
