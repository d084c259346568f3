"""Alignment: the same patients in the same order, whatever the files' orders, and counts of what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.learners import vertical
from support.learners.table import MemoryProtocol

from coterie_learners.core.protocol import Script, Site
from coterie_learners.errors import DataError, ProtocolError, SealedInput, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.identifiers import normalise
from coterie_learners.study.rows import OwnColumns
from coterie_learners.vertical.alignment import Alignment, align, check_points

HELD = {"north": ("died", "a1"), "south": ("b1",), "east": ("c1",)}


def study(rows: Mapping[str, object] | None = None) -> Study:
    return vertical.study(HELD, rows={"minimum": 1, **(rows or {})})


def columns(codes: Sequence[str]) -> OwnColumns:
    return OwnColumns(tuple((code,) for code in codes), ("x",), np.zeros((len(codes), 1)))


def align_only(site: Site) -> Script:
    result = yield from align(site)
    return result, None if site.data is None else result.order()


def play(
    files: Mapping[str, Sequence[str]], of: Study | None = None
) -> tuple[dict[str, list[str]], Alignment, MemoryProtocol]:
    """Each site's identifiers in the common order, one site's Alignment, and the table."""
    table = MemoryProtocol(align_only, of or study(), {name: columns(codes) for name, codes in files.items()})
    results = table.play()
    order = {name: [files[name][k] for k in results[name][1]] for name in files}
    return order, results["north"][0], table


@given(st.sets(st.integers(0, 40), min_size=1), st.randoms(use_true_random=False))
def test_every_site_arrives_at_the_same_patients_in_the_same_order(common: set[int], random: object) -> None:
    files = {}
    for name, own in (("north", range(100, 103)), ("south", range(200, 205)), ("east", ())):
        files[name] = [f"p{k}" for k in [*common, *own]]
        random.shuffle(files[name])  # type: ignore[attr-defined]
    order, result, _ = play(files)
    assert order["north"] == order["south"] == order["east"]
    assert set(order["north"]) == {f"p{k}" for k in common}
    assert result.counts["common"] == len(common)
    assert result.counts["unmatched"] == {"north": 3, "south": 5, "east": 0}


def test_the_common_order_says_nothing_about_the_files() -> None:
    files = {name: [f"p{k:03d}" for k in range(200)] for name in HELD}
    place = [files["north"].index(code) for code in play(files)[0]["north"]]
    assert abs(np.corrcoef(place, np.arange(200))[0, 1]) < 0.3


def test_other_runs_have_other_hashes() -> None:
    files = {name: ["p1", "p2"] for name in HELD}
    one = play(files)[2].posts("align/raise/2")["north"]["points"]
    other = play(files, study({"missing": "drop"}))[2].posts("align/raise/2")["north"]["points"]
    assert not set(map(bytes, one)) & set(map(bytes, other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("P-0017", "p17"), ("  a 1 ", "A1"), ("0012", "12"), ("\u00c47", "A\u03087"), ("\uff21\uff22\uff13", "ab3")],
)
def test_identifiers_are_compared_in_normal_form(one: str, other: str) -> None:
    order, result, _ = play({"north": [one, "q2"], "south": [other, "q2"], "east": ["q2", other]})
    assert len(order["north"]) == 2
    assert result.counts["written_differently"] == 1
    assert "1 of their identifiers are written differently at some site (code 1)." in result.notes


def test_different_identifiers_stay_different() -> None:
    for one, other in (("x.07.3", "x703"), ("100", "10"), ("a0", "a"), ("p1", "q1")):
        assert normalise("code", one) != normalise("code", other)


def test_several_identifying_columns_do_not_run_into_each_other() -> None:
    a = OwnColumns((("ab", "c"), ("a", "b")), ("x",), np.zeros((2, 1)))
    b = OwnColumns((("a", "bc"), ("a", "b")), ("x",), np.zeros((2, 1)))
    two = Study.model_validate({**study().model_dump(), "identifier": ("given", "family")})
    table = MemoryProtocol(align_only, two, {"north": a, "south": b, "east": b})
    assert table.play()["north"][0].n == 1


def test_duplicates_are_counted_and_not_shown() -> None:
    with pytest.raises(DataError, match="4 rows carry 3 different identifiers") as caught:
        play({"north": ["p1", "P-1", "p2", "p3"], "south": ["p1"], "east": ["p1"]})
    assert caught.value.code == "CO-D133"
    assert "P-1" not in caught.value.message


def test_too_few_common_patients_are_refused_with_the_counts() -> None:
    with pytest.raises(StudyError, match=r"1 patient in common.*north 2 of 3, south 1 of 2") as caught:
        play({"north": ["p1", "p2", "p3"], "south": ["p1", "p4"], "east": ["p1"]}, study({"minimum": 2}))
    assert caught.value.code == "CO-N205"


def test_a_list_in_which_one_patient_would_match_two_is_refused() -> None:
    points = np.arange(128, dtype=np.uint8).reshape(4, 32)
    check_points({"points": points})
    with pytest.raises(ProtocolError) as caught:
        check_points({"points": points[[0, 1, 0]]})
    assert caught.value.code == "CO-P542"


def test_who_may_not_read_the_hashes_carries_them() -> None:
    table = play({name: ["p1", "p2"] for name in HELD})[2]
    result, order = table.auditor().result
    assert order is None
    with pytest.raises(SealedInput):
        result.n  # noqa: B018
