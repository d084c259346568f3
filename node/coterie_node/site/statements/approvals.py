"""What a site's persons sign about studies, and the site's statement about it when it joins one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from coterie_chain.ethereum.network import Network
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import StudyView
from coterie_chain.store.protocol import BlobStore
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.persons.acts import MEANINGS, ZEROS, ActDomain, ActKind, ActText, SignedAct, sign_act
from coterie_node.persons.approval_statement import ApprovalStatement, check_signer, select_signers
from coterie_node.persons.names import fold_name
from coterie_node.persons.register import encode_canonical
from coterie_node.persons.roles import Role
from coterie_node.site.decisions import Decision, digest_terms
from coterie_node.site.folder import SiteFolder

# The role that an act needs; every other act about studies needs the role to approve.
ROLES: dict[str, Role] = {
    "propose": Role.PROPOSE,
    "amend": Role.PROPOSE,
    "release": Role.RELEASE,
    "allow": Role.RELEASE,
    "vote": Role.OPERATE,
}


@dataclass(frozen=True)
class ActSubject:
    """What an act is about: the study's hash, the proposal's number (0 before it has one), and a digest of the rest."""

    study: bytes = bytes(32)
    number: int = 0
    about: str = ZEROS

    @classmethod
    def of(cls, view: StudyView) -> ActSubject:
        """A proposal as the ledger holds it, with its terms."""
        return cls(view.terms.hash, view.id, digest_terms(view.terms))

    @classmethod
    def of_text(cls, text: str, study: bytes = bytes(32)) -> ActSubject:
        """What a text says: a motion, a payload's digest with the reason."""
        return cls(study, 0, hashlib.sha256(text.encode()).hexdigest())

    @property
    def words(self) -> str:
        """The subject for the log of acts: only the parts that it has, each digest by its first 16 digits."""
        parts = [f"study {self.study.hex()[:16]}"] if any(self.study) else []
        parts += [f"proposal {self.number}"] if self.number else []
        parts += [f"digest {self.about[:16]}"] if self.about != ZEROS else []
        return ", ".join(parts)


def make_domain(network: Network) -> ActDomain:
    """The domain in which a signature of this network counts."""
    return ActDomain(chain_id=network.chain_id, catalog=network.catalog.lower())


def name_unnamed(site: str) -> str:
    """The name of the one who acts at a site without a register of persons."""
    return f"unnamed operator of {site}"


def prepare_act(home: SiteFolder, name: str, act: ActKind, subject: ActSubject, now: int) -> ActText:
    """The text that a person of the register signs; ConfigError (CO-F432, CO-F433) if the person may not."""
    entry, role = home.persons.require_register().find(name, now), ROLES.get(act, Role.APPROVE)
    if role not in entry.roles:
        message = f"{name!a} does not have the role {role.value!r}, which this act needs"
        raise ConfigError("CO-F433", f"{message}. Ask a person who has it; `coterie person list` shows who does.")
    return ActText(
        name=name,
        role=role,
        meaning=MEANINGS[act],
        act=act,
        study=subject.study.hex(),
        number=subject.number,
        decision=home.decisions.count(subject.study) + 1,
        about=subject.about,
        site=home.name,
        time=now,
        domain=make_domain(home.network()),
    )


def accept_act(home: SiteFolder, expected: ActText, signed: SignedAct) -> SignedAct:
    """A signature under the expected text, written into the log; ConfigError (CO-F442) for another one.

    The page calls it with the assertion of a passkey, and the command line with the signature of a key.
    """
    entry = home.persons.require_register().find(expected.name, expected.time)
    try:
        signed.check()
    except AuditFailed as fault:
        raise ConfigError("CO-F442", fault.message) from None
    cause = check_signer(signed, entry, expected.time) if signed.text == expected else "it is about something else"
    if cause:
        raise ConfigError("CO-F442", f"The signature of {expected.name!a} does not count: {cause}. Sign again.")
    subject = ActSubject(bytes.fromhex(expected.study), expected.number, expected.about)
    home.persons.log.append(expected.act, expected.name, subject.words, expected.time)
    return signed


def sign_with_key(
    home: SiteFolder, name: str, act: ActKind, subject: ActSubject, ask: Callable[[str], str], now: int | None = None
) -> SignedAct:
    """Sign an act with the key file of a person; `ask` gives the passphrase of a name."""
    text = prepare_act(home, name, act, subject, int(time.time()) if now is None else now)
    return accept_act(home, text, sign_act(text, home.persons.keys.open(name, ask(name))))


def count_signers(home: SiteFolder, decision: Decision, now: int) -> tuple[int, int]:
    """How many different persons have signed a decision with entries that count now, and how many must."""
    register, wanted = home.persons.read_register(), home.config.policy.approvals
    if register is None:
        return 0, wanted
    acts = [
        act
        for act in decision.signatures
        if any(e.name == act.text.name and not check_signer(act, e, now) for e in register.entries)
    ]
    persons, keys = {fold_name(act.text.name) for act in acts}, {act.key.public for act in acts}
    return min(len(persons), len(keys)), max(wanted, 1)


def describe_missing(home: SiteFolder, decision: Decision, now: int) -> str:
    """What a decision lacks before the site joins on it, in words; empty if nothing."""
    signers, wanted = count_signers(home, decision, now)
    if signers >= wanted:
        return ""
    note = f"signatures of persons: {signers} of {wanted} have signed, and the policy asks for different persons"
    return f"{note} (coterie study approve --person NAME)"


def require_signers(home: SiteFolder, decision: Decision, now: int) -> None:
    """ConfigError (CO-F435) if too few persons have signed a decision."""
    if missing := describe_missing(home, decision, now):
        raise ConfigError("CO-F435", f"Study {decision.study[:16]} waits here for {missing}.")


def state_approvals(
    home: SiteFolder, keys: SiteKeys, network: Network, blobs: BlobStore, decision: Decision, number: int, now: int
) -> bytes:
    """Sign and keep the site's statement on a decision; returns its SHA-256, which goes on the ledger with the join.

    It is published if the site agrees. A site without a register gives the digest that its people named, or zero.
    """
    register = home.persons.read_register()
    if register is None:
        return decision.signed
    policy = hashlib.sha256(encode_canonical(home.config.policy.model_dump(mode="json"))).hexdigest()
    statement = ApprovalStatement(
        site=home.name,
        study=decision.study,
        number=0 if decision.action == "propose" else number,
        domain=make_domain(network),
        register_digests=tuple(entry.digest for entry in register.entries),
        policy=policy,
        approvals=max(home.config.policy.approvals, 1),
        log=home.persons.log.head,
        signers=select_signers(register, decision.signatures, now),
        acts=decision.signatures,
        time=now,
    ).sign(keys.signing)
    if home.config.persons.publish:
        blobs.put(statement.document)
    return home.persons.save_statement(statement)
