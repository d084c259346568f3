"""Errors of the node room, and what every error of the house becomes for a user: a code, a sentence, an exit status.

NodeError
 +- ConfigError    my settings, files or arguments
 +- AuditFailed    the record does not hold; names the first bad step
 +- StudyStopped   the study was paused or aborted on the ledger, by which site and why
 +- PayloadTooLarge   a payload of this site is larger than the ledger takes
 +- TermsMismatch     the ledger's terms of a study are not those that were approved
 +- StudyQuarantined  a defect stopped one study here
 +- Overdue        a wait ran past its deadline; names who is silent
 +- SiteFailed     another process of this machine, which ran a site, reported this error
"""

from __future__ import annotations

from coterie_chain import errors as chain
from coterie_learners import errors as learners


class NodeError(Exception):
    """What happened, with which values and what to do, behind a stable code such as CO-A101."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConfigError(NodeError):
    """Settings, files or arguments of this node."""


class AuditFailed(NodeError):
    """The record does not hold; `site` and `topic` name the first bad step where there is one."""

    def __init__(self, code: str, message: str, site: str = "", topic: str = "") -> None:
        super().__init__(code, message)
        self.site = site
        self.topic = topic


class PayloadCorrupt(chain.BlobCorrupt):
    """Bytes in the store that do not match their record; names the record's site and topic."""

    def __init__(self, code: str, message: str, site: str, topic: str) -> None:
        super().__init__(code, message)
        self.site = site
        self.topic = topic


class PayloadMissing(chain.BlobMissing):
    """Bytes that no store within reach holds; names the record's site and topic."""

    def __init__(self, code: str, message: str, site: str, topic: str) -> None:
        super().__init__(code, message)
        self.site = site
        self.topic = topic


class PostUnusable(chain.ChainError, learners.ProtocolError):
    """The protocol does not allow a site's post; this site voted to repeat the step, and waits for the others."""

    retry = True

    def __init__(self, code: str, message: str, site: str) -> None:
        learners.ProtocolError.__init__(self, code, message, site)


class StudyStopped(NodeError):
    """The study was paused or aborted on the ledger."""


class ReleaseRefused(NodeError):
    """This site's release gate keeps a payload back."""


class PayloadTooLarge(NodeError):
    """A payload of this site is larger than the ledger takes."""


class TermsMismatch(NodeError):
    """The ledger's terms of a study are not those of its document, or not those that this site's people approved."""


class StudyQuarantined(NodeError):
    """A defect stopped one study at this site; the other studies go on."""


class DeadlinePassed(NodeError):
    """A wait ran past its deadline."""


class SiteFailed(NodeError):
    """A site's process ended with an error; `status` is that process's exit status."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(code, message)
        self.status = status


CoterieError = (learners.LearnerError, chain.ChainError, NodeError)

EXIT = {
    learners.DataError: 10,
    learners.StudyError: 11,
    ConfigError: 12,
    ReleaseRefused: 14,
    PayloadTooLarge: 15,
    TermsMismatch: 16,
    chain.KeyFault: 13,
    learners.ProtocolError: 20,
    chain.BlobCorrupt: 21,
    AuditFailed: 22,
    chain.LedgerMismatch: 23,
    learners.SealedInput: 24,
    chain.LedgerUnreachable: 30,
    chain.BlobMissing: 31,
    chain.StoreFault: 32,
    DeadlinePassed: 33,
    chain.PostRejected: 40,
    StudyStopped: 41,
    learners.NotConverged: 50,
    learners.Separation: 51,
    learners.Collinear: 52,
    learners.Withheld: 53,
}


def exit_status(error: Exception) -> int:
    """The stable exit status of an error; 1 for one without a place in the table."""
    if isinstance(error, SiteFailed):
        return error.status
    return next((EXIT[kind] for kind in type(error).__mro__ if kind in EXIT), 1)
