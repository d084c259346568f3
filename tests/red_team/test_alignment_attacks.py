"""Red team: nobody tries identifiers against the alignment without every site's exponent, whatever it may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.learners import vertical
from support.learners.table import MemoryProtocol

from coterie_learners.core.blind_points import NoPoint, Points, hash_to_points, raise_points
from coterie_learners.core.protocol import Machine, Posts
from coterie_learners.errors import LearnerError, ProtocolError, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.identifiers import digest_forms, encode_parts, normalise
from coterie_learners.study.rows import OwnColumns
from coterie_learners.vertical.alignment import OwnPoints, align, list_steps, post_points, raise_list

COLUMNS_BY_SITE = {"north": ("died", "a1"), "south": ("b1",), "east": ("c1",)}
SITES = tuple(COLUMNS_BY_SITE)
# Seven-digit numbers, as hospitals give them: north knows 40 of the patients of south, and 60 others are south's alone.
NORTH = [f"{k:07d}" for k in range(1000, 1100)]
SOUTH = [f"{k:07d}" for k in [*range(1060, 1100), *range(5000, 5060)]]
EAST = [f"{k:07d}" for k in range(1050, 1150)]
FILES = {"north": NORTH, "south": SOUTH, "east": EAST}


def study(**linkage: object) -> Study:
    plain = vertical.study(COLUMNS_BY_SITE, rows={"minimum": 1}).model_dump()
    return Study.model_validate({**plain, "linkage": linkage})


def columns(codes: Sequence[str]) -> OwnColumns:
    return OwnColumns(tuple((code,) for code in codes), ("x",), np.zeros((len(codes), 1)))


def play(files: Mapping[str, Sequence[str]] = FILES, of: Study | None = None) -> MemoryProtocol:
    table = MemoryProtocol(align, of or study(), {name: columns(codes) for name, codes in files.items()})
    table.play()
    return table


def hash_codes(of: Study, codes: Sequence[str]) -> Points:
    """The elements that anybody can make of identifiers."""
    raw = [encode_parts([normalise("code", code) or ""]) for code in codes]
    return hash_to_points(b"coterie/2 alignment" + of.hash, raw)


def collect_elements(table: MemoryProtocol) -> set[bytes]:
    """Every element in any post of the alignment."""
    posts = [post for topic in table.topics for post in table.posts(topic).values()]
    return {bytes(point) for post in posts if "points" in post for point in post["points"]}


def exponents(table: MemoryProtocol, names: Sequence[str]) -> list[bytes]:
    return [OwnPoints(table.machines[name].site).exponent for name in names]


def try_identifiers(table: MemoryProtocol, codes: Sequence[str], keys: Sequence[bytes]) -> list[str]:
    """The identifiers whose element, raised by some of the known exponents in turn, is in any post."""
    points, known, everything = hash_codes(table.study, codes), [], collect_elements(table)
    for key in (None, *keys):
        points = points if key is None else raise_points(key, points)
        known += [code for code, point in zip(codes, points, strict=True) if bytes(point) in everything]
    return known


def test_no_site_finds_a_patient_that_it_does_not_have_by_trying() -> None:
    table = play()
    strangers = [f"{k:07d}" for k in range(5000, 5060)]
    assert try_identifiers(table, strangers, exponents(table, ["north"])) == []
    # The same attack with every exponent finds all of them: it is the third site's that is missing.
    assert sorted(try_identifiers(table, strangers, exponents(table, SITES))) == strangers


@pytest.mark.parametrize("alone", SITES)
def test_two_sites_that_share_their_exponents_find_nobody_of_the_third(alone: str) -> None:
    others = [name for name in SITES if name != alone]
    strangers = sorted(set(FILES[alone]).difference(*(FILES[name] for name in others)))
    table = play()
    assert len(strangers) >= 50
    for order in (others, others[::-1]):
        assert try_identifiers(table, strangers, exponents(table, order)) == []


def test_each_site_learns_which_of_its_own_patients_the_others_have_and_how_many_others_there_are() -> None:
    alignment = play().machines["north"].result
    tags = {name: set(map(bytes, of)) for name, of in alignment.matches.tags.items()}
    assert len(tags["north"] & tags["south"]) == 40
    assert len(tags["north"] & tags["east"]) == 50
    assert len(tags["south"] - tags["north"]) == 60
    assert alignment.n == 40


def test_the_report_cannot_be_tried_by_an_auditor_who_opens_every_post() -> None:
    """Hashes of spellings are keyed by pairs of sites, so that tags and words tell nothing of an identifier."""
    first, other = play(), MemoryProtocol(align, study(), {name: columns(codes) for name, codes in FILES.items()})
    other.keys = {pair: bytes([90]) + key[1:] for pair, key in first.keys.items()}
    other.machines = {name: Machine(align, other.site(name, columns(codes))) for name, codes in FILES.items()}
    other.play()
    np.testing.assert_array_equal(
        first.posts("align/raise/2")["north"]["points"], other.posts("align/raise/2")["north"]["points"]
    )
    words = [describe_reason(table, "north", reader) for table in (first, other) for reader in ("south", "east")]
    assert [len(of) for of in words] == [40] * 4
    assert len(set.union(*words)) == 160
    # What north writes for south is what south writes for north.
    assert words[0] == describe_reason(first, "south", "north")


def describe_reason(table: MemoryProtocol, poster: str, reader: str) -> set[bytes]:
    written = np.asarray(table.posts("align/report")[poster]["written"])
    return {bytes(word) for word in written[SITES.index(reader), :, 0]}


def test_elements_show_no_bit_of_an_identifier_whoever_raised_them() -> None:
    """All lie on the curve and none on its twist: a bit that raising would keep."""
    p = 2**255 - 19
    for point in list(collect_elements(play()))[:200]:
        u = int.from_bytes(point, "little")
        assert pow(u * (u * u + 486662 * u + 1), (p - 1) // 2, p) == 1


def test_exponents_commute_and_differ_between_runs_and_sites() -> None:
    points, a, b = hash_codes(study(), ["1", "2"]), b"a" * 32, b"b" * 32
    np.testing.assert_array_equal(raise_points(a, raise_points(b, points)), raise_points(b, raise_points(a, points)))
    site = play().machines["north"].site
    keys = {
        OwnPoints(s).exponent for s in (site, replace(site, session="other"), replace(site, name="x", secret=b"s" * 32))
    }
    assert len(keys) == 3


# What a site does not raise


def ring(files: Mapping[str, Sequence[str]] = FILES, **linkage: object) -> tuple[dict[str, OwnPoints], Posts]:
    """Sites before the lists go round, and their first posts."""
    table = MemoryProtocol(align, study(**linkage), {name: columns(codes) for name, codes in files.items()})
    own = {name: OwnPoints(machine.site) for name, machine in table.machines.items()}
    return own, {name: post_points(points.site, points) for name, points in own.items()}


def expect_refusal(own: Mapping[str, OwnPoints], rounds: tuple[Posts, ...], code: str, culprit: str) -> LearnerError:
    with pytest.raises(ProtocolError) as caught:
        raise_list(own["south"].site, own["south"], rounds)
    assert (caught.value.code, caught.value.site) == (code, culprit)
    return caught.value


def test_a_second_list_is_not_raised_after_a_reorganisation() -> None:
    own, first = ring()
    raise_list(own["south"].site, own["south"], (first,))
    raise_list(own["south"].site, own["south"], (first,))
    other = {**first, "north": {**first["north"], "points": first["south"]["points"]}}
    assert "tried" in expect_refusal(own, (other,), "CO-P549", "north").message


def test_a_list_that_grew_on_its_way_is_not_raised() -> None:
    own, first = ring()
    second = {name: raise_list(own[name].site, own[name], (first,)) for name in ("north", "east")}
    stuffed = np.concatenate([second["north"]["points"], hash_codes(study(), ["7", "8"])])
    expect_refusal(own, (first, {**second, "north": {"points": stuffed}}), "CO-P541", "north")


def test_a_site_that_brings_more_patients_than_agreed_stops_itself_and_is_stopped() -> None:
    own, first = ring(FILES, most=120)
    long = np.concatenate([first["north"]["points"], hash_codes(study(), [f"9{k}" for k in range(40)])])
    expect_refusal(own, ({**first, "north": {**first["north"], "points": long}},), "CO-P548", "north")
    table = MemoryProtocol(align, study(most=99), {name: columns(codes) for name, codes in FILES.items()})
    with pytest.raises(StudyError) as caught:
        table.play()
    assert caught.value.code == "CO-N252"


@pytest.mark.parametrize("element", [0, 1, 2**255 - 20, 2**255 - 19])
def test_elements_of_small_order_are_refused(element: int) -> None:
    own, first = ring()
    points = np.array(first["north"]["points"])
    points[3] = np.frombuffer(element.to_bytes(32, "little"), np.uint8)
    assert (
        "element 3 of 100"
        in expect_refusal(own, ({**first, "north": {**first["north"], "points": points}},), "CO-P550", "north").message
    )
    with pytest.raises(NoPoint):
        raise_points(b"k" * 32, points)


def test_sites_whose_unicode_tables_differ_find_each_other_out() -> None:
    table = play()
    alignment = table.machines["north"].result.matches
    first, *more = alignment.rounds
    other = {**first, "south": {**first["south"], "rules": np.zeros(32, np.uint8)}}
    with pytest.raises(ProtocolError) as caught:
        _ = replace(alignment, rounds=(other, *more)).common
    assert (caught.value.code, caught.value.site) == ("CO-P651", "south")
    assert bytes(first["south"]["rules"]) == digest_forms()


def test_nothing_of_spellings_leaves_before_enough_patients_match() -> None:
    table = MemoryProtocol(align, study(), {name: columns(codes) for name, codes in {**FILES, "east": ["1"]}.items()})
    with pytest.raises(StudyError) as caught:
        table.play()
    assert caught.value.code == "CO-N205"
    assert table.topics[-1] == "align/raise/2"


def test_the_schedule_has_a_step_for_keys_one_for_each_site_and_one_for_the_report() -> None:
    assert list_steps(study()) == ("each",) * len(play().topics)
