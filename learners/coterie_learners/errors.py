"""Errors of the learners room, by who is at fault.

LearnerError
 +- DataError        my rows do not fit the study
 +- StudyError       the study file is wrong, or two studies differ
 +- ProtocolError    a peer posted what the protocol does not allow
 |   +- WrongPost    ... a server post that recomputes to something else
 |   +- TooFewSites  ... nothing: the sites that are left are too few for this protocol to go on
 +- SealedInput      a step needs a payload that this reader may not open
 +- NotConverged     nobody's fault: the rounds ran out
 +- Separation       nobody's fault: the maximum of the likelihood lies at infinity
 +- Collinear        nobody's fault: the design has no unique solution
 +- Withheld         nobody's fault: what would leave a site discloses too much
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What people call a key elsewhere, and what it is called in a study or a mapping.
_OTHER_KEYS = {
    "min": "write range = [least, largest]",
    "max": "write range = [least, largest]",
    "units": "write unit",
    "values": "write levels",
    "categories": "write levels",
    "reference": "the first of `levels` is the reference",
    "ref": "the first of `levels` is the reference",
    "description": "write label",
    "sep": "write separator",
    "delimiter": "write separator",
    "delim": "write separator",
    "dec": "write decimal",
    "skiprows": "write skip",
    "sheet_name": "write sheet",
    "na": "write missing",
    "na_values": "write missing",
    "multiply": "write factor",
    "scale": "write factor",
    "source": "write from",
    "column": "write [columns.NAME]",
    "variable": "write [variables.NAME]",
    "covariates": "write them into the formula",
    "outcome": "write it into the formula, as `outcome ~ terms`",
    "id": "write patient",
    "seed": "the learner or [evaluate] has a seed where chance decides",
}
# What pydantic says in words of Python.
_PLAIN_WORDS = {
    "string_type": "it takes one text, in quotation marks",
    "tuple_type": "it takes a list, in square brackets",
    "list_type": "it takes a list, in square brackets",
    "bool_type": "it takes true or false",
    "bool_parsing": "it takes true or false",
    "float_type": "it takes a number",
    "float_parsing": "it takes a number",
    "int_type": "it takes a whole number",
    "int_parsing": "it takes a whole number",
    "int_from_float": "it takes a whole number",
    "dict_type": "it takes a table of keys and values",
    "missing": "this key is needed",
}


def reword_fault(kind: str, key: str, message: str) -> str:
    """What pydantic finds wrong with a key of a study or of a mapping, in plain words.

    `kind` is pydantic's name of the fault, `message` its sentence.
    """
    if kind == "extra_forbidden":
        advice = _OTHER_KEYS.get(key.lower(), "")
        return f"there is no such key here{f'; {advice}' if advice else ''}"
    if kind == "literal_error":
        return message.replace("Input should be", "it takes", 1)
    return _PLAIN_WORDS.get(kind, message.removeprefix("Value error, "))


def pluralise(count: float, one: str, many: str = "") -> str:
    """A whole count with its noun, such as `1 row` or `3 studies`; `many` is `one` with an s unless given."""
    return f"{count:.0f} {one if count == 1 else many or one + 's'}"


class LearnerError(Exception):
    """What happened, with which values and what to do, behind a stable code such as CO-D101."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DataError(LearnerError):
    """Rows of this site that do not fit the study."""


class StudyError(LearnerError):
    """A study that cannot be run as it is written."""


class MissingLibrary(StudyError):
    """A study that needs a library of an extra which is not installed here; nothing is wrong with the study itself."""

    def __init__(self, code: str, message: str, extra: str) -> None:
        super().__init__(code, message)
        self.extra = extra


class ProtocolError(LearnerError):
    """A post that the protocol does not allow; names site and topic."""

    def __init__(self, code: str, message: str, site: str = "", topic: str = "") -> None:
        super().__init__(code, message)
        self.site = site
        self.topic = topic


class SessionLost(ProtocolError):
    """An interactive step that a party left before its end, or never came to; names it."""


class TooFewSites(ProtocolError):
    """After an exclusion the protocol would disclose what the sites that are left hold."""


class WrongPost(ProtocolError):
    """A server post that differs from its recomputation by `difference` (largest absolute, over all numbers)."""

    def __init__(self, site: str, topic: str, difference: float, recomputed: Mapping[str, Any]) -> None:
        off = "in shape or names" if difference == float("inf") else f"by {difference:.3g}"
        super().__init__(
            "CO-P201",
            f"{site} posted {topic!r}, which differs {off} from what the earlier posts give. "
            "The study must not use it: dispute it, or ask that site what it ran.",
            site,
            topic,
        )
        self.difference = difference
        self.recomputed = recomputed


class SealedInput(LearnerError):
    """A payload that this reader may not open was looked into."""


class NotConverged(LearnerError):
    """The rounds ran out before the fit settled."""


class Separation(LearnerError):
    """Some combination of covariates predicts the outcome without error."""


class Collinear(LearnerError):
    """A column of the design is a combination of the others."""


class Withheld(LearnerError):
    """A payload that would disclose too much, by the study's own rules."""
