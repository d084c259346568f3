"""A member that turns crooked in a study of real daemons on the memory ledger, and what the others say of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support.node.houses import NodeNetwork, study_file

from coterie_chain.errors import BlobMissing
from coterie_chain.ledger.protocol import Event, OpenStep, Post, State
from coterie_chain.store.protocol import MAX_BLOB, MemoryBlobs
from coterie_learners.core import payload as pay
from coterie_node.site.decisions import make_decision

LIAR = "liar"
DEEDS = ("falls silent", "withholds", "garbles", "misstates", "leaves", "lies")


class CrookedStore(MemoryBlobs):
    """The liar's store: it reads what all have. While it is `active` it serves nobody, garbage, or another payload."""

    def __init__(self, others: MemoryBlobs, deed: str, *, active: bool = True) -> None:
        super().__init__()
        self._others, self._deed, self.active = others, deed, active
        self.lies: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        if not self.active or data.startswith(b"{"):
            return self._others.put(data)
        if self._deed == "garbles":
            return self._others.put(os.urandom(len(data)))
        if self._deed == "misstates":
            return self._others.put(data)
        if self._deed == "lies":
            cid = self._others.put(falsify(data))
            self.lies[cid] = falsify(data)
            return cid
        return super().put(data)

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        try:
            return super().get(cid, max_bytes)
        except BlobMissing:
            return self._others.get(cid, max_bytes)

    def has(self, cid: str) -> bool:
        return super().has(cid) or self._others.has(cid)

    def correct(self, post: Post) -> Post:
        """A post with the digest of what the store holds behind its CID; or with another size than that has."""
        if self.active and self._deed == "misstates":
            return replace(post, size=post.size - 1)
        lie = self.lies.get(post.cid)
        return post if lie is None else replace(post, sha256=hashlib.sha256(lie).digest(), size=len(lie))


def falsify(data: bytes) -> bytes:
    """The same payload with the last bit of one number changed."""
    stamp, payload = pay.decode(pay.unpack(data))
    plain: dict[str, Any] = {name: np.array(value) for name, value in payload.items()}
    name = next(n for n, a in sorted(plain.items()) if a.size and a.dtype.kind == "f")
    flat = plain[name].reshape(-1)
    flat[-1] = np.nextafter(flat[-1], 9e9)
    plain[name] = flat.reshape(plain[name].shape)
    return pay.pack(pay.encode(stamp, plain), pay.SHUFFLE_ZSTD)


def propose_study(
    network: NodeNetwork, name: str, sites: tuple[str, ...], silent_site: str, formula: str = "", by: str = ""
) -> int:
    """Let the sites' people propose and approve a study; returns its number."""
    names, proposer = ", ".join(f'"{site}"' for site in sites), by or sites[0]
    rules = {'["north", "south", "west"]': f"[{names}]", "[ledger]": f'[ledger]\nsilent_site = "{silent_site}"'}
    rules |= {"died ~ age + male": formula} if formula else {}
    study = network.propose(study_file(network.root, name, texts=rules), proposer)
    network.approve(study, *[site for site in sites if site != proposer])
    number = len(network.chain.rules.studies) + 1
    network.daemons[proposer].tick()
    return number


class CrookedMember:
    """One study in which the liar does its deed from the moment when a step opens, and keeps to it."""

    def __init__(self, root: Path, sites: tuple[str, ...], silent_site: str, position: int, deed: str) -> None:
        self.network, self.position, self.deed = NodeNetwork(root, names=sites), position, deed
        self.honest = [name for name in sites if name != LIAR]
        liar = self.network.daemons[LIAR]
        self.store = CrookedStore(self.network.blobs, deed, active=False)
        liar.services = replace(liar.services, blobs=self.store)
        record: Callable[[Post], None] = liar.services.ledger.record
        setattr(liar.services.ledger, "record", lambda post: record(self.store.correct(post)))  # noqa: B010
        self.number = propose_study(self.network, "cohort", sites, silent_site, by=self.honest[0])
        self.has_begun = self.is_gone = False

    def play(self, patience: int = 40) -> None:
        """Let time pass until the study has ended or is paused, or nobody's patience is left."""
        for _ in range(patience):
            self._settle()
            if self.view().state in (State.COMPLETED, State.ABORTED, State.PAUSED):
                break
            self.network.seconds += 100
        for _ in range(2):  # a fault is looked at again after a minute
            self.network.seconds += 61
            self._settle()

    def view(self) -> Any:
        return self.network.chain.ledger(None).view(self.number)

    def entries(self) -> list[Any]:
        return list(self.network.chain.ledger(None).history(self.number))

    def list_blamed(self) -> set[str]:
        """Each member that the ledger names for a fault, and who ended the study or left it."""
        names = {str(dict(e.details).get(key) or "") for e in self._events() for key in ("culprit", "silent", "server")}
        names |= {e.site for e in self._events() if e.name in ("SiteLeft", "StudyDeclined")}
        names |= {e.site for e in self._events() if e.name == "StudyAborted" and not dict(e.details)["culprit"]}
        names |= {str(dict(e.details)["poster"]) for e in self._events() if e.name == "Disputed"}
        return names - {""}

    def status(self, name: str) -> dict[str, object]:
        """What a site's daemon says of the study."""
        return next(task for task in self.network.daemons[name].status if task["study"] == self.number)

    def close(self) -> None:
        for log in self.network.logs.values():
            log.close()

    def _events(self) -> list[Event]:
        return [e for e in self.entries() if isinstance(e, Event)]

    def _settle(self) -> None:
        """Ticks in turn until nobody has anything to do."""
        moved = True
        while moved:
            moves = [self._tick(name) for name in self.network.daemons]
            moved = any(moves)

    def _tick(self, name: str) -> bool:
        if name != LIAR:
            return self.network.daemons[name].tick()
        open_ = self.view().open
        if not self.has_begun and open_ is not None and self._is_time(open_):
            self._begin()
        if self.is_gone:
            return False
        moved = self.network.daemons[name].tick()
        # A liar that went on would find its own lie.
        self.is_gone = self.deed == "lies" and bool(self.store.lies)
        return moved

    def _is_time(self, open_: OpenStep) -> bool:
        return open_.position >= self.position and LIAR in open_.posters and LIAR not in open_.posted

    def _begin(self) -> None:
        self.has_begun = self.store.active = True
        if self.deed == "leaves":
            view = self.view()
            self.network.decisions(LIAR).record(make_decision(view.terms.hash, "abort", view=view))
            self.network.daemons[LIAR].tick()
        self.is_gone = self.deed in ("leaves", "falls silent")
