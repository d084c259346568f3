"""The referee passes every history that the rules allow, and names the first entry of one that they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256

import pytest
from chain.ledger.test_ledger_conformance import SCENARIOS
from support.chain.bench import GLORE_TERMS, MemoryBench, Sites

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ledger.history_check import HistoryCheck, check_history
from coterie_chain.ledger.protocol import Event, Head, Ledger, Record

Entries = list[Record | Event]
OTHER = sha256(b"other").digest()


def play(scenario: Callable[[Sites], int]) -> Ledger:
    """A ledger on which the scenario happened."""
    sites = Sites(MemoryBench())
    scenario(sites)
    return sites["ana"]


def check_entries(ledger: Ledger, entries: Iterable[Record | Event]) -> HistoryCheck:
    return check_history(entries, {name: head.genesis for name, head in ledger.heads().items()})


def is_honest(ledger: Ledger, judged: HistoryCheck) -> bool:
    """Whether the state that a history leads to is the ledger's."""
    return (judged.heads, judged.sites()) == (ledger.heads(), ledger.sites()) and all(
        study in judged.rules.studies and judged.view(study) == ledger.view(study) for study in ledger.studies()
    )


def is_detected(ledger: Ledger, entries: Entries) -> bool:
    try:
        return not is_honest(ledger, check_entries(ledger, entries))
    except LedgerMismatch as error:
        return error.code == "CO-C340"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_honest_history_passes(scenario: Callable[[Sites], int]) -> None:
    ledger = play(scenario)
    assert is_honest(ledger, check_entries(ledger, ledger.history()))


# What changes neither a state nor a hash chain leaves no trace but its log.
TRACELESS = {
    *("StudyPaused", "Disputed", "ResumeVoted", "StudyResumed", "KeyOffered"),
    *("SiteAttested", "VoteWithdrawn"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_entry_can_be_left_out_or_repeated(scenario: Callable[[Sites], int]) -> None:
    ledger = play(scenario)
    entries = list(ledger.history())
    for i, entry in enumerate(entries):
        if isinstance(entry, Record) or entry.name not in TRACELESS:
            assert is_detected(ledger, entries[:i] + entries[i + 1 :]), f"left out: {entry}"
            assert is_detected(ledger, [*entries[: i + 1], entry, *entries[i + 1 :]]), f"repeated: {entry}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_record_can_be_changed(scenario: Callable[[Sites], int]) -> None:
    ledger = play(scenario)
    entries = list(ledger.history())
    for i, entry in enumerate(entries):
        if not isinstance(entry, Record):
            continue
        post = entry.post
        posts = [replace(post, sha256=OTHER), replace(post, verdict=OTHER), replace(post, basis=OTHER)]
        posts += [replace(post, size=post.size + 1), replace(post, converged=not post.converged)]
        posts += [replace(post, position=post.position + 1), replace(post, attempt=post.attempt + 1)]
        changed = [replace(entry, post=p) for p in posts]
        changed += [
            replace(entry, head=OTHER),
            replace(entry, seq=entry.seq + 1),
            replace(entry, round=entry.round + 1),
        ]
        changed += [replace(entry, kind="only:ana"), replace(entry, site="bob" if entry.site != "bob" else "ana")]
        changed += [replace(entry, post=replace(post, cid="no cid")), replace(entry, site="nobody")]
        for forged in changed:
            assert is_detected(ledger, [*entries[:i], forged, *entries[i + 1 :]]), f"changed: {forged}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_event_can_be_credited_to_another_site(scenario: Callable[[Sites], int]) -> None:
    ledger = play(scenario)
    entries = list(ledger.history())
    for i, entry in enumerate(entries):
        if isinstance(entry, Event) and entry.name in {"StudyStarted", "StudyCompleted", "SiteExcluded", "SiteRevoked"}:
            forged = replace(entry, site="bob" if entry.site != "bob" else "ana")
            assert is_detected(ledger, [*entries[:i], forged, *entries[i + 1 :]]), f"credited: {forged}"


def expect_refusal(scenario: Callable[[Sites], int], change: Callable[[Entries], Entries], words: str) -> None:
    ledger = play(scenario)
    with pytest.raises(LedgerMismatch, match=words):
        check_entries(ledger, change(list(ledger.history())))


def find_event(entries: Entries, name: str) -> int:
    return next(i for i, e in enumerate(entries) if isinstance(e, Event) and e.name == name)


def play_short_study(sites: Sites) -> int:
    study = sites.start(replace(GLORE_TERMS, max_rounds=1))
    sites.step(study)
    sites.step(study)
    return study


def test_the_first_bad_entry_is_named_with_its_place() -> None:
    def late(entries: Entries) -> Entries:
        first = next(i for i, e in enumerate(entries) if isinstance(e, Record))
        return [*entries[:first], replace(entries[first + 1], block=77, tx="0xabc"), *entries[first:]]

    expect_refusal(
        play_short_study,
        late,
        r"record 1 of bob \(study 1, position 0; block \d+\): the rules refuse it: Overwrite\(\)",
    )


def test_a_record_out_of_turn_is_refused() -> None:
    def out_of_turn(entries: Entries) -> Entries:
        last = entries[-1]
        assert isinstance(last, Record)
        return [*entries[:-2], replace(last, site="cyd", seq=2)]

    expect_refusal(play_short_study, out_of_turn, r"record 2 of cyd .*NotYourTurn\(1\)")


def test_an_outcome_without_a_cause_is_refused() -> None:
    expect_refusal(
        play_short_study, lambda es: [*es, Event("StudyResumed", 1, "ana", (), 99, 0, "")], "nothing that came before"
    )
    expect_refusal(
        play_short_study, lambda es: [*es, Event("SiteRevoked", 0, "ana", (), 99, 0, "")], "nothing that came before"
    )


def test_a_missing_outcome_is_refused() -> None:
    def unstarted(entries: Entries) -> Entries:
        at = find_event(entries, "StudyStarted")
        return entries[:at] + entries[at + 1 :]

    expect_refusal(play_short_study, unstarted, "record 1 of ana .*StudyStarted must come here")
    expect_refusal(
        play_short_study, lambda es: es[: find_event(es, "StudyStarted")], "ends where StudyStarted must follow"
    )
    expect_refusal(play_short_study, lambda es: es[:-1], "ends where the record that completes the study must follow")
    expect_refusal(play_short_study, lambda es: [*es[:-2], es[-1]], "its completion is None, and must be")


def test_another_genesis_breaks_the_first_record() -> None:
    ledger = play(play_short_study)
    with pytest.raises(LedgerMismatch, match=r"record 1 of ana .*hash chain"):
        check_history(ledger.history(), dict.fromkeys(ledger.heads(), OTHER))
    with pytest.raises(LedgerMismatch, match="cannot be read"):
        check_history(ledger.history(), {})


def test_terms_that_the_catalog_refuses_are_refused() -> None:
    def timeless(entries: Entries) -> Entries:
        at = find_event(entries, "StudyProposed")
        event = entries[at]
        assert isinstance(event, Event)
        details = tuple((k, 0 if k == "timeout" else v) for k, v in event.details)
        return [*entries[:at], replace(event, details=details), *entries[at + 1 :]]

    expect_refusal(
        play_short_study, timeless, r"StudyProposed by ana \(study 1, block \d+\): the rules refuse it: BadTerms"
    )


def test_an_empty_history_is_one() -> None:
    assert check_history([], {}).heads == {}


def test_heads_of_sites_without_records_are_their_genesis() -> None:
    ledger = play(lambda sites: 0)
    judged = check_entries(ledger, ledger.history())
    first = {name: head.genesis for name, head in ledger.heads().items()}
    assert judged.heads == {name: Head(g, 0, g) for name, g in first.items()}


# A fault of one study, where another one is asked about


def play_two_studies(sites: Sites) -> int:
    """Two studies side by side; the second runs to its end."""
    first, second = sites.start(), sites.start(replace(GLORE_TERMS, max_rounds=1))
    sites.step(first)
    for _ in range(2):
        sites.step(second)
        sites.step(first)
    return second


@pytest.mark.parametrize("name", ["StudyJoined", "StudyStarted"])
@pytest.mark.parametrize("changed", ["left out", "altered"])
def test_a_fault_of_another_study_stays_there(name: str, changed: str) -> None:
    ledger = play(play_two_studies)
    entries = list(ledger.history())
    k = find_event(entries, name)
    event = entries[k]
    assert isinstance(event, Event)
    rest = [replace(event, name="StudyResumed")] if changed == "altered" else []
    spoiled = [*entries[:k], *rest, *entries[k + 1 :]]
    firsts = {site: head.genesis for site, head in ledger.heads().items()}
    with pytest.raises(LedgerMismatch):
        check_history(spoiled, firsts)
    with pytest.raises(LedgerMismatch):
        check_history(spoiled, firsts, study=1)
    judged = check_history(spoiled, firsts, study=2)
    assert set(judged.spoiled) == {1}
    assert (judged.heads, judged.sites()) == (ledger.heads(), ledger.sites())
    assert judged.view(2) == ledger.view(2)


def test_a_record_of_a_spoiled_study_still_extends_its_site_s_hash_chain() -> None:
    ledger = play(play_two_studies)
    entries = list(ledger.history())
    k = find_event(entries, "StudyStarted")
    last = next(i for i, e in reversed(list(enumerate(entries))) if isinstance(e, Record) and e.post.study == 1)
    firsts = {site: head.genesis for site, head in ledger.heads().items()}
    record = entries[last]
    assert isinstance(record, Record)
    for altered in (replace(record, head=OTHER), replace(record, seq=99)):
        forged = [*entries[:last], altered, *entries[last + 1 :]]
        with pytest.raises(LedgerMismatch, match=r"hash chain|sequence number"):
            check_history([*forged[:k], *forged[k + 1 :]], firsts, study=2)
