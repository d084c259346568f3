"""An objection of the privacy log to a release: how grave it is, of which kind, and the words for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum

from pydantic_core import from_json


class Grade(IntEnum):
    """What follows from an objection: a person is asked, or the release stays."""

    ASK = 1
    REFUSE = 2


@dataclass(frozen=True)
class Objection:
    """Why a release may not leave as it is.

    `sentence` is for everybody: it says the kind and the way out and has no number of patients. `study` is the earlier
    study that it is about, if any. `secret` holds counts by name, for this site's own people. `subject` names exactly
    what would be known, so that a person's yes is to this and to nothing else.
    """

    grade: Grade
    kind: str
    sentence: str
    study: str = ""
    secret: Mapping[str, int] = field(default_factory=dict)
    subject: str = ""

    @property
    def sentence_while_held(self) -> str:
        """The sentence for a payload that is kept until a person answers: a yes is to its digest, and has no reason."""
        return _ALLOW.sub(" (coterie release approve DIGEST)", self.sentence)


# How a sentence ends that a release is refused for: the yes is to the study, before it is tried again.
_ALLOW = re.compile(r",? with a reason \(coterie release allow\)")


def objections_to_json(objections: Iterable[Objection]) -> bytes:
    """Objections as JSON, to be kept."""
    return json.dumps([asdict(objection) for objection in objections]).encode()


def objections_from_json(raw: bytes) -> list[Objection]:
    """Objections that were kept."""
    return [Objection(**plain | {"grade": Grade(plain["grade"])}) for plain in from_json(raw)]


def pick_gravest(objections: Iterable[Objection]) -> Objection | None:
    """The first objection that refuses, else the first that asks, else None."""
    ask = None
    for objection in objections:
        if objection.grade is Grade.REFUSE:
            return objection
        ask = ask or objection
    return ask
