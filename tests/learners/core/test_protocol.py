"""The four verbs and the machine that runs a script: drafts, posts, checks of the server, sealed posts, secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.learners import shapes
from support.learners.shapes import SCRIPT_CASES, ScriptCase
from support.learners.table import MemoryProtocol

from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import (
    Machine,
    Posts,
    Script,
    Sealed,
    Site,
    announce,
    each,
    interactive,
    largest_difference,
    only,
    server,
)
from coterie_learners.errors import ProtocolError, SealedInput, WrongPost
from coterie_learners.study.rows import ArrayRows

STUDY = shapes.study(("ana", "bob", "cyd"))
ROWS = {name: ArrayRows(np.full((k + 1, 1), 2.0), np.zeros(k + 1)) for k, name in enumerate(STUDY.sites)}


# Verbs


def counts(site: Site) -> Payload:
    return {"n": site.rows.n}


def summed(posts: Posts) -> Payload:
    return {"n": sum(int(p["n"]) for p in posts.values()), "converged": True}


def two_step_script(site: Site) -> Script:
    posts = yield from each("count", counts)
    total = yield from server("total", summed, posts)
    first = yield from only("bob", "first", lambda site, n: {"x": site.rows.n * n}, int(total["n"]))
    return list(posts), int(total["n"]), int(first["x"])


def machine(name: str = "ana", script: Any = two_step_script, tolerance: float = 0.0) -> Machine:
    return Machine(script, Site(STUDY, name, ROWS[name]), tolerance)


def all_counts() -> Posts:
    return {name: {"n": np.int64(rows.n)} for name, rows in ROWS.items()}


def test_a_script_is_awaited_step_by_step_and_ends_with_its_result() -> None:
    m, visited = machine(), []
    for posts in (all_counts(), {"cyd": {"n": 6, "converged": True}}, {"bob": {"x": 12}}):
        assert m.awaits is not None
        visited.append((m.awaits.topic, m.awaits.who, m.awaits.public))
        m.advance(posts)
    assert visited == [("count", "each", False), ("total", "server", True), ("first", "only:bob", False)]
    assert m.awaits is None
    assert m.result == (["ana", "bob", "cyd"], 6, 12)


def test_a_draft_is_what_this_site_would_post_and_moves_nothing() -> None:
    m = machine("cyd")
    assert m.draft(STUDY.sites, 0) == m.draft(STUDY.sites, 0) == {"n": 3}
    assert m.awaits is not None
    assert m.awaits.topic == "count"
    m.advance(all_counts())
    assert m.draft(STUDY.sites, 0) == {"n": 6, "converged": True}


def test_a_draft_knows_the_parties_and_the_attempt_of_the_open_step() -> None:
    def script(site: Site) -> Script:
        return (yield from each("who", lambda s: {"parties": len(s.parties), "attempt": s.attempt}))

    assert machine(script=script).draft(("ana", "bob"), 3) == {"parties": 2, "attempt": 3}


def test_after_the_end_nothing_can_be_drafted_or_fed() -> None:
    def script(site: Site) -> Script:
        return (yield from each("count", counts))

    m = machine(script=script)
    m.advance(all_counts())
    for move in (lambda: m.advance(all_counts()), lambda: m.draft(STUDY.sites, 0)):
        with pytest.raises(ProtocolError) as caught:
            move()
        assert caught.value.code == "CO-P303"


def test_every_verb_carries_its_readers_and_its_form() -> None:
    form = Schema({"n": Field("<i8")})

    def script(site: Site) -> Script:
        yield from each("a", counts, expects=form, readers=("bob",))
        yield from server("b", summed, {}, expects=form)
        yield from only("cyd", "c", counts, expects=form, readers=("ana",))
        yield from interactive("d", lambda s, c: {}, expects=form)

    steps, m = [], machine(script=script)
    for posts in (all_counts(), {"ana": {"n": 0, "converged": True}}, {"cyd": {}}, {"ana": {}}):
        assert m.awaits is not None
        steps.append(m.awaits)
        m.advance(posts)
    assert [(s.who, s.public, s.readers, s.talks, s.agree) for s in steps] == [
        ("each", False, ("bob",), False, False),
        ("server", True, None, False, False),
        ("only:cyd", False, ("ana",), False, False),
        ("each", False, None, True, True),
    ]
    assert all(s.expects is form for s in steps)


# Checks of what others post


def dispute(posted: Payload, tolerance: float = 0.0) -> WrongPost:
    m = machine(tolerance=tolerance)
    m.advance(all_counts())
    with pytest.raises(WrongPost) as caught:
        m.advance({"bob": posted})
    assert caught.value.code == "CO-P201"
    assert (caught.value.site, caught.value.topic) == ("bob", "total")
    assert caught.value.recomputed == {"n": 6, "converged": True}
    assert m.awaits is not None
    assert m.awaits.topic == "total"
    return caught.value


def test_a_server_post_is_recomputed_and_a_wrong_one_refused_with_the_difference() -> None:
    assert dispute({"n": np.int64(7), "converged": np.bool_(True)}).difference == 1.0
    assert dispute({"n": np.int64(6), "converged": np.bool_(False)}).difference == 1.0


@pytest.mark.parametrize(
    "posted",
    [
        {"n": 6},
        {"n": 6, "converged": True, "more": 1},
        {"n": np.array([6]), "converged": True},
        {"n": 6.0, "converged": True},
        {"n": b"6", "converged": True},
    ],
)
def test_other_names_shapes_or_types_differ_without_measure(posted: Payload) -> None:
    wrong = dispute({name: np.asarray(value) for name, value in posted.items()}, tolerance=100.0)
    assert wrong.difference == float("inf")
    assert "in shape or names" in wrong.message


def test_within_a_tolerance_the_largest_difference_is_kept() -> None:
    m = machine(tolerance=2.0)
    m.advance(all_counts())
    m.advance({"bob": {"n": np.int64(8), "converged": np.bool_(True)}})
    assert (m.checked, m.unchecked, m.difference) == (1, 0, 2.0)
    other = machine(tolerance=1.9)
    other.advance(all_counts())
    with pytest.raises(WrongPost):
        other.advance({"bob": {"n": np.int64(8), "converged": np.bool_(True)}})


@pytest.mark.parametrize("tolerance", [0.0, 1e9])
def test_a_post_is_not_accepted_where_its_recomputation_is_no_number(tolerance: float) -> None:
    def script(site: Site) -> Script:
        return (yield from server("nan", lambda: {"beta": np.array([1.0, np.nan])}))

    with pytest.raises(WrongPost):
        machine(script=script, tolerance=tolerance).advance({"bob": {"beta": np.array([1.0, 2.0])}})


def test_the_same_bits_have_no_difference_whatever_their_spelling() -> None:
    assert largest_difference({"a": 0.0, "b": np.float32(1)}, {"b": 1.0, "a": -0.0}) == 0.0
    assert largest_difference({"a": np.array([1.0, 2.0])}, {"a": np.array([1.0, 2.5])}) == 0.5
    assert largest_difference({"a": 1.0}, {"a": 1}) == float("inf")


def test_results_that_were_opened_together_must_agree() -> None:
    def script(site: Site) -> Script:
        return (yield from interactive("opened", lambda s, c: {"x": 1}))

    machine(script=script).advance({name: {"x": np.int64(1)} for name in STUDY.sites})
    with pytest.raises(ProtocolError) as caught:
        machine(script=script).advance({"ana": {"x": 1}, "bob": {"x": 1}, "cyd": {"x": 2}})
    assert (caught.value.code, caught.value.topic) == ("CO-P202", "opened")


# Sealed posts


def test_a_sealed_post_can_be_carried_but_not_looked_into() -> None:
    sealed = Sealed("bob", "share")
    for look in (lambda: sealed["x"], lambda: list(sealed), lambda: len(sealed), lambda: dict(sealed)):
        with pytest.raises(SealedInput, match="'share' of bob") as caught:
            look()
        assert caught.value.code == "CO-P301"


def test_a_public_step_over_sealed_posts_is_counted_as_unchecked() -> None:
    def script(site: Site) -> Script:
        share = yield from only("bob", "share", counts, readers=("cyd",))
        made = yield from server("made", lambda s: {"n": s["n"]}, share)
        return int(made["n"])

    outsider, reader = machine("ana", script), machine("cyd", script)
    outsider.advance({"bob": Sealed("bob", "share")})
    outsider.advance({"cyd": {"n": np.int64(99)}})
    assert (outsider.checked, outsider.unchecked, outsider.result) == (0, 1, 99)
    reader.advance({"bob": {"n": np.int64(2)}})
    with pytest.raises(WrongPost):
        reader.advance({"cyd": {"n": np.int64(99)}})


def test_whether_the_loop_has_converged_may_be_read_of_a_sealed_post() -> None:
    assert Sealed("bob", "model", True)["converged"] is True
    assert Sealed("bob", "model").get("converged", True) is False


def test_a_sealed_server_post_is_checked_by_its_readers_and_carried_by_others() -> None:
    def script(site: Site) -> Script:
        posts = yield from each("count", counts)
        total = yield from server("total", summed, posts, readers=("ana", "cyd"))
        return bool(total["converged"])

    outsider, reader = machine("bob", script), machine("cyd", script)
    for one in (outsider, reader):
        one.advance(all_counts())
    assert outsider.awaits is not None
    assert outsider.awaits.readers == ("ana", "cyd")
    outsider.advance({"ana": Sealed("ana", "total", True)})
    assert (outsider.checked, outsider.unchecked, outsider.result) == (0, 1, True)
    with pytest.raises(WrongPost):
        reader.advance({"ana": {"n": np.int64(5), "converged": np.True_}})


def test_what_a_site_drafted_as_the_server_is_not_computed_a_second_time() -> None:
    calls: list[int] = []

    def made() -> Payload:
        calls.append(1)
        return {"n": np.int64(7)}

    def script(site: Site) -> Script:
        for _ in range(2):
            yield from server("made", made)

    mine = machine("ana", script)
    mine.draft(STUDY.sites, 0)
    with pytest.raises(WrongPost):
        mine.advance({"ana": {"n": np.int64(8)}})
    mine.draft(STUDY.sites, 0)
    mine.advance({"ana": {"n": np.int64(7)}})
    assert (len(calls), mine.checked) == (2, 2)
    mine.advance({"bob": {"n": np.int64(7)}})
    assert len(calls) == 3


def test_sites_announce_the_keys_that_others_seal_to() -> None:
    def script(site: Site) -> Script:
        yield from announce()

    one = Machine(script, Site(STUDY, "ana", sealing=bytes(range(32))))
    assert one.awaits is not None
    assert (one.awaits.announces, one.awaits.readers) == (True, None)
    assert one.draft(STUDY.sites, 0)["sealing"].tobytes() == bytes(range(32))


# The auditor


def test_an_auditor_is_a_site_without_rows() -> None:
    auditor = Machine(two_step_script, Site(STUDY, "auditor"))
    with pytest.raises(ProtocolError) as caught:
        auditor.draft(STUDY.sites, 0)
    assert caught.value.code == "CO-P302"
    for posts in (all_counts(), {"cyd": {"n": 6, "converged": True}}, {"bob": {"x": 12}}):
        auditor.advance(posts)
    assert (auditor.checked, auditor.difference, auditor.result[1]) == (1, 0.0, 6)


# What a site gives its learner


def site(**changes: Any) -> Site:
    return replace(Site(STUDY, "ana", secret=b"s" * 32, shared={"bob": b"k" * 32}), **changes)


def test_streams_replay_and_differ_by_label_secret_study_attempt_and_session() -> None:
    other_study = shapes.study(("ana", "bob"))
    streams = [
        site().stream("a", 64),
        site().stream("b", 64),
        site(secret=b"t" * 32).stream("a", 64),
        site(study=other_study).stream("a", 64),
        site(attempt=1).stream("a", 64),
        site(session="chain/1").stream("a", 64),
        site().mask("bob", "a", 64),
    ]
    assert len(set(streams)) == len(streams)
    assert site().stream("a", 64) == streams[0]
    assert site().stream("a", 10) == streams[0][:10]


def test_both_ends_of_a_pair_make_the_same_mask() -> None:
    mine = site().mask("bob", "stats", 48)
    theirs = site(name="bob", secret=b"x" * 32, shared={"ana": b"k" * 32}).mask("ana", "stats", 48)
    assert mine == theirs
    with pytest.raises(ProtocolError) as caught:
        site().mask("cyd", "stats", 48)
    assert (caught.value.site, caught.value.code) == ("cyd", "CO-P402")


def test_what_is_kept_is_made_once_for_ever() -> None:
    vault: dict[str, bytes] = {}
    made = iter([b"first", b"second"])
    assert site(vault=vault).keep("key", lambda: next(made)) == b"first"
    assert site(vault=vault).keep("key", lambda: next(made)) == b"first"
    assert vault == {"key": b"first"}


def test_secrets_do_not_show_when_a_site_is_printed() -> None:
    shown = repr(site(vault={"key": b"hidden"}))
    assert [word for word in ("ssss", "kkkk", "hidden") if word in shown] == []


# Shapes of other papers


@pytest.mark.parametrize("shape", SCRIPT_CASES.values(), ids=SCRIPT_CASES)
def test_each_papers_shape_reaches_the_pooled_fit_and_replays_without_rows(shape: ScriptCase) -> None:
    table = MemoryProtocol(shape.script, shapes.study(tuple(shape.rows)), shape.rows)
    results = table.play()
    np.testing.assert_allclose(shape.pick(results), shape.truth, rtol=0, atol=1e-9)
    auditor = table.auditor()
    assert auditor.awaits is None
    assert (auditor.checked, auditor.unchecked, auditor.difference) == (table.served, 0, 0.0)
