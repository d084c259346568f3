"""A site's sealing key for one run of a study: random, kept in its durable private memory, and destroyed at the end.

The Catalog's sealing keys live as long as a site does; what is sealed to them can be opened as long as anybody has
them. A learner whose first step announces keys (`Step.announces`) has everything after it sealed to keys that exist for
this run only. Once all readers have destroyed theirs, the payloads are noise for ever, while the ledger's hashes, and
with them the proof of who posted what when, stay.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, MutableMapping

from coterie_chain.errors import KeyFault
from coterie_chain.keys.site_keys import SiteKeys, is_usable_key
from coterie_chain.ledger.protocol import SiteEntry
from coterie_learners.study.document import Study

LABEL = "sealing-key/"
DESTROYED = b"destroyed"
_TRACE = "trace"


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


def has_key(vault: MutableMapping[str, bytes], session: str) -> bool:
    """Whether this site still has its sealing key of a run."""
    return vault.get(LABEL + session, DESTROYED) != DESTROYED


def destroy(vault: MutableMapping[str, bytes], session: str) -> bool:
    """Destroy the sealing key of a run; whether there was one."""
    existed = has_key(vault, session)
    # At once in its place: a run whose key is only gone would get another one.
    vault[LABEL + session] = DESTROYED
    # What is deleted leaves the log that precedes the journal's file, and with it all that was replaced before.
    vault[_TRACE] = b""
    del vault[_TRACE]
    return existed


def current_keys(keys: SiteKeys, vault: MutableMapping[str, bytes], session: str) -> tuple[SiteKeys, ...]:
    """The keys with which this site can still open payloads of a run: those of the run, if there are, and its own."""
    seed = vault.get(LABEL + session)
    return (keys,) if seed is None or seed == DESTROYED else (keys.derive_for_study(seed), keys)


def check_sealing_keys(study: Study, entries: Iterable[SiteEntry]) -> None:
    """KeyFault (CO-C106) if a site of the study has a sealing key of no use, or another site's.

    A member chooses its own key. With an unusable one all others would stop at their first post, and would be silent.
    """
    owners: dict[bytes, str] = {}
    for entry in (e for e in entries if e.name in study.sites):
        if not is_usable_key(entry.sealing):
            cause = f"The sealing key of {entry.name} is not a usable X25519 key: {entry.sealing.hex()}"
            raise KeyFault("CO-C106", f"{cause}. Ask {entry.name} for a new key, or decline the study.")
        owner = owners.setdefault(entry.sealing, entry.name)
        if owner != entry.name:
            cause = f"{owner} and {entry.name} have the same sealing key: {entry.sealing.hex()}"
            raise KeyFault("CO-C106", f"{cause}. The one that took it needs another; until then decline the study.")
