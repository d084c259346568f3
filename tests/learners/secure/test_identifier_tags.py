"""TagArray of identifiers: passes, keys, doubled and missing identifiers, and matches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from support.learners import vertical

from coterie_learners.errors import DataError, StudyError
from coterie_learners.secure import identifier_tags
from coterie_learners.secure.identifier_tags import TAG, LinkagePass, TagArray, match_tags, soundex
from coterie_learners.study.document import LinkageRules, Study
from coterie_learners.study.identifiers import Values, normalise

COLUMNS = ("number", "given", "family", "born")
ALL = (LinkagePass.of(COLUMNS, COLUMNS),)
KEY = b"k" * 32


def noise(passes: int, n: int, seed: int = 0) -> bytes:
    return hashlib.shake_256(bytes([seed])).digest(passes * n * TAG)


def study(**rules: str) -> Study:
    return vertical.study().model_copy(update={"linkage": LinkageRules.model_validate(rules)})


def tags(
    key: bytes, passes: Sequence[LinkagePass], rows: Sequence[Values], noise: bytes, site: str, of: Study | None = None
) -> TagArray:
    """TagArray of rows of names, whose identifying values are put into normal form first."""
    forms = [tuple(normalise("name", value) or "" for value in row) for row in rows]
    return identifier_tags.make_tags(key, of or study(), site, passes, forms, noise)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Robert", "r163"), ("Rupert", "r163"), ("Ashcraft", "a261"), ("Ashcroft", "a261"), ("Tymczak", "t522"),
        ("Pfister", "p236"), ("Honeyman", "h555"), ("Lee", "l000"), ("Gutierrez", "g362"), ("", ""),
        ("Иванов", "иванов"),
    ],
)  # fmt: skip
def test_soundex_of_the_textbook(name: str, code: str) -> None:
    assert soundex(name) == code


def test_ab_and_c_is_not_a_and_bc() -> None:
    rows = [("1", "ab", "c", "x"), ("1", "a", "bc", "x")]
    first, second = tags(KEY, ALL, rows, noise(1, 2), "s")[0]
    assert bytes(first) != bytes(second)


def test_tags_depend_on_the_key_and_the_pass_and_not_on_the_file_s_order() -> None:
    rows = [(str(k), "Ann", f"F{k}", "1950") for k in range(6)]
    here = tags(KEY, ALL, rows, noise(1, 6), "s")
    assert here.shape == (1, 6, TAG)
    assert (tags(KEY, ALL, rows[::-1], noise(1, 6, 1), "s")[:, ::-1] == here).all()
    assert not (tags(b"x" * 32, ALL, rows, noise(1, 6), "s") == here).all(axis=2).any()
    two = tags(KEY, ALL * 2, rows, noise(2, 6), "s")
    assert not (two[0] == two[1]).all(axis=1).any()


def test_repeated_identifiers_are_refused_without_showing_one() -> None:
    rows = [("1", "Ann", "Lee", "1950"), ("1", "ANN", "Lee ", "1950"), ("2", "Bo", "Lee", "1950")]
    with pytest.raises(DataError) as caught:
        tags(KEY, ALL, rows, noise(1, 3), "north")
    assert (caught.value.code, "2 of 3 rows" in caught.value.message) == ("CO-D341", True)
    assert "Ann" not in caught.value.message


def test_a_row_without_an_identifier_is_refused_unless_a_later_pass_may_find_it() -> None:
    rows = [("", "Ann", "Lee", "1950"), ("2", "Bo", "Ray", "1951")]
    by_number, by_name = LinkagePass.of(["number"], COLUMNS), LinkagePass.of(["family:phonetic", "born"], COLUMNS)
    with pytest.raises(DataError) as caught:
        tags(KEY, (by_number,), rows, noise(1, 2), "north")
    assert caught.value.code == "CO-D342"
    both = tags(KEY, (by_number, by_name), rows, noise(2, 2), "north")
    assert bytes(both[0, 0]) == noise(2, 2)[:TAG]


def test_what_a_later_pass_cannot_tell_apart_gets_random_tags() -> None:
    rows = [("1", "Ann", "Lee", "1950"), ("2", "Bo", "Lea", "1950"), ("3", "Cy", "Ray", "1950")]
    passes = (LinkagePass.of(["number"], COLUMNS), LinkagePass.of(["family:phonetic", "born:year"], COLUMNS))
    made = tags(KEY, passes, rows, noise(2, 3), "s")
    random = np.frombuffer(noise(2, 3), np.uint8).reshape(2, 3, TAG)
    assert (made[1] == random[1]).all(axis=1).tolist() == [True, True, False]


def test_passes_match_one_to_one_among_what_is_left() -> None:
    passes = (LinkagePass.of(["number"], COLUMNS), LinkagePass.of(["family:phonetic", "born"], COLUMNS))
    here = [("1", "A", "Lee", "1950"), ("", "B", "Robert", "1951"), ("3", "C", "Ray", "1952"), ("9", "D", "Zed", "1")]
    there = [
        ("8", "E", "Rupert", "1951"),
        ("3", "C", "Roy", "1999"),
        ("1", "A", "Li", "1950"),
        ("", "F", "Ray", "1952"),
    ]
    lists = [tags(KEY, passes, here, noise(2, 4, 1), "s"), tags(KEY, passes, there, noise(2, 4, 2), "s")]
    assert {tuple(pair) for pair in match_tags(lists).T.tolist()} == {(0, 2), (2, 1), (1, 0)}


def test_only_rows_of_all_owners_match() -> None:
    owners = [[("1",), ("2",), ("3",)], [("3",), ("1",)], [("9",), ("3",), ("2",)]]
    one = (LinkagePass.of(["n"], ("n",)),)
    lists = [tags(KEY, one, rows, noise(1, len(rows), k), "s") for k, rows in enumerate(owners)]
    assert match_tags(lists).tolist() == [[2], [0], [1]]
    assert match_tags([lists[0][:, :0], lists[1]]).shape == (2, 0)


@pytest.mark.parametrize("text", [["nobody"], ["given:loudness"], []])
def test_a_pass_that_names_what_there_is_not_is_refused(text: list[str]) -> None:
    with pytest.raises(StudyError) as caught:
        LinkagePass.of(text, COLUMNS)
    assert caught.value.code == "CO-S546"


def test_doubled_and_unidentified_rows_match_nobody_where_the_study_leaves_them_out() -> None:
    rows = [("1", "Ann", "Lee", "1950"), ("1", "Ann", "Ray", "1950"), ("", "Bo", "Fox", "1951"), ("4", "Cy", "Ox", "2")]
    passes = (LinkagePass.of(["number"], COLUMNS), LinkagePass.of(["given", "family"], COLUMNS))
    lenient = study(doubled="drop", unidentified="drop")
    drawn = tags(KEY, passes, rows, noise(2, 4), "s", lenient)
    random = np.frombuffer(noise(2, 4), np.uint8).reshape(2, 4, TAG)
    assert (drawn == random).all(axis=2).tolist() == [[True, True, True, False], [True, True, False, False]]
    assert tags(KEY, passes[:1], rows[2:], noise(1, 2), "s", lenient).shape == (1, 2, TAG)
