"""What a site says when it joins a study: who approved, by which register and policy, and the head of its log of acts.

The ledger holds the SHA-256 of the statement with the join. A site that agrees publishes the statement as one raw block
of that digest. It names the persons who signed; of the register's others it has digests alone.

A statement counts if all of this holds, checked in this order:

    1. the site's own key signed it, for this study and this network
    2. each person's key signed its text: of this study, number, site and network
    3. each signer is in the register, with the key and the role, at the time of signing and of joining
    4. there are as many different persons as the site's policy asks for
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from coterie_learners.study.document import Frozen, Name
from coterie_node.errors import AuditFailed
from coterie_node.persons.act_log import LogHead
from coterie_node.persons.acts import (
    ActDomain,
    Digest32,
    Seconds,
    SignedAct,
    digest_typed,
    recover_signer,
    sign_digest,
)
from coterie_node.persons.names import fold_name
from coterie_node.persons.register import MAX_PERSONS, PersonEntry, PersonRegister, digest_entries, encode_canonical
from coterie_node.persons.roles import MAX_SIGNERS, Role

MAX_STATEMENT_BYTES = 1 << 18
# Seconds by which a person's clock and the ledger's may differ.
CLOCK_SKEW = 300
_NEEDED = {"propose": Role.PROPOSE, "amend": Role.PROPOSE, "approve": Role.APPROVE}
_FIELDS = {
    "site": "string",
    "study": "bytes32",
    "number": "uint64",
    "register": "bytes32",
    "policy": "bytes32",
    "approvals": "uint64",
    "log": "bytes32",
    "acts": "bytes32",
    "time": "uint64",
}


class ApprovalStatement(Frozen):
    """One site's statement. `register` has the digest of each entry, `policy` that of the policy's canonical JSON.

    `approvals`: how many different persons the policy asks for. `signers`: the entries of those who signed.
    """

    format: Literal["coterie-approvals/1"] = "coterie-approvals/1"
    site: Name
    study: Digest32
    number: Annotated[int, Field(ge=0, lt=1 << 63)]
    domain: ActDomain
    register_digests: Annotated[tuple[Digest32, ...], Field(max_length=MAX_PERSONS)]
    policy: Digest32
    approvals: Annotated[int, Field(ge=0, le=MAX_SIGNERS)]
    log: LogHead
    signers: Annotated[tuple[PersonEntry, ...], Field(max_length=MAX_SIGNERS)]
    acts: Annotated[tuple[SignedAct, ...], Field(max_length=MAX_SIGNERS)]
    time: Seconds
    signature: Annotated[str, Field(pattern="^([0-9a-f]{130})?$")] = ""

    @property
    def digest(self) -> bytes:
        """What the site's key signs."""
        log = encode_canonical(self.log.model_dump(mode="json"))
        acts = encode_canonical([act.model_dump(mode="json") for act in self.acts])
        values = {
            "site": self.site,
            "study": bytes.fromhex(self.study),
            "number": self.number,
            "register": bytes.fromhex(digest_entries(self.register_digests)),
            "policy": bytes.fromhex(self.policy),
            "approvals": self.approvals,
            "log": hashlib.sha256(log).digest(),
            "acts": hashlib.sha256(acts).digest(),
            "time": self.time,
        }
        return digest_typed("Approvals", _FIELDS, values, self.domain)

    def sign(self, secret: bytes) -> ApprovalStatement:
        """The statement with the signature of the site's key."""
        return self.model_copy(update={"signature": sign_digest(self.digest, secret)})

    @property
    def document(self) -> bytes:
        """Canonical JSON; the ledger holds its SHA-256."""
        return encode_canonical(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, document: bytes, site: str) -> ApprovalStatement:
        """Read a statement; AuditFailed (CO-A210) for bytes that are none."""
        try:
            if len(document) > MAX_STATEMENT_BYTES:
                raise ValueError
            statement = cls.model_validate_json(document)
        except (ValidationError, ValueError):
            message = f"What {site} published as its persons' approvals is no statement of this version"
            raise AuditFailed("CO-A210", f"{message}. Ask the site for it.", site) from None
        if statement.document != document:
            raise AuditFailed("CO-A210", f"{site}'s statement of approvals is not in canonical form.", site)
        return statement


@dataclass(frozen=True)
class JoinFacts:
    """What the ledger says of one site's join: which study, when it was proposed, and the site's keys.

    `proposes`: the site proposed the study, so that its persons signed before it had a number. `proposed` and `joined`
    in seconds since 1970.
    """

    site: str
    study: str
    number: int
    domain: ActDomain
    keys: frozenset[str]
    proposes: bool
    proposed: int
    joined: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that the signed texts may name."""
        return (0, self.number) if self.proposes else (self.number,)


@dataclass(frozen=True)
class PersonSignature:
    """One signature that holds: who, for which site, in which role, when, with what meaning and which key."""

    site: str
    name: str
    role: str
    time: int
    meaning: str
    key: str

    @property
    def sentence(self) -> str:
        """The same in words."""
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return f'{self.name} for {self.site}, in the role "{self.role}", on {when}: "{self.meaning}" ({self.key})'


def judge_statement(statement: ApprovalStatement, facts: JoinFacts) -> tuple[PersonSignature, ...]:
    """The signatures of a statement; AuditFailed (CO-A210 to CO-A214) names what does not hold."""
    about = (statement.site, statement.study, statement.domain)
    if about != (facts.site, facts.study, facts.domain) or statement.number not in facts.numbers:
        raise _fail("CO-A212", facts, "its statement of approvals is of another study, site or network")
    if recover_signer(statement.digest, statement.signature) not in facts.keys:
        raise _fail("CO-A210", facts, "its statement of approvals is not signed by the site's key")
    for act in statement.acts:
        _judge_act(act, statement, facts)
    persons = {fold_name(act.text.name) for act in statement.acts}
    keys = {act.key.public for act in statement.acts}
    if min(len(persons), len(keys)) < statement.approvals:
        asked = f"its policy asks for {statement.approvals} different persons, and {len(persons)} signed"
        raise _fail("CO-A214", facts, asked)
    return tuple(_describe(act, facts.site) for act in statement.acts)


def _describe(act: SignedAct, site: str) -> PersonSignature:
    text = act.text
    return PersonSignature(site, text.name, text.role.value, text.time, text.meaning, act.key.fingerprint)


def check_signer(act: SignedAct, entry: PersonEntry, time: int) -> str:
    """Why an entry does not cover an act that counts at `time`; empty if it does."""
    text = act.text
    if act.key not in entry.keys:
        return f"the register lists another key of {text.name}"
    if text.role not in entry.roles or text.role is not _NEEDED.get(text.act, text.role):
        return f"{text.name} does not have the role for this act"
    if not entry.is_valid(text.time) or not entry.is_valid(time):
        return f"{text.name} was not in the register when this was signed, or no longer when the site joined"
    return ""


def _judge_act(act: SignedAct, statement: ApprovalStatement, facts: JoinFacts) -> None:
    text, name = act.text, act.text.name
    try:
        act.check()
    except AuditFailed as fault:
        raise AuditFailed(fault.code, fault.message, facts.site) from None
    if (text.site, text.study, text.domain) != (facts.site, facts.study, facts.domain):
        raise _fail("CO-A212", facts, f"{name} signed about another study, site or network")
    if text.act not in _NEEDED or text.number != statement.number:
        raise _fail("CO-A212", facts, f"{name} signed about another proposal, or another act")
    entries = [e for e in statement.signers if e.name == name and e.digest in statement.register_digests]
    faults = [check_signer(act, entry, statement.time) for entry in entries]
    if not entries or all(faults):
        raise _fail("CO-A213", facts, (faults or [f"{name} is not in its register of persons"])[0])
    early = text.number and text.time < facts.proposed - CLOCK_SKEW
    if early or max(text.time, statement.time) > facts.joined + CLOCK_SKEW or text.time > statement.time + CLOCK_SKEW:
        raise _fail("CO-A213", facts, f"{name} signed when this study could not be approved")


def _fail(code: str, facts: JoinFacts, what: str) -> AuditFailed:
    message = f"The approvals of {facts.site} for study {facts.number} do not hold: {what}"
    return AuditFailed(code, f"{message}. Do not rely on them; ask the site.", facts.site)


def select_signers(register: PersonRegister, acts: tuple[SignedAct, ...], time: int) -> tuple[PersonEntry, ...]:
    """The entries of a register that cover some acts at a time, each once; an act without one adds none."""
    chosen: dict[str, PersonEntry] = {}
    for act in acts:
        for entry in register.entries:
            if entry.name == act.text.name and not check_signer(act, entry, time):
                chosen[entry.digest] = entry
    return tuple(chosen.values())
