"""Masked sums over different parties, put together, show no site and no two sites, to nobody and no member."""

from __future__ import annotations

from collections.abc import Iterable

from coterie_node.privacy.parties import PooledSum, judge_parties


def pooled(sites: str, missing: str = "", changed: str = "", study: str = "first") -> PooledSum:
    labels = {site: f"{site}-new" if site in changed else site for site in sites}
    return PooledSum(study, labels, frozenset(missing))


def refused(new: PooledSum, past: Iterable[PooledSum] = ()) -> str:
    objection = judge_parties(new, list(past))
    return "" if objection is None else objection.subject


def test_a_sum_over_three_passes_and_one_over_two_does_not() -> None:
    assert refused(pooled("abc")) == ""
    assert refused(pooled("ab")) == "a,b"


def test_one_site_more_while_the_others_stay_the_same_is_refused() -> None:
    objection = judge_parties(pooled("abcd"), [pooled("abc")])
    assert objection is not None
    assert objection.subject == "d"
    assert "what d holds alone" in objection.sentence
    assert "'first'" in objection.sentence
    assert "wait until two" in objection.sentence


def test_one_site_fewer_is_refused() -> None:
    assert refused(pooled("abc"), [pooled("abcd")]) == "d"


def test_two_sites_exchanged_are_refused() -> None:
    assert refused(pooled("abcde"), [pooled("abc")]) == "d,e"
    assert refused(pooled("abcd"), [pooled("abce")]) == "d,e"


def test_one_site_more_passes_when_two_of_the_others_have_new_patients() -> None:
    assert refused(pooled("abcd", changed="ab"), [pooled("abc")]) == ""
    assert refused(pooled("abcd", changed="abc"), [pooled("abc")]) == ""
    assert refused(pooled("abcd", changed="a"), [pooled("abc")]) == "a,d"


def test_a_refresh_at_one_or_two_sites_shows_their_new_patients() -> None:
    assert refused(pooled("abc", changed="a"), [pooled("abc")]) == "a"
    assert refused(pooled("abcd", changed="ab"), [pooled("abcd")]) == "a,b"
    assert refused(pooled("abcd", changed="abc"), [pooled("abcd")]) == ""


def test_a_member_takes_its_own_rows_off() -> None:
    """Everybody is left with three sites of the difference; the member who is one of them is left with two."""
    assert refused(pooled("abcd", changed="abc"), [pooled("abc")]) == ""
    assert refused(pooled("abc", changed="ab"), [pooled("abc")]) == "a,b"


def test_the_honest_three_run_again_without_the_liar() -> None:
    assert refused(pooled("nsw"), [pooled("nswl", missing="l")]) == ""


def test_a_spoiled_sum_is_known_to_the_one_who_spoiled_it() -> None:
    """Four runs with changing partners, each spoiled by m: m had each of the others alone."""
    runs = ["abcm", "abdm", "acdm"]
    past = [pooled(run, missing="m", study=run) for run in runs]
    assert refused(pooled("bcdm"), past) != ""
    assert refused(pooled("acdm"), past[:2]) == ""


def test_a_third_party_may_not_use_what_a_liar_knows() -> None:
    assert refused(pooled("abm"), [pooled("abcm", missing="m")]) == "c"
    assert refused(pooled("abm"), [pooled("abcm", missing="mc")]) == ""


def test_a_sum_that_two_spoiled_is_known_to_nobody() -> None:
    assert refused(pooled("abcd"), [pooled("abcde", missing="de")]) == ""


def test_the_same_study_again_shows_nothing_new() -> None:
    assert refused(pooled("abc"), [pooled("abc")]) == ""
