"""Persons at test sites: register entries with keys of known secrets, and their signatures under decisions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eth_keys.main import KeyAPI
from support.node.houses import NETWORK, NodeNetwork

from coterie_chain.ethereum.network import Network
from coterie_chain.ledger.memory import MemoryLedger
from coterie_chain.ledger.protocol import StudyView
from coterie_chain.store.protocol import MemoryBlobs
from coterie_node.persons.acts import PersonKey, SignedAct, sign_act
from coterie_node.persons.register import PersonEntry, PersonRegister
from coterie_node.persons.roles import Role
from coterie_node.site.decisions import Action, Decision, collect_signatures, make_decision
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.statements.approvals import ActSubject, accept_act, prepare_act

PASSPHRASE = "the lid of the well is oak"
ROLES = (Role.PROPOSE, Role.APPROVE, Role.RELEASE)


def secret_of(name: str) -> bytes:
    """The secret key of a test person."""
    return hashlib.sha256(f"test person {name}".encode()).digest()


def key_of(name: str) -> PersonKey:
    """The public key of a test person."""
    return PersonKey(kind="key", public=KeyAPI().PrivateKey(secret_of(name)).public_key.to_address())


def entry_of(name: str, since: int, until: int = 0, *roles: Role, key: str = "") -> PersonEntry:
    """A register's entry with the key of this person, or of another one."""
    return PersonEntry(name=name, roles=roles or ROLES, keys=(key_of(key or name),), since=since, until=until)


def add_persons(home: SiteFolder, since: int, *names: str, publish: bool = True, approvals: int = 0) -> SiteFolder:
    """Put persons into a site's register, and set how many must sign."""
    register = home.persons.read_register() or PersonRegister()
    for name in names:
        register = register.add(entry_of(name, since))
    home.persons.save_register(register)
    settings = home.root / "node.toml"
    text = settings.read_text().replace("publish = false", f"publish = {str(publish).lower()}")
    settings.write_text(text.replace("approvals = 0", f"approvals = {approvals}"))
    return find_node(home.root)


def join_network(home: SiteFolder, network: Network = NETWORK) -> None:
    """Let a site know its network, as `coterie join` does."""
    (home.root / "network.json").write_text(network.to_json())


def sign_as(home: SiteFolder, name: str, subject: ActSubject, now: int, act: Action = "approve") -> SignedAct:
    """A person's signature, as the command line takes it."""
    text = prepare_act(home, name, act, subject, now)
    return accept_act(home, text, sign_act(text, secret_of(name)))


def decide(home: SiteFolder, view: StudyView, now: int, *names: str) -> Decision:
    """Let persons approve a proposal one after the other, and write each decision down."""
    for name in names:
        decision = make_decision(view.terms.hash, "approve", view=view)
        signed = sign_as(home, name, ActSubject.of(view), now)
        older = home.decisions.latest(view.terms.hash, view.id)
        decision = decision.model_copy(update={"signatures": collect_signatures(older, decision, signed)})
        home.decisions.record(decision)
    return decision


@dataclass
class PersonsNetwork:
    """Three daemons whose people sign: north proposes, south has persons, west has none."""

    network: NodeNetwork

    def open(self, name: str, *persons: str, publish: bool = True, approvals: int = 0) -> SiteFolder:
        """A site with a register; its daemon starts with these settings."""
        home = self.network.homes[name]
        join_network(home)
        home = add_persons(home, int(self.network.seconds) - 10, *persons, publish=publish, approvals=approvals)
        self.network.homes[name] = home
        self.network.daemons[name] = self.network.daemon(name)
        return home


@dataclass(frozen=True)
class MemorySiteAccess:
    """The way of a site's verbs to a ledger and a store in memory."""

    network: NodeNetwork

    def read_network(self) -> Network:
        return NETWORK

    def open_store(self) -> MemoryBlobs:
        return self.network.blobs

    @contextmanager
    def open_ledger(self) -> Iterator[MemoryLedger]:
        yield self.network.chain.ledger(None)


def in_memory(network: NodeNetwork, home: SiteFolder) -> SiteFolder:
    """A site's folder whose verbs read the ledger and the store in memory."""
    return SiteFolder(home.root, home.config, MemorySiteAccess(network))  # type: ignore[arg-type]


@contextmanager
def typed(text: str = PASSPHRASE) -> Iterator[int]:
    """A pipe from which a passphrase is read."""
    reader, writer = os.pipe()
    os.write(writer, f"{text}\n".encode())
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)
