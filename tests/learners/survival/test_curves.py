"""Survival curves, restricted means and log-rank tests of split patients are those of R's survival on all of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from support.learners.survival_study import (
    ARMS,
    curve_study,
    play_curves,
    read_columns,
    read_reference,
    split_sites,
)

from coterie_learners.core.fit import Fit, fit_from_json, fit_to_json
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, ProtocolError, StudyError, Withheld
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes
from coterie_learners.survival.gray import compare_incidence
from coterie_learners.survival.log_rank import compare_groups
from coterie_learners.survival.step_counts import StepCounts
from coterie_learners.survival.survival_curves import survival_curves

WITHIN = 1e-10


def check_close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(np.array(got, float), np.array(want, float), rtol=WITHIN, atol=WITHIN, equal_nan=True)


def check_group(group: dict[str, Any], label: str) -> None:
    """Compare one group's curve with R's."""
    r = read_reference()
    pairs = {"survival": ("survival", "std_error"), "limits": ("low", "high"), "hazard": ("hazard", "hazard_error")}
    for name, keys in {**pairs, "counts": ("at_risk", "events")}.items():
        want = np.array(list(r[f"{label} {name}"].values()))
        for k, key in enumerate(keys):
            check_close(group[key], want[:, k])
    quantiles = {f"q{100 * q['p']:.0f}": q for q in group["quantiles"]}
    for term, (want_time, _) in r[f"{label} quantiles"].items():
        check_close(quantiles[term]["time"], want_time)
        check_close([quantiles[term][key] for key in ("low", "high")], r[f"{label} quantile limits"][term])
    check_close([group["restricted_mean"], group["restricted_mean_error"]], r[f"{label} restricted mean"]["36"])


def check_test(test: dict[str, Any], label: str) -> None:
    r = read_reference()[label]
    check_close([test["chi2"], test["trend_chi2"]], [r["chi2"][0], r["trend"][0]])
    check_close(test["expected"], [r[f"expected {arm}"][0] for arm in ARMS])
    check_close(np.diag(test["covariance"]), [r[f"variance {arm}"][0] for arm in ARMS])


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("width", [2, 18])
def test_curves_and_tests_are_those_of_r(count: int, width: int) -> None:
    details = play_curves(curve_study(count, width))[0].details["survival"]
    for arm, group in zip(ARMS, details["groups"], strict=True):
        check_group(group, f"width {width} {arm}")
    check_test(details["log_rank"], f"log-rank {width}")


def test_the_stratified_test_is_that_of_r_and_the_curves_pool_the_strata() -> None:
    details = play_curves(curve_study(strata="stage"))[0].details["survival"]
    check_test(details["stratified_log_rank"], "stratified 2")
    check_test(details["log_rank"], "log-rank 2")
    check_group(details["groups"][1], "width 2 b")


def test_patients_who_enter_late_are_at_risk_from_the_step_of_their_entry() -> None:
    details = play_curves(curve_study(entry="entry"))[0].details["survival"]
    for arm, group in zip(ARMS, details["groups"], strict=True):
        check_group(group, f"entry 2 {arm}")


def test_a_site_without_events_counts_among_the_patients_at_risk() -> None:
    columns, study = read_columns(), curve_study()
    last = columns["died"] == 0
    rows = {"east": ArrayCodes({k: v[last] for k, v in columns.items()})}
    rest = {k: v[~last] for k, v in columns.items()}
    fit, _ = play_curves(study, {**split_sites(rest, ("north", "south")), **rows})
    check_group(fit.details["survival"]["groups"][0], "width 2 a")


def test_masked_and_plain_sums_give_the_same_bits() -> None:
    masked, plain = (play_curves(curve_study(aggregation=kind))[0] for kind in ("masked", "plain"))
    assert repr(masked.details) == repr(plain.details)
    assert masked.estimates.tobytes() == plain.estimates.tobytes()


def test_under_masks_nothing_but_words_leaves_a_site() -> None:
    _, table = play_curves(curve_study())
    for topic in ("grid", "counts"):
        assert {name for post in table.posts(topic).values() for name in post} == {"masked"}


def test_an_auditor_without_rows_recomputes_the_same_curves() -> None:
    fit, table = play_curves(curve_study(strata="stage"))
    auditor = table.auditor()
    assert (auditor.checked, auditor.unchecked) == (1, 0)
    assert repr(auditor.result.details) == repr(fit.details)


def test_the_coefficients_are_the_first_restricted_mean_and_differences_from_it() -> None:
    r, fit = read_reference(), play_curves(curve_study())[0]
    means = np.array([r[f"width 2 {arm} restricted mean"]["36"] for arm in ARMS])
    assert fit.terms == ("(Intercept)", "arm[b]", "arm[c]")
    check_close(fit.estimates, [means[0, 0], *(means[1:, 0] - means[0, 0])])
    check_close(fit.std_errors, [means[0, 1], *np.sqrt(means[1:, 1] ** 2 + means[0, 1] ** 2)])


def test_the_result_is_json_and_a_table_with_the_median_of_each_group() -> None:
    fit = play_curves(curve_study(at=(12, 24)))[0]
    again = fit_from_json(json.loads(json.dumps(fit_to_json(fit))))
    assert again.terms == fit.terms
    assert "arm[a]: median 16 months [14, 20]" in fit.notes
    points = fit.details["survival"]["groups"][0]["at"]
    assert [p["time"] for p in points] == [12, 24]
    assert points[0]["survival"] == pytest.approx(read_reference()["width 2 a survival"]["t=12"][0], abs=1e-12)


def test_times_at_a_steps_end_are_in_that_step_however_floats_round() -> None:
    study = curve_study(3, width=0.1, horizon=2.0, group=None)
    time = np.repeat(np.arange(1, 21) / 10, 3)
    columns = {"months": time, "died": np.ones(60), "entry": 0 * time, "arm": 0 * time, "stage": 0 * time}
    (group,) = play_curves(study, split_sites(columns, study.sites))[0].details["survival"]["groups"]
    assert group["events"] == [3.0] * 20


def test_all_censored_is_a_curve_at_one_and_a_test_that_says_nothing() -> None:
    columns = {**read_columns(), "died": np.zeros(900)}
    study = curve_study()
    fit, _ = play_curves(study, split_sites(columns, study.sites))
    details = fit.details["survival"]
    assert set(details["groups"][0]["survival"]) == {1.0}
    assert np.isnan(details["log_rank"]["chi2"])
    assert any("Log-rank test: nothing to test, as no event falls" in note for note in fit.notes)
    assert np.isnan(details["groups"][0]["quantiles"][1]["time"])


# The floor


def test_the_grid_is_the_finest_at_which_every_site_passes_the_floor() -> None:
    fit, table = play_curves(curve_study(3, floor=5, group=None))
    width = fit.details["survival"]["grid"]["width"]
    assert width > 2
    assert any("instead of 2" in note for note in fit.notes)
    finer, _ = play_curves(curve_study(3, width=width / 2, group=None, aggregation="plain"))
    assert finer.details["survival"]["grid"]["width"] == width / 2
    assert {post["masked"].shape for post in table.posts("counts").values()} == {(2 * round(36 / width), 2)}


def test_a_study_that_no_grid_passes_stops_before_its_counts() -> None:
    columns = read_columns()
    study = curve_study(3, floor=5)
    few = {k: v[:30] for k, v in columns.items()}
    with pytest.raises(Withheld) as error:
        play_curves(study, split_sites(few, study.sites))
    assert error.value.code == "CO-N132"


def test_a_group_that_all_have_the_event_passes_no_grid() -> None:
    columns = read_columns()
    columns["died"] = np.where(columns["arm"] == 0, 1.0, columns["died"])
    columns["months"] = np.where(columns["arm"] == 0, np.minimum(columns["months"], 30.0), columns["months"])
    study = curve_study(3, floor=5)
    with pytest.raises(Withheld):
        play_curves(study, split_sites(columns, study.sites))


# What is refused


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"time": "arm", "group": None}, "CO-S336"),
        ({"event": "months", "time": "entry"}, "CO-S336"),
        ({"group": "entry"}, "CO-S336"),
        ({"strata": "arm"}, "CO-S204"),
        ({"time": "days"}, "CO-S202"),
        ({"event": "stage2"}, "CO-S202"),
        ({"horizon": 37}, "CO-S338"),
        ({"width": 1e-6}, "CO-S338"),
        ({"at": [40]}, "CO-S338"),
        ({"time_grid": {"width": 2, "horizon": 36, "unit": "days"}}, "CO-S338"),
        ({"time_grid": {"width": 0, "horizon": 36}}, "CO-S404"),
        ({"count": 2, "aggregation": "masked"}, "CO-S305"),
    ],
)
def test_a_study_that_does_not_fit_is_refused_in_words(options: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as error:
        curve_study(**options)
    assert error.value.code == code


def test_a_formula_with_covariates_is_refused() -> None:
    plain = curve_study().model_dump()
    with pytest.raises(StudyError) as error:
        complete_study(Study.model_validate({**plain, "formula": "died ~ arm"}))
    assert error.value.code == "CO-S337"


@pytest.mark.parametrize(
    ("name", "value", "code"), [("months", -1.0, "CO-D161"), ("entry", -0.5, "CO-D161"), ("entry", 99.0, "CO-D162")]
)
def test_times_that_no_patient_has_are_refused_at_their_site(name: str, value: float, code: str) -> None:
    columns = read_columns()
    columns[name][4] = value
    study = curve_study(entry="entry")
    with pytest.raises(DataError) as error:
        play_curves(study, split_sites(columns, study.sites))
    assert error.value.code == code


@pytest.mark.parametrize(("name", "change"), [("events", -1.0), ("censored", 0.5), ("events", 1e60)])
def test_counts_that_no_patients_can_give_are_refused(name: str, change: float) -> None:
    study = curve_study(3, aggregation="plain")
    _, table = play_curves(study)
    machine = Machine(survival_curves, Site(study, "auditor"))
    machine.advance(table.posts("grid"))
    posts = {site: dict(post) for site, post in table.posts("counts").items()}
    posts["north"][name] = posts["north"][name] + np.where(
        posts["north"][name] == posts["north"][name].max(), change, 0
    )
    machine.advance(posts if change != -1.0 else {s: {k: -v for k, v in p.items()} for s, p in posts.items()})
    with pytest.raises(ProtocolError) as error:
        machine.draft(study.sites, 0)
    assert error.value.code == "CO-P503"


def test_a_fit_says_how_many_patients_and_events_it_stands_on() -> None:
    fit: Fit = play_curves(curve_study())[0]
    columns = read_columns()
    assert fit.n == 900
    assert fit.events == int(np.sum((columns["died"] == 1) & (columns["months"] <= 36)))


def draw_times(seed: int, n: int, scale: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return np.ceil(rng.exponential(scale, n)).clip(1, 12), rng.random(n) < 0.7


def count_places(
    times: dict[tuple[int, int], tuple[NDArray[np.float64], NDArray[np.bool_]]], shape: tuple[int, int]
) -> StepCounts:
    """Counts of patients by stratum and group on steps of 1 up to 12."""
    events, censored, entries = (np.zeros((*shape, 12)) for _ in range(3))
    for place, (time, event) in times.items():
        for counts, which in ((events, event), (censored, ~event)):
            counts[place] = np.bincount(time[which].astype(int) - 1, minlength=12)
        entries[place][0] = len(time)
    return StepCounts(events, censored, entries, events[None])


def test_groups_that_meet_in_strata_apart_are_tested_in_each_by_itself() -> None:
    """Two pairs of treatments, each given to other patients; one more treatment has nobody beside it."""
    sizes = {(0, 0): (60, 5.0), (0, 1): (80, 7.0), (1, 2): (70, 4.0), (1, 3): (50, 6.0), (2, 4): (40, 5.0)}
    times = {place: draw_times(k, *size) for k, (place, size) in enumerate(sizes.items())}
    counts = count_places(times, (3, 5))
    data = {place: stats.CensoredData.right_censored(time, ~event) for place, (time, event) in times.items()}
    pairs = [(data[0, 0], data[0, 1]), (data[1, 2], data[1, 3])]
    wanted = sum(float(stats.logrank(*pair).statistic) ** 2 for pair in pairs)
    test = compare_groups(counts)
    assert test.df == 2
    assert test.chi2 == pytest.approx(wanted, rel=1e-10)
    assert test.p == pytest.approx(float(stats.chi2.sf(wanted, 2)), rel=1e-9)
    gray = compare_incidence(counts.at_risk, counts.events, counts.events)
    apart = [
        compare_incidence(*(part[k : k + 1] for part in (counts.at_risk, counts.events, counts.events))) for k in (0, 1)
    ]
    assert gray.df == 2
    assert gray.chi2 == pytest.approx(sum(part.chi2 for part in apart), rel=1e-9)


def test_a_group_that_is_alone_in_its_stratum_tells_nothing() -> None:
    times = {(0, 0): draw_times(1, 60, 5.0), (1, 1): draw_times(2, 60, 5.0)}
    test = compare_groups(count_places(times, (2, 2)))
    assert (test.df, np.isnan(test.chi2)) == (0, True)
