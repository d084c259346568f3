"""Cumulative incidence and Gray's tests of split patients are those of R's cmprsk on all of them (competing.R)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal
from support.learners.survival_study import (
    ARMS,
    CAUSES,
    Columns,
    curve_study,
    play_curves,
    read_causes,
    read_competing,
    split_sites,
)

from coterie_learners.core.fit import Fit
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.errors import ProtocolError, StudyError, Withheld
from coterie_learners.survival.survival_curves import survival_curves

WITHIN = 1e-10


def fit_causes(columns: Columns | None = None, **options: Any) -> Fit:
    study = curve_study(**{"event": "cause", **options})
    return play_curves(study, split_sites(columns or read_causes(), study.sites))[0]


def check_close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(np.array(got, float), np.array(want, float), rtol=WITHIN, atol=WITHIN, equal_nan=True)


@pytest.mark.parametrize(("count", "width"), diagonal((2, 3, 5), (2, 12)))
def test_incidence_with_its_variance_and_limits_is_that_of_cmprsk(count: int, width: int) -> None:
    details = fit_causes(count=count, width=width).details["survival"]
    assert tuple(part["cause"] for part in details["causes"]) == CAUSES
    for part in details["causes"]:
        for arm, group in zip(ARMS, part["groups"], strict=True):
            label = f"width {width} {arm} {part['cause']}"
            for keys, values in ((("incidence", "variance"), "incidence"), (("low", "high"), "limits")):
                want = np.array(list(read_competing(f"{label} {values}").values()))
                check_close([group[key] for key in keys], want.T)


@pytest.mark.parametrize(
    ("model", "options", "key"),
    [
        ("gray 2", {}, "gray"),
        ("gray 12", {"width": 12}, "gray"),
        ("gray strata 2", {"strata": "stage"}, "stratified_gray"),
        ("log-rank 2", {}, "log_rank"),
    ],
)
def test_tests_of_each_cause_are_those_of_r(model: str, options: dict[str, Any], key: str) -> None:
    for part in fit_causes(**options).details["survival"]["causes"]:
        chi2, p = read_competing(model)[part["cause"]]
        check_close(part[key]["chi2"], chi2)
        assert part[key]["df"] == 2
        if key != "log_rank":
            check_close(part[key]["p"], p)


def test_incidences_and_survival_add_up_to_one() -> None:
    details = fit_causes().details["survival"]
    for at, group in enumerate(details["groups"]):
        parts = [cause["groups"][at] for cause in details["causes"]]
        check_close(np.sum([part["incidence"] for part in parts], axis=0) + group["survival"], 1.0)
        assert np.sum([part["events"] for part in parts], axis=0).tolist() == group["events"]


def test_curves_of_any_cause_are_those_of_the_binary_event() -> None:
    fit, binary = fit_causes(), play_curves(curve_study())[0]
    assert repr(fit.details["survival"]["groups"]) == repr(binary.details["survival"]["groups"])
    assert fit.estimates.tobytes() == binary.estimates.tobytes()


def test_masked_and_plain_sums_give_the_same_incidences() -> None:
    masked, plain = (fit_causes(aggregation=kind) for kind in ("masked", "plain"))
    assert repr(masked.details) == repr(plain.details)


def test_an_auditor_without_rows_recomputes_the_same_incidences() -> None:
    study = curve_study(event="cause", strata="stage")
    fit, table = play_curves(study, split_sites(read_causes(), study.sites))
    auditor = table.auditor()
    assert (auditor.checked, auditor.unchecked) == (1, 0)
    assert repr(auditor.result.details) == repr(fit.details)


def test_notes_name_the_causes_their_incidence_and_their_tests() -> None:
    fit = fit_causes(at=(12, 24))
    want, (low, high) = (read_competing(f"width 2 a cancer {name}")["t=12"] for name in ("incidence", "limits"))
    assert f"Incidence of cancer by 12 months, arm[a]: {want[0]:.4f} [{low:.4f}, {high:.4f}]" in fit.notes
    assert "cancer: Gray's test: chi-squared 8.0799 on 2 df, p = 0.0176." in fit.notes
    assert json.loads(json.dumps(fit.details))["survival"]["causes"][0]["groups"][0]["at"][0]["time"] == 12


def test_late_entry_has_incidences_and_no_test_of_gray() -> None:
    fit = fit_causes(entry="entry")
    (cancer, _) = fit.details["survival"]["causes"]
    assert "gray" not in cancer
    assert cancer["log_rank"]["chi2"] > 0
    assert 0 < cancer["groups"][0]["incidence"][-1] < 1
    assert any("Gray's test has no form for patients who enter late" in note for note in fit.notes)


@pytest.mark.parametrize("without", ["cause", "group", "events"])
def test_a_cause_a_group_or_a_study_without_events_says_nothing_of_its_tests(without: str) -> None:
    columns = read_causes()
    gone = {"cause": columns["cause"] == 2, "group": columns["arm"] == 2, "events": columns["cause"] > 0}[without]
    columns["cause"] = np.where(gone, 0.0, columns["cause"])
    cancer, other = fit_causes(columns).details["survival"]["causes"]
    assert set(other["groups"][2]["incidence"]) == {0.0}
    assert np.isnan(other["gray"]["chi2"]) == (without != "group")
    assert np.isnan(cancer["gray"]["chi2"]) == (without == "events")


def test_one_group_has_incidences_and_no_tests() -> None:
    cancer, _ = fit_causes(group=None).details["survival"]["causes"]
    assert set(cancer) == {"cause", "groups"}


def test_a_group_of_nobody_does_not_change_the_test_of_the_others() -> None:
    columns = read_causes()
    two = {name: values[columns["arm"] < 2] for name, values in columns.items()}
    (cancer, _) = fit_causes(two).details["survival"]["causes"]
    assert cancer["gray"]["df"] == 1
    assert cancer["gray"]["chi2"] > 0


# The floor


def test_each_cause_has_no_event_in_a_step_or_as_many_as_the_floor() -> None:
    fit = fit_causes(floor=5, group=None)
    details = fit.details["survival"]
    (binary,) = play_curves(curve_study(floor=5, group=None))[0].details["survival"]["groups"]
    assert details["grid"]["width"] >= 36 / len(binary["times"])
    for cause in details["causes"]:
        assert not [n for n in cause["groups"][0]["events"] if 0 < n < 5]


def test_a_rare_cause_at_one_site_stops_the_study_before_its_counts() -> None:
    columns, study = read_causes(), curve_study(event="cause", floor=5, group=None)
    first = np.flatnonzero((columns["cause"] == 2) & (np.arange(900) % 3 == 0) & (columns["months"] < 36))[:3]
    columns["cause"] = np.where(np.isin(np.arange(900), first), 2.0, np.minimum(columns["cause"], 1.0))
    with pytest.raises(Withheld) as error:
        play_curves(study, split_sites(columns, study.sites))
    assert error.value.code == "CO-N132"


def test_counts_by_cause_that_no_patients_can_give_are_refused() -> None:
    study = curve_study(3, event="cause", aggregation="plain")
    _, table = play_curves(study, split_sites(read_causes(), study.sites))
    machine = Machine(survival_curves, Site(study, "auditor"))
    machine.advance(table.posts("grid"))
    machine.advance({s: {k: -np.asarray(v) for k, v in p.items()} for s, p in table.posts("counts").items()})
    with pytest.raises(ProtocolError) as error:
        machine.draft(study.sites, 0)
    assert error.value.code == "CO-P503"


def test_causes_that_are_numbers_are_refused() -> None:
    with pytest.raises(StudyError) as error:
        curve_study(event="months", time="entry")
    assert error.value.code == "CO-S336"
