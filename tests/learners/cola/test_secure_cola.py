"""secure-COLA-GLM equals COLA-GLM to the last bit, and shows nothing but the sum."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import tenseal
from scipy import stats
from support.lanes import diagonal
from support.learners import cohorts, strata
from support.learners.strata import FULL, N
from support.learners.table import MemoryProtocol

from coterie_learners.cola import encryption, masked_words, secure_cola
from coterie_learners.cola.cola import cola
from coterie_learners.core import masked_sum
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload, canonical, decode
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, ProtocolError, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes

SCHEMES = ("masks", "bfv", "ckks")
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "logit": (f"died ~ {FULL}", {}),
    "logit from cells": (f"died ~ {FULL}", {"cells": True}),
    "firth": (f"died ~ {FULL}", {"firth": True}),
    "probit, sandwich": (f"died ~ {FULL}", {"link": "probit", "robust": True}),
    "poisson with offset": (f"visits ~ {FULL} + offset(years)", {"family": "poisson"}),
    "quasipoisson": (f"visits ~ {FULL}", {"family": "quasipoisson"}),
    "gaussian": (f"stay ~ {FULL}", {"family": "gaussian"}),
    "multinomial": (f"went ~ {FULL}", {"family": "multinomial"}),
}


@cache
def codes() -> cohorts.Codes:
    return strata.draw() | {"went": np.random.default_rng(3).integers(0, 3, N).astype(float)}


FLOOR = 30
FEW = "male + smoker + stage"


def secure_study(model: str, count: int = 3, floor: int = 0, **options: Any) -> Study:
    formula, more = MODELS[model]
    if floor:
        formula = formula.replace(FULL, FEW)
    return strata.study(formula, count, "secure_cola", floor, **(more | options))


def play_study(study: Study, rows: cohorts.Codes | None = None) -> tuple[Fit, MemoryProtocol]:
    table = MemoryProtocol(secure_cola.secure_cola, study, strata.split(study, rows or codes()))
    results = table.play()
    assert len({fit.estimates.tobytes() + fit.std_errors.tobytes() for fit in results.values()}) == 1
    return results[study.sites[-1]], table


@pytest.mark.parametrize(("model", "scheme"), diagonal(list(MODELS), SCHEMES))
def test_the_fit_has_the_bits_of_cola(model: str, scheme: str) -> None:
    formula, more = MODELS[model]
    plain = strata.study(formula, 4, **more)
    want = MemoryProtocol(cola, plain, strata.split(plain, codes())).play()["north"]
    got, _ = play_study(secure_study(model, 4, scheme=scheme))
    # Sums of fractions are rounded in another order; whole numbers are not rounded at all.
    within = 0.0 if "binomial" in got.family or got.family == "multinomial" else 1e-13
    assert np.abs(got.estimates - want.estimates).max() <= within
    assert np.abs(got.std_errors - want.std_errors).max() <= within
    assert got.n == want.n
    assert got.deviance == pytest.approx(want.deviance, rel=1e-13)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_discrimination_on_the_sum_is_that_of_cola(scheme: str) -> None:
    plain = strata.study(f"died ~ {FULL}", cells=True)
    want = MemoryProtocol(cola, plain, strata.split(plain, codes())).play()["north"].details
    got, _ = play_study(secure_study("logit from cells", scheme=scheme))
    assert got.details["auc"] == pytest.approx(want["auc"], abs=1e-12)
    assert got.details["hosmer_lemeshow"]["chi2"] == pytest.approx(want["hosmer_lemeshow"]["chi2"], rel=1e-9)
    assert "heterogeneity" not in got.details


@pytest.mark.parametrize("model", ["logit", "poisson with offset", "gaussian"])
def test_newton_rounds_arrive_at_the_same_fit(model: str) -> None:
    formula, more = MODELS[model]
    plain = strata.study(formula, **more)
    want = MemoryProtocol(cola, plain, strata.split(plain, codes())).play()["north"]
    got, table = play_study(secure_study(model, scheme="newton"))
    np.testing.assert_allclose(got.estimates, want.estimates, rtol=0, atol=1e-10)
    np.testing.assert_allclose(got.std_errors, want.std_errors, rtol=0, atol=1e-10)
    assert got.deviance == pytest.approx(want.deviance, rel=1e-12)
    assert {name for post in table.posts("stats/0").values() for name in post} == {"masked"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_auditor_without_keys_recomputes_the_sum_and_the_fit(scheme: str) -> None:
    fit, table = play_study(secure_study("logit", scheme=scheme))
    auditor = table.auditor()
    assert auditor.checked == (1 if scheme == "masks" else 2)
    assert auditor.unchecked == 0
    assert auditor.result.estimates.tobytes() == fit.estimates.tobytes()


# Whether the sites agree


TESTED = ["logit", "firth", "probit, sandwich", "poisson with offset", "quasipoisson", "gaussian", "multinomial"]


@pytest.mark.parametrize(("model", "scheme"), diagonal(list(TESTED), SCHEMES))
def test_the_sites_agree_as_much_as_in_cola_and_one_masked_sum_says_so(model: str, scheme: str) -> None:
    formula, more = MODELS[model]
    plain = strata.study(formula, 4, **more)
    want = MemoryProtocol(cola, plain, strata.split(plain, codes())).play()["north"].details["agreement"]
    fit, table = play_study(secure_study(model, 4, scheme=scheme))
    got = fit.details["agreement"]
    assert (got["df"], len(got["terms"])) == (want["df"], len(fit.terms))
    assert got["chi2"] == pytest.approx(want["chi2"], rel=1e-8)
    assert [term["q"] for term in got["terms"]] == pytest.approx([term["q"] for term in want["terms"]], rel=1e-7)
    assert {name for post in table.posts("agreement").values() for name in post} == {"masked"}


@pytest.mark.parametrize("scheme", [*SCHEMES, "newton"])
def test_labels_turned_at_one_site_are_seen(scheme: str) -> None:
    rows = codes() | {"died": np.where(np.arange(N) < N // 3, 1.0 - codes()["died"], codes()["died"])}
    fit, _ = play_study(secure_study("logit", scheme=scheme), rows)
    assert fit.details["agreement"]["p"] < 1e-4
    assert any("do not agree on one model" in warning for warning in fit.warnings)


def test_the_test_stands_on_the_patterns_that_the_fit_stands_on() -> None:
    study = secure_study("logit", floor=FLOOR)
    fit, _ = play_study(study)
    keys, counts = np.unique(_keys(codes()), return_counts=True)
    shared = np.isin(_keys(codes()), keys[counts >= FLOOR])
    plain = strata.study(study.formula)
    parts = [ArrayCodes({n: v[shared[at]] for n, v in part.items()}) for part, at in _parts(study)]
    want = MemoryProtocol(cola, plain, dict(zip(study.sites, parts, strict=True))).play()["north"]
    assert fit.n == want.n < N
    assert fit.details["agreement"]["chi2"] == pytest.approx(want.details["agreement"]["chi2"], rel=1e-8)


def _parts(study: Study) -> list[tuple[cohorts.Codes, np.ndarray]]:
    """Each site's rows, and which of all rows they are."""
    numbered = strata.split(study, codes() | {"row": np.arange(N, dtype=float)})
    blocks = [next(iter(part.codes())) for part in numbered.values()]
    return [({n: np.asarray(v) for n, v in block.items()}, block["row"].astype(int)) for block in blocks]


def test_a_site_that_leaves_between_its_table_and_the_test_stays_in_the_model_and_the_result_says_so() -> None:
    study = secure_study("logit", 4, scheme="masks")
    table = MemoryProtocol(secure_cola.secure_cola, study, strata.split(study, codes()))
    _, blobs = table.drafts()
    for machine in table.machines.values():
        machine.advance({name: decode(blob)[1] for name, blob in blobs.items()})
    remaining = study.sites[:3]
    parts = {name: table.machines[name].draft(remaining, 1) for name in remaining}
    for machine in table.machines.values():
        machine.advance(parts)
    end = {"south": table.machines["south"].draft(remaining, 1)}
    for machine in table.machines.values():
        machine.advance(end)
        machine.advance({"east": {}})
    fit = table.machines["north"].result
    assert fit.n == N
    assert "agreement" not in fit.details
    assert any("was not made: a site left" in warning for warning in fit.warnings)


# What is shown


def describe_reason(table: MemoryProtocol, site: str, upload: Payload) -> np.ndarray[Any, np.dtype[np.int64]]:
    """What the holder sees when it decrypts one site's upload."""
    holder = table.machines["north"].site
    plan = secure_cola.plan_secure_table(holder.study)
    count = masked_sum.size_of(secure_cola.build_whole_shapes(plan)) + 4 * masked_sum.size_of(
        secure_cola.fraction_shapes(plan)
    )
    parts = secure_cola._unbundle(plan, upload, site)
    return encryption.decrypt(secure_cola.scheme_of(plan), secure_cola.secret_key(holder, plan), parts, count)


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_the_holder_that_decrypts_uploads_of_all_but_one_site_sees_uniform_words(scheme: str) -> None:
    study = wide_study(scheme)
    table = MemoryProtocol(secure_cola.secure_cola, study, strata.split(study, wide_rows()))
    table.play()
    uploads = table.posts("table")
    uploads_by_site = [describe_reason(table, name, upload) for name, upload in uploads.items()]
    assert all(np.all((w >= 0) & (w < 2**32)) for w in uploads_by_site)
    partial = np.sum(uploads_by_site[:-1], axis=0) % 2**32
    for words in (*uploads_by_site, partial):
        assert len(words) >= 1000
        for shift in (0, 8, 16, 24):
            counts = np.bincount((words >> shift) & 255, minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-4
    total_words = np.sum(uploads_by_site, axis=0) % 2**32
    assert total_words[:1024].sum() == len(wide_rows()["died"])


def wide_study(scheme: str) -> Study:
    names = [f"b{k}" for k in range(10)]
    plain = {
        "name": "wide",
        "sites": ["north", "south", "east", "west"],
        "formula": f"died ~ {' + '.join(names)}",
        "variables": {name: {"type": "binary"} for name in ["died", *names]},
        "disclosure": {"cell": 0},
        "learner": {"name": "secure_cola", "scheme": scheme},
    }
    return complete_study(Study.model_validate(plain))


@cache
def wide_rows() -> cohorts.Codes:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 2, 2000).astype(float) for name in ["died", *(f"b{k}" for k in range(10))]}


def test_uploads_have_the_same_length_whatever_the_site_holds() -> None:
    study = secure_study("logit")
    few = {name: np.resize(values[:9], N) for name, values in codes().items()}
    rows = {**strata.split(study, codes()), "south": ArrayCodes(few)}
    table = MemoryProtocol(secure_cola.secure_cola, study, rows)
    table.play()
    sizes = [len(canonical(post)) for post in table.posts("table").values()]
    assert max(sizes) - min(sizes) < 200


def test_the_ledger_shows_key_ciphertexts_sum_opened_table_and_fit() -> None:
    _, table = play_study(secure_study("logit"))
    assert table.topics == ["key", "table", "sum", "opened", "agreement", "fit", "conclusion"]
    assert set(table.posts("key")) == set(table.posts("opened")) == {"north"}
    key = table.posts("key")["north"]["key"].tobytes()
    with pytest.raises(ValueError, match="secret"):
        tenseal.bfv_vector_from(tenseal.context_from(key), _first(table)).decrypt()


def _first(table: MemoryProtocol) -> bytes:
    upload = table.posts("table")["south"]
    return bytes(upload["bytes"][: int(upload["lengths"][0])].tobytes())


def test_the_holder_leaves_out_patterns_of_the_sum_below_the_floor() -> None:
    study = secure_study("logit", floor=FLOOR)
    fit, table = play_study(study)
    opened = table.posts("opened")["north"]
    keys, counts = np.unique(_keys(codes()), return_counts=True)
    assert opened["n"].tolist() == counts[counts >= FLOOR].tolist()
    kept = np.isin(_keys(codes()), keys[counts >= FLOOR])
    rows = {name: values[kept] for name, values in codes().items()}
    want = strata.pooled(study, rows, strata.matrix(rows)[:, :5])
    np.testing.assert_allclose(fit.estimates, want.params, atol=1e-10)
    assert fit.details["suppression"]["rows_at_most"] % FLOOR == 0
    everything, _ = play_study(secure_study("logit", floor=FLOOR, suppress="none"))
    assert everything.n == N > fit.n


def _keys(rows: cohorts.Codes) -> Any:
    plan = secure_cola.plan_secure_table(secure_study("logit", floor=FLOOR))
    return plan.grid.keys(rows, N)


@pytest.mark.parametrize("family", ["poisson", "gaussian"])
def test_a_floor_is_held_for_counts_and_numbers_too(family: str) -> None:
    model = {"poisson": "quasipoisson", "gaussian": "gaussian"}[family]
    study = secure_study(model, floor=FLOOR)
    fit, _ = play_study(study)
    found, counts = np.unique(_keys(codes()), return_counts=True)
    kept = np.isin(_keys(codes()), found[counts >= FLOOR])
    rows = {name: values[kept] for name, values in codes().items()}
    want = strata.pooled(study, rows, strata.matrix(rows)[:, :5])
    np.testing.assert_allclose(fit.estimates, want.params, atol=1e-10)
    np.testing.assert_allclose(fit.std_errors, want.bse, atol=1e-10)
    assert fit.deviance == pytest.approx(want.deviance, abs=1e-8)


# Restarts, attempts, and who is left


def test_a_new_attempt_with_fewer_sites_has_fresh_masks_and_the_sum_of_those_left() -> None:
    study = secure_study("logit", 4)
    table = MemoryProtocol(secure_cola.secure_cola, study, strata.split(study, codes()))
    _, blobs = table.drafts()
    opened = {name: decode(blob)[1] for name, blob in blobs.items()}
    for machine in table.machines.values():
        machine.advance(opened)
    remaining = study.sites[:3]
    first = {name: table.machines[name].draft(study.sites, 0) for name in remaining}
    redrafted = {name: table.machines[name].draft(remaining, 1) for name in remaining}
    uploads_by_site = {
        name: (describe_reason(table, name, first[name]), describe_reason(table, name, redrafted[name]))
        for name in remaining
    }
    assert all(np.mean(a == b) < 0.01 for a, b in uploads_by_site.values())
    for name in remaining:
        table.machines[name].advance(redrafted)
    rest = {name: table.machines[name] for name in remaining}
    for poster in ("south", "north"):  # sum, opened
        post = {poster: rest[poster].draft(remaining, 0)}
        for machine in rest.values():
            machine.advance(post)
    parts = {name: rest[name].draft(remaining, 0) for name in remaining}
    for machine in rest.values():
        machine.advance(parts)
    end = {"south": rest["south"].draft(remaining, 0)}
    for machine in rest.values():
        machine.advance(end)
        machine.advance({"east": {}})
    fit = rest["east"].result
    part = {name: values[: 3 * N // 4] for name, values in codes().items()}
    want = strata.pooled(study, part, strata.matrix(part))
    np.testing.assert_allclose(fit.estimates, want.params, atol=1e-10)


def test_with_two_parties_left_nothing_is_posted() -> None:
    for scheme in SCHEMES:
        study = secure_study("logit", scheme=scheme)
        table = MemoryProtocol(secure_cola.secure_cola, study, strata.split(study, codes()))
        if scheme != "masks":
            _, blobs = table.drafts()
            for machine in table.machines.values():
                machine.advance({name: decode(blob)[1] for name, blob in blobs.items()})
        with pytest.raises(ProtocolError, match="Only 2 sites are left"):
            table.machines["south"].draft(("north", "south"), 1)


def test_the_holder_s_key_survives_a_restart() -> None:
    study = secure_study("logit")
    vault: dict[str, bytes] = {}
    plan = secure_cola.plan_secure_table(study)
    one, two = (secure_cola.public_key(Site(study, "north", vault=vault, session="s"), plan) for _ in range(2))
    assert canonical(one) == canonical(two)
    other = secure_cola.public_key(Site(study, "north", vault=vault, session="t"), plan)
    assert canonical(other) != canonical(one)


# Words


@pytest.mark.parametrize("count", [3, 10, 20])
def test_words_of_all_parties_add_up_to_the_numbers(count: int) -> None:
    rng = np.random.default_rng(count)
    study = secure_study("logit", count, scheme="masks")
    table = MemoryProtocol(secure_cola.secure_cola, study, dict.fromkeys(study.sites, ArrayCodes(codes())))
    total_words = rng.integers(0, 10**7, (count, 20)).astype(float)
    fractions = rng.normal(size=(count, 6)) * np.array([1, 1e-6, 1e6, 1e12, 1, 1])
    seats = [table.machines[name].seat(study.sites, 0) for name in study.sites]
    words = [masked_words.mask_words(s, "t", w, f) for s, w, f in zip(seats, total_words, fractions, strict=True)]
    sums = np.sum([w.astype(np.int64) for w in words], axis=0)
    narrow, wide = masked_words.unmask_words(sums, 20)
    assert narrow.tolist() == total_words.sum(axis=0).tolist()
    np.testing.assert_allclose(wide, fractions.sum(axis=0), rtol=1e-12, atol=1e-15)


def test_a_count_that_does_not_fit_a_word_is_refused() -> None:
    study = secure_study("logit", scheme="masks")
    seat = Site(study, "north", parties=study.sites)
    with pytest.raises(DataError, match="does not fit"):
        masked_words.mask_words(seat, "t", np.array([2.0**32]), np.zeros(1))


# Hostile and broken posts


def bundle(*parts: bytes) -> Payload:
    return secure_cola._bundle(list(parts))


def test_uploads_that_are_no_ciphertexts_are_refused_by_who_adds() -> None:
    study = secure_study("logit")
    _, table = play_study(study)
    plan = secure_cola.plan_secure_table(study)
    key, uploads = table.posts("key")["north"], dict(table.posts("table"))
    good = secure_cola._unbundle(plan, uploads["south"], "south")
    wrong = {
        "not TenSEAL's": bundle(b"x" * 1000),
        "too many": bundle(*good, *good),
        "none": bundle(),
        "too long": bundle(bytes(encryption.LARGEST_CIPHERTEXT + 1)),
        "cut": bundle(good[0][: len(good[0]) // 2]),
        "lengths that lie": {**uploads["south"], "lengths": uploads["south"]["lengths"] + 1},
    }
    for what, upload in wrong.items():
        with pytest.raises(ProtocolError) as caught:
            secure_cola.add_uploads(plan, key, {**uploads, "south": upload})
        assert caught.value.code == "CO-P551", what
    with pytest.raises(ProtocolError, match="TenSEAL cannot read"):
        secure_cola.add_uploads(plan, {"key": np.zeros(100, np.uint8)}, uploads)


def test_a_key_of_another_scheme_is_refused_by_who_encrypts() -> None:
    study = secure_study("logit")
    other = encryption.public_part(encryption.make_key("ckks"))
    seat = (
        MemoryProtocol(secure_cola.secure_cola, study, strata.split(study, codes()))
        .machines["south"]
        .seat(study.sites, 0)
    )
    with pytest.raises(ProtocolError) as caught:
        secure_cola.encrypt_table(seat, secure_cola.plan_secure_table(study), {"key": np.frombuffer(other, np.uint8)})
    assert caught.value.code == "CO-P553"


def test_a_sum_that_lacks_a_site_opens_to_nonsense_and_is_refused() -> None:
    study = secure_study("logit")
    _, table = play_study(study)
    plan, holder = secure_cola.plan_secure_table(study), table.machines["north"].site
    uploads = dict(table.posts("table"))
    del uploads["south"]
    total = secure_cola.add_uploads(plan, table.posts("key")["north"], uploads)
    with pytest.raises(ProtocolError, match=r"cannot (come from|be)|does not fit"):
        secure_cola.open_sum(holder, plan, total)


# Studies that cannot be run


@pytest.mark.parametrize(
    ("code", "count", "options"),
    [
        ("CO-S305", 2, {}),
        ("CO-S329", 3, {"holder": "nowhere"}),
        ("CO-S329", 3, {"scheme": "newton", "firth": True}),
        ("CO-S329", 3, {"scheme": "newton", "family": "quasibinomial"}),
        ("CO-S404", 3, {"scheme": "rot13"}),
        ("CO-S404", 3, {"suppress": "impute"}),
        ("CO-S404", 3, {"site_intercepts": True}),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(code: str, count: int, options: dict[str, Any]) -> None:
    with pytest.raises(StudyError) as caught:
        strata.study("died ~ male", count, "secure_cola", **options)
    assert caught.value.code == code


def test_a_grid_too_large_for_a_dense_table_is_refused_but_newton_has_no_table() -> None:
    wide = {name: {"type": "count", "range": [0, 199]} for name in ("a", "b", "c")}
    for scheme in ("masks", "newton"):
        plain = {
            "name": "wide",
            "sites": ["north", "south", "east"],
            "formula": "died ~ a + b + c",
            "variables": {"died": {"type": "binary"}, **wide},
            "learner": {"name": "secure_cola", "scheme": scheme},
        }
        if scheme == "newton":
            complete_study(Study.model_validate(plain))
            continue
        with pytest.raises(StudyError, match="8000000 patterns"):
            complete_study(Study.model_validate(plain))


def test_without_tenseal_a_study_that_needs_it_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "find_spec", lambda name: None)
    for scheme, refused in (("bfv", True), ("ckks", True), ("masks", False), ("newton", False)):
        if refused:
            with pytest.raises(StudyError, match=r"coterie\[he\]") as caught:
                secure_cola.check_secure_study(_unchecked(scheme))
            assert caught.value.code == "CO-S406"
        else:
            secure_cola.check_secure_study(_unchecked(scheme))


def _unchecked(scheme: str) -> Study:
    plain = secure_study("logit", scheme="masks").model_dump()
    return Study.model_validate({**plain, "learner": {**plain["learner"], "scheme": scheme}})


def _describe_disclosure(study: Study) -> str:
    return " ".join(itertools.chain(*secure_cola.SECURE_COLA.discloses(study).paragraphs.values()))


def test_the_trust_model_of_each_scheme_is_in_words() -> None:
    message = {scheme: _describe_disclosure(secure_study("logit", scheme=scheme)) for scheme in (*SCHEMES, "newton")}
    assert len(set(message.values())) == 4
    assert "south holds the key" in _describe_disclosure(secure_study("logit", holder="south"))
    assert all("All sites but one together" in text for text in message.values())
