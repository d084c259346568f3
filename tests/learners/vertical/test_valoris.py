"""VALORIS against fits on the joined columns, in both modes; what it returns, and what it refuses to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from learners.vertical.test_vertigo import penalised, remove_columns, separate_outcome
from support.lanes import diagonal
from support.learners import vertical
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.errors import Collinear, ProtocolError, Separation, StudyError, Withheld
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.vertical.site_columns import SiteColumns
from coterie_learners.vertical.valoris import ValorisSolution, plan_valoris, valoris


def run(study: Study, codes: Codes) -> tuple[Fit, dict[str, Fit], MemoryProtocol]:
    table = MemoryProtocol(valoris, study, vertical.split(study, codes))
    fits = table.play()
    return merge_fits(fits, Design(study).names), fits, table


SPLITS: dict[str, Mapping[str, Sequence[str]]] = {
    "the outcome with covariates": vertical.COLUMNS_BY_SITE,
    "the outcome alone": {"hub": ("died",), **remove_columns(vertical.COLUMNS_BY_SITE, "died")},
    "the outcome last": dict(reversed(vertical.COLUMNS_BY_SITE.items())),
    "columns of one kind": {"north": ("died", "a1"), "one": ("b1",), "two": ("q1",)},
}


@pytest.mark.parametrize(("name", "mode"), diagonal(list(SPLITS), ["per_site", "aggregated"]))
def test_it_equals_the_pooled_maximum_likelihood(name: str, mode: str) -> None:
    study, codes = vertical.study(SPLITS[name], "valoris", mode=mode), vertical.draw(600)
    fit, fits, _ = run(study, codes)
    estimates, errors = vertical.pooled(study, codes)
    np.testing.assert_allclose(fit.estimates, estimates, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.std_errors, errors, rtol=0, atol=1e-8)
    response = next(site for site, own in SPLITS[name].items() if "died" in own)
    for site, own in fits.items():
        expected = list(Design(study, site).names)
        assert list(own.terms) == (["(Intercept)", *expected] if site == response else expected)
        assert (own.deviance is None, own.events is None) == (site != response, site != response)


@pytest.mark.parametrize(("mode", "penalise"), diagonal(["per_site", "aggregated"], [False, True]))
def test_with_a_ridge_it_equals_scikit_learn(mode: str, penalise: bool) -> None:
    study = vertical.study(learner="valoris", mode=mode, ridge=4.0, penalise_intercept=penalise)
    codes = vertical.draw(900)
    fit, _, _ = run(study, codes)
    np.testing.assert_allclose(fit.estimates, penalised(study, codes, 4.0, penalise), rtol=0, atol=1e-8)


def test_it_equals_the_published_formulas_at_their_ridge() -> None:
    """Ridge 5e-6 n and a penalised intercept: our solution is the one that the published code approaches."""
    from red_team.test_published_attacks import NAMES, N, cohort, columns, published
    from support.learners.published_attacks import finish_site

    study = vertical.study(learner="valoris", ridge=5e-6 * N, penalise_intercept=True)
    fit, _, _ = run(study, cohort())
    spread = np.concatenate([np.column_stack([cohort()[n] for n in own]).std(0, ddof=1) for own in NAMES.values()])
    theirs = np.concatenate([finish_site(columns(site), published().messages[site])[0] for site in NAMES])
    np.testing.assert_allclose(fit.estimates[1:] * spread, theirs, rtol=0, atol=1e-4)


def test_each_site_reads_the_verdict_on_its_answer_in_the_response_site_s_result() -> None:
    _, fits, _ = run(vertical.study(learner="valoris"), vertical.draw(1500))
    verdicts = fits["north"].details["privacy"]
    assert set(verdicts) == {"south", "east"}
    for verdict in verdicts.values():
        assert (verdict["flippable"], verdict["proved_fixed"], verdict["released"]) == (1500, 0, True)
        assert verdict["twinned"] > 750
        assert "every outcome could be the other one" in verdict["words"]
    assert "privacy" not in fits["south"].details


def test_without_standard_errors_no_covariance_is_sent() -> None:
    fit, fits, table = run(vertical.study(learner="valoris", standard_errors=False), vertical.draw(600))
    assert set(table.posts("answer/south")["north"]) == {"gamma"}
    assert fits["south"].covariance is None
    estimates, _ = vertical.pooled(vertical.study(), vertical.draw(600))
    np.testing.assert_allclose(fit.estimates, estimates, rtol=0, atol=1e-9)


def test_an_auditor_without_keys_checks_the_record_and_has_no_result() -> None:
    _, _, table = run(vertical.study(learner="valoris"), vertical.draw(300))
    auditor = table.auditor()
    assert (auditor.checked, auditor.unchecked, auditor.result) == (0, 0, None)


@pytest.mark.parametrize(("mode", "topics"), [("per_site", 2), ("aggregated", 1)])
def test_posts_are_sealed_to_the_readers_of_the_docstring(mode: str, topics: int) -> None:
    _, _, table = run(vertical.study(learner="valoris", mode=mode), vertical.draw(300))
    readers = {t: table.readers[t] for t in table.topics if not t.startswith(("keys", "align"))}
    assert readers["factor/south"] == readers["factor/east"] == ("north",)
    answers = {t: r for t, r in readers.items() if t.startswith("answer")}
    assert len(answers) == topics
    expected = [("south", "east")] if mode == "aggregated" else [("south",), ("east",)]
    assert list(answers.values()) == expected
    assert readers.get("seed", ("east",)) == ("east",)


def test_in_the_aggregated_mode_only_a_rotated_sum_reaches_the_response_site() -> None:
    """S S' is the sum of the covariate sites' Gram matrices; S itself says nothing of whose columns are whose."""
    from coterie_learners.core.masked_sum import unmask_short

    codes, study = vertical.draw(300), vertical.study(learner="valoris", mode="aggregated")
    _, _, table = run(study, codes)
    total = unmask_short([table.posts(f"factor/{site}")[site]["masked"] for site in ("south", "east")])[:-1]
    order = read_aligned_order(table, study, codes)
    x = np.column_stack([codes[n] for site in ("south", "east") for n in vertical.COLUMNS_BY_SITE[site]])[order]
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    np.testing.assert_allclose(total @ total.T, z @ z.T, atol=1e-8)
    assert np.max(np.abs(np.corrcoef(total.T, z.T)[:12, 12:])) < 0.99


def read_aligned_order(table: MemoryProtocol, study: Study, codes: Codes) -> Array:
    machine = table.machines["north"]
    part = _part_of(machine.site, study, table)
    names = [machine.site.columns.identifiers[k][0] for k in part.order]
    return np.array([int(name.split()[1]) for name in names])


def _part_of(site: Any, study: Study, table: MemoryProtocol) -> SiteColumns:
    from coterie_learners.vertical.alignment import Alignment, Matches, OwnPoints

    topics = [topic for topic in table.topics if topic.startswith(("align/points", "align/raise"))]
    matches = Matches(study, OwnPoints(site), tuple(table.posts(topic) for topic in topics))
    alignment = Alignment(matches, table.posts("align/report"))
    return SiteColumns(plan_valoris(study).split, site, alignment)


# What is refused


def test_an_answer_with_too_many_equations_for_its_patients_is_withheld_unless_it_is_without_errors() -> None:
    columns_by_site = {"north": ("died", "a1"), "south": tuple(f"b{k}" for k in range(16))}
    codes = vertical.draw(200, 4, columns_by_site, effect=0.1)
    with pytest.raises(Withheld, match="136 equations on 200 patients"):
        run(vertical.study(columns_by_site, "valoris"), codes)
    fit, _, _ = run(vertical.study(columns_by_site, "valoris", standard_errors=False), codes)
    assert len(fit.terms) == 18


def test_too_few_patients_for_the_columns_are_withheld() -> None:
    with pytest.raises(Withheld, match="34 patients are too few for 6 columns"):
        run(vertical.study(learner="valoris", ridge=3.0), vertical.draw(34))


def test_separation_names_the_site() -> None:
    with pytest.raises(Separation, match="south") as caught:
        run(vertical.study(learner="valoris"), separate_outcome(vertical.draw(500)))
    assert caught.value.code == "CO-N302"


def test_collinear_columns_cannot_be_summed_under_a_common_rotation() -> None:
    codes = vertical.draw(500)
    codes["b3"] = codes["b1"]
    study = vertical.study(learner="valoris", mode="aggregated", rows={"collinear": "allow"})
    with pytest.raises(Collinear, match="south") as caught:
        run(study, codes)
    assert caught.value.code == "CO-N207"


def test_one_covariate_site_is_no_sum() -> None:
    columns_by_site = {"north": ("died", "a1"), "south": ("b1", "q1")}
    with pytest.raises(StudyError) as caught:
        vertical.study(columns_by_site, "valoris", mode="aggregated")
    assert caught.value.code == "CO-S335"


def test_a_site_without_terms_is_refused() -> None:
    with pytest.raises(StudyError) as caught:
        vertical.study(learner="valoris", formula="died ~ a1 + b1")
    assert caught.value.code == "CO-S330"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"factor": np.ones((299, 2))}, "CO-P543"),
        ({"factor": np.full((300, 6), 1e250)}, "CO-P544"),
        ({"factor": np.ones((300, 9))}, "CO-P544"),
        ({"shift": np.ones(2)}, "CO-P544"),
    ],
)
def test_hostile_factors_are_refused_and_named(change: dict[str, Any], code: str) -> None:
    study = vertical.study(learner="valoris")
    _, _, table = run(study, vertical.draw(300))
    posts = {site: dict(table.posts(f"factor/{site}")[site]) for site in ("south", "east")}
    posts["east"] |= change
    solution = ValorisSolution(plan_valoris(study), _part_of(table.machines["north"].site, study, table), posts)
    with pytest.raises(ProtocolError) as caught:
        _ = solution.optimum
    assert (caught.value.code, caught.value.site) == (code, "east")


@pytest.mark.parametrize(
    ("words", "code"),
    [(np.zeros((300, 12), dtype=np.uint64), "CO-P543"), (np.full((301, 12), 2**62, dtype=np.uint64), "CO-P544")],
)
def test_hostile_words_are_refused(words: Any, code: str) -> None:
    study = vertical.study(learner="valoris", mode="aggregated")
    _, _, table = run(study, vertical.draw(300))
    posts: dict[str, Any] = {site: table.posts(f"factor/{site}")[site] for site in ("south", "east")}
    posts["south"] = {"masked": words}
    solution = ValorisSolution(plan_valoris(study), _part_of(table.machines["north"].site, study, table), posts)
    with pytest.raises(ProtocolError) as caught:
        _ = solution.optimum
    assert caught.value.code == code


def test_an_answer_of_another_length_is_refused() -> None:
    from coterie_learners.vertical.valoris import build_valoris_result

    study = vertical.study(learner="valoris")
    _, _, table = run(study, vertical.draw(300))
    part = _part_of(table.machines["south"].site, study, table)
    plan = plan_valoris(study)
    answers = {site: {"gamma": np.zeros(5), "covariance": np.zeros(15)} for site in ("south", "east")}
    with pytest.raises(ProtocolError) as caught:
        build_valoris_result(plan, part, ValorisSolution(plan, part, {}), answers, None)
    assert caught.value.code == "CO-P547"
    answers["south"] = {"gamma": np.zeros(6), "covariance": np.zeros(15)}
    with pytest.raises(ProtocolError):
        build_valoris_result(plan, part, ValorisSolution(plan, part, {}), answers, None)
