"""A site's sealing key for one run of a study: random, kept in its durable private memory, and destroyed at the end.

The Catalog's sealing keys live as long as a site does; what is sealed to them can be opened as long as anybody has
them. A learner whose first step announces keys (`Step.announces`) has everything after it sealed to keys that exist for
this run only. Once all readers have destroyed theirs, the payloads are noise for ever, while the ledger's hashes, and
with them the proof of who posted what when, stay.
"""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping

from coterie_chain.errors import KeyFault
from coterie_chain.keys.site_keys import SiteKeys

LABEL = "sealing-key/"
DESTROYED = b"destroyed"


def study_keys(keys: SiteKeys, vault: MutableMapping[str, bytes], session: str) -> SiteKeys:
    """The site's keys with the sealing key of this run, made when it is first asked for; KeyFault once destroyed."""
    label = LABEL + session
    seed = vault.get(label)
    if seed == DESTROYED:
        raise KeyFault(
            "CO-C108",
            f"This site's sealing key of the run {session} has been destroyed; nobody can open with it any more.",
        )
    if seed is None:
        seed = vault[label] = secrets.token_bytes(32)
    return keys.derive_for_study(seed)


def destroy(vault: MutableMapping[str, bytes], session: str) -> bool:
    """Destroy the sealing key of a run; whether there was one."""
    existed = vault.pop(LABEL + session, DESTROYED) != DESTROYED
    vault[LABEL + session] = DESTROYED
    return existed


def current_keys(keys: SiteKeys, vault: MutableMapping[str, bytes], session: str) -> tuple[SiteKeys, ...]:
    """The keys with which this site can still open payloads of a run: those of the run, if there are, and its own."""
    seed = vault.get(LABEL + session)
    return (keys,) if seed is None or seed == DESTROYED else (keys.derive_for_study(seed), keys)
