"""Errors as problem documents (RFC 9457): our code, the sentence, and the status of HTTP that fits its kind."""

from __future__ import annotations

import json
from typing import Any

from coterie_chain import errors as chain
from coterie_learners import errors as learners
from coterie_node.error_codes import load_codes
from coterie_node.errors import AuditFailed, CoterieError, DeadlinePassed
from coterie_node.site.watch.log import error_sentence
from coterie_node.web.api.tokens import Refused

PROBLEM = "application/problem+json"
# HTTP statuses of single codes: things that do not exist, and fields out of their bounds.
STATUS_OF_CODE = {
    **dict.fromkeys(("CO-F304", "CO-F332", "CO-F311", "CO-A201"), 404),
    **dict.fromkeys(("CO-F322", "CO-F501"), 422),
}
# The chain, the store, or a site's key is out of reach for a while.
STATUS_OF_KIND: tuple[tuple[type[Exception], int], ...] = (
    (chain.PostRejected, 409),
    (chain.BlobCorrupt, 409),
    (chain.LedgerMismatch, 409),
    (chain.ChainError, 503),
    (DeadlinePassed, 503),
    (AuditFailed, 409),
    (learners.StudyError, 422),
    (learners.LearnerError, 409),
)
CONFLICT = 409
TITLES = {
    400: "The request cannot be read",
    401: "The token is missing, unknown or ended",
    403: "The token's scopes do not cover this",
    404: "There is no such thing",
    405: "The address does not take this method",
    409: "The state of the site or the study does not allow it",
    413: "The request is too large",
    415: "The body is not JSON",
    422: "A field is out of bounds",
    429: "Too much at a time",
    500: "A defect of the program",
    503: "The chain or the store does not answer",
}


def find_status(error: Exception) -> int:
    """The status of HTTP for an error of ours."""
    if isinstance(error, Refused):
        return error.status
    code = getattr(error, "code", "")
    kinds = (status for kind, status in STATUS_OF_KIND if isinstance(error, kind))
    return STATUS_OF_CODE.get(code) or next(kinds, CONFLICT)


def describe_problem(error: Exception) -> dict[str, Any]:
    """The document of an error; a sentence that may quote rows is for people of the site, and stays out."""
    code = getattr(error, "code", "") if isinstance(error, CoterieError) else ""
    return make_problem(find_status(error), code or "CO-H150", error_sentence(error))


def make_problem(status: int, code: str, detail: str) -> dict[str, Any]:
    """A problem document; `type` is the place of the code in the list of all codes."""
    entry = load_codes().get(code)
    document: dict[str, Any] = {"type": f"urn:coterie:error:{code}", "title": TITLES.get(status, "Refused")}
    document |= {"status": status, "code": code, "detail": detail}
    return document | ({} if entry is None else {"remedy": entry.remedy})


def encode_problem(document: dict[str, Any]) -> bytes:
    """The bytes of a problem document."""
    return json.dumps(document, ensure_ascii=True).encode()
