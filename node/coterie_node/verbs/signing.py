"""The signer of a decision: a person of the site's register, or an unnamed operator at a site without a register."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import ActKind, ActText, SignedAct
from coterie_node.site.decisions import Decision, collect_signatures
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import (
    ActSubject,
    accept_act,
    count_signers,
    name_unnamed,
    prepare_act,
    sign_with_key,
)
from coterie_node.site.votes import Ballot


class PersonSigner(Protocol):
    """The source of a person's signature."""

    def sign(self, home: SiteFolder, act: ActKind, subject: ActSubject) -> SignedAct:
        """The person's signature under an act, checked and written into the site's log; ConfigError without one."""


@dataclass
class PersonKeySigner:
    """A person with a key file of this site; the passphrase is asked for once."""

    person: str
    ask: Callable[[str], str]
    passphrase: str = field(default="", repr=False)

    def sign(self, home: SiteFolder, act: ActKind, subject: ActSubject) -> SignedAct:
        """Sign with the key file."""
        return sign_with_key(home, self.person, act, subject, self._ask_once)

    def _ask_once(self, name: str) -> str:
        self.passphrase = self.passphrase or self.ask(name)
        return self.passphrase


@dataclass(frozen=True)
class PreparedSigner:
    """A person who has signed `text` already: with a passkey on the page, or with a key behind the API."""

    text: ActText
    signed: SignedAct

    def sign(self, home: SiteFolder, act: ActKind, subject: ActSubject) -> SignedAct:
        """The signature, if it is about this very act."""
        return accept_act(home, prepare_act(home, self.text.name, act, subject, self.text.time), self.signed)


class TextWanted(Exception):
    """An act came to where a person signs `text`, and nothing is done yet."""

    def __init__(self, text: ActText) -> None:
        super().__init__(text.act)
        self.text = text


@dataclass(frozen=True)
class TextSigner:
    """A person who wants to read what an act would let them sign; the act ends there with `TextWanted`."""

    person: str

    def sign(self, home: SiteFolder, act: ActKind, subject: ActSubject) -> SignedAct:
        """Raise TextWanted with the text; ConfigError (CO-F432, CO-F433) if the person may not sign it."""
        raise TextWanted(prepare_act(home, self.person, act, subject, int(time.time())))


def prepare_text(person: str, act: Callable[[PersonSigner], object]) -> ActText:
    """What a person must sign for an act: the act runs with all its checks until it needs the signature."""
    try:
        act(TextSigner(person))
    except TextWanted as wanted:
        return wanted.text
    raise AssertionError("an act of a site with a register ended without a signature")


def sign_act_here(
    folder: SiteFolder, act: ActKind, subject: ActSubject, signer: PersonSigner | None, by: str = ""
) -> SignedAct | None:
    """The signature of the person who acts; None at a site without a register.

    ConfigError (CO-F434) if the site has a register and nobody signs, or has none and somebody does.
    """
    listed = folder.persons.read_register() is not None
    if listed and signer is None:
        message = f"{folder.name} has a register of persons, and nobody signs this act"
        raise ConfigError("CO-F434", f"{message}. Name a person with --person, or sign on the page with a passkey.")
    if signer is not None and not listed:
        message = f"{folder.name} has no register of persons, so that no signature counts"
        raise ConfigError("CO-F434", f"{message}. Leave out --person, or make one: coterie person add NAME.")
    if signer is not None:
        return signer.sign(folder, act, subject)
    folder.persons.log.append(act, by or name_unnamed(folder.name), subject.words, int(time.time()))
    return None


def record_decision(
    folder: SiteFolder, decision: Decision, signer: PersonSigner | None = None, act: ActKind | None = None
) -> list[str]:
    """Sign a decision, write it down, and say how many persons still have to sign."""
    study = bytes.fromhex(decision.study)
    subject = ActSubject(study, decision.number, decision.terms or "00" * 32)
    signed = sign_act_here(folder, act or decision.action, subject, signer, decision.by)
    if signed is None:
        folder.decisions.record(decision.model_copy(update={"by": decision.by or name_unnamed(folder.name)}))
        return []
    decisions = folder.decisions
    with decisions.hold():  # of two persons who sign at once, the second keeps the first one's signature
        signatures = collect_signatures(decisions.latest(study, decision.number), decision, signed)
        names = ", ".join(signature.text.name for signature in signatures)[:200]
        decision = decision.model_copy(update={"signatures": signatures, "by": names})
        decisions.record(decision)
    if not decision.takes_part:
        return [f"Signed by {printable(names)}."]
    signers, wanted = count_signers(folder, decision, int(time.time()))
    waits = "" if signers >= wanted else "; the node joins once another person has approved too"
    return [f"Signed by {printable(names)}: {signers} of {wanted}{waits}."]


def record_withdrawals(
    folder: SiteFolder, motions: Sequence[bytes], by: str = "", signer: PersonSigner | None = None
) -> None:
    """Take back this site's votes for motions (their digests): one signature names them all, and stands under each."""
    digests = sorted(motion.hex() for motion in motions)
    signed = sign_act_here(folder, "vote", ActSubject.of_text(f"withdraw {' '.join(digests)}"), signer, by)
    name = by or name_unnamed(folder.name) if signed is None else signed.text.name
    for digest in digests:
        folder.ballots.record(Ballot(motion="withdraw", subject=digest, by=name, signature=signed))


def record_ballot(folder: SiteFolder, ballot: Ballot, by: str = "", signer: PersonSigner | None = None) -> Ballot:
    """Sign a vote and write it down for the daemon."""
    subject = ActSubject.of_text(f"{ballot.motion} {ballot.subject}")
    signed = sign_act_here(folder, "vote", subject, signer, by)
    name = by or name_unnamed(folder.name) if signed is None else signed.text.name
    ballot = ballot.model_copy(update={"by": name, "signature": signed})
    folder.ballots.record(ballot)
    return ballot
