"""The log's entry about one release: the parties, the columns with their versions, its kind, and its state."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

from pydantic_core import from_json

Kind = Literal["plain", "masked", "factor"]
State = Literal["posted", "complete", "spoiled"]
# Fields whose values no other release has.
_OWN = frozenset({"session", "study", "digest"})
# Fields that say where a release stands, and not what it shows.
_PLACE = _OWN | {"position", "attempt", "reason"}
# What an entry's JSON must be: a text or a whole number that is not negative; of others the kind of bracket.
_TEXTS = frozenset({"session", "study", "digest", "kind", "outcome", "rows", "matched", "ranges", "state", "reason"})
_NUMBERS = frozenset({"position", "attempt", "n", "equations", "least_pattern"})
_LISTS = frozenset({"parties", "terms", "measured", "missing"})
_TABLES = frozenset({"columns", "labels", "pooled", "times", "functions", "derivations", "weighed", "tables"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORDS = {
    "kind": re.compile("plain|masked|factor"),
    "state": re.compile("posted|complete|spoiled"),
    "rows": re.compile("([0-9a-f]{64})?"),
    "matched": re.compile("([0-9a-f]{64})?"),
    "ranges": re.compile("(ranges/[0-9a-f]{64})?"),
}


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
    `functions`: what the formula derives, with the declarations of the variables behind it; `derivations`: what the
    study derives under a name, in its words, with the same; `weighed`: how rows are weighed by the chance of a
    treatment; `tables`: each column of the model, with the digest of the prints if a formula derives it, else "derived"
    or "raw".
    `matched`: the digest of the set of those patients that the sites have in common, where these hold other columns.
    `ranges`: the name under which the log has these patients' ranges of a score.
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
    derivations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weighed: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    matched: str = ""
    ranges: str = ""
    missing: tuple[str, ...] = ()
    state: State = "posted"
    reason: str = ""

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """One release is one session over one set of parties; a repeated post under it is the same release."""
        return self.session, tuple(sorted(self.parties))

    def covers(self, other: ReleaseHead) -> bool:
        """Whether this release read all that another one reads of the same rows: then the other shows nothing new.

        A row set and a column's version name the same values for ever, once they are in the log.
        """
        same = self.identified == other.identified and self.rows == other.rows
        return same and all(self.columns.get(name) == version for name, version in other.columns.items())

    def list_blobs(self) -> list[str]:
        """The names of the log's blobs about the columns that this release read."""
        sets = [f"set/{digest}" for digest in (self.rows if self.identified else "", self.matched) if digest]
        columns = self.columns.items()
        values = [f"column/{name}" if self.identified else f"values/{place}" for name, place in columns]
        tables = [f"table/{digest}" for digest in self.tables.values() if _DIGEST.fullmatch(digest)]
        return [
            *(["patients"] if self.identified and self.rows else []),
            *sets,
            *values,
            *tables,
            *filter(None, [self.ranges]),
        ]

    def as_bytes(self) -> bytes:
        """Canonical JSON."""
        return json.dumps(vars(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes, shared: dict[str, Any] | None = None) -> ReleaseHead:
        """The head in its JSON; ValueError for anything else.

        `shared` collects the fields of many heads, each value once: thousands of releases name the same columns.
        """
        plain = _read_fields(raw)
        for name in ("parties", "terms", "measured", "missing", "cuts"):
            plain[name] = tuple(plain[name])
        if shared is not None:
            plain = {k: v if k in _OWN else shared.setdefault(repr(v), v) for k, v in plain.items()}
        return cls(**plain)


def _read_fields(raw: bytes) -> dict[str, Any]:
    plain = from_json(raw)  # json.loads would follow nested brackets until the process crashes
    if not isinstance(plain, dict):
        raise ValueError("it is no entry of a release")
    unknown = sorted(plain.keys() - ReleaseHead.__dataclass_fields__.keys())
    if unknown:
        raise ValueError(f"a newer version of Coterie wrote it, with {', '.join(unknown)[:80]}")
    wrong = sorted(name for name in ReleaseHead.__dataclass_fields__ if not _is_field(plain, name))
    if wrong:
        raise ValueError(f"{', '.join(wrong)} cannot be read")
    return plain


def _is_field(plain: Mapping[str, Any], name: str) -> bool:
    """Whether a field is what `ReleaseHead` has there, or may be left out."""
    if name not in plain:
        return ReleaseHead.__dataclass_fields__[name].default is not MISSING or name in _TABLES - {"columns"}
    value = plain[name]
    if name in _TEXTS:
        return isinstance(value, str) and (name not in _WORDS or _WORDS[name].fullmatch(value) is not None)
    if name in _NUMBERS:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    if name in _LISTS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name in _TABLES:
        return isinstance(value, dict) and (name != "columns" or all(map(_is_version, value.values())))
    return isinstance(value, list if name == "cuts" else bool)


def _is_version(place: object) -> bool:
    """Whether a column's values are named as the log names them: by a version's number, or by their digest."""
    if isinstance(place, str):
        return _DIGEST.fullmatch(place) is not None
    return isinstance(place, int) and not isinstance(place, bool) and 0 <= place < 1 << 32


class ReleaseIndex:
    """Releases in memory: by name, by key, and by what they show.

    A new release is compared with only one of the releases that show the same. So the time of a judgement grows with
    the number of different releases, and not with the site's history. `from_bytes` gives each value once for all
    releases: what two releases show is the same where it is the same objects.
    """

    def __init__(self) -> None:
        self._heads: dict[str, ReleaseHead] = {}
        self._raw: dict[str, int] = {}
        # The latest version of each column that a release read.
        self.versions: dict[str, int] = {}
        self._names: dict[tuple[str, tuple[str, ...]], str] = {}
        self._alike: dict[tuple[int, ...], dict[str, ReleaseHead]] = {}
        self._shared: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def __contains__(self, name: object) -> bool:
        return name in self._heads

    def put(self, name: str, raw: bytes) -> ReleaseHead | None:
        """Take a release's JSON in, in place of the one of this name; None if nothing is new. ValueError for others."""
        if self._raw.get(name) == hash(raw):
            return None
        head = ReleaseHead.from_bytes(raw, self._shared)
        self._remove(name)
        self._heads[name], self._raw[name] = head, hash(raw)
        self._names.setdefault(head.key, name)
        for column, version in head.columns.items():
            if isinstance(version, int):
                self.versions[column] = max(version, self.versions.get(column, 0))
        self._alike.setdefault(_list_shown(head), {})[name] = head
        return head

    def drop(self, name: str) -> None:
        """Forget a release, if it is here; another one with its key takes its place."""
        former = self._remove(name)
        if former is not None and former.key not in self._names:
            again = next((other for other, head in self._heads.items() if head.key == former.key), None)
            self._names |= {} if again is None else {former.key: again}

    def _remove(self, name: str) -> ReleaseHead | None:
        former = self._heads.pop(name, None)
        if former is None:
            return None
        del self._raw[name]
        if self._names.get(former.key) == name:
            del self._names[former.key]
        shown = _list_shown(former)
        del self._alike[shown][name]
        if not self._alike[shown]:
            del self._alike[shown]
        return former

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

    def list_differing(
        self, session: str, usable: Callable[[str, ReleaseHead], bool] | None = None
    ) -> list[ReleaseHead]:
        """The releases of other sessions, one of those that show the same, without those that are not `usable`."""

        def is_other(name: str, head: ReleaseHead) -> bool:
            return head.session != session and (usable is None or usable(name, head))

        groups = self._alike.values()
        firsts = (next((h for name, h in alike.items() if is_other(name, h)), None) for alike in groups)
        return [head for head in firsts if head is not None]


def _list_shown(head: ReleaseHead) -> tuple[int, ...]:
    return tuple(id(value) for name, value in vars(head).items() if name not in _PLACE)
