"""COLA-GLM and its secure form on the ledger: the properties of a learner, a site that is silent, one that cheats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners import strata
from support.learners.strata import FULL, N
from support.node.worlds import World, sweep, until

from coterie_chain.ledger.protocol import State
from coterie_learners.cola import secure_cola
from coterie_learners.cola.cola import COLA
from coterie_learners.core.disclosure import Ruling
from coterie_learners.errors import ProtocolError, WrongPost
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.errors import StudyStopped
from coterie_node.release.gate import Gate, Release
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import simulate

CODES = strata.draw(N)


def reference(study: Study, terms: tuple[str, ...] | None = None) -> Reference:
    want, names = strata.pooled(study, CODES), terms or Design(study).names
    return Reference(
        dict(zip(names, want.params.tolist(), strict=True)), dict(zip(names, want.bse.tolist(), strict=True))
    )


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        pytest.param(f"died ~ {FULL}", {}, marks=pytest.mark.long),
        (f"died ~ {FULL}", {"link": "probit", "cells": True}),
        (f"visits ~ {FULL} + offset(years)", {"family": "quasipoisson"}),
        pytest.param(f"stay ~ {FULL}", {"family": "gaussian"}, marks=pytest.mark.long),
    ],
)
def test_cola_has_every_property_of_a_learner(formula: str, options: dict[str, Any]) -> None:
    study = strata.study(formula, **options)
    report = check_learner(study, strata.split(study, CODES), reference(study))
    assert (report.learner, report.records, report.server_steps, report.unchecked) == ("cola", 5, 1, 0)
    assert (report.restarts, report.order_difference) == (5, 0.0)
    assert set(report.disclosed) == {"table"}


@pytest.mark.parametrize("scheme", ["masks", "bfv", "newton", *later("ckks")])
def test_secure_cola_has_every_property_of_a_learner(scheme: str) -> None:
    study = strata.study(f"died ~ {FULL}", 4, "secure_cola", scheme=scheme)
    report = check_learner(study, strata.split(study, CODES), reference(study))
    assert (report.unchecked, report.order_difference) == (0, 0.0)
    assert report.restarts == report.records
    shown = {topic: set(fields) for topic, fields in report.disclosed.items() if not topic.startswith("stats/")}
    shown = {topic.split("/")[0]: fields for topic, fields in shown.items()}
    assert ("agreement" in shown) == (scheme != "newton")
    assert shown.pop("agreement", {"masked"}) == {"masked"}
    ciphertexts = {"key": {"key"}, "table": {"bytes", "lengths"}, "opened": {"keys", "n", "cross", "outcome"}}
    assert shown == {"masks": {"table": {"masked"}}, "newton": {}}.get(scheme, ciphertexts)
    assert report.records == {"masks": 10, "bfv": 13, "ckks": 13}.get(scheme, report.records)


def test_the_gate_says_what_each_post_of_secure_cola_is() -> None:
    study = strata.study("died ~ male + smoker + stage", 3, "secure_cola", 5, opening="counts")
    gates = {name: Gate(study) for name in study.sites}
    releases: list[Release] = []
    for gate in gates.values():
        gate.watch = releases.append
    simulate(study, strata.split(study, CODES), gates=gates)
    rulings = {release.verdict.topic: (release.verdict.ruling, release.verdict.sentence) for release in releases}
    assert rulings["key"] == (Ruling.PASSED, "The public key goes to every member; it breaks no floor.")
    assert rulings["table"][0] == Ruling.SUMS_ONLY
    assert rulings["opened"] == (
        Ruling.PASSED,
        "The decrypted table, summed over all sites goes to every member; it breaks no floor.",
    )
    assert rulings["labels"][0] == Ruling.PASSED
    opened = ("opening", "opening/2", "agreement")
    assert {rulings[topic][0] for topic in opened} == {Ruling.SUMS_ONLY}
    assert len(releases) == 17


# On the record


def world(learner: str, count: int = 4, silence: str = "exclude", **options: Any) -> World:
    study = strata.study(f"died ~ {FULL}", count, learner, **options)
    rules = {**study.ledger.model_dump(), "silent_site": silence}
    of = Study.model_validate({**study.model_dump(), "ledger": rules})
    learners = {"cola": COLA, "secure_cola": secure_cola.SECURE_COLA}
    return World(of, strata.split(of, CODES), learners[learner].script)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["masks", "bfv"])
def test_a_site_missing_at_the_sum_makes_the_others_post_anew_under_fresh_masks_on_record(scheme: str) -> None:
    here = world("secure_cola", scheme=scheme)
    crew = here.crew()
    others = {name: runner for name, runner in crew.items() if name != "south"}
    until(lambda: len(here.records("each")) == 3, others.values())
    first = {r.site: here.payload(r) for r in here.records("each")}
    here.late()
    sweep(others.values())
    assert here.view().state == State.COMPLETED
    assert [dict(e.details)["silent"] for e in here.events("SiteExcluded")] == ["south"]
    second_posts = {r.site: here.payload(r) for r in here.records("each") if r.post.attempt == 1}
    assert set(second_posts) == set(first) == {"north", "east", "west"}
    name = "masked" if scheme == "masks" else "bytes"
    assert all(np.mean(first[s][name][:1000] == second_posts[s][name][:1000]) < 0.3 for s in second_posts)
    rest = np.r_[0:150, 300:N]
    kept = {n: v[rest] for n, v in CODES.items()}
    want = strata.pooled(here.study, kept, strata.matrix(kept))
    fit = here.rerun("north")
    np.testing.assert_allclose(fit.estimates, want.params, rtol=0, atol=1e-10)
    auditor = here.auditor()
    sweep([auditor])
    assert (auditor.done, auditor.machine.difference) == (True, 0.0)


def test_with_three_sites_a_missing_one_ends_the_study() -> None:
    here = world("secure_cola", 3, scheme="masks")
    others = [runner for name, runner in here.crew().items() if name != "south"]
    until(lambda: len(here.records("each")) == 2, others)
    here.late()
    with pytest.raises(StudyStopped, match=r"silent past the deadline\. The site at fault is south"):
        sweep(others)


def test_a_forged_sum_is_named_by_everybody() -> None:
    here = world("secure_cola", 3, "wait")
    crew = here.crew()
    until(lambda: (o := here.view().open) is not None and o.position == 2, crew.values())
    cheat = here.view().open.posters[0]  # type: ignore[union-attr]

    def change(payload: dict[str, Any]) -> None:
        payload["bytes"][-100] ^= 1

    here.forge(cheat, change)
    for name in (n for n in here.study.sites if n != cheat):
        with pytest.raises(WrongPost) as caught:
            sweep([crew[name]])
        assert caught.value.site == cheat


def test_a_forged_table_that_no_rows_have_ends_the_study() -> None:
    here = world("cola", 3)
    crew = here.crew()

    def change(payload: dict[str, Any]) -> None:
        payload["outcome"] += 10_000

    here.forge("south", change)
    raised: list[Exception] = []
    for runner in (crew["north"], crew["east"]):
        try:
            sweep([crew["north"], runner])
        except (ProtocolError, StudyStopped) as error:
            raised.append(error)
    assert isinstance(raised[0], ProtocolError)
    assert (raised[0].code, raised[0].site) == ("CO-P504", "south")


def test_a_restarted_holder_still_has_its_key() -> None:
    here = world("secure_cola", 3)
    crew = here.crew()
    until(lambda: (o := here.view().open) is not None and o.position == 3, crew.values())
    fresh: dict[str, Runner] = here.crew()
    sweep(fresh.values())
    assert here.view().state == State.COMPLETED
    want = strata.pooled(here.study, CODES)
    np.testing.assert_allclose(here.rerun("east").estimates, want.params, atol=1e-10)


def test_sites_of_a_few_rows_take_part_where_the_study_lets_them() -> None:
    study = strata.study("died ~ male + smoker", 3, "secure_cola", scheme="masks")
    sizes = [1, N - 2, 1]
    report = check_learner(study, strata.split(study, CODES, sizes), _few_counts_study(study), tolerance=1e-10)
    assert report.estimate_difference < 1e-10


def _few_counts_study(study: Study) -> Reference:
    want = strata.pooled(study, CODES, strata.matrix(CODES)[:, :3])
    names = Design(study).names
    return Reference(
        dict(zip(names, want.params.tolist(), strict=True)), dict(zip(names, want.bse.tolist(), strict=True))
    )
