"""The red team: each way to cheat that we know of, in a real study, with the site and the step that are named for it.

Attacks have the names that the threat model gives them: A for adversaries, P for payloads. Those that need a chain, a
browser or other learners' tests stand in the files that ATTACKS names.
"""

from __future__ import annotations

import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from support.learners import cohorts
from support.node.worlds import World, cohort, sweep, until

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import State
from coterie_learners.core import payload as pay
from coterie_learners.core.payload import MAGIC, SHUFFLE_ZSTD, STORED
from coterie_learners.errors import LearnerError
from coterie_node.audit.influence import screen
from coterie_node.audit.replay import Verdict, replay

TESTS = Path(__file__).parents[1]

ATTACKS = {
    "A6 poisoned gradient: sign": "node/audit/test_influence.py::test_a_score_with_its_sign_turned_is_refused",
    "A6 poisoned gradient: scale": "node/audit/test_influence.py::test_sums_scaled_up_are_refused_at_once",
    "A6 label flip": "node/audit/test_influence.py::test_labels_the_wrong_way_round_are_named",
    "A6 colluding half": "node/audit/test_influence.py::test_half_of_the_sites_in_league_are_seen",
    "A7 wrong server": "red_team/test_altered_bundles.py::test_a7_a_server_that_does_not_post_what_follows",
    "A7 wrong server, on chain": "node/demo/test_demo.py::test_a_server_post_off_by_a_millionth_fails_the_replay",
    "A8 withholding": "red_team/test_altered_bundles.py::test_a8_a_payload_that_was_recorded_and_never_served",
    "A12 hostile names: files": "node/cli/test_cli.py::test_hostile_names_do_not_reach_the_terminal_raw",
    "A12 hostile names: history": "node/audit/test_history.py::test_hostile_names_are_harmless_in_every_shape",
    "A12 hostile names: report": "node/audit/test_report.py::test_hostile_names_are_harmless_in_the_page",
    "A12 hostile names: bundle": "node/audit/test_bundle.py::test_a_file_that_no_bundle_has_is_refused",
    "A15 differencing: rows": "node/release/test_gate.py::test_nearly_the_same_rows_a_second_time_are_refused",
    "A15 differencing: sites": "node/release/test_gate.py::test_one_site_fewer_over_the_same_rows_is_refused",
    "A16 tables from X'X": "node/release/test_gate.py::test_plain_sums_with_a_small_cell_are_refused_by_default",
    "A17 dropped last step": "node/audit/test_bundle.py::test_a_dropped_last_step_is_found",
    "A17 reordered": "node/audit/test_bundle.py::test_records_that_changed_places_are_found",
    "A17 other genesis": "node/audit/test_bundle.py::test_another_genesis_with_all_headers_linked_to_it_is_found",
    "A17 swapped payload": "node/audit/test_bundle.py::test_a_swapped_payload_is_found",
    "A17 edited study": "node/audit/test_bundle.py::test_an_edited_study_is_found",
    "A17 renamed site": "node/audit/test_bundle.py::test_a_renamed_site_is_found",
    "A17 the chain's operator": "node/audit/test_bundle.py::test_a_record_that_the_chain_s_operator_wrote",
    "P1 flipped bit": "red_team/test_altered_bundles.py::test_p1_a_bit_flipped_in_any_region",
    "P2 cut or extended": "red_team/test_altered_bundles.py::test_p2_to_p10_bytes_that_are_no_payload",
    "P3 bomb": "red_team/test_altered_bundles.py::test_p2_to_p10_bytes_that_are_no_payload",
    "P4 type, order, shape": "red_team/test_altered_bundles.py::test_p4_to_p8_arrays_that_no_rows_can_have",
    "P5 not finite": "red_team/test_altered_bundles.py::test_p4_to_p8_arrays_that_no_rows_can_have",
    "P5 minus zero, denormal": "red_team/test_altered_bundles.py::test_p5_minus_zero_and_denormals_are_numbers",
    "P6 not positive": "red_team/test_altered_bundles.py::test_p4_to_p8_arrays_that_no_rows_can_have",
    "P7 zero": "red_team/test_altered_bundles.py::test_p4_to_p8_arrays_that_no_rows_can_have",
    "P7 singular": "red_team/test_altered_bundles.py::test_p7_a_singular_matrix_at_one_site",
    "P8 huge": "red_team/test_altered_bundles.py::test_p4_to_p8_arrays_that_no_rows_can_have",
    "P9 pickle, Java": "red_team/test_altered_bundles.py::test_p2_to_p10_bytes_that_are_no_payload",
    "P10 unknown version": "red_team/test_altered_bundles.py::test_p2_to_p10_bytes_that_are_no_payload",
    "P11 another study's": "red_team/test_altered_bundles.py::test_p11_a_payload_made_for_something_else",
    "P12 another order of covariates": "red_team/test_altered_bundles.py::test_p12_covariates_in_another_order",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_has_its_test(attack: str) -> None:
    path, _, name = ATTACKS[attack].partition("::")
    assert re.search(rf"^def {re.escape(name)}\w*\(", (TESTS / path).read_text(), re.MULTILINE)


def judge_world(world: World) -> Verdict:
    return replay(world.ledger(), world.blobs, world.number).verdict


def catch_error(world: World, culprit: str, topic: str, code: str = "") -> None:
    """Every other site stops and names culprit and step; so does the replay of an auditor without data."""
    for name in world.study.sites:
        if name == culprit:
            continue
        runner = world.runner(name)
        with pytest.raises((LearnerError, ChainError)) as caught_error:
            sweep([runner])
        error: Any = caught_error.value
        assert (error.site, error.topic) == (culprit, topic)
        assert code in ("", error.code)
    verdict = judge_world(world)
    assert (verdict.verdict, verdict.site, verdict.topic) == ("FAIL", culprit, topic)
    assert code in ("", verdict.code)


def at_round(world: World, position: int) -> None:
    """Let all sites go on until a position is open."""
    until(lambda: (o := world.view().open) is not None and o.position == position, world.crew().values())


def others_post(world: World, culprit: str) -> None:
    for name in world.study.sites:
        if name != culprit:
            runner, _, _ = world.catch_up(name)
            assert runner.turn()


def honest_blob(world: World, name: str) -> bytes:
    """What a site would post at the open step."""
    runner, step, open_ = world.catch_up(name)
    return world.codec(name).write(step, open_.attempt, runner.machine.draft(open_.parties, open_.attempt))


def plain() -> World:
    return cohort(3, aggregation="plain")


# A: adversaries


@pytest.mark.parametrize("amount", [1e-9, 0.5, 1e6])
def test_a7_a_server_that_does_not_post_what_follows(amount: float) -> None:
    world = plain()
    at_round(world, 3)
    world.forge("south", lambda p: p["beta"].__setitem__(1, p["beta"][1] + amount))
    with pytest.raises(LearnerError, match="south posted 'model/1'"):
        sweep([world.runner("north")])
    assert world.view().state == State.PAUSED
    verdict = judge_world(world)
    assert (verdict.verdict, verdict.site, verdict.topic, verdict.code) == ("FAIL", "south", "model/1", "CO-P201")


def test_a8_a_payload_that_was_recorded_and_never_served() -> None:
    world = plain()
    at_round(world, 2)
    record = world.forge("east", lambda p: None)
    del world.blobs.blocks[record.post.cid]
    others_post(world, "east")
    catch_error(world, "east", "stats/1", "CO-C201")


# P: payloads


def regions(blob: bytes) -> dict[str, int]:
    """A byte of each part of a stored payload."""
    return {"magic": 0, "codec": 4, "length": 5, "header": 20, "arrays": len(blob) - 20, "end": len(blob) - 1}


@pytest.mark.parametrize("region", ["magic", "codec", "length", "header", "arrays", "end"])
@pytest.mark.parametrize(("position", "site", "topic"), [(0, "south", "stats/0"), (1, "north", "model/0")])
def test_p1_a_bit_flipped_in_any_region(region: str, position: int, site: str, topic: str) -> None:
    world = plain()
    at_round(world, 2)
    record = next(r for r in world.records() if (r.post.position, r.site) == (position, site))
    block = bytearray(world.blobs.blocks[record.post.cid])
    block[regions(bytes(block))[region]] ^= 1
    world.blobs.blocks[record.post.cid] = bytes(block)
    catch_error(world, site, topic, "CO-C202")


def bomb(codec: int) -> bytes:
    """A payload that unpacks to a gigabyte of zeros and says so, or says little."""
    zeros = bytes(1 << 24)
    body = zlib.compress(zeros, 9) if codec == pay.DEFLATE else zstandard.ZstdCompressor().compress(zeros)
    return MAGIC + bytes([codec]) + (1 << 12).to_bytes(8, "little") + body


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda b: b[:-1],
    "cut in the header": lambda b: b[:9],
    "extended": lambda b: b + b"\0",
    "nothing but a head": lambda b: b[:13],
    "bomb, deflate": lambda b: bomb(pay.DEFLATE),
    "bomb, zstd": lambda b: bomb(SHUFFLE_ZSTD),
    "declares 16 GiB": lambda b: b[:5] + (1 << 34).to_bytes(8, "little") + b[13:],
    "pickle": lambda b: pickle.dumps({"score": [1.0]}),
    "java object": lambda b: bytes.fromhex("aced0005") + b"sr\x00\x05Model",
    "unknown version": lambda b: b"CTR9" + b[4:],
    "unknown codec": lambda b: b[:4] + b"\7" + b[5:],
    "text": lambda b: b'{"score": [1, 2]}',
}


@pytest.mark.parametrize("kind", BYTES)
def test_p2_to_p10_bytes_that_are_no_payload(kind: str) -> None:
    world = plain()
    world.post("south", BYTES[kind](honest_blob(world, "south")))
    others_post(world, "south")
    catch_error(world, "south", "stats/0")


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda p: p.__setitem__(name, value(p[name]) if callable(value) else value)


def _at(name: str, place: int, value: float) -> Callable[[dict[str, Any]], None]:
    return lambda p: p[name].__setitem__(place, value)


ARRAYS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "integers for numbers": (_set("score", lambda v: np.round(v).astype(np.int64)), "CO-P108"),
    "another shape": (_set("score", lambda v: v[:-1]), "CO-P108"),
    "a matrix for a triangle": (_set("information", lambda v: np.zeros((6, 6))), "CO-P108"),
    "a field left out": (lambda p: p.pop("n"), "CO-P106"),
    "a field too many": (_set("patients", np.arange(3)), "CO-P106"),
    "not a number": (_at("score", 0, np.nan), "CO-P107"),
    "infinite": (_at("information", 3, np.inf), "CO-P107"),
    "minus infinite": (_set("deviance", -np.inf), "CO-P107"),
    "not positive semi-definite": (_at("information", 6, -5.0), "CO-P501"),
    "an off-diagonal too large": (_at("information", 1, 1e3), "CO-P501"),
    "a matrix of zeros": (_set("information", lambda v: v * 0), "CO-P508"),
    "huge": (_at("score", 2, 1e300), "CO-P505"),
    "a negative deviance": (_set("deviance", -1.0), "CO-P502"),
    "half a patient": (_set("n", 29.5), "CO-P503"),
    "no patients": (_set("n", 0.0), "CO-P503"),
    "more events than patients": (_set("outcome", 1e4), "CO-P504"),
    "more information than rows": (lambda p: p["information"].__imul__(3.0), "CO-P508"),
    "more score than events": (_at("score", 0, 80.0), "CO-P508"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_p4_to_p8_arrays_that_no_rows_can_have(kind: str) -> None:
    change, code = ARRAYS[kind]
    world = plain()
    world.forge("south", change)
    others_post(world, "south")
    catch_error(world, "south", "stats/0", code)


def test_p4_another_byte_order_is_no_canonical_payload() -> None:
    world = plain()
    blob = pay.unpack(honest_blob(world, "south"))
    world.post("south", pay.pack(blob.replace(b'"<f8"', b'">f8"'), STORED))
    others_post(world, "south")
    catch_error(world, "south", "stats/0", "CO-P104")


def test_p5_minus_zero_and_denormals_are_numbers() -> None:
    world = plain()

    def change(p: dict[str, Any]) -> None:
        p["score"][3] += 5e-324
        p["deviance"] = p["deviance"] + 0.0

    world.forge("south", change)
    sweep(world.crew().values())
    assert (judge_world(world).verdict, judge_world(world).grade) == ("PASS", "identical")


def test_p7_a_singular_matrix_at_one_site() -> None:
    """A site may lack variation that the others have: no fault, but the screen says that it cannot be compared."""
    world = plain()

    def flat(p: dict[str, Any]) -> None:
        triangle = np.triu_indices(6)
        p["information"] *= (triangle[0] == 0) & (triangle[1] == 0)

    while (opened := world.view().open) is not None:
        if opened.kind == "each":
            world.forge("south", flat)
        until(lambda at=opened.position: (o := world.view().open) is None or o.position > at, world.crew().values())  # type: ignore[misc]
        if opened.position > 12:
            break
    error = screen(world.ledger(), world.blobs, world.number)
    assert any(line.startswith("south cannot estimate every coefficient alone") for line in error.statements)


@pytest.mark.parametrize(
    "stamp",
    [{"study": "ab" * 32}, {"topic": "stats/1"}, {"topic": "model/0"}, {"site": "north"}, {"attempt": 1}],
    ids=["study", "round", "kind", "site", "attempt"],
)
def test_p11_a_payload_made_for_something_else(stamp: dict[str, Any]) -> None:
    world = plain()
    world.forge("south", lambda p: None, **stamp)
    others_post(world, "south")
    catch_error(world, "south", "stats/0", "CO-P110")


def test_p11_a_payload_of_an_earlier_round_posted_again() -> None:
    world = plain()
    at_round(world, 2)
    old = next(r for r in world.records() if (r.post.position, r.site) == (0, "south"))
    world.post("south", world.blobs.get(old.post.cid))
    others_post(world, "south")
    catch_error(world, "south", "stats/1", "CO-P110")


def test_p12_covariates_in_another_order() -> None:
    """The order is the study's, and the study's hash is in every stamp: a site with another order has another study."""
    world = plain()
    other = cohorts.study("died ~ crp + age + male + stage", aggregation="plain")
    assert other.hash != world.study.hash
    world.forge("south", lambda p: None, study=other.hash.hex())
    others_post(world, "south")
    catch_error(world, "south", "stats/0", "CO-P110")


def test_p12_covariates_exchanged_under_the_right_stamp_are_seen_by_the_screen() -> None:
    world = cohort(4, n=800, aggregation="plain")
    codes = cohorts.split_sizes(cohorts.draw(800), cohorts.even_sizes(800, 4))[1]
    codes["age"], codes["crp"] = np.clip(codes["crp"], -5, 5), np.clip(codes["age"], -4, 5)
    world.rows = {**world.rows, "south": cohorts.rows(world.study, codes)}
    sweep(world.crew().values())
    error = screen(world.ledger(), world.blobs, world.number)
    assert error.outliers[:1] == ("south",)
