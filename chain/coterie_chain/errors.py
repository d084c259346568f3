"""Errors of the chain room, by who is at fault.

ChainError
 +- KeyFault              my key file or its passphrase, or a key that cannot be used
 +- StoreFault            my store: a folder or daemon that refuses, or an address that names none
 +- BlobCorrupt           a peer or a store: bytes that do not match their record (never retried)
 |   +- BlobUnusable      the peer that recorded it: the CID's own bytes, of another form or size than is allowed
 +- LedgerUnreachable     the network: retry
 +- BlobMissing           the network: retry
 +- LedgerMismatch        the chain is not the one we joined, or contradicts itself
 +- PostRejected          the contract's no, with the name of its custom error
"""

from __future__ import annotations

from typing import ClassVar


class ChainError(Exception):
    """What happened, with which values and what to do, behind a stable code such as CO-C301."""

    retry: ClassVar[bool] = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class KeyFault(ChainError):
    """A key file is missing, readable by others, or does not open with the passphrase given; or a key is unusable."""


class StoreFault(ChainError):
    """A store refuses for a reason that only a person can remove: disk full, permissions, token, wrong address."""


class BlobCorrupt(ChainError):
    """Bytes that do not match the CID or digest of their record."""


class BlobUnusable(BlobCorrupt):
    """Bytes that match their CID, and are no payload of the size that is allowed: no store has altered them."""


class BlobMissing(ChainError):
    """No store within reach holds the block, or the store does not answer."""

    retry: ClassVar[bool] = True


class LedgerUnreachable(ChainError):
    """The chain endpoint did not answer in time, or answered with something that is not JSON-RPC."""

    retry: ClassVar[bool] = True


class LedgerMismatch(ChainError):
    """The chain is another one than the node joined, or its logs contradict its own hash chains.

    `site` and `topic` name whose entry at which step it is, where there is one.
    """

    def __init__(self, code: str, message: str, site: str = "", topic: str = "") -> None:
        super().__init__(code, message)
        self.site = site
        self.topic = topic


class PostRejected(ChainError):
    """The contract refused a move; `name` is its custom error, `values` that error's arguments."""

    def __init__(self, name: str, *values: object) -> None:
        error_text = f"{name}({', '.join(map(str, values))})"
        super().__init__("CO-C401", f"The contract refused this move: {error_text}. {_ADVICE.get(name, '')}".rstrip())
        self.name = name
        self.values = values


_ADVICE = {
    "NotSite": "Only an admitted, active site may do this; check the key with `coterie doctor`.",
    "NotOwner": "A site's records are written by its own key only, and only while it has its seat: coterie site list.",
    "NotModel": "Records reach the Catalog only through the site's own Model contract.",
    "NotParticipant": "This site does not take part in the study.",
    "BadState": "The study is not in a state that allows it.",
    "HashMismatch": "The study on the ledger is not the one approved here; compare the study files.",
    "WrongStep": "The study has moved on; read the open step again.",
    "NotYourTurn": "Another site serves this step.",
    "Overwrite": "This site has already posted at this step; records are never replaced.",
    "BasisMismatch": "The record builds on another server post than the ledger holds.",
    "NotYet": "The step's deadline has not passed.",
    "NotSilent": "That site has posted, or takes no part.",
    "SiteNeeded": "The study cannot go on without that site; it can only be aborted.",
    "AlreadyVoted": "This site has already voted, joined, paused or disputed here.",
    "NoVote": "This site has no vote for that motion that counts: it was never cast, has expired or has passed.",
    "BadCall": "The call holds more than its arguments, or holds them in another way than this version does.",
    "NotExternal": "A seat belongs to a key of a site's own, never to a contract.",
    "BadName": "A site's name is 1 to 31 of a-z, 0-9 and -, and does not begin with -.",
    "BadTerms": "A value is out of its bounds; contracts/README.md lists them.",
    "BadPayload": "A payload has 1 to 134,217,728 bytes, and a CID of codec raw or dag-pb.",
    "SeatChanged": "This site's key has changed since the study was proposed; propose the study again.",
    "TooManyProposals": "16 proposals of this site are open; withdraw one, or wait until one expires.",
    "Expired": "A proposal can be joined for 30 days; ask for a new one.",
    "NotPosted": "There is no such post, or the digest is the one posted.",
    "KeyTaken": "That key belongs to a site already, or is the zero address.",
}
