"""Secure join and Secure Lasso over the real runner: the result, what each party sees, and how it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sklearn.linear_model import Lasso
from support.lanes import later
from support.learners import joins
from support.learners.joins import JoinCohort
from support.node.worlds import World, sweep

from coterie_chain.ledger.protocol import Record, State
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Sealed, Site
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import DataError, LearnerError, ProtocolError, StudyError
from coterie_learners.secure import masked_rows, secure_join
from coterie_learners.secure.lasso_plan import LassoPlan
from coterie_learners.secure.lasso_result import UNSEEN, check_result
from coterie_learners.secure.secure_join import JoinPlan
from coterie_learners.secure.secure_lasso import SECURE_LASSO
from coterie_learners.shares.session import Keystream, Session
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns, Rows
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.replay import replay
from coterie_node.demo.cases import secure_lasso as nhefs_columns
from coterie_node.errors import ReleaseRefused, StudyStopped
from coterie_node.peers import interactive_session
from coterie_node.peers.interactive_session import MemoryTransport, SessionChannel
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate

ALPHA, INTERACTIVE = 0.5, 5


class Tap(MemoryTransport):
    """A hub that keeps every message as (sender, receiver, bytes)."""

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__(seconds)
        self.log: list[tuple[str, str, bytes]] = []

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> SessionChannel:
        inner, log = super().channel(me, session, parties), self.log

        class Tapped:
            def send(self, to: str, data: bytes) -> None:
                log.append((me, to, data))
                inner.send(to, data)

            def receive(self, sender: str) -> bytes:
                return inner.receive(sender)

            def connect(self, seconds: float) -> tuple[str, ...]:
                return inner.connect(seconds)

            def close(self) -> None:
                inner.close()

            def abandon(self) -> None:
                inner.abandon()

        return Tapped()


def world(c: JoinCohort, seconds: float = 30.0) -> World:
    """A study that all have joined; the hub records what the parties say to each other."""
    rows = cast("dict[str, Rows]", {name: c.data.get(name) for name in c.study.sites})
    w = World(c.study, rows, SECURE_LASSO.script)
    w.hub = Tap(seconds)
    return w


def pooled(c: JoinCohort, alpha: float = ALPHA) -> Reference:
    """scikit-learn's Lasso on the joint patients."""
    fit = Lasso(alpha=alpha, tol=1e-12, max_iter=10**6).fit(c.x, c.y)
    names = ["(Intercept)", *(f"x{j}" for j in range(c.x.shape[1]))]
    return Reference(dict(zip(names, [float(fit.intercept_), *fit.coef_.tolist()], strict=True)))


def run_to_end(w: World, names: tuple[str, ...] = ()) -> dict[str, LearnerError | None]:
    """Turns until nobody can go on; the error that each site got."""
    crew = w.crew(names or None)
    found: dict[str, LearnerError | None] = dict.fromkeys(crew)
    while any(found[name] is None and not runner.done for name, runner in crew.items()):
        moved = False
        for name, runner in crew.items():
            if found[name] is None and not runner.done:
                talking = runner.talking
                try:
                    moved |= runner.turn() or talking or runner.talking
                except LearnerError as error:
                    found[name] = error
                    moved = True
                except StudyStopped as error:
                    found[name] = StudyError("stopped", error.message)
        if not moved:
            break
    return found


# The result

CASES: dict[str, Callable[[], JoinCohort]] = {
    "two owners": lambda: joins.cohort(alpha=ALPHA),
    "three owners": lambda: joins.cohort(owners=("ana", "bob", "eve"), columns=5, alpha=ALPHA, seed=3),
    "an owner named after the helper": lambda: joins.cohort(owners=("zoe", "ana"), helper="hub", alpha=ALPHA, seed=4),
    "rows at three sites": lambda: joins.rows_cohort(alpha=ALPHA),
    "rows at five sites": lambda: joins.rows_cohort(sites=5, n=200, alpha=ALPHA),
}
SPLITS = ("rows at three sites",)


@pytest.mark.long
@pytest.mark.parametrize("name", ["two owners", "three owners", "rows at five sites"])
def test_many_blocks_give_the_bytes_and_the_fit_of_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = CASES[name]()
    _, runners, _ = simulate(c.study, c.data)
    monkeypatch.setattr(masked_rows, "_NUMBERS", 100)
    report = check_learner(c.study, c.data, pooled(c), tolerance=5e-4)
    assert report.estimate_difference < 5e-4
    w = run_study(c)
    once, blocks = (
        runners["hub" if "hub" in runners else "s0"].machine.result,
        replay(w.ledger(), w.blobs, w.number).fit,
    )
    assert np.allclose(once.estimates, blocks.estimates, rtol=0.0, atol=1e-7)
    sessions = [fit.details["interactive"] for fit in (once, blocks)]
    assert sessions[0]["rounds"] == sessions[1]["rounds"]
    assert sessions[0]["bytes_sent"] == sessions[1]["bytes_sent"]


@pytest.mark.long
def test_folds_rows_held_out_and_absolute_errors_come_from_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    c = joins.cohort(200, alpha=(ALPHA,), folds=3, held_out=0.25, absolute_error=True)
    monkeypatch.setattr(masked_rows, "_NUMBERS", 150)
    fit = simulate(c.study, c.data)[1]["ana"].machine.result
    (fitted,), (held_out,) = fit.details["mae"]
    assert fit.details["held_out"]["n"] == 50
    residuals = c.y - np.column_stack([np.ones(len(c.y)), c.x]) @ fit.estimates
    assert 0.75 * fitted + 0.25 * held_out == pytest.approx(np.abs(residuals).mean(), rel=1e-3)
    squares = 0.75 * fit.details["mse"][0] + 0.25 * fit.details["held_out"]["mse"][0]
    assert squares == pytest.approx((residuals**2).mean(), rel=1e-6)


def test_an_owner_whose_blocks_are_not_those_it_posted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = masked_rows.send_blocks

    def send(link: JoinPlan, session: Session, blocks: Iterator[bytes], post: Payload) -> None:
        if session.me != "ana":
            honest(link, session, blocks, post)
            return
        for block in blocks:
            session.send(link.helper, block[:-1] + bytes([block[-1] ^ 1]))

    monkeypatch.setattr(masked_rows, "send_blocks", send)
    w = world(joins.cohort(alpha=ALPHA), seconds=2.0)
    error = run_to_end(w)["hub"]
    assert isinstance(error, ProtocolError)
    assert (error.code, error.site) == ("CO-P655", "ana")
    assert not results(w)


@pytest.mark.parametrize("name", [*SPLITS, *later(*(name for name in CASES if name not in SPLITS))])
def test_it_obeys_and_equals_the_pooled_fit(name: str) -> None:
    c = CASES[name]()
    report = check_learner(c.study, c.data, pooled(c), tolerance=5e-4)
    assert report.estimate_difference < 5e-4
    assert report.restarts > 2


@pytest.mark.long
def test_it_runs_on_nhefs_as_the_demo_splits_it(tmp_path: Path) -> None:
    sites = ("west", "north", "east")
    study = complete_study(Study.from_toml(nhefs_columns.CASE.study_text(sites)))
    found = analyse(study, nhefs_columns.CASE.write_sites(tmp_path, sites))
    reference = nhefs_columns.CASE.pooled()
    assert reference.differences(found.fit)["max_abs_estimate"] < 5e-4
    zeros = {t for t, v in reference.estimates.items() if v == 0}
    assert {t for t, v in zip(found.fit.terms, found.fit.estimates.tolist(), strict=True) if v == 0} == zeros
    assert found.replay is not None
    assert (found.replay.verdict, found.replay.grade) == ("RECORD INTACT", "opened results")
    assert "opened results" in found.text()


@pytest.mark.long
def test_everybody_ends_with_the_same_figures_and_the_ledger_holds_their_account() -> None:
    c = joins.cohort(200, alpha=(2.0, ALPHA), folds=3, held_out=0.2, absolute_error=True, show="path")
    w = world(c)
    crew = w.crew()
    sweep(crew.values())
    fits = [crew[name].machine.result for name in c.study.sites]
    assert w.view().state == State.COMPLETED
    assert [f.details for f in fits[1:]] == [fits[0].details] * 2
    details = fits[0].details
    assert (len(details["coefficients"]), len(details["cross_validation_mse"]), details["held_out"]["n"]) == (2, 2, 40)
    assert fits[0].n == 160
    bytes_sent = {name: sum(len(d) for a, _, d in w.hub.log if a == name) for name in c.study.sites}  # type: ignore
    site_errors = details["interactive"]["bytes_sent"]
    # What the parties compare at the end is not part of what they compare.
    assert all(0 < bytes_sent[name] - site_errors[name] < 1000 for name in site_errors)
    assert len(details["interactive"]["transcript"]) == 64
    assert details["alpha"] == details["alphas"][int(np.argmin(details["cross_validation_mse"]))]


@pytest.mark.long
def test_without_cross_validation_s_best_nothing_of_the_path_is_shown() -> None:
    c = joins.cohort(200, alpha=(5.0, ALPHA, 0.1), folds=3)
    _, runners, _ = simulate(c.study, c.data)
    details = runners["hub"].machine.result.details
    assert len(details["coefficients"]) == 1
    assert len(details["cross_validation_mse"]) == 3


def respell_names(columns: OwnColumns, wrong: bool) -> OwnColumns:
    """The same patients with a number each; every tenth joint patient's name is spelled in another way if `wrong`."""
    rows = []
    for given_name, _ in columns.identifiers:
        name, number = given_name.rsplit(" ", 1)
        other = wrong and name == "Pat" and number.endswith("0")
        rows.append(("Patt" if other else name, f"{name}{number}"))
    return replace(columns, identifiers=tuple(rows))


def rename_patients(columns: OwnColumns) -> OwnColumns:
    """The same rows, in which every tenth joint patient is nobody of another site."""
    tenth = [given_name.startswith("Pat ") and given_name.endswith("0") for given_name, _ in columns.identifiers]
    rows = (
        (f"Nobody {given_name}" if other else given_name, born)
        for other, (given_name, born) in zip(tenth, columns.identifiers, strict=True)
    )
    return replace(columns, identifiers=tuple(rows))


def shouted(columns: OwnColumns, every: int) -> OwnColumns:
    """The same patients; every so many have their name in capitals."""
    rows = (
        (given_name.upper() if k % every == 0 else given_name, born)
        for k, (given_name, born) in enumerate(columns.identifiers)
    )
    return replace(columns, identifiers=tuple(rows))


@pytest.mark.parametrize("linkage_by", ["masks", *later("paillier")])
def test_owners_learn_how_many_matches_rest_on_other_spellings_and_a_bound_stops_the_study(linkage_by: str) -> None:
    c = joins.cohort(40, columns=2, extra=0, alpha=ALPHA, linkage=linkage_by, check_every=0, max_iterations=5)
    data = {**c.data, "ana": shouted(cast(OwnColumns, c.data["ana"]), 4)}
    _, runners, _ = simulate(c.study, data)
    said = "Linkage: of 40 rows of {}, 40 have a match. "
    said += "10 of their identifiers are written differently at some site (given 10)"
    for name in ("ana", "bob"):
        assert said.format(name) in runners[name].machine.result.notes[-1]
    strict = Study.model_validate({**c.study.model_dump(), "linkage": {"spellings": 0.2}})
    with pytest.raises(StudyError, match="10 of 40 matches rest on identifiers that the sites spell") as caught:
        simulate(strict, data)
    assert caught.value.code == "CO-N251"


def test_the_helper_cannot_tell_from_hashes_of_spellings_who_is_born_in_one_year() -> None:
    c = joins.cohort(60, alpha=ALPHA)
    w = run_study(c)
    for owner in ("ana", "bob"):
        written = np.asarray(open_payload(w, "hub", f"rows/{owner}")["written"])
        born = {bytes(row) for row in written[:, 0]} | {bytes(row) for row in written[:, 1]}
        assert len(born) == 2 * len(written)


@pytest.mark.parametrize("linkage_by", ["masks", *later("paillier")])
def test_a_helper_answers_one_question_only_whatever_an_owner_does_in_a_reorganisation(linkage_by: str) -> None:
    """The difference of two answers would tell an owner which of its patients the others have."""
    c = joins.cohort(linkage=linkage_by, alpha=ALPHA)
    gate = Gate(c.study)
    answers: list[object] = []
    for data in (c.data, {**c.data, "ana": rename_patients(cast(OwnColumns, c.data["ana"]))}):
        w = world(replace(c, data=data))
        crew = w.crew()
        crew["hub"]._gate = gate
        while (open_ := w.view().open) is not None and open_.position < 4:
            try:
                sweep([crew["ana"], crew["bob"]])
                crew["hub"].turn()
            except ReleaseRefused as refused:
                answers.append(refused.code)
                break
        answers.append(len([r for r in w.records() if r.site == "hub"]))
    assert answers == [2, "CO-R302", 1]


@pytest.mark.long
def test_a_second_pass_finds_what_the_first_one_misses() -> None:
    found = []
    for passes in ((("given", "born"),), (("given", "born"), ("given:phonetic", "born"))):
        c = joins.cohort(120, alpha=ALPHA, passes=passes)
        data = {
            name: respell_names(cast(OwnColumns, columns_of_site), name == "bob")
            for name, columns_of_site in c.data.items()
        }
        _, runners, _ = simulate(c.study, data)
        found.append(runners["ana"].machine.result)
    assert [fit.n for fit in found] == [108, 120]
    assert pooled(c).differences(found[1])["max_abs_estimate"] < 5e-4


@pytest.mark.long
def test_rows_encrypted_under_their_owner_s_key_give_the_same_fit() -> None:
    pytest.importorskip("tno.mpc.encryption_schemes.paillier")
    c = joins.cohort(30, columns=2, extra=4, alpha=ALPHA, linkage="paillier")
    w, runners, _ = simulate(c.study, c.data)
    assert pooled(c).differences(runners["ana"].machine.result)["max_abs_estimate"] < 5e-4
    assert replay(w.ledger(), w.blobs, w.number).verdict.verdict == "RECORD INTACT"


# What is seen


def open_payload(w: World, reader: str, topic: str) -> Payload:
    """A sealed post as one of its readers sees it."""
    runner = w.runner(reader)
    while True:
        step = runner.machine.awaits
        assert step is not None
        records = w.ledger().read_finished(w.number, runner.position)
        if step.topic == topic:
            assert records is not None
            return runner._codec.read(step, records[0], w.blobs)
        assert runner.turn()


def run_study(c: JoinCohort) -> World:
    w = world(c)
    sweep(w.crew().values())
    assert w.view().state == State.COMPLETED
    return w


def masked_blocks(w: World, owner: str) -> list[bytes]:
    """What an owner sent the helper that has a digest in its post."""
    posted = {bytes(digest) for digest in np.asarray(open_payload(w, "hub", f"rows/{owner}")["masked_blocks"])}
    log = cast(Tap, w.hub).log
    return [d for a, b, d in log if (a, b) == (owner, "hub") and hashlib.sha256(d).digest() in posted]


def chi_squared(raw: bytes) -> float:
    counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256)
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


@pytest.mark.long
def test_the_helper_sees_uniform_values_and_tags_that_mean_nothing_elsewhere() -> None:
    c = joins.cohort(300, alpha=ALPHA)
    first, second = run_study(c), run_study(joins.cohort(300, alpha=ALPHA + 0.1))
    seen = open_payload(first, "hub", "rows/ana")
    width = LassoPlan.of(c.study).numbers.width
    (block,) = masked_blocks(first, "ana")
    masked = np.frombuffer(block, np.uint8).reshape(-1, width)[:, :-1]
    assert len(masked) == 315 * 2
    assert chi_squared(masked.tobytes()) < 400  # 255 degrees of freedom
    tags = {bytes(t) for t in np.asarray(seen["tags"])[0]}
    assert len(tags) == 315
    other = {bytes(t) for t in np.asarray(open_payload(second, "hub", "rows/ana")["tags"])[0]}
    assert not tags & other
    both = {bytes(t) for t in np.asarray(open_payload(first, "hub", "rows/bob")["tags"])[0]}
    assert len(tags & both) == 300


def test_an_owner_sees_places_in_a_list_whose_order_it_does_not_know() -> None:
    c = joins.cohort(300, alpha=ALPHA)
    w = run_study(c)
    places = np.asarray(open_payload(w, "bob", "match/bob")["places"])
    assert sorted(places.tolist()) != list(range(300))
    assert len(set(places.tolist())) == 300
    # The places are those of the matched rows in ana's secret order, which no file's order shows.
    columns_of_site = c.data["ana"]
    assert isinstance(columns_of_site, OwnColumns)
    order = secure_join.permutation(Keystream(w.runner("ana").machine.site.stream("order", 32)), columns_of_site.n)
    common = {i for i, (given_name, _) in enumerate(columns_of_site.identifiers) if given_name.startswith("Pat")}
    assert {int(order[p]) for p in places} == common
    assert abs(np.corrcoef(order[places], np.arange(300))[0, 1]) < 0.2
    assert isinstance(open_payload(w, "ana", "match/bob"), Sealed)


@pytest.mark.long
def test_the_helper_has_no_part_in_the_owners_key() -> None:
    w = run_study(joins.cohort(alpha=ALPHA))
    hub = w.runner("hub").machine.site
    link = LassoPlan.of(w.study).link
    (terms,) = [w.ledger().read_finished(w.number, 0)]
    assert terms is not None
    posts = {r.site: w.payload(r) for r in terms}
    ana, bob = (
        secure_join.derive_owners_key(w.runner(name).machine.site, link, posts, "tags") for name in ("ana", "bob")
    )
    assert ana == bob
    with pytest.raises(ValueError, match="not in"):
        secure_join.derive_owners_key(hub, link, posts, "tags")
    assert not np.asarray(posts["hub"]["key"]).any()


def sizes(w: World) -> list[tuple[str, str, str]]:
    on_ledger = [(r.site, str(r.post.position), str(r.post.size)) for r in w.records() if r.kind != "each"]
    talk = [(a, b, str(len(d))) for a, b, d in cast(Tap, w.hub).log]
    return sorted(on_ledger) + sorted(talk)


@pytest.mark.long
def test_changing_a_row_without_a_match_changes_the_length_of_no_message() -> None:
    c = joins.cohort(alpha=ALPHA, check_every=0, max_iterations=30)
    columns_of_site = c.data["ana"]
    assert isinstance(columns_of_site, OwnColumns)
    alone = next(i for i, (given_name, _) in enumerate(columns_of_site.identifiers) if given_name.startswith("Only"))
    x, names = columns_of_site.x.copy(), list(columns_of_site.identifiers)
    x[alone] = -1.0
    names[alone] = ("Somebody with quite another and a much longer name", "1899")
    changed = replace(c, data={**c.data, "ana": replace(columns_of_site, x=x, identifiers=tuple(names))})
    assert sizes(run_study(c)) == sizes(run_study(changed))


@pytest.mark.long
def test_a_fit_at_which_nobody_looked_does_not_say_that_it_converged() -> None:
    """Three steps of a gradient method are not the Lasso, and the result must not look as if they were."""
    w = run_study(joins.cohort(alpha=ALPHA, check_every=0, max_iterations=3))
    fit = replay(w.ledger(), w.blobs, w.number).fit
    assert not fit.converged
    assert UNSEEN in fit.notes
    assert (fit.df_residual, fit.df_null) == (None, None)
    looked = run_study(joins.cohort(alpha=ALPHA))
    assert replay(looked.ledger(), looked.blobs, looked.number).fit.converged


def test_the_same_study_again_shows_other_bytes_in_every_message() -> None:
    """Masks that served twice would give differences away."""
    c = joins.cohort(alpha=ALPHA, check_every=0, max_iterations=5)
    w = world(c)
    sweep(w.crew().values())
    tap, again = cast(Tap, w.hub), Tap()
    first = {d for _, _, d in tap.log if len(d) > 60}
    position = max(r.post.position for r in w.records())
    crew = {name: w.runner(name) for name in c.study.sites}
    for runner in crew.values():
        while runner.position < position:
            runner.turn()
    with ThreadPoolExecutor(3) as pool:
        posts = list(
            pool.map(
                lambda n: crew[n].machine.draft(c.study.sites, 0, again.channel(n, "again", c.study.sites)),
                c.study.sites,
            )
        )
    assert len(posts) == 3
    assert not first & {d for _, _, d in again.log if len(d) > 60}


# Refusals


def results(w: World) -> list[Record]:
    """What was posted at the interactive step, behind the terms, two owners' rows and two matches."""
    return [r for r in w.records() if r.post.position == INTERACTIVE]


@pytest.mark.parametrize("joint", [0, 1, 39])
def test_the_number_of_too_few_joint_patients_reaches_nobody_and_nothing_is_opened(joint: int) -> None:
    c = joins.cohort(max(joint, 1), extra=60, alpha=ALPHA)
    if joint == 0:
        columns_of_site = c.data["bob"]
        assert isinstance(columns_of_site, OwnColumns)
        strangers = tuple((f"Other {k}", "1900") for k in range(columns_of_site.n))
        c = replace(c, data={**c.data, "bob": replace(columns_of_site, identifiers=strangers)})
    w = world(c)
    site_errors = run_to_end(w)
    codes = {e.code for e in site_errors.values() if e is not None}
    assert "CO-N241" in codes <= {"CO-N241", "stopped"}
    (first,) = {e.message for e in site_errors.values() if e is not None and e.code == "CO-N241"}
    assert "Fewer than 40 patients" in first
    assert not results(w)
    assert not cast(Tap, w.hub).log
    assert len(open_payload(w, "bob", "match/bob")["places"]) == 0
    assert w.view().state == State.ABORTED


def test_rows_below_the_floor_are_refused_before_anything_but_their_number_is_opened() -> None:
    c = joins.rows_cohort(n=30, sites=4, alpha=ALPHA)
    site_errors = run_to_end(world(c))
    assert "CO-N241" in {e.code for e in site_errors.values() if e is not None}


@pytest.mark.parametrize("dead", ["ana", *later("bob", "hub")])
def test_a_party_that_dies_before_the_computation_is_named_and_waited_for(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactive_session, "MEET_SECONDS", 0.02)
    w = world(joins.cohort(alpha=ALPHA))
    crew = w.crew()
    while (open_ := w.view().open) is not None and open_.position < INTERACTIVE:
        for runner in crew.values():
            runner.turn()
    alive = [runner for name, runner in crew.items() if name != dead]
    while any(runner.missing_parties != (dead,) for runner in alive):
        for runner in alive:
            runner.turn()
    assert not results(w)
    revived = w.runner(dead)
    sweep([*alive, revived])
    assert revived.machine.result is not None
    assert w.view().state == State.COMPLETED


def test_an_overflowing_value_is_stopped_at_its_owner_before_anything_leaves() -> None:
    c = joins.cohort(alpha=ALPHA)
    columns_of_site = c.data["ana"]
    assert isinstance(columns_of_site, OwnColumns)
    for wrong in (1.01, -7.0, np.nan, np.inf):
        x = columns_of_site.x.copy()
        x[3, 1] = wrong
        w = world(replace(c, data={**c.data, "ana": replace(columns_of_site, x=x)}))
        error = run_to_end(w, ("ana",))["ana"]
        assert isinstance(error, DataError)
        assert error.code == "CO-D343"
        assert not w.records()


def test_an_outcome_out_of_its_range_is_stopped_as_well() -> None:
    c = joins.cohort(alpha=ALPHA)
    columns_of_site = c.data["bob"]
    assert isinstance(columns_of_site, OwnColumns)
    assert columns_of_site.y is not None
    error = run_to_end(
        world(replace(c, data={**c.data, "bob": replace(columns_of_site, y=columns_of_site.y * 9)})), ("bob",)
    )["bob"]
    assert error is not None
    assert error.code == "CO-D343"


def ask_again(w: World, questions: int) -> World:
    """The same sites with the same memory, asked with another penalty."""
    options = {**w.study.learner.options, "alpha": (ALPHA / 2,), "questions": questions}
    plain = w.study.model_dump() | {"learner": {"name": "secure_lasso", **options}}
    again = World(complete_study(Study.model_validate(plain)), w.rows, SECURE_LASSO.script)
    again.vaults = w.vaults
    return again


def test_a_second_question_about_the_same_patients_is_refused_in_words() -> None:
    w = run_study(joins.cohort(alpha=ALPHA))
    site_errors = run_to_end(ask_again(w, 1))
    refused = [e for e in site_errors.values() if e is not None and e.code == "CO-N243"]
    assert refused
    assert "has answered 1 study on these patients" in refused[0].message
    allowed = ask_again(w, 2)
    assert all(e is None for e in run_to_end(allowed).values())


def test_a_question_that_was_not_answered_does_not_count() -> None:
    w = world(joins.cohort(20, extra=60, alpha=ALPHA))
    run_to_end(w)
    assert not any(key.startswith("questions/") for vault in w.vaults.values() for key in vault)


@pytest.mark.parametrize(
    "change", [lambda p: p.update(coefficients=p["coefficients"] + 1), lambda p: p.update(n=p["n"] + 1)]
)
def test_a_party_that_posts_another_result_is_noticed(change: Callable[[dict[str, Any]], None]) -> None:
    w = world(joins.cohort(alpha=ALPHA))
    crew = w.crew()
    while (open_ := w.view().open) is not None and open_.position < INTERACTIVE:
        for runner in crew.values():
            runner.turn()
    honest = crew["bob"].machine.draft

    def draft(parties: tuple[str, ...], attempt: int, channel: Any = None) -> Payload:
        payload = {k: np.array(v) for k, v in honest(parties, attempt, channel).items()}
        change(payload)
        return payload

    crew["bob"].machine.draft = draft  # type: ignore[method-assign]
    with pytest.raises(ProtocolError) as caught:
        sweep(crew.values())
    assert caught.value.code == "CO-P202"
    assert replay(w.ledger(), w.blobs, w.number).verdict.code == "CO-P202"


def test_a_helper_that_names_a_place_twice_is_refused() -> None:
    w = world(joins.cohort(alpha=ALPHA))
    crew = w.crew()
    while (open_ := w.view().open) is not None and open_.position < INTERACTIVE:
        for runner in crew.values():
            runner.turn()
    link, site = LassoPlan.of(w.study).link, crew["bob"].machine.site
    places = np.zeros(120, dtype=np.int64)
    posts = secure_join.JoinPosts({}, {}, {"bob": {"places": places, "enough": np.array(True)}})
    with pytest.raises(ProtocolError) as caught:
        secure_join.summand_of_owner(site, link, posts)
    assert (caught.value.code, caught.value.site) == ("CO-P652", "hub")


def test_owners_who_normalise_in_another_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(joins.cohort(alpha=ALPHA))
    w.forge("bob", lambda p: p.update(rules=p["rules"][::-1].copy()))
    site_errors = run_to_end(w, ("ana", "hub"))
    assert site_errors["ana"] is not None
    assert (site_errors["ana"].code, cast(ProtocolError, site_errors["ana"]).site) == ("CO-P651", "bob")


HOSTILE: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "CO-P108": ("bob", lambda p: p.update(commitment=p["commitment"][:5])),
    "CO-P106": ("hub", lambda p: p.pop("rules")),
}


@pytest.mark.parametrize("code", HOSTILE)
def test_a_post_of_another_form_names_its_site(code: str) -> None:
    site, change = HOSTILE[code]
    w = world(joins.cohort(alpha=ALPHA))
    w.forge(site, change)
    site_errors = run_to_end(w, tuple(name for name in w.study.sites if name != site))
    found = {(e.code, e.site) for e in site_errors.values() if isinstance(e, ProtocolError)}
    assert (code, site) in found


def test_a_result_that_no_computation_could_open_is_refused() -> None:
    plan = LassoPlan.of(joins.cohort(alpha=ALPHA).study)
    good = {"shown": np.array([0]), "n": np.array(120), "coefficients": np.zeros((1, 5)), "errors": np.zeros(1)}
    check_result(plan, good)
    for wrong in ({"shown": np.array([1])}, {"n": np.array(0)}, {"shown": np.array([], int)}, {"errors": np.zeros(2)}):
        with pytest.raises(ProtocolError) as caught:
            check_result(plan, {**good, **wrong})
        assert caught.value.code == "CO-P647"


def test_a_commitment_binds_every_value() -> None:
    c = joins.cohort(alpha=ALPHA)
    w, columns_of_site = world(c), c.data["ana"]
    assert isinstance(columns_of_site, OwnColumns)
    link, site = LassoPlan.of(c.study).link, w.runner("ana").machine.site
    one = secure_join.commit(site, link, lambda _: None)["commitment"]
    x = columns_of_site.x.copy()
    x[0, 0] += 1e-9
    other = secure_join.commit(replace(site, data=replace(columns_of_site, x=x)), link, lambda _: None)["commitment"]
    assert not np.array_equal(one, other)


# Studies


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("CO-S541", lambda: joins.study(2, {"a": ["x0", "y"], "b": ["x1"], "h": []}).model_copy(
            update={"formula": "y ~ x0 + x1 - 1"})),
        ("CO-S543", lambda: joins.study(2, {"a": ["x0", "y"], "b": ["x1"]})),
        ("CO-S543", lambda: joins.study(2, {"a": ["x0", "y"], "b": ["x1"], "g": [], "h": []})),
        ("CO-S543", lambda: joins.study(2, {}, "rows", ["a", "b"])),
        ("CO-S544", lambda: joins.study(2, {}, "rows", ["a", "b", "c"], absolute_error=True)),
        ("CO-S546", lambda: joins.study(2, {"a": ["x0", "y"], "b": ["x1"], "h": []}, passes=(("name",),))),
        ("CO-S404", lambda: joins.study(2, {}, "rows", ["a", "b", "c"], alpha=())),
        ("CO-S404", lambda: joins.study(2, {}, "rows", ["a", "b", "c"], alpha=-1.0)),
    ],
)  # fmt: skip
def test_studies_that_cannot_be_run_are_refused_in_words(code: str, made: Callable[[], Study]) -> None:
    with pytest.raises(StudyError) as caught:
        SECURE_LASSO.check(made())
    assert caught.value.code == code


def test_a_study_that_would_exclude_a_silent_party_is_refused() -> None:
    made = joins.study(2, {}, "rows", ["a", "b", "c"])
    with pytest.raises(StudyError) as caught:
        SECURE_LASSO.check(
            made.model_copy(update={"ledger": made.ledger.model_copy(update={"silent_site": "exclude"})})
        )
    assert caught.value.code == "CO-S542"


def describe_disclosure(linkage: str = "masks") -> str:
    study = joins.cohort(alpha=ALPHA, linkage=linkage).study
    return " ".join(line for lines in learner_of(study).discloses(study).paragraphs.values() for line in lines)


def test_each_party_reads_what_it_will_learn_before_it_consents() -> None:
    text = describe_disclosure()
    assert "The owner learns how many patients match, if they are at least 40" in text
    assert "hub learns how many rows" in text
    assert "hub must not collude with ana or bob: they can test identifiers, and read the rows of another owner" in text
    assert "Everybody learns the coefficients of 1 penalty" in text
    assert "No two of ana, bob, hub may collude" in text
    assert "own key even if" in describe_disclosure("paillier")


def test_a_site_without_rows_is_no_owner() -> None:
    c = joins.cohort(alpha=ALPHA)
    with pytest.raises(ProtocolError) as caught:
        secure_join.site_inputs(Site(c.study, "ana"), LassoPlan.of(c.study).link)
    assert caught.value.code == "CO-P302"
