"""What requests and answers of the API consist of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from coterie_learners.study.document import Frozen, Text

# A number on the ledger, or the hash of a document: its first eight digits or more. Never the name of a file.
StudyId = Annotated[str, Field(pattern="^([1-9][0-9]{0,8}|[0-9a-f]{8,64})$")]
DigestStart = Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")]
# One line with something in it.
PRINTED = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
ReasonText = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTED)]
SiteName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,30}$")]
SignedText = Annotated[
    dict[str, Any] | None,
    Field(description="The EIP-712 text that a person of the site's register signed, with the signature."),
]


class SigningBody(Frozen):
    """At a site with a register: a person's signature, or the person who asks for the text to sign."""

    signature: SignedText = None
    person: Annotated[
        str,
        Field(
            max_length=200,
            description="A person of the register. Without a signature the answer (202) is the text that this person "
            "has to sign, and nothing is done.",
        ),
    ] = ""


class ActBody(SigningBody):
    """An act about a study: why, for this site's own record; a person's signature where the site has a register."""

    reason: Text = ""


class ProposeBody(SigningBody):
    """A study to propose: TOML, canonical JSON, or the hash of a proposal that another person here signs too."""

    study: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1 << 20,
            description="The study as TOML or as canonical JSON. For a second signature: the SHA-256 (64 hexadecimal "
            "digits) of a study that another person of this site has proposed.",
        ),
    ]


class SupersedeBody(SigningBody):
    """Why a result is superseded, for everybody, and by which study; 0 for none."""

    reason: ReasonText
    successor: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class ReleaseBody(SigningBody):
    """A yes to one payload."""


class AllowBody(SigningBody):
    """A yes to what the privacy log refused, with the reason that goes on record."""

    reason: ReasonText


class VoteBody(SigningBody):
    """A vote about a member: its card to admit or recover it, its name to revoke it."""

    motion: Annotated[str, Field(pattern="^(admit|recover|revoke|withdraw)$")]
    site: SiteName
    card: dict[str, Any] | None = None


class Plain(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Receipt(Plain):
    """What was written down for the daemon, in sentences, and which study it is about (0: not on the ledger yet)."""

    study: int
    hash: str
    by: str
    lines: list[str]


class TextToSign(Plain):
    """What a person has to sign: send the request again with `signature` = {text, key, signature}.

    `typed_data` is the same text as EIP-712 structure, as wallets take it.
    """

    text: dict[str, Any]
    typed_data: dict[str, Any]


class Page(Plain):
    """A part of a list; `next` is the cursor of the part after it, null at the end."""

    items: list[dict[str, Any]]
    next: str | None


class Problem(Plain):
    """A problem document of RFC 9457 with our stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    remedy: str = ""
