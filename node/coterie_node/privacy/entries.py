"""What the log keeps of one release: who, which columns in which version, of which kind, and in which state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["plain", "masked", "factor"]
State = Literal["posted", "complete", "spoiled"]
# Fields whose values no other release has.
_OWN = frozenset({"session", "study", "digest"})
# Fields that say where a release stands, and not what it shows.
_PLACE = _OWN | {"position", "attempt", "reason"}


@dataclass(frozen=True)
class ReleaseHead:
    """One release of this site: its sums over these rows in one attempt of a study.

    `session` names the run on the ledger, `parties` the sites of the step as the ledger has them. `columns` maps every
    raw column that was read to its version; `terms` are the design's columns, `measured` the raw covariates that
    are no tables. `rows` is the digest of the row set.
    `equations` counts the plain sums so far; sums leave out patterns of fewer than `least_pattern` rows. `labels` holds
    each party's label by column, `pooled` the pool's patients and events by level as the opening step showed them;
    `uncounted`: nobody knows them, as bits were opened in their place or another site was excluded since.
    `times`: the grid of time and this site's counts on it, of curves. `cuts`: columns that are counted by parts.
    `functions`: what the formula derives, with the declarations of the variables behind it; `tables`: each
    column of the model, with the digest of the prints if a formula derives it, else "derived" or "raw".
    `matched`: the digest of the set of those patients that the sites have in common, where these hold other columns.
    `missing`: whose share is missing or false, if the sum never came to exist. `reason`: what a person said when they
    let it leave.
    """

    session: str
    study: str
    digest: str
    position: int
    attempt: int
    parties: tuple[str, ...]
    kind: Kind
    n: int
    columns: Mapping[str, int | str]
    outcome: str = ""
    terms: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    rows: str = ""
    identified: bool = True
    equations: int = 0
    least_pattern: int = 0
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pooled: Mapping[str, Sequence[float]] = field(default_factory=dict)
    uncounted: bool = False
    times: Mapping[str, Any] = field(default_factory=dict)
    cuts: tuple[Mapping[str, Any], ...] = ()
    functions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    matched: str = ""
    missing: tuple[str, ...] = ()
    state: State = "posted"
    reason: str = ""

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """One release is one session over one set of parties; a repeated post under it is the same release."""
        return self.session, tuple(sorted(self.parties))

    def covers(self, other: ReleaseHead) -> bool:
        """Whether this release read all that another one reads of the same rows: the other shows nothing new of them.

        A row set and a column's version name the same values for ever, once they are in the log.
        """
        same = self.identified == other.identified and self.rows == other.rows
        return same and all(self.columns.get(name) == version for name, version in other.columns.items())

    def as_bytes(self) -> bytes:
        """Canonical JSON."""
        return json.dumps(vars(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes, shared: dict[str, Any] | None = None) -> ReleaseHead:
        """The head in its JSON.

        `shared` collects the fields of many heads, each value once: thousands of releases name the same columns.
        """
        plain: dict[str, Any] = json.loads(raw)
        for name in ("parties", "terms", "measured", "missing", "cuts"):
            plain[name] = tuple(plain[name])
        if shared is not None:
            plain = {k: v if k in _OWN else shared.setdefault(repr(v), v) for k, v in plain.items()}
        return cls(**plain)


class ReleaseIndex:
    """Releases in memory: by name, by key, and by what they show.

    Of releases that show the same a new one is compared with one, so that a judgement takes as long as there are
    releases that differ, and not as long as the site's history. `from_bytes` gives each value once for all releases:
    what two releases show is the same where it is the same objects.
    """

    def __init__(self) -> None:
        self._heads: dict[str, ReleaseHead] = {}
        self._names: dict[tuple[str, tuple[str, ...]], str] = {}
        self._alike: dict[tuple[int, ...], dict[str, ReleaseHead]] = {}
        self._shared: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def __contains__(self, name: object) -> bool:
        return name in self._heads

    def put(self, name: str, raw: bytes) -> None:
        """Take a release's JSON in, in place of the one of this name."""
        self.drop(name)
        head = ReleaseHead.from_bytes(raw, self._shared)
        self._heads[name] = head
        self._names.setdefault(head.key, name)
        self._alike.setdefault(_list_shown(head), {})[name] = head

    def drop(self, name: str) -> None:
        """Forget a release, if it is here."""
        former = self._heads.pop(name, None)
        if former is None:
            return
        if self._names.get(former.key) == name:
            del self._names[former.key]
        shown = _list_shown(former)
        del self._alike[shown][name]
        if not self._alike[shown]:
            del self._alike[shown]

    def list_all(self, names: Iterable[str]) -> list[ReleaseHead]:
        """The releases of these names."""
        return [self._heads[name] for name in names]

    def find_name(self, key: tuple[str, tuple[str, ...]]) -> str | None:
        """The name of the release with a key."""
        return self._names.get(key)

    def find(self, key: tuple[str, tuple[str, ...]]) -> ReleaseHead | None:
        """The release with a key."""
        name = self._names.get(key)
        return None if name is None else self._heads[name]

    def list_differing(self, session: str) -> list[ReleaseHead]:
        """The releases of other sessions, one of those that show the same."""
        firsts = (next((h for h in alike.values() if h.session != session), None) for alike in self._alike.values())
        return [head for head in firsts if head is not None]


def _list_shown(head: ReleaseHead) -> tuple[int, ...]:
    return tuple(id(value) for name, value in vars(head).items() if name not in _PLACE)
