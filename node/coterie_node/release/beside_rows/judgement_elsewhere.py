"""The gate's judgement of rows that stay on other machines: it is made beside them, and its verdict comes back.

An object at one machine of the hospital's cluster has the raw rows and a copy of the privacy log. Before each question
it gets what changed in the log; with each answer it gives back what it wrote. The log itself stays with the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.protocol import Site
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Floors, Study
from coterie_node.data.patients.site_rows import Beside, StaysElsewhere
from coterie_node.privacy.log import COUNTER, KEY_MARK, PrivacyLog
from coterie_node.privacy.objections import Objection
from coterie_node.privacy.prints import RawRows
from coterie_node.release.judgement import Judgement, label_rows

Blobs = dict[str, bytes]
# What changed: a blob that is gone is None.
Changes = Mapping[str, bytes | None]


@dataclass(frozen=True)
class RunPlace:
    """What a judgement needs of a site: its name, and where in which run of the study it is. No key is among it."""

    name: str
    session: str
    parties: tuple[str, ...]
    attempt: int

    @classmethod
    def of(cls, site: Site) -> RunPlace:
        """The place of a site."""
        return cls(site.name, site.session, site.parties, site.attempt)


@dataclass(frozen=True)
class RawData:
    """Raw rows as a site's data."""

    raw: RawRows

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.raw.n

    def read_raw(self) -> RawRows:
        """The raw rows."""
        return self.raw


class CopiedBlobs(MutableMapping[str, bytes]):
    """A copy of named blobs that notes what is written to it."""

    def __init__(self) -> None:
        self._blobs: Blobs = {}
        self._written: Blobs = {}

    def update_copy(self, changes: Changes) -> None:
        """Take over what changed in the original."""
        for name, content in changes.items():
            if content is None:
                self._blobs.pop(name, None)
            else:
                self._blobs[name] = content

    def take_written(self) -> Blobs:
        """What was written since the last call."""
        written, self._written = self._written, {}
        return written

    def __getitem__(self, name: str) -> bytes:
        return self._blobs[name]

    def __setitem__(self, name: str, content: bytes) -> None:
        self._blobs[name] = self._written[name] = content

    def __delitem__(self, name: str) -> None:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._blobs))

    def __len__(self) -> int:
        return len(self._blobs)


@dataclass(frozen=True)
class ProcessReply:
    """What was asked for, and what the log and its counter hold besides now."""

    value: Any
    written: Blobs
    counted: Blobs


class JudgeBesideRows:
    """The judgement beside the rows, at another machine."""

    def __init__(self, raw: RawRows, study: Study, floors: Floors, near: bool) -> None:
        self._storage, self._counter = CopiedBlobs(), CopiedBlobs()
        log = PrivacyLog(self._storage, self._counter)
        self._judgement, self._log = Judgement(log, floors, near), log
        self._study, self._data = study, RawData(raw)

    def judge(self, changes: Changes, counted: Blobs, place: RunPlace, exposure: Exposure) -> ProcessReply:
        """All objections."""
        return self._answer(changes, counted, lambda: self._judgement.judge(self._seat(place), exposure))

    def write(self, changes: Changes, counted: Blobs, place: RunPlace, exposure: Exposure, reason: str) -> ProcessReply:
        """The release in the log."""
        return self._answer(changes, counted, lambda: self._judgement.write(self._seat(place), exposure, reason))

    def label(self, changes: Changes, counted: Blobs, place: RunPlace) -> ProcessReply:
        """The label of each column's rows."""
        return self._answer(changes, counted, lambda: label_rows(self._log, self._seat(place)))

    def _answer(self, changes: Changes, counted: Blobs, work: Callable[[], object]) -> ProcessReply:
        self._storage.update_copy(changes)
        self._counter.update_copy(counted)
        value = work()
        return ProcessReply(value, self._storage.take_written(), self._counter.take_written())

    def _seat(self, place: RunPlace) -> Site:
        data = cast(Any, self._data)
        return Site(self._study, place.name, data, session=place.session, parties=place.parties, attempt=place.attempt)


@dataclass
class JudgementElsewhere:
    """A `Judgement` of rows that stay elsewhere, with the same two methods."""

    data: StaysElsewhere
    log: PrivacyLog
    study: Study
    floors: Floors
    near: bool = False
    _beside: Beside | None = field(default=None, init=False)
    _sent: dict[str, bytes] = field(default_factory=dict, init=False)

    def judge(self, site: Site, exposure: Exposure) -> list[Objection]:
        """All objections to what leaves at this step."""
        objections: list[Objection] = self._ask("judge", RunPlace.of(site), exposure)
        return objections

    def write(self, site: Site, exposure: Exposure, reason: str = "") -> None:
        """Write what is about to leave into the log, durably."""
        self._ask("write", RunPlace.of(site), exposure, reason)

    def label(self, site: Site) -> Mapping[str, bytes]:
        """This site's keyed label of its rows for each raw column."""
        labels: Mapping[str, bytes] = self._ask("label", RunPlace.of(site))
        return labels

    def _ask(self, method: str, *arguments: object) -> Any:
        if self._beside is None:
            self._beside = self.data.start_beside(JudgeBesideRows, self.study, self.floors, self.near)
        assert self.log.key  # made here, where it stays
        # The counter and the key's mark lie among other things of the site's state, which do not leave.
        counted = {name: self.log.counter[name] for name in (COUNTER, KEY_MARK) if name in self.log.counter}
        try:
            answer: ProcessReply = self._beside.ask(method, self._list_changes(), counted, *arguments)
        except LearnerError:
            self._beside, self._sent = None, {}  # the next question finds another machine
            raise
        for name, content in answer.written.items():
            self.log.storage[name] = content
            self._sent[name] = hashlib.sha256(content).digest()
        self.log.counter.update(answer.counted)
        return answer.value

    def _list_changes(self) -> Changes:
        """The blobs that the copy has not, or has otherwise; of the others one at a time is in memory."""
        names = tuple(self.log.storage)
        changes: dict[str, bytes | None] = dict.fromkeys(self._sent.keys() - set(names))
        self._sent = {name: digest for name, digest in self._sent.items() if name not in changes}
        for name in names:
            content = self.log.storage[name]
            digest = hashlib.sha256(content).digest()
            if self._sent.get(name) != digest:
                self._sent[name], changes[name] = digest, content
        return changes


def judge_at(site: Site, log: PrivacyLog, floors: Floors, near: bool) -> Judgement | JudgementElsewhere:
    """The judgement of a site's rows, where they are."""
    if isinstance(site.data, StaysElsewhere):
        return JudgementElsewhere(site.data, log, site.study, floors, near)
    return Judgement(log, floors, near)


def label_rows_at(log: PrivacyLog, site: Site) -> Mapping[str, bytes]:
    """The keyed labels of a site's rows, made where these are."""
    if isinstance(site.data, StaysElsewhere):
        return JudgementElsewhere(site.data, log, site.study, Floors()).label(site)
    return label_rows(log, site)
