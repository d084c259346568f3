"""Survival curves over the real runner: every property of a learner, a restart after each record, words for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners.survival_study import (
    ARMS,
    cox_study,
    curve_study,
    read_age,
    read_causes,
    read_columns,
    read_cox,
    read_cox_methods,
    read_reference,
    split_sites,
)

from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model
from coterie_node.data.synthetic import simulate_cohort
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate


def reference() -> Reference:
    """R's restricted means as this learner's coefficients."""
    means = np.array([read_reference()[f"width 2 {arm} restricted mean"]["36"] for arm in ARMS])
    terms = ("(Intercept)", "arm[b]", "arm[c]")
    estimates = [means[0, 0], *(means[1:, 0] - means[0, 0])]
    errors = [means[0, 1], *np.sqrt(means[1:, 1] ** 2 + means[0, 1] ** 2)]
    return Reference(dict(zip(terms, estimates, strict=True)), dict(zip(terms, errors, strict=True)))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_curves_have_every_property_of_a_learner(count: int) -> None:
    study = curve_study(count)
    report = check_learner(study, split_sites(read_columns(), study.sites), reference())
    assert report.estimate_difference < 1e-10
    assert report.order_difference == 0.0
    assert (report.unchecked, report.server_steps) == (0, 1)
    labels = count if count > 2 else 0  # under masks each site posts the labels of its rows first
    assert report.records == labels + 2 * count + 2 == report.restarts
    if count >= 3:
        assert report.disclosed == {
            "labels": {"labels": (3, 8)},
            "grid": {"masked": (6, 2)},
            "counts": {"masked": (2 * 3 * 18, 2)},
        }


def test_competing_causes_have_every_property_of_a_learner() -> None:
    study = curve_study(event="cause")
    report = check_learner(study, split_sites(read_causes(), study.sites), reference())
    assert report.estimate_difference < 1e-10
    assert (report.unchecked, report.server_steps, report.order_difference) == (0, 1, 0.0)
    assert report.disclosed["counts"] == {"masked": (3 * 3 * 18, 2)}


@pytest.mark.parametrize("options", [pytest.param({"ties": "exact"}, marks=pytest.mark.long), {"firth": True}])
def test_exact_ties_and_firth_s_penalty_have_every_property_of_a_learner(options: dict[str, Any]) -> None:
    study, values = cox_study(**options), read_cox_methods("firth efron" if "firth" in options else "exact")
    terms = [term for term in values if term[:3] in ("age", "arm", "sta")]
    want = Reference({t: values[t][0] for t in terms}, {t: values[t][1] for t in terms})
    report = check_learner(study, split_sites({**read_columns(), "age": read_age()}, study.sites), want)
    assert report.estimate_difference < 1e-8
    assert (report.unchecked, report.order_difference) == (0, 0.0)


def test_the_files_of_sites_give_the_curves_of_r(tmp_path: Path) -> None:
    columns, study = read_columns(), curve_study()
    files = {}
    for at, name in enumerate(study.sites):
        rows = zip(*(columns[key][at :: len(study.sites)] for key in ("months", "died", "arm")), strict=True)
        lines = [f"{months!s},{int(died)},{ARMS[int(arm)]}" for months, died, arm in rows]
        files[name] = tmp_path / f"{name}.csv"
        files[name].write_text("\n".join(["months,died,arm", *lines]) + "\n")
    result = analyse(study, files)
    assert result.replay is not None
    assert result.replay.grade == "identical"
    group = result.as_dict()["details"]["survival"]["groups"][0]
    want = [value for value, _ in read_reference()["width 2 a survival"].values()]
    assert group["survival"] == pytest.approx(want, abs=1e-12)
    assert "arm[a]: median 16 months [14, 20]" in result.text()


def test_a_methods_section_calls_the_curves_by_their_name() -> None:
    words = describe_model(curve_study(), None)
    assert words.startswith("Kaplan-Meier curve for each group")
    assert "regression" not in words


def test_a_methods_section_names_the_causes_and_how_ties_and_separation_are_met() -> None:
    curves = describe_model(curve_study(event="cause"), None)
    assert "cumulative incidence of cancer and other (Aalen-Johansen) with Gray's tests" in curves
    cause = describe_model(cox_study(event="cause", cause="cancer", formula="cause ~ age", ties="exact"), None)
    assert "of cause[cancer] (cause-specific hazards), stratified by site, exact ties by COX" in cause
    assert describe_model(cox_study(firth=True), None).endswith(
        "stratified by site, Efron ties, Firth's penalty by COX"
    )


def test_synthetic_patients_have_each_cause_of_the_event() -> None:
    cohort = simulate_cohort(curve_study(event="cause"), 60, np.random.default_rng(1))
    for data in cohort.sites.values():
        (codes,) = list(data.codes())  # type: ignore[union-attr]
        assert set(codes["cause"].tolist()) == {0.0, 1.0, 2.0}


def test_synthetic_patients_of_a_study_enter_before_they_leave() -> None:
    study: Study = curve_study(entry="entry", strata="stage")
    cohort = simulate_cohort(study, 50, np.random.default_rng(1))
    for data in cohort.sites.values():
        (codes,) = list(data.codes())  # type: ignore[union-attr]
        assert np.all(codes["entry"] < codes["months"])
        assert len(np.unique(codes["months"])) > 20
        assert set(codes) == {"died", "months", "entry", "arm", "stage"}


def test_cox_models_have_every_property_of_a_learner() -> None:
    study = cox_study()
    values = read_cox("efron 3")
    terms = [term for term in values if term[:3] in ("age", "arm", "sta")]
    want = Reference({t: values[t][0] for t in terms}, {t: values[t][1] for t in terms})
    report = check_learner(study, split_sites({**read_columns(), "age": read_age()}, study.sites), want)
    assert report.estimate_difference < 1e-9
    assert report.std_error_difference is not None
    assert report.std_error_difference < 1e-9
    assert (report.unchecked, report.order_difference) == (0, 0.0)
    assert report.restarts == report.records == 4 * report.server_steps + 1


def test_a_cox_study_opens_its_levels_before_its_gates() -> None:
    study = cox_study(opening="counts")
    rows = split_sites({**read_columns(), "age": read_age()}, study.sites)
    _, runners, _ = simulate(study, rows, gates={name: Gate(study) for name in study.sites})
    fits = [runner.machine.result for runner in runners.values()]
    assert fits[0].estimates[0] == pytest.approx(read_cox("efron 3")["age"][0], abs=1e-9)
    assert fits[0].ratio == "HR"
