"""What every ledger must do, on the memory twin and on the contracts."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import (
    BENCH_FOUNDERS,
    EXCLUDING_TERMS,
    GLORE_TERMS,
    RECOMPUTED,
    STUDY_HASH,
    AddressBench,
    AnvilBench,
    BrokerBench,
    MemoryBench,
    PatientLog,
    Sites,
    build_entry,
    catch_refusal,
    derive_account,
    derive_sealing_key,
    strip_times,
)

from coterie_chain.broker.message_log import MemoryBroker
from coterie_chain.ledger.history_check import check_history
from coterie_chain.ledger.protocol import ZERO, Event, Mark, Post, Record, Silence, State, Terms, get_study_number
from coterie_chain.store.cid import compute_raw_cid

CID = compute_raw_cid(b"a payload")


# A node of somebody's choice, as an operator's Besu: docs/besu.md.
ADDRESS = os.environ.get("COTERIE_LEDGER_URL", "")
REAL_BROKERS = [pytest.param(name, marks=pytest.mark.brokers) for name in ("redis", "amqp")]


ANVIL = pytest.param("anvil", marks=pytest.mark.anvil)


@pytest.fixture(params=["memory", "broker", *REAL_BROKERS, ANVIL, *(["address"] if ADDRESS else [])])
def sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    if request.param == "memory":
        yield Sites(MemoryBench())
        return
    if request.param not in ("anvil", "address"):
        broker = MemoryBroker() if request.param == "broker" else request.getfixturevalue(request.param)
        appended: list[bytes] = []
        over_broker = BrokerBench(lambda name: PatientLog(broker.open(name), appended), secrets.token_hex(8))
        yield Sites(over_broker)
        over_broker.close()
        return
    at_address = request.param == "address"
    bench = AddressBench(ADDRESS) if at_address else AnvilBench(request.getfixturevalue("anvil"))
    yield Sites(bench)
    bench.close()


def name_entries(entries: Iterator[Record | Event]) -> list[str]:
    return [e.name if isinstance(e, Event) else f"{e.site} {e.kind} {e.post.position}" for e in entries]


# Whole studies, each a scenario that both ledgers must log alike


def play_convergence(sites: Sites) -> int:
    study = sites.start()
    sites.step(study)
    sites.step(study)
    sites.step(study)
    sites.step(study, converged=True)
    return study


def play_all_kinds(sites: Sites) -> int:
    schedule = (("each", "only:cyd"), ("each", "server"), ("server", "each"))
    study = sites.start(Terms(STUDY_HASH, ("cyd", "ana", "bob"), *schedule, max_rounds=2, timeout=60))
    for _ in range(8):
        sites.step(study)
    return study


def play_skips(sites: Sites) -> int:
    study = sites.start()
    sites.step(study)
    sites.bench.sleep(100)
    sites["cyd"].skip(study)
    sites.bench.sleep(100)
    sites["ana"].skip(study)
    sites.step(study, converged=True)
    return study


def play_exclusion(sites: Sites) -> int:
    study = sites.start(EXCLUDING_TERMS)
    sites.post(study, "ana")
    sites.bench.sleep(100)
    sites["ana"].exclude(study, "cyd")
    sites["bob"].exclude(study, "cyd")
    sites.step(study)
    sites.step(study, converged=True)
    return study


def play_dispute(sites: Sites) -> int:
    study = sites.start()
    sites.step(study)
    sites.step(study)
    sites["cyd"].dispute(study, 1, digest_at(sites, study, 1), RECOMPUTED)
    sites["ana"].resume(study)
    sites["cyd"].resume(study)
    sites["bob"].pause(study, 7)
    sites["bob"].resume(study)
    sites["ana"].resume(study)
    sites["bob"].abort(study, 9)
    return study


def digest_at(sites: Sites, study: int, position: int) -> bytes:
    """Digest of the first post at a finished step."""
    records = sites["ana"].read_finished(study, position)
    assert records
    return records[0].post.sha256


def with_a_withheld_post(sites: Sites) -> int:
    study = sites.start(replace(EXCLUDING_TERMS, least=2))
    sites.step(study)
    sites["ana"].report_unavailable(study, 0, 0, "cyd", 4)
    sites["bob"].report_unavailable(study, 0, 0, "cyd", 5)
    sites.step(study)
    sites.step(study)
    sites["bob"].report_unavailable(study, 1, 1, "ana", 4)
    sites["ana"].abort(study, 8)
    sites["bob"].abort(study, 8)
    return study


def with_withheld_posts_that_end_or_wait(sites: Sites) -> int:
    ended = sites.start(replace(GLORE_TERMS, silence=Silence.ABORT))
    sites.step(ended)
    sites["ana"].report_unavailable(ended, 0, 0, "bob", 4)
    sites["cyd"].report_unavailable(ended, 0, 0, "bob", 4)
    waiting = sites.start()
    sites.post(waiting, "bob")
    sites["ana"].report_unavailable(waiting, 0, 0, "bob", 4)
    sites["cyd"].report_unavailable(waiting, 0, 0, "bob", 4)
    sites.step(waiting)
    return waiting


def with_a_leaving(sites: Sites) -> int:
    study = sites.start(EXCLUDING_TERMS)
    sites.step(study)
    sites["ana"].abort(study, 1, "ana")
    sites["cyd"].abort(study, 3, "bob")
    return study


def with_an_end(sites: Sites) -> int:
    study = play_convergence(sites)
    sites["bob"].dispute(study, 1, digest_at(sites, study, 1), RECOMPUTED)
    sites["cyd"].attest(study, sha256(b"rows").digest(), 1)
    sites["bob"].supersede(study, 0, RECOMPUTED)
    sites["cyd"].supersede(study, 0, RECOMPUTED)
    return study


def with_proposals_declined(sites: Sites) -> int:
    for _ in range(3):
        sites["ana"].propose(GLORE_TERMS, RECOMPUTED, STUDY_HASH, 1_002_003)
    sites["bob"].decline((1, 3), 2)
    sites["ana"].decline((2,), 2)
    return 3


def with_votes_withdrawn(sites: Sites) -> int:
    sites["ana"].admit(build_entry("dan"))
    sites["ana"].revoke("cyd")
    motions = [motion_of(e) for e in sites["ana"].history() if isinstance(e, Event) and e.name.endswith("Voted")]
    assert [sites["bob"].list_voters(motion) for motion in motions] == [("ana",), ("ana",)]
    for motion in motions:
        sites["ana"].withdraw(motion)
    assert sites["bob"].list_voters(motions[0]) == ()
    return sites.start()


def motion_of(vote: Event) -> bytes:
    return bytes.fromhex(str(dict(vote.details)["motion"])[2:])


def play_new_members(sites: Sites) -> int:
    sites["ana"].admit(build_entry("dan"))
    sites["bob"].admit(build_entry("dan"))
    sites["dan"].offer(derive_account("dan's new key").address, derive_sealing_key("new"))
    sites["dan's new key"].accept("dan")
    sites["ana"].recover("bob", derive_account("bob's new key").address, derive_sealing_key("bob's new"))
    sites["cyd"].recover("bob", derive_account("bob's new key").address, derive_sealing_key("bob's new"))
    sites["dan's new key"].recover("bob", derive_account("bob's new key").address, derive_sealing_key("bob's new"))
    study = sites.start(replace(GLORE_TERMS, sites=("ana", "cyd")))
    sites["ana"].revoke("cyd")
    sites["bob's new key"].revoke("cyd")
    sites["cyd"].revoke("cyd")
    return study


SCENARIOS = [
    play_convergence,
    play_all_kinds,
    play_skips,
    play_exclusion,
    play_dispute,
    with_a_withheld_post,
    with_withheld_posts_that_end_or_wait,
    with_a_leaving,
    with_an_end,
    with_proposals_declined,
    with_votes_withdrawn,
    play_new_members,
]


@pytest.mark.anvil
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_ledgers_hold_the_same_history_and_views(
    request: pytest.FixtureRequest, scenario: Callable[[Sites], int]
) -> None:
    memory, chain = Sites(MemoryBench()), Sites(AnvilBench(request.getfixturevalue("anvil")))
    study = scenario(memory)
    assert scenario(chain) == study
    ours, theirs = memory["ana"], chain["ana"]
    assert strip_times(theirs.history()) == strip_times(ours.history())
    assert strip_times(theirs.history(study)) == strip_times(ours.history(study))
    assert theirs.sites() == ours.sites()
    assert theirs.studies() == ours.studies()
    actual, wanted = theirs.view(study), ours.view(study)
    clock = wanted.open and replace(wanted.open, deadline=actual.open.deadline if actual.open else 0)
    assert actual == replace(wanted, open=clock, deadline=actual.deadline)
    for position in range(12):
        assert strip_times(theirs.read_finished(study, position) or ()) == strip_times(
            ours.read_finished(study, position) or ()
        )
    for ledger in (ours, theirs):
        judged = check_history(ledger.history(), {name: head.genesis for name, head in ledger.heads().items()})
        assert judged.heads == ledger.heads()
        assert judged.view(study) == ledger.view(study)
    assert isinstance(chain.bench, AnvilBench)
    chain.bench.close()


# What the scenarios must have led to


def test_a_study_runs_from_proposal_to_completion(sites: Sites) -> None:
    study = play_convergence(sites)
    view = sites["bob"].view(study)
    assert (view.id, view.terms, view.state, view.open) == (study, GLORE_TERMS, State.COMPLETED, None)
    assert view.joined == view.parties == BENCH_FOUNDERS
    log = name_entries(sites["cyd"].history(study))
    assert log[:5] == ["StudyProposed", "StudyJoined", "StudyJoined", "StudyJoined", "StudyStarted"]
    assert log[-2:] == ["StudyCompleted", "bob server 3"]
    rounds = [e.round for e in sites["cyd"].history(study) if isinstance(e, Record)]
    assert rounds == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_view_shows_the_open_step(sites: Sites) -> None:
    study = sites.start()
    opened = sites["ana"].view(study).open
    assert opened is not None
    assert (opened.position, opened.attempt, opened.round, opened.kind) == (0, 0, 0, "each")
    assert (opened.posters, opened.posted, opened.parties) == (BENCH_FOUNDERS, (), BENCH_FOUNDERS)
    assert opened.basis == STUDY_HASH
    assert 50 < opened.deadline - sites["ana"].now() <= 60
    sites.post(study, "bob")
    opened = sites["ana"].view(study).open
    assert opened is not None
    assert opened.posted == ("bob",)
    sites.step(study)
    opened = sites["bob"].view(study).open
    assert opened is not None
    assert (opened.kind, opened.posters) == ("server", ("ana",))
    model = sites.post(study, "ana")
    opened = sites["cyd"].view(study).open
    assert opened is not None
    assert (opened.position, opened.round, opened.basis) == (2, 1, model.sha256)


def test_all_kinds_of_steps_are_served_in_turn(sites: Sites) -> None:
    study = play_all_kinds(sites)
    log = [e for e in sites["ana"].history(study) if isinstance(e, Record)]
    served = [(e.post.position, e.site, e.kind) for e in log if e.kind != "each"]
    assert served == [(1, "cyd", "only:cyd"), (3, "cyd", "server"), (5, "ana", "server"), (6, "bob", "server")]
    assert sites["ana"].view(study).state == State.COMPLETED


def test_finished_has_the_records_in_the_studys_order(sites: Sites) -> None:
    study = sites.start(replace(GLORE_TERMS, sites=("cyd", "ana", "bob")))
    assert sites["ana"].read_finished(study, 0) is None
    for site in ("bob", "cyd"):
        sites.post(study, site)
    assert sites["bob"].read_finished(study, 0) is None
    last = sites.post(study, "ana")
    records = sites["bob"].read_finished(study, 0)
    assert records is not None
    assert [r.site for r in records] == ["cyd", "ana", "bob"]
    assert records[1].post == last
    assert sites["bob"].read_finished(study, 1) is None
    assert catch_refusal(sites["bob"].read_finished, 99, 0) == ("BadState", 0)


def test_after_an_exclusion_only_the_last_attempt_counts(sites: Sites) -> None:
    study = play_exclusion(sites)
    records = sites["ana"].read_finished(study, 0)
    assert records is not None
    assert [(r.site, r.post.attempt) for r in records] == [("ana", 1), ("bob", 1)]
    assert sites["ana"].view(study).parties == ("ana", "bob")
    log = list(sites["ana"].history(study))
    (out,) = (e for e in log if isinstance(e, Event) and e.name == "SiteExcluded")
    assert (out.site, dict(out.details)) == ("bob", {"position": 0, "attempt": 0, "silent": "cyd"})


def test_after_a_skip_the_next_site_serves(sites: Sites) -> None:
    study = play_skips(sites)
    (model,) = sites["ana"].read_finished(study, 1) or ()
    assert (model.site, model.post.attempt) == ("cyd", 2)


def test_a_dispute_pauses_and_a_majority_resumes(sites: Sites) -> None:
    study = sites.start()
    sites.step(study)
    sites.step(study)
    sites["cyd"].dispute(study, 1, digest_at(sites, study, 1), RECOMPUTED)
    assert sites["ana"].view(study).state == State.PAUSED
    assert catch_refusal(sites["ana"].record, Post(study, 2, 0, CID, STUDY_HASH, 1, False, STUDY_HASH)) == (
        "BadState",
        3,
    )
    sites["ana"].resume(study)
    assert sites["ana"].view(study).state == State.PAUSED
    assert catch_refusal(sites["ana"].resume, study) == ("AlreadyVoted",)
    sites["bob"].resume(study)
    assert sites["ana"].view(study).state == State.RUNNING
    sites["bob"].abort(study, 3)
    assert sites["cyd"].view(study).state == State.ABORTED
    assert catch_refusal(sites["bob"].abort, study, 3) == ("BadState", 5)


def test_members_come_go_and_change_keys(sites: Sites) -> None:
    play_new_members(sites)
    seats = {s.name: s for s in sites["ana"].sites()}
    assert [s.id for s in seats.values()] == [1, 2, 3, 4]
    assert seats["dan"] == replace(
        build_entry("dan"), id=4, address=derive_account("dan's new key").address, sealing=derive_sealing_key("new")
    )
    assert seats["bob"].address == derive_account("bob's new key").address
    assert not seats["cyd"].active
    assert (sites["dan"].me, sites["dan's new key"].me, sites["cyd"].me) == (None, "dan", None)
    outs = [e for e in sites["ana"].history(0) if isinstance(e, Event) and e.name == "SiteRevoked"]
    assert [(e.site, dict(e.details)) for e in outs] == [("cyd", {"name": "cyd"})]


# Refusals, by name and values


def test_membership_refusals(sites: Sites) -> None:
    ana, stranger = sites["ana"], sites["mallory"]
    assert stranger.me is None
    assert catch_refusal(stranger.admit, build_entry("mallory")) == ("NotSite",)
    assert catch_refusal(ana.admit, build_entry("bob")) == ("KeyTaken",)
    assert catch_refusal(ana.admit, replace(build_entry("dan"), name="bob")) == ("NameTaken",)
    assert catch_refusal(ana.revoke, "nobody") == ("UnknownSite",)
    assert catch_refusal(ana.recover, "bob", derive_account("cyd").address, STUDY_HASH) == ("KeyTaken",)
    assert catch_refusal(stranger.accept, "bob") == ("NotOffered",)
    ana.admit(build_entry("dan"))
    assert catch_refusal(ana.admit, build_entry("dan")) == ("AlreadyVoted",)


def test_proposal_refusals(sites: Sites) -> None:
    ana = sites["ana"]
    assert catch_refusal(sites["mallory"].propose, GLORE_TERMS) == ("NotSite",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, hash=ZERO)) == ("BadTerms",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, max_rounds=0)) == ("BadTerms",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, sites=("ana", "nobody"))) == ("BadOrder",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, sites=())) == ("BadOrder",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, loop=())) == ("BadSchedule",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, closing=("server", "only:nobody"))) == ("BadSchedule",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, sites=("ana", "bob"), closing=("only:cyd",))) == (
        "BadSchedule",
    )
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, opening=("each",) * 33)) == ("BadSchedule",)
    assert catch_refusal(ana.propose, replace(GLORE_TERMS, sites=("bob", "cyd"))) == ("NotParticipant",)
    assert ana.studies() == ()


def test_joining_refusals(sites: Sites) -> None:
    study = sites["ana"].propose(replace(GLORE_TERMS, sites=("ana", "bob")))
    assert catch_refusal(sites["bob"].join, study, ZERO) == ("HashMismatch",)
    assert catch_refusal(sites["ana"].join, study, STUDY_HASH) == ("AlreadyVoted",)
    assert catch_refusal(sites["cyd"].join, study, STUDY_HASH) == ("NotParticipant",)
    assert catch_refusal(sites["ana"].join, 7, STUDY_HASH) == ("NotParticipant",)
    assert catch_refusal(sites["ana"].view, 7) == ("BadState", 0)
    assert catch_refusal(sites["ana"].record, Post(study, 0, 0, CID, STUDY_HASH, 1, False, STUDY_HASH)) == (
        "BadState",
        1,
    )
    assert sites["ana"].view(study).joined == ("ana",)
    sites["bob"].join(study, STUDY_HASH)
    assert catch_refusal(sites["bob"].join, study, STUDY_HASH) == ("BadState", 2)


def test_record_refusals(sites: Sites) -> None:
    study = sites.start()
    draft = sites.draft(study, "ana")
    assert catch_refusal(sites["mallory"].record, draft) == ("NotOwner",)
    assert catch_refusal(sites["ana"].record, replace(draft, sha256=ZERO)) == ("EmptyPost",)
    assert catch_refusal(sites["ana"].record, replace(draft, position=1)) == ("WrongStep", 0, 0)
    assert catch_refusal(sites["ana"].record, replace(draft, attempt=1)) == ("WrongStep", 0, 0)
    assert catch_refusal(sites["ana"].record, replace(draft, basis=ZERO)) == ("BasisMismatch", "0x" + STUDY_HASH.hex())
    assert catch_refusal(sites["ana"].record, replace(draft, study=9)) == ("BadState", 0)
    sites.step(study)
    assert catch_refusal(sites["bob"].record, sites.draft(study, "bob")) == ("NotYourTurn", 1)


def test_skip_and_exclusion_refusals(sites: Sites) -> None:
    study = sites.start(EXCLUDING_TERMS)
    opened = sites["ana"].view(study).open
    assert opened is not None
    assert catch_refusal(sites["ana"].skip, study) == ("NotAServerStep",)
    assert catch_refusal(sites["ana"].exclude, study, "cyd") == ("NotYet", opened.deadline)
    sites.post(study, "bob")
    sites.bench.sleep(100)
    assert catch_refusal(sites["ana"].exclude, study, "bob") == ("NotSilent",)
    assert catch_refusal(sites["ana"].exclude, study, "nobody") == ("NotSilent",)
    sites["ana"].exclude(study, "cyd")
    assert catch_refusal(sites["ana"].exclude, study, "cyd") == ("AlreadyVoted",)
    sites.step(study)
    opened = sites["ana"].view(study).open
    assert opened is not None
    assert catch_refusal(sites["bob"].skip, study) == ("NotYet", opened.deadline)
    assert catch_refusal(sites["ana"].exclude, study, "cyd") == ("NotAnEachStep",)
    waiting = sites.start()
    assert catch_refusal(sites["ana"].exclude, waiting, "cyd") == ("NotAllowed",)
    needed = sites.start(replace(GLORE_TERMS, opening=("each", "only:cyd"), silence=Silence.EXCLUDE))
    sites.bench.sleep(100)
    assert catch_refusal(sites["ana"].exclude, needed, "cyd") == ("SiteNeeded", 3)


def test_state_refusals(sites: Sites) -> None:
    study = sites["ana"].propose(GLORE_TERMS)
    assert catch_refusal(sites["ana"].pause, study, 1) == ("BadState", 1)
    assert catch_refusal(sites["ana"].resume, study) == ("BadState", 1)
    assert catch_refusal(sites["ana"].dispute, study, 0, STUDY_HASH, ZERO) == ("BadState", 1)
    sites["bob"].join(study, STUDY_HASH)
    sites["cyd"].join(study, STUDY_HASH)
    assert catch_refusal(sites["ana"].dispute, study, 0, STUDY_HASH, ZERO) == ("WrongStep", 0, 0)
    assert catch_refusal(sites["mallory"].pause, study, 1) == ("NotSite",)


# Records are idempotent


def test_recording_the_same_post_again_changes_nothing(sites: Sites) -> None:
    study = sites.start()
    post = sites.post(study, "ana")
    before = list(sites["ana"].history())
    sites["ana"].record(post)
    sites.step(study)
    sites["ana"].record(post)
    sites["ana"].abort(study, 1)
    sites["ana"].record(post)
    assert [e for e in sites["ana"].history() if e in before] == before
    assert sites["ana"].heads()["ana"].seq == 1


def test_another_post_in_the_same_slot_is_an_overwrite(sites: Sites) -> None:
    study = sites.start()
    post = sites.post(study, "ana")
    other = replace(post, sha256=sha256(b"other").digest())
    assert catch_refusal(sites["ana"].record, other) == ("Overwrite",)
    sites.step(study)
    assert catch_refusal(sites["ana"].record, other) == ("Overwrite",)
    # a slot that the site never filled stays the contract's business
    sites.step(study)
    assert catch_refusal(sites["bob"].record, replace(other, position=1)) == ("WrongStep", 2, 0)


def test_a_reader_sees_everything_and_moves_nothing(sites: Sites) -> None:
    study = sites.start()
    reader = sites.bench.ledger(None)
    assert reader.me is None
    assert reader.view(study) == sites["ana"].view(study)
    assert list(reader.history()) == list(sites["ana"].history())
    assert catch_refusal(reader.join, study, STUDY_HASH) == ("NotSite",)
    assert catch_refusal(reader.record, sites.draft(study, "ana")) == ("NotOwner",)
    reader.wait(0.01)


def test_heads_follow_the_records(sites: Sites) -> None:
    study = sites.start()
    sites.step(study)
    sites.step(study)
    heads = sites["bob"].heads()
    assert {name: head.seq for name, head in heads.items()} == {"ana": 2, "bob": 1, "cyd": 1}
    last = [e for e in sites["bob"].history(study) if isinstance(e, Record) and e.site == "ana"][-1]
    assert heads["ana"].head == last.head


@pytest.mark.anvil
def test_a_node_that_is_named_by_its_address_alone_plays_the_same_story(anvil: AnvilClient) -> None:
    at_address, in_memory = AddressBench(anvil.url), Sites(MemoryBench())
    try:
        stories = []
        for sites in (Sites(at_address), in_memory):
            study = play_exclusion(sites)
            stories.append(name_entries(sites["ana"].history(study)))
        assert stories[0] == stories[1]
    finally:
        at_address.close()


def test_proposals_are_listed_from_a_number_on(sites: Sites) -> None:
    first, second = sites.start(), sites["bob"].propose(replace(GLORE_TERMS, hash=sha256(b"second").digest()))
    events = sites["ana"].list_proposals(0)
    assert [(event.study, event.site) for event in events] == [(first, "ana"), (second, "bob")]
    assert dict(events[1].details)["hash"] == "0x" + sha256(b"second").hexdigest()
    assert dict(events[0].details)["sites"] == ",".join(GLORE_TERMS.sites)
    assert sites["ana"].list_proposals(first) == events[1:]
    assert sites["ana"].list_proposals(second) == ()


def test_a_mark_gives_what_was_written_since(sites: Sites) -> None:
    reader = sites.bench.ledger(None)
    mark, entries = reader.read_new(Mark())
    assert entries == tuple(reader.history())
    assert reader.read_new(mark) == (mark, ())
    study = sites.start()
    later, new = reader.read_new(mark)
    assert (*entries, *new) == tuple(reader.history())
    assert {get_study_number(entry) for entry in new} == {study}
    assert reader.read_new(later) == (later, ())
    assert reader.read_new(Mark()) == (later, (*entries, *new))
