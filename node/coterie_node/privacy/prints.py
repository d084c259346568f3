"""The rows that the gate hands to the log, and their keyed prints: the log holds neither identifiers nor values.

Range, scaling, order and derived terms do not enter: nothing here looks at a formula's text.

A patient print is 64 bits of a keyed BLAKE2b of the identifier (NFC, blanks cut). A value print is 32 bits of the raw
value as it is in the file, before ranges and scaling, keyed by column: strongly universal multilinear hashing of the
float64 bits (Lemire and Kaser, "Strongly universal string hashing is fast", Computer Journal 2014;57:1624). A text that
is a decimal number has the print of that number, so that a column declared otherwise is the same column.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from coterie_learners.numeric.array import find_distinct

Fingerprints = NDArray[np.uint32]
# Distinct values, sorted, and each row's place (n,) among them.
FewValues = tuple[NDArray[Any], NDArray[np.uint8]]
PatientPrints = NDArray[np.uint64]

# A column with so few distinct values is a table.
MOST_LEVELS = 12
# A key's length in bytes.
KEY_BYTES = 32
# No value has this print: it means that the log does not know the value.
UNKNOWN_PRINT = 0
# Rows that are hashed in one go, so that memory holds a few of them only.
_CHUNK = 1 << 16
# Numbers that are hashed in one go, so that they stay in the processor's cache.
_RUN = 1 << 15
# Prints of a file that stay in memory between their uses.
_KEPT_BYTES = 32 << 20
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$", re.ASCII)
# The upper half of a 64-bit word among its two halves.
_UPPER = 1 if sys.byteorder == "little" else 0
_HALF = np.uint64(32)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def print_patients(identifiers: Sequence[str | Sequence[str]], key: bytes) -> PatientPrints:
    """A print (n,) of each row's identifier; several identifying columns count as one identifier."""
    out = np.empty(len(identifiers), np.uint64)
    start = hashlib.blake2b(key=key, digest_size=8)
    for at in range(0, len(identifiers), _CHUNK):
        words = [_patient_word(identifier, start) for identifier in identifiers[at : at + _CHUNK]]
        out[at : at + _CHUNK] = np.frombuffer(b"".join(words), "<u8")
    return out


def digest_identifiers(identifiers: Sequence[str | Sequence[str]], key: bytes) -> bytes:
    """A keyed digest (32 bytes) of identifiers in their order, a tenth of the work of their prints."""
    out = hashlib.blake2b(key=key, digest_size=32, person=b"identifiers")
    for at in range(0, len(identifiers), _CHUNK):
        part = ["\x1f".join((i,) if isinstance(i, str) else i) for i in identifiers[at : at + _CHUNK]]
        out.update(np.fromiter(map(len, part), np.int64, len(part)).tobytes())
        out.update("".join(part).encode())
    return out.digest()


def make_tagger(key: bytes) -> AESGCM:
    """What tags the words of digests: Galois/Counter mode without a text (NIST SP 800-38D), under the site's key."""
    return AESGCM(hashlib.blake2b(key=key, digest_size=16, person=b"print digest").digest())


def tag_words(words: NDArray[np.uint64] | NDArray[np.float64], tagger: AESGCM) -> bytes:
    """How many words a column has, and a keyed tag (16 bytes) of each run of them; of numbers, of their bits.

    Two columns that differ have the same tags with a chance of 2^-112 or so, over the key.
    """
    tags = [len(words).to_bytes(8, "big")]
    copy = np.empty(min(_CHUNK, len(words)), words.dtype)
    for number, at in enumerate(range(0, len(words), _CHUNK)):
        run = copy[: min(_CHUNK, len(words) - at)]
        np.add(words[at : at + _CHUNK], words.dtype.type(0), out=run)  # -0 is 0
        tags.append(tagger.encrypt(number.to_bytes(12, "big"), b"", run.data.cast("B")))
    return b"".join(tags)


def _tag_places(words: NDArray[np.uint64], places: NDArray[np.uint8], tagger: AESGCM) -> bytes:
    """Few distinct words in order, and the tags of each row's place among them, eight places being one word."""
    distinct, rank = np.unique(words, return_inverse=True)
    ordered = places if np.array_equal(rank, np.arange(len(words))) else rank.astype(np.uint8)[places]
    whole = np.zeros(-(-len(ordered) // 8) * 8, np.uint8)
    whole[: len(ordered)] = ordered
    tags = tag_words(whole.view("<u8").astype(np.uint64, copy=False), tagger)
    return b"few" + len(ordered).to_bytes(8, "big") + distinct.astype("<u8").tobytes() + tags


def print_numbers(values: NDArray[Any], column: str, key: bytes) -> Fingerprints:
    """A print (n,) of each number of a column; all missing values (NaN) have one print, and so have 0 and -0."""
    low, high, last = _factors(column, key)
    # words * low + (words >> 32) * upper are the lower half times `low` and the upper half times `high`.
    upper = np.uint64((int(high) - (int(low) << 32)) % (1 << 64))
    numbers = np.asarray(values, dtype=np.float64)
    gaps = bool(len(numbers)) and bool(np.isnan(numbers.min()))
    out = np.empty(len(numbers), np.uint32)
    part, sums = np.empty(_RUN), np.empty(_RUN, np.uint64)
    for at in range(0, len(numbers), _RUN):
        size = min(_RUN, len(numbers) - at)
        number, word, total = part[:size], part[:size].view(np.uint64), sums[:size]
        np.add(numbers[at : at + size], 0.0, out=number)
        if gaps:
            number[np.isnan(number)] = np.nan
        np.multiply(word, low, out=total)
        word >>= _HALF
        word *= upper
        total += word
        total += last
        out[at : at + size] = total.view(np.uint32)[_UPPER::2]
    return np.maximum(out, UNKNOWN_PRINT + 1, out=out)


def find_few_distinct(values: NDArray[Any]) -> FewValues | None:
    """The distinct values, sorted, and each row's place (n,) among them, if they are at most MOST_LEVELS."""
    # Most measurements show in a few rows that they are none.
    if len(find_distinct(values[: 4 * MOST_LEVELS])) > MOST_LEVELS:
        return None
    distinct = find_distinct(values[:: max(1, len(values) // 512)])
    places = np.empty(len(values), np.uint8)
    at = 0
    while len(distinct) <= MOST_LEVELS:
        if at >= len(values):
            return distinct, places
        part = values[at : at + _RUN]
        if _place(part, distinct, places[at : at + _RUN]) == len(part):
            at += _RUN
        else:
            others = part[~np.isin(part, distinct)][: MOST_LEVELS * 4]
            if np.any(others != others):
                return None  # a missing value equals none
            distinct, at = np.union1d(distinct, np.unique(others)), 0
    return None


def _place(values: NDArray[Any], distinct: NDArray[Any], out: NDArray[np.uint8]) -> int:
    """Write the place (n,) of each value among a few distinct ones; how many values are one of them."""
    out[:] = 0
    known = 0
    for place, value in enumerate(distinct):
        same = values == value
        known += int(np.count_nonzero(same))
        if place:
            out += same.view(np.uint8) * np.uint8(place)
    return known


def print_levels(codes: NDArray[Any], levels: Sequence[str], column: str, key: bytes) -> Fingerprints:
    """A print (n,) of each value of a category, given as level numbers from 0; it depends on the text alone."""
    table = np.array([_text_print(level, column, key) for level in levels], dtype=np.uint32)
    return table[np.asarray(codes, dtype=np.intp)]


def _text_print(text: str, column: str, key: bytes) -> int:
    number = _read_number(text)
    if number is not None:
        return int(print_numbers(np.array([number]), column, key)[0])
    return max(_hash_text(text, column, key, 4), UNKNOWN_PRINT + 1)


def _text_word(text: str, column: str, key: bytes) -> int:
    """A word (64 bits) of a text: of a decimal number the bits of its float64."""
    number = _read_number(text)
    return _hash_text(text, column, key, 8) if number is None else int(np.float64(number + 0.0).view(np.uint64))


def _read_number(text: str) -> float | None:
    plain = unicodedata.normalize("NFC", text)
    return float(plain) if _NUMBER.match(plain) else None


def _hash_text(text: str, column: str, key: bytes, size: int) -> int:
    own = hashlib.blake2b(column.encode(), key=key, digest_size=32).digest()
    word = hashlib.blake2b(unicodedata.normalize("NFC", text).encode(), key=own, digest_size=size).digest()
    return int.from_bytes(word, "little")


def _patient_word(identifier: str | Sequence[str], start: hashlib.blake2b) -> bytes:
    text = identifier if isinstance(identifier, str) else "\x1f".join(part.strip() for part in identifier)
    word = start.copy()
    word.update((text if text.isascii() else unicodedata.normalize("NFC", text)).strip().encode())
    return word.digest()


def _factors(column: str, key: bytes) -> NDArray[np.uint64]:
    """Three 64-bit words of a column's hash function."""
    stream = hashlib.blake2b(column.encode(), key=key, digest_size=24, person=b"value print").digest()
    return np.frombuffer(stream, np.uint64)


@dataclass(frozen=True)
class RawRows:
    """The rows that a study uses at one site.

    `values`: every column that is read (formula, outcome, offset, weights, strata, filters) with n raw values: numbers,
    or level numbers from 0 with the texts in `levels`. `identifiers`: the declared identifier of each row, or None
    where rows are taken for patients. `lacking`: for each column, how many rows of the file were left out as it is
    blank.
    """

    values: Mapping[str, NDArray[Any]]
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    identifiers: Sequence[str | Sequence[str]] | None = field(default=None, repr=False)
    lacking: Mapping[str, int] = field(default_factory=dict)
    _few: dict[str, FewValues | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self.values.values())))

    def find_few(self, name: str) -> FewValues | None:
        """A column's distinct values and each row's place among them, if they are at most MOST_LEVELS."""
        if name not in self._few:
            self._few[name] = find_few_distinct(self.values[name])
        return self._few[name]

    def take(self, rows: NDArray[np.intp]) -> RawRows:
        """These rows only."""
        values = {name: column[rows] for name, column in self.values.items()}
        identifiers = None if self.identifiers is None else [self.identifiers[k] for k in rows.tolist()]
        return RawRows(values, self.levels, identifiers, self.lacking)

    def prints(self, key: bytes, patients: PatientPrints | None = None) -> PrintedRows:
        """The same rows as keyed prints; `patients`: those of the identifiers, where they are known already."""
        if patients is None and self.identifiers is not None:
            patients = print_patients(self.identifiers, key)
        return PrintedRows(ColumnPrints(self, key), patients, self.n, dict(self.lacking))


class ColumnPrints(Mapping[str, Fingerprints]):
    """The prints (n,) of each column, made when they are asked for.

    Prints of rows without identifiers all stay in memory up to _KEPT_BYTES, because former releases are compared with
    them before they are written; else at most one column's are there.
    """

    def __init__(self, rows: RawRows, key: bytes) -> None:
        self._rows = rows
        self._key = key
        self._prints: dict[str, Fingerprints] = {}
        size = rows.n * len(rows.values) * np.dtype(np.uint32).itemsize
        self._keeps = rows.identifiers is None and size <= _KEPT_BYTES

    def __getitem__(self, name: str) -> Fingerprints:
        if name in self._prints:
            return self._prints[name]
        prints = self._print(name)
        if self._keeps:
            self._prints[name] = prints
        return prints

    def _print(self, name: str) -> Fingerprints:
        values, levels = self._rows.values[name], self._rows.levels.get(name)
        if levels is not None:
            return print_levels(values, levels, name, self._key)
        few = self._rows.find_few(name)
        return print_numbers(values, name, self._key) if few is None else print_numbers(few[0], name, self._key)[few[1]]

    @cached_property
    def digests(self) -> dict[str, str]:
        """A keyed digest of each column's values in their order: the same for equal prints, with less work."""
        tagger = make_tagger(self._key)
        return {name: hashlib.sha256(self._tag_column(name, tagger)).hexdigest() for name in self._rows.values}

    def _tag_column(self, name: str, tagger: AESGCM) -> bytes:
        """The tags of a column's words; of few distinct ones, these and the tags of the places among them.

        How a column is declared does not matter: a text that is a number has the word of that number.
        """
        values, levels = self._rows.values[name], self._rows.levels.get(name)
        if levels is None:
            few = self._rows.find_few(name)
            if few is None:
                return tag_words(np.asarray(values, dtype=np.float64), tagger)
            words, places = (np.asarray(few[0], dtype=np.float64) + 0.0).view(np.uint64), few[1]
        else:
            codes = np.asarray(values, dtype=np.intp)
            present = np.flatnonzero(np.bincount(codes, minlength=len(levels)))
            words = np.array([_text_word(level, name, self._key) for level in levels], dtype=np.uint64)
            if len(present) > MOST_LEVELS:
                return tag_words(words[codes], tagger)
            rank = np.zeros(len(levels), np.uint8)
            rank[present] = np.arange(len(present))
            words, places = words[present], rank[codes]
        return _tag_places(words, places, tagger)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.values)

    def __len__(self) -> int:
        return len(self._rows.values)


@dataclass(frozen=True)
class PrintedRows:
    """A study's n rows as keyed prints: `columns` by name (n,), `patients` (n,) or None; `lacking` as in RawRows."""

    columns: ColumnPrints
    patients: PatientPrints | None
    n: int
    lacking: Mapping[str, int] = field(default_factory=dict)

    @property
    def repeats(self) -> int:
        """The number of rows whose patient has another row as well; 0 where rows are taken for patients."""
        return 0 if self.patients is None else self.n - len(np.unique(self.patients))

    def labels(self, key: bytes) -> dict[str, bytes]:
        """A keyed label (8 bytes) of each column's units, the same for the same units in any order.

        Without identifiers the units are the values. A sum of keyed words, as a multiset hash.
        """
        words = np.zeros(self.n, np.uint64) if self.patients is None else self.patients
        return {name: self._label(name, words, key) for name in self.columns}

    def _label(self, name: str, patients: PatientPrints, key: bytes) -> bytes:
        units = (patients ^ _mix(self.columns[name].astype(np.uint64) + _factors(name, key)[0])) * _MIX
        total = int(_mix(units).sum(dtype=np.uint64))
        text = f"{name}/{self.n}/{total}"
        return hashlib.blake2b(text.encode(), key=key, digest_size=8, person=b"row label").digest()


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Words whose bits all depend on all bits (the finaliser of SplitMix64)."""
    out = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return out ^ (out >> np.uint64(31))
