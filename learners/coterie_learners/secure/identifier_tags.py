"""Keyed tags of patients' identifiers in ordered passes, for a helper who matches them and cannot read them.

A pass names identifying columns, each in its normal form or through a rule: `surname:phonetic`, `birth:year`,
`given:initial`. TagArray are HMAC-SHA256 under a key of the owners, cut to 16 bytes. Nobody without the key can tell
anything from a tag but whether two are equal; so tags that a file has more than once are replaced by random ones in
every pass after the first, and in the first one repeated identifiers are refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import DataError, StudyError, pluralise
from coterie_learners.study.document import Study
from coterie_learners.study.identifiers import Values, encode_parts, normalise

TAG = 16

TagArray = NDArray[np.uint8]


def soundex(text: str) -> str:
    """American Soundex of a name (Knuth, volume 3): a letter and three digits; other scripts stay as they are."""
    name = normalise("name", text) or ""
    if not name or not name.isascii():
        return name
    codes = {c: str(k) for k, group in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), 1) for c in group}
    out, last = name[0], codes.get(name[0], "")
    for c in name[1:]:
        code = codes.get(c, "")
        if code and code != last:
            out += code
        if c not in "hw":
            last = code
    return (out + "000")[:4]


# From a normal form to what a pass compares.
TAG_RULES: Mapping[str, Callable[[str], str]] = {
    "exact": lambda form: form,
    "phonetic": soundex,
    "initial": lambda form: form[:1],
    "year": lambda form: form[:4],
}


@dataclass(frozen=True)
class LinkagePass:
    """One way of finding a patient: places of identifying columns, and the rule for each."""

    places: tuple[int, ...]
    rules: tuple[str, ...]

    @classmethod
    def of(cls, text: Sequence[str], columns: Sequence[str]) -> LinkagePass:
        """A pass as a study writes it; StudyError if it names a column or a rule that there is not."""
        pairs = [part.partition(":")[::2] for part in text]
        wrong = [f"{name}:{rule}" if rule else name for name, rule in pairs if name not in columns]
        wrong += [f"{name}:{rule}" for name, rule in pairs if rule and rule not in TAG_RULES]
        if wrong or not pairs:
            message = f"A pass of the linkage names {', '.join(wrong) or 'nothing'}; identifying columns are"
            raise StudyError(
                "CO-S546", f"{message} {', '.join(columns)}, rules {', '.join(TAG_RULES)}. Correct `passes`."
            )
        return cls(tuple(columns.index(name) for name, _ in pairs), tuple(rule or "exact" for _, rule in pairs))

    def encode(self, forms: Sequence[Values]) -> list[bytes | None]:
        """Each row's parts as bytes, from its values in normal form; None for a row that lacks one."""
        chosen = [TAG_RULES[rule] for rule in self.rules]
        rows = [[rule(row[k]) for k, rule in zip(self.places, chosen, strict=True)] for row in forms]
        return [encode_parts(parts) if all(parts) else None for parts in rows]


@dataclass(frozen=True)
class Deal:
    """How a seed of the study deals patients to `folds` folds and a share `held_out`, by their identifiers.

    The same patient comes to the same group in every run and beside any others; group sizes follow chance.
    """

    seed: int
    folds: int
    held_out: float

    @property
    def count(self) -> int:
        """Number of groups; the last is the one held out, if there is one."""
        return self.folds + (self.held_out > 0.0)

    def assign(self, forms: Sequence[Values]) -> NDArray[np.uint8]:
        """The group (n,) of each row, from its identifying values in normal form."""
        start = hashlib.sha256(b"coterie/1 groups" + self.seed.to_bytes(8, "big"))
        out = np.zeros(len(forms), np.uint8)
        for row, form in enumerate(forms):
            state = start.copy()
            state.update(encode_parts(form))
            place = int.from_bytes(state.digest()[:8], "big") / 2.0**64
            fold = int(place / (1.0 - self.held_out) * self.folds)
            out[row] = min(fold, self.count - 1)
        return out


def make_tags(
    key: bytes, study: Study, site: str, passes: Sequence[LinkagePass], forms: Sequence[Values], noise: bytes
) -> TagArray:
    """TagArray (passes, n, 16) of all rows, whose identifying values are given in normal form.

    `noise` (passes * n * 16 random bytes) stands in where a row has no tag. DataError if two rows have the same
    identifiers in the first pass, or a row has none and there is no other pass, unless the study leaves such rows out.
    """
    out = np.frombuffer(noise, np.uint8).reshape(len(passes), len(forms), TAG).copy()
    barred: set[int] = set()
    for number, way in enumerate(passes):
        texts = way.encode(forms)
        counts = Counter(texts)
        if number == 0:
            _check_first(texts, counts, len(passes), study, site)
            barred = {row for row, text in enumerate(texts) if text is not None and counts[text] > 1}
        keyed = hmac.new(hmac.digest(key, b"pass %d" % number, "sha256"), digestmod="sha256")
        for row, text in enumerate(texts):
            if text is not None and counts[text] == 1 and row not in barred:
                stamp = keyed.copy()
                stamp.update(text)
                out[number, row] = np.frombuffer(stamp.digest()[:TAG], np.uint8)
    return out


def _check_first(
    texts: Sequence[bytes | None], counts: Counter[bytes | None], passes: int, study: Study, site: str
) -> None:
    lacking = counts.pop(None, 0)
    repeated = sum(count for count in counts.values() if count > 1)
    if repeated and study.linkage.doubled == "refuse":
        what = f"{site}: {repeated} of {len(texts)} rows share their identifiers with another row"
        raise DataError("CO-D341", f"{what}. Keep one row for each patient; how often a row matches would show.")
    if lacking and passes == 1 and study.linkage.unidentified == "refuse":
        what = f"{site}: the identifier is missing in {lacking} of {pluralise(len(texts), 'row')}"
        raise DataError("CO-D342", f"{what}. Leave these rows out, or agree on a second pass that needs less.")


def match_tags(lists: Sequence[TagArray]) -> NDArray[np.int64]:
    """Rows of all owners that belong together (owners, k), pass by pass among the rows still unmatched.

    Those of a pass come in the order of the first owner's rows.
    """
    free = [np.arange(owner_tags.shape[1]) for owner_tags in lists]
    matches = []
    for number in range(lists[0].shape[0]):
        common = _match_pass([owner_tags[number] for owner_tags in lists], free)
        matches.append(common)
        free = [rows[~np.isin(rows, own)] for rows, own in zip(free, common, strict=True)]
    return np.concatenate(matches, axis=1)


def _match_pass(tags: Sequence[TagArray], free: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows whose tags are equal (owners, k), among the free rows of each owner."""
    common, rows = _index_tags(tags[0], free[0])
    found = [rows]
    for owner_tags, owner_rows in zip(tags[1:], free[1:], strict=True):
        others, rows = _index_tags(owner_tags, owner_rows)
        common, kept, own = np.intersect1d(common, others, assume_unique=True, return_indices=True)
        found = [*(before[kept] for before in found), rows[own]]
    return np.stack(found)[:, np.argsort(found[0])]


def _index_tags(owner_tags: TagArray, rows: NDArray[np.int64]) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """The different tags among some rows, in order, and a row of each."""
    # Texts of 16 bytes are compared byte by byte; only zeros at their ends count for nothing, and all have 16 bytes.
    texts = np.ascontiguousarray(owner_tags[rows]).view(f"S{TAG}").ravel()
    found, first = np.unique(texts, return_index=True)
    return found, rows[first]
