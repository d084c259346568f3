"""What a study discloses, before it runs. Commands, gate, report and documents all show this one object.

A learner makes a `Disclosure` of a study, by the study's options. Text is for a site's people: plain, with site names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from coterie_learners.study.document import Study
from coterie_learners.study.preparation.words import list_preparation

Protection = Literal["plain", "masked", "blinded"]

_PROTECTIONS = {
    "plain": "",
    "masked": " Under masks: outside a site only the sum over the sites exists.",
    "blinded": " Its readers see numbers that look random to them.",
}


@dataclass(frozen=True)
class StepDisclosure:
    """What one step discloses.

    `topic` may hold `*` for what changes from round to round. `who` posts, as in the ledger's schedule ("each",
    "server", "only:<site>"). `what` a post holds. `readers`: the sites that can open it (None: every member, and
    everybody who can read the store). `protection`: plain numbers, masked (only a sum over sites exists), or blinded
    (words that look random to their readers). `rebuilds`: sentences on what readers can reconstruct from it. `talks`:
    the sites compute this together. `cells`: kinds of counts of patients that readers can solve from it: of one site
    where the step is plain, of all sites together where it is masked. `occasional`: many fits end without this step.
    """

    topic: str
    who: str
    what: str
    readers: tuple[str, ...] | None = None
    protection: Protection = "plain"
    rebuilds: tuple[str, ...] = ()
    talks: bool = False
    cells: tuple[str, ...] = ()
    occasional: bool = False

    def covers(self, topic: str) -> bool:
        """Whether a step of this topic is meant."""
        return fnmatchcase(topic, self.topic)

    @property
    def line(self) -> str:
        """The step in words."""
        sender = {"each": "Each site", "server": "The server of the turn"}.get(self.who, self.who.removeprefix("only:"))
        what = f"{self.what[0].lower()}{self.what[1:]}"
        content = f"The sites compute together: {self.what}." if self.talks else f"{sender} posts {what}."
        rebuilds = "".join(f" {sentence}" for sentence in self.rebuilds)
        return f"{self.topic}: {content} {self._name_readers()}{_PROTECTIONS[self.protection]}{rebuilds}"

    def _name_readers(self) -> str:
        if self.readers is None:
            return "Every member of the study and everybody who can read the store can read this."
        return f"Only {' and '.join(self.readers)} can read this."


@dataclass(frozen=True)
class Disclosure:
    """What a study discloses.

    `steps`: what each step discloses; one entry for each topic. `collusion`: who must not collude, and what they would
    learn. `everybody`: what everybody learns at the end.
    """

    steps: tuple[StepDisclosure, ...]
    collusion: tuple[str, ...]
    everybody: tuple[str, ...]

    def find_step(self, topic: str) -> StepDisclosure | None:
        """The step that a topic belongs to, or None if nothing is said of it."""
        return next((step for step in self.steps if step.covers(topic)), None)

    @property
    def from_rows(self) -> tuple[StepDisclosure, ...]:
        """The steps in which sites post what they made of their own data."""
        return tuple(step for step in self.steps if step.who != "server")

    @property
    def leaves(self) -> tuple[str, ...]:
        """What leaves a site, a line for each step."""
        return tuple(step.line for step in self.from_rows)

    @property
    def paragraphs(self) -> dict[str, tuple[str, ...]]:
        """Everything in words, under the headings that people read."""
        return {"leaves": self.leaves, "collusion": self.collusion, "everybody": self.everybody}

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return asdict(self)


def describe_patients(study: Study) -> tuple[str, ...]:
    """Which rows a study split by rows takes, and by what patients are counted; nothing for one split by columns."""
    if study.columns:
        return ()
    chosen = list_preparation(study)
    if chosen:
        chosen = (*chosen, "How many rows a condition leaves out stays at the site.")
    return (*chosen, *_describe_identifier(study))


def _describe_identifier(study: Study) -> tuple[str, ...]:
    if study.patient:
        return (f"Floors count patients. The column {study.patient!r} identifies them; it never leaves a site.",)
    return (
        "No column identifies patients, so each row counts as one patient: a patient with several rows counts several "
        "times, in the floors and in the standard errors.",
    )


Discloses = Callable[[Study], Disclosure]


def announce_disclosure() -> StepDisclosure:
    """What the step `announce` discloses."""
    return StepDisclosure("keys", "each", "A public key for this run", protection="blinded")


def conclude_disclosure(who: Literal["server", "each"] = "server") -> StepDisclosure:
    """What the steps `conclude` ("server") and `acknowledge` ("each") disclose."""
    return StepDisclosure("conclusion", who, "Nothing; it ends the study")
