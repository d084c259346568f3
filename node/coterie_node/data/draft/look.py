"""Look at one column and say what variable it seems to hold, of which kind, in which unit, between which values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from coterie_learners.errors import pluralise
from coterie_learners.study.document import INVISIBLE
from coterie_node.data.draft.column_words import ColumnWords
from coterie_node.data.draft.vocabulary import looks_like_identifier, name_variable, split_unit
from coterie_node.data.findings import printable
from coterie_node.data.quality.profile import (
    ColumnKind,
    ColumnProfile,
    LevelShare,
    band_missing,
    band_share,
    round_digits,
    widen,
)

# A text column with more distinct values is free text or an identifier, not a category.
MOST_WORDS = 30
# Whole numbers with at most so many distinct values may be codes of a category.
FEW_NUMBERS = 6

SEVERAL_ROWS = (
    "it looks like an identifier that several rows share; name it as `patient`, and say how the rows of a patient "
    "become one (docs/cohort.md)"
)


@dataclass(frozen=True)
class Guess:
    """What a column seems to be, why it is left out where it is, and what a person has to confirm."""

    kind: ColumnKind
    apart: str = ""
    form: str = ""
    questions: tuple[str, ...] = ()


def look_at_column(column: ColumnWords, floor: int = 0) -> ColumnProfile:
    """The profile of one column; with a floor nothing in it is from fewer rows."""
    header = printable(column.header)[:200]
    if not all(_is_plain(word) for word in (column.header, *column.values)):
        reason = "its name or its values have control characters, or are too long"
        return ColumnProfile(name=header, variable="", kind="apart", apart=reason)
    guess = _guess(column, floor)
    _, unit = split_unit(column.header)
    codes = (*column.words_for_missing, *(f"{code:.15g}" for code in column.codes_for_missing))
    profile = ColumnProfile(
        name=header,
        variable=name_variable(column.header),
        kind=guess.kind,
        unit=unit if guess.kind in ("number", "count") else "",
        missing=band_missing(column.rows - column.present, column.rows),
        codes=codes if guess.kind != "apart" and not floor else _codes_above(column, floor),
        form=guess.form,
        apart=guess.apart,
        questions=guess.questions,
    )
    if guess.kind in ("number", "count"):
        return profile.model_copy(update=measure_numbers(column.measurements, floor))
    if guess.kind in ("binary", "category"):
        return profile.model_copy(update={"levels": share_counts(column.values, floor)})
    return profile


def _is_plain(text: str) -> bool:
    """Whether a text may stand in a study: no control characters, and none that nobody sees."""
    return len(text) <= 2000 and all(c.isprintable() for c in text) and not re.search(f"[{INVISIBLE}]", text)


def _guess(column: ColumnWords, floor: int) -> Guess:
    distinct = len(column.values)
    if distinct == 0:
        return Guess("apart", "it has no values")
    if distinct == 1:
        return Guess("apart", "it is the same in all rows")
    if column.date_forms:
        return _guess_date(column)
    if _is_identifier(column):
        if sum(count for count in column.values.values() if count > 1) > max(floor, 1):
            return Guess("apart", SEVERAL_ROWS)
        return Guess("apart", "it looks like an identifier; name it as `patient` if it tells patients apart")
    if column.yes_and_no is not None:
        return Guess("binary")
    if column.numbers is not None:
        return _guess_number(column, floor)
    return _guess_text(column)


def _guess_date(column: ColumnWords) -> Guess:
    forms = column.date_forms
    question: tuple[str, ...] = ()
    if len(forms) > 1:
        question = (f"its dates fit {' and '.join(forms)}; {forms[0]} is taken",)
    return Guess("date", form=forms[0], questions=question)


def _is_identifier(column: ColumnWords) -> bool:
    distinct, present = len(column.values), max(column.present, 1)
    if looks_like_identifier(column.header):
        return distinct > 0.5 * present or distinct > MOST_WORDS
    whole = column.numbers is None or all(value.is_integer() for value in column.numbers)
    return present >= 20 and distinct == present and whole and _is_code(column)


def _is_code(column: ColumnWords) -> bool:
    """Whether values that are all different are codes: words with digits in them, or numbers of one length."""
    words = list(column.values)
    if column.numbers is not None:
        return min(map(len, words)) == max(map(len, words)) >= 5 or set(column.numbers) == set(range(1, len(words) + 1))
    return all(any(c.isdigit() for c in word) and " " not in word for word in words)


def _guess_number(column: ColumnWords, floor: int) -> Guess:
    values = column.measurements
    doubtful = [code for code in column.doubtful_codes if values[code] >= floor]
    questions = tuple(f"{code:.15g} may stand for missing; add it to `missing` if so" for code in doubtful)
    if len(values) < 2:
        return Guess("apart", "it is the same in all rows")
    if not all(value.is_integer() for value in values):
        return Guess("number", questions=questions)
    if len(values) == 2:
        sex = name_variable(column.header) == "sex" and set(values) == {1.0, 2.0}  # asked about with all sites
        ask = () if sex else ("its values are codes: say what each means in `levels`",)
        return Guess("category", questions=(*questions, *ask))
    if len(values) <= FEW_NUMBERS and min(values) in (0.0, 1.0):
        questions = (
            *questions,
            f"it has {pluralise(len(values), 'value')}: declare it as a category if they are codes",
        )
    return Guess("count" if min(values) >= 0.0 else "number", questions=questions)


def _guess_text(column: ColumnWords) -> Guess:
    distinct, letters = len(column.values), max(map(len, column.values))
    if letters > 60 or (distinct > MOST_WORDS and any(" " in word for word in column.values)):
        return Guess("apart", "it looks like free text, which may name patients")
    if distinct > MOST_WORDS or distinct > 0.5 * column.present:
        return Guess("apart", f"it has {distinct} different texts: too many for levels")
    numbers = [word for word in column.values if column.read_number(word) is not None]
    if len(numbers) > 0.5 * distinct:
        return Guess("apart", "it mixes numbers and text; add the words to `missing`, or correct them")
    return Guess("category")


def _codes_above(column: ColumnWords, floor: int) -> tuple[str, ...]:
    """Codes for missing that enough rows have."""
    numbers = column.numbers or {}
    words = [word for word in column.words_for_missing if column.counts[word] >= floor]
    return (*words, *(f"{code:.15g}" for code in column.codes_for_missing if numbers[code] >= floor))


def share_counts(counts: Counter[str], floor: int) -> tuple[LevelShare, ...]:
    """The levels that enough rows have, from the most frequent; a share is of all rows that have a value."""
    total = sum(counts.values())
    shown = [(word, count) for word, count in counts.most_common() if count >= max(floor, 1)]
    return tuple(LevelShare(word=word[:200], share=band_share(count, total)) for word, count in shown)


def measure_numbers(counts: Mapping[float, int], floor: int) -> dict[str, object]:
    """Range and quarters of numbers that have these counts, as a profile has them; nothing of too few rows."""
    total = sum(counts.values())
    if total < max(4 * floor, 1):
        return {"low": None, "high": None, "quarters": None}
    depth = max(floor, 1)
    low, high = widen(_value_at(counts, depth), _value_at(counts, total - depth + 1))
    quarters = tuple(round_digits(_value_at(counts, -(-total * k // 4))) for k in (1, 2, 3))
    return {"low": low, "high": high, "quarters": quarters}


def _value_at(counts: Mapping[float, int], rank: int) -> float:
    """The value of the row of this rank, from 1, in the order of values."""
    reached = 0
    for value in sorted(counts):
        reached += counts[value]
        if reached >= rank:
            return value
    return max(counts)
