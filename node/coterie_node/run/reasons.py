"""Reason codes that go on the ledger with a pause or an abort: numbers, never text."""

from __future__ import annotations

from enum import IntEnum

from coterie_learners import errors


class Reason(IntEnum):
    """Why a study was paused or aborted."""

    OPERATOR = 1
    DECLINED = 2
    SILENT_SITE = 3
    BAD_PAYLOAD = 4
    SEPARATION = 5
    COLLINEAR = 6
    NOT_CONVERGED = 7
    UNFIT_STUDY = 8
    RELEASE_REFUSED = 9
    TOO_FEW_SITES = 10
    SESSION_LOST = 11
    UNAVAILABLE = 12
    PAYLOAD_TOO_LARGE = 13
    WITHDRAWN = 14


WORDS = {
    Reason.OPERATOR: "its people stopped it",
    Reason.DECLINED: "its people declined the study",
    Reason.SILENT_SITE: "a site stayed silent past the deadline",
    Reason.BAD_PAYLOAD: "a site posted a payload that the protocol does not allow",
    Reason.SEPARATION: "the outcome is separated",
    Reason.COLLINEAR: "the design is collinear",
    Reason.NOT_CONVERGED: "the fit did not converge",
    Reason.UNFIT_STUDY: "the pooled rows cannot carry the model",
    Reason.RELEASE_REFUSED: "its release gate kept a payload back",
    Reason.TOO_FEW_SITES: "too few sites are left to hide each other's shares",
    Reason.SESSION_LOST: "a site left an interactive step before its end; propose the study again",
    Reason.UNAVAILABLE: "a site's payload cannot be fetched",
    Reason.PAYLOAD_TOO_LARGE: "its payload is larger than the ledger takes",
    Reason.WITHDRAWN: "its people withdrew their proposal",
}

_OF_ERROR = (
    (errors.Separation, Reason.SEPARATION),
    (errors.Collinear, Reason.COLLINEAR),
    (errors.NotConverged, Reason.NOT_CONVERGED),
    (errors.TooFewSites, Reason.TOO_FEW_SITES),
    (errors.SessionLost, Reason.SESSION_LOST),
    (errors.ProtocolError, Reason.BAD_PAYLOAD),
    (errors.StudyError, Reason.UNFIT_STUDY),
    (errors.Withheld, Reason.RELEASE_REFUSED),
)


def abort_reason(error: Exception) -> Reason | None:
    """The reason for which an error ends a study; None if the study can go on once the error is corrected."""
    return next((reason for kind, reason in _OF_ERROR if isinstance(error, kind)), None)


def describe_reason(code: int) -> str:
    """A reason code in words."""
    return WORDS[Reason(code)] if code in set(Reason) else f"reason {code}"
