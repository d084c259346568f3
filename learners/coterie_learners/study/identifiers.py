"""Patients' identifiers in one normal form, for all learners that join columns.

A study says what each identifying column holds. Two values are of one patient if, and only if, their normal forms are
equal:

| kind | normal form |
|---|---|
| `number` | whole number without leading zeros; `107.0` is 107; anything else is refused |
| `text` | NFKC, case folded, blanks at the ends cut and others single; accents, zeros and punctuation count |
| `name` | letters and digits alone, without accents and case; a dash between digits |
| `date` | year-month-day; `date-dmy` and `date-mdy` declare the order in which slashed or dotted dates are read |
| `check-digit` | the number before a check digit that is set off by a dash or slash: `12-4` is 12 |
| `code` | what a list without kinds has: see `_read_code` |

No form brings digits together that a separator keeps apart: `12-4` is not 124. If a form could only guess, it keeps two
values apart: patients without a match are counted for all to see, but nobody would notice a false match. Missing words
identify nobody. Unicode is that of the standard library (UAX 15, NFKC and NFKD).
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import DataError, StudyError, pluralise
from coterie_learners.study.document import IdentifierKind, Study
from coterie_learners.study.rows import OwnColumns

Values = tuple[str, ...]

_RULES_VERSION = b"coterie/2 identifiers"
PROBES = ("Ægir", "İstanbul", "Straße", "O'Brien", " 00-17 ", "Müller-Lüdenscheidt", "ﬁ", "Ωμέγα", "107.0", "１２")
# A number beyond it that ends in .0 went through a float, which has not kept all of its digits.
_EXACT = 1 << 53

MISSING = frozenset({"", "na", "nan", "null", "none", "n/a", "#n/a", "<na>", "nat"})
# Null and Na are family names; only what files write for a missing value is missing.
MISSING_NAMES = frozenset({"NA", "NaN", "nan", "NULL", "null", "N/A", "#N/A", "<NA>"})

_DIGITS = re.compile(r"[0-9]+")
_WHOLE = re.compile(r"\+?([0-9]+)(\.0+)?")
_GROUPED = re.compile(r"[0-9]{1,3}(\.[0-9]{3})+")
_CHECKED = re.compile(r"([0-9.]*[0-9]) ?[-/] ?([0-9a-z])", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})([ T]00:00(:00(\.0+)?)?)?")
_YEAR_LAST = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})")
_COMPACT = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\W_]+(?=[^\W_])|(?<=\d)[\W_]+(?=[^\W\d_])")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
_ZEROS = re.compile(r"(^|[^\W\d_])0+(?=\d)")
_DASHES = re.compile("[\u2010-\u2015\u2212]")

MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Unreadable(ValueError):
    """A value that its column's kind does not allow; the text says what the kind allows."""


def normalise(kind: IdentifierKind, text: str) -> str | None:
    """The normal form of one identifying value; None for a missing one, Unreadable for one that the kind refuses."""
    plain = _clean(text)
    missing = plain in MISSING_NAMES if kind == "name" else plain.casefold() in MISSING
    return None if missing or not plain else FORMS[kind](plain) or None


def derive_strict_form(kind: IdentifierKind, text: str) -> str:
    """What two values of one normal form share if no more than the kind's own notation sets them apart.

    Numbers and dates say the same in any notation; of a check digit only another one contradicts, so that a value
    without one has the strict form "".
    """
    plain = _clean(text)
    if kind == "check-digit":
        apart = _CHECKED.fullmatch(_DASHES.sub("-", plain))
        return "" if apart is None else apart[2].casefold()
    if kind in ("text", "name") or (kind == "code" and _WHOLE.fullmatch(plain) is None):
        return unicodedata.normalize("NFC", text)  # a composed letter is the same letter
    return normalise(kind, text) or ""


def _clean(text: str) -> str:
    """NFKC without what is not seen (Unicode category Cf), digits of all scripts as 0 to 9, no blanks at the ends."""
    if text.isascii():
        return text.strip()
    seen = (c for c in _normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return "".join(str(unicodedata.decimal(c, c)) for c in seen).strip()


def _normalize(form: Literal["NFKC", "NFKD"], text: str) -> str:
    """A normalisation form of Unicode that leaves numbers which are no decimal digits alone: 1² is not 12."""
    if all(c.isascii() or unicodedata.category(c) != "No" for c in text):
        return unicodedata.normalize(form, text)
    runs = itertools.groupby(text, key=lambda c: unicodedata.category(c) == "No")
    return "".join("".join(run) if alone else unicodedata.normalize(form, "".join(run)) for alone, run in runs)


def _read_number(plain: str) -> str:
    whole = _WHOLE.fullmatch(plain)
    if whole is None:
        raise Unreadable("no whole number (digits alone; nothing is cut or guessed)")
    digits = whole[1].lstrip("0") or "0"
    if whole[2] and int(digits) >= _EXACT:
        raise Unreadable("a number that was stored as a float, which has lost digits; export it as text")
    return digits


def _read_text(plain: str) -> str:
    return _normalize("NFKC", " ".join(plain.casefold().split()))


def _read_name(plain: str) -> str:
    bare = _normalize("NFKD", _normalize("NFKD", plain).casefold())
    return "-".join("".join(c for c in part if c.isalnum()) for part in _BETWEEN_DIGITS.split(bare))


def _read_code(plain: str) -> str:
    """A whole number as `number`; else as `text`, without separators beside a letter and zeros that lead."""
    if _WHOLE.fullmatch(plain) is not None:
        return _read_number(plain)
    return _ZEROS.sub(r"\1", _SEPARATORS.sub("", _read_text(plain)))


def _read_before_check_digit(plain: str) -> str:
    value = _DASHES.sub("-", plain)
    apart = _CHECKED.fullmatch(value)
    base = value if apart is None else apart[1]
    if apart is not None and _GROUPED.fullmatch(base) is not None:
        base = base.replace(".", "")
    if _DIGITS.fullmatch(base) is None:
        raise Unreadable("no number with a check digit (12-4), nor the number alone (12)")
    return base.lstrip("0") or "0"


def _read_iso_date(plain: str) -> str:
    return _read_date(plain, ())


def _read_day_first(plain: str) -> str:
    return _read_date(plain, (4, 3, 1))


def _read_month_first(plain: str) -> str:
    return _read_date(plain, (4, 1, 3))


def _read_date(plain: str, order: tuple[int, ...]) -> str:
    """The date as year-month-day; `order` are the groups of year, month and day in a date with the year last."""
    first, last = _YEAR_FIRST.fullmatch(plain), _YEAR_LAST.fullmatch(plain)
    compact = None if order else _COMPACT.fullmatch(plain)
    if last is not None and not order:
        raise Unreadable('a date whose order is not declared; declare "date-dmy" or "date-mdy", or write 1950-12-31')
    match, groups = (
        (last, order) if last is not None else (first, (1, 3, 4)) if first is not None else (compact, (1, 2, 3))
    )
    if match is None:
        raise Unreadable("no date with a year of four digits, such as 1950-12-31")
    year, month, day = (int(match[group]) for group in groups)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= MONTHS[month - 1] - (month == 2 and not leap):
        raise Unreadable("a day that no calendar has in the declared order")
    return f"{year:04d}-{month:02d}-{day:02d}"


FORMS: Mapping[IdentifierKind, Callable[[str], str]] = {
    "code": _read_code,
    "number": _read_number,
    "text": _read_text,
    "name": _read_name,
    "date": _read_iso_date,
    "date-dmy": _read_day_first,
    "date-mdy": _read_month_first,
    "check-digit": _read_before_check_digit,
}


def encode_parts(parts: Iterable[str]) -> bytes:
    """Injective bytes of normal forms: each with its length, so that ab + c differs from a + bc."""
    raw = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in raw)


def digest_forms() -> bytes:
    """SHA-256 of how this installation normalises: sites whose Unicode tables differ would miss each other's rows."""
    probes = [_probe(kind, probe) for kind in FORMS for probe in PROBES]
    return hashlib.sha256(_RULES_VERSION + encode_parts(probes)).digest()


def _probe(kind: IdentifierKind, text: str) -> str:
    try:
        return normalise(kind, text) or ""
    except Unreadable as refusal:
        return str(refusal)


@dataclass(frozen=True, eq=False)
class Patients:
    """One site's rows that identify a patient: their numbers (n,), and each one's identifier as injective bytes.

    `unidentified` counts rows that lack an identifying value, `doubled` rows left out because others carry the same
    identifier. `incomplete`: places, among the rows that lack another value, of the patients without a row that has all
    values; `incomplete_identifiers` theirs.
    """

    rows: NDArray[np.int64]
    identifiers: tuple[bytes, ...]
    unidentified: int
    doubled: int
    incomplete: tuple[int, ...] = ()
    incomplete_identifiers: tuple[bytes, ...] = ()

    @property
    def everybody(self) -> tuple[bytes, ...]:
        """The identifiers of the patients, then of the incomplete ones."""
        return (*self.identifiers, *self.incomplete_identifiers)

    def written(self, columns: OwnColumns) -> list[tuple[str, ...]]:
        """The identifying values of everybody, as they are written."""
        complete = [columns.identifiers[row] for row in self.rows.tolist()]
        return [*complete, *(columns.incomplete[place] for place in self.incomplete)]

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.rows)


def identify(study: Study, site: str, columns: OwnColumns) -> Patients:
    """The patients of a site's rows.

    DataError for a missing value where the study refuses these, for a value that its kind refuses, for an identifier
    that occurs twice unless the study leaves such rows out, and for check digits in some rows and not in others.
    """
    forms = normalise_rows(study, site, columns.identifiers)
    whole = [encode_parts(parts) if all(parts) else None for parts in forms]
    lacking = sum(identifier is None for identifier in whole)
    if lacking and study.linkage.unidentified == "refuse":
        what = f"{site}: the identifier is missing in {lacking} of {pluralise(len(whole), 'row')}"
        raise DataError("CO-D132", f'{what}. Give every row its identifier, or agree on linkage.unidentified = "drop".')
    counts = Counter(identifier for identifier in whole if identifier is not None)
    doubled = sum(count for count in counts.values() if count > 1)
    if doubled and study.linkage.doubled == "refuse":
        what = f"{site}: {len(whole) - lacking} rows carry {len(counts)} different identifiers (in their normal form)"
        todo = 'One row per patient, please: leave out or merge the others, or agree on linkage.doubled = "drop".'
        raise DataError("CO-D133", f"{what}. {todo}")
    alone = [(k, known) for k, known in enumerate(whole) if known is not None and counts[known] == 1]
    rows = np.array([k for k, _ in alone], dtype=np.int64)
    places, others = _identify_incomplete(study, site, columns, counts)
    return Patients(rows, tuple(known for _, known in alone), lacking, doubled, places, others)


def _identify_incomplete(
    study: Study, site: str, columns: OwnColumns, counts: Mapping[bytes, int]
) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Places and identifiers of the patients without a row that has all values, one row each."""
    first: dict[bytes, int] = {}
    for place, parts in enumerate(normalise_rows(study, site, columns.incomplete)):
        identifier = encode_parts(parts) if all(parts) else None
        if identifier is not None and identifier not in counts:
            first.setdefault(identifier, place)
    return tuple(first.values()), tuple(first)


def normalise_rows(study: Study, site: str, identifiers: Sequence[Values]) -> list[tuple[str, ...]]:
    """Each row's identifying values in normal form, "" for a missing one; DataError as `identify` says."""
    if not identifiers:
        return []
    columns = []
    for (name, kind), values in zip(study.identifying.items(), zip(*identifiers, strict=True), strict=True):
        columns.append([_read(site, name, kind, value) for value in values])
        if kind == "check-digit":
            _check_alike(site, name, values)
    return list(zip(*columns, strict=True))


def _read(site: str, name: str, kind: IdentifierKind, value: str) -> str:
    try:
        return normalise(kind, value) or ""
    except Unreadable as refusal:
        raise DataError("CO-D134", f"{site}: a value of the identifying column {name!r} is {refusal}.") from None


def _check_alike(site: str, name: str, values: Sequence[str]) -> None:
    filled = [value for value in values if normalise("check-digit", value)]
    checked = sum(derive_strict_form("check-digit", value) != "" for value in filled)
    if 0 < checked < len(filled):
        what = f"{site}: a dash or slash sets a check digit off in {checked} of {len(filled)} values of {name!r}"
        raise DataError("CO-D135", f"{what}, and in the others none does. Write all of them alike.")


WORD = 8
Words = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Spellings:
    """Hashes of how patients' identifying values are written, as they are and in strict form (n, columns, 8).

    Zeros in `strict` contradict nothing.
    """

    written: Words
    strict: Words


def hash_spellings(study: Study, identifiers: Sequence[Values], salts: Iterable[bytes]) -> Spellings:
    """How patients' values are written, under a salt (up to 64 bytes) of each patient that only its sites have."""
    kinds = tuple(study.identifying.values())
    shape = (len(identifiers), len(kinds), WORD)
    written, strict = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for row, (values, salt) in enumerate(zip(identifiers, salts, strict=True)):
        for column, (kind, value) in enumerate(zip(kinds, values, strict=True)):
            written[row, column] = _word(salt, column, value)
            form = derive_strict_form(kind, value)
            if form:
                strict[row, column] = _word(salt, column, form)
    return Spellings(written, strict)


def _word(salt: bytes, column: int, text: str) -> Words:
    digest = hashlib.blake2b(text.encode(), digest_size=WORD, key=salt, person=b"%d" % column).digest()
    return np.frombuffer(digest, np.uint8)


@dataclass(frozen=True)
class SpellingCounts:
    """Counts of the `matches` that are spelled differently at some site: in any column, in each column, and doubtfully.

    Doubtful is what the kind of the column does not say: other case, accents, punctuation, or another check digit.
    """

    matches: int
    different: int
    doubtful: int
    columns: Mapping[str, int]

    @property
    def words(self) -> str:
        """The counts in a sentence, or nothing."""
        if not self.different:
            return ""
        where = ", ".join(f"{name} {count}" for name, count in self.columns.items() if count)
        return f"{self.different} of their identifiers are written differently at some site ({where})."

    def check(self, most: float) -> None:
        """StudyError if more than this share of the matches rests on doubtful spellings."""
        if self.doubtful > most * self.matches:
            what = f"{self.doubtful} of {self.matches} matches rest on identifiers that the sites spell differently"
            todo = 'Write identifiers alike, declare what they hold (`identifier = { pid = "number" }`), or agree on'
            raise StudyError("CO-N251", f"{what}; the study allows {most:.3g} of them. {todo} linkage.spellings.")


def compare_spellings(study: Study, n: int, pairs: Sequence[tuple[Spellings, Spellings]]) -> SpellingCounts:
    """How two sites spell the identifiers of the same n patients, over pairs of sites."""
    differs = np.zeros((n, len(study.identifying)), dtype=bool)
    doubtful = np.zeros(n, dtype=bool)
    for mine, theirs in pairs:
        differs |= np.any(mine.written != theirs.written, axis=2)
        both = np.any(mine.strict, axis=2) & np.any(theirs.strict, axis=2)
        doubtful |= np.any(both & np.any(mine.strict != theirs.strict, axis=2), axis=1)
    columns = dict(zip(study.identifying, differs.sum(axis=0).tolist(), strict=True))
    return SpellingCounts(n, int(differs.any(axis=1).sum()), int(doubtful.sum()), columns)
