"""One baseline hazard for all sites: what is posted, which studies stop with a sentence, and what cannot be posted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.learners.cox_cohort import (
    PatientProtocol,
    common_study,
    model_study,
    play_cohort,
    read_cohort,
    share_rows,
    split_rows,
)

from coterie_learners.core import masked_sum
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Stamp, encode
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.cox.common_baseline import list_cell_shapes
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.errors import Collinear, DataError, ProtocolError, Separation, StudyError, Withheld
from coterie_learners.study.document import Study


def check_same(fit: Fit, want: Fit) -> None:
    np.testing.assert_allclose(fit.estimates, want.estimates, atol=1e-11)
    np.testing.assert_allclose(fit.std_errors, want.std_errors, atol=1e-11)


def test_a_site_without_events_and_one_with_one_time_change_nothing() -> None:
    columns, place, patient = read_cohort(3)
    event = columns["died"] == 1
    place = np.where(~event, 0, np.where(np.ceil(columns["months"] / 2) == 9, 1, 2))
    assert len(np.unique(np.ceil(columns["months"][event & (place == 1)] / 2))) == 1
    fit, _ = play_cohort(common_study(3), (columns, place, patient))
    check_same(fit, play_cohort(common_study(3))[0])


def test_an_auditor_without_rows_recomputes_the_same_model() -> None:
    fit, table = play_cohort(common_study())
    auditor = table.auditor()
    assert (auditor.unchecked, auditor.checked) == (0, fit.rounds + 1)
    assert repr(auditor.result.details) == repr(fit.details)


def test_only_masked_words_leave_a_site() -> None:
    _, table = play_cohort(common_study())
    own = [topic for topic in table.topics if not topic.startswith(("model/", "end", "conclusion"))]
    assert len(own) >= 6
    for topic in own:
        assert {name for post in table.posts(topic).values() for name in post} == {"masked"}


def test_steps_without_an_event_in_the_pool_are_left_out() -> None:
    columns, place, patient = read_cohort()
    columns["months"] = np.where(columns["died"] == 1, np.ceil(columns["months"] / 6) * 6, columns["months"])
    study = common_study()
    fit, table = play_cohort(study, (columns, place, patient))
    (stratum,) = fit.details["cox"]["baseline"]["strata"]
    assert stratum["times"] == [6.0, 12.0, 18.0, 24.0, 30.0, 36.0]
    size = masked_sum.size_of(list_cell_shapes(CoxPlan.of(study), 6))
    assert all(post["masked"].shape == (size, 2) for post in table.posts("sums/0").values())


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_round_of_365_days_and_20_covariates_is_small(ties: str) -> None:
    variables = {f"x{k}": {"type": "number", "range": [0, 1]} for k in range(20)}
    formula = f"died ~ {' + '.join(variables)}"
    plain = common_study(ties=ties, width=1, horizon=365).model_dump()
    plain |= {"formula": formula, "variables": {**plain["variables"], **variables}}
    numbers = masked_sum.size_of(list_cell_shapes(CoxPlan.of(Study.model_validate(plain)), 365))
    assert 16 * numbers < 300_000  # bytes under masks; each number has half of them in the clear


def test_late_rounds_rest_at_the_exact_information() -> None:
    """The matrix is summed with weights that the round before foretold; at the end these are exact."""
    fit, table = play_cohort(common_study())
    again, _ = play_cohort(common_study(tolerance=1e-14))
    assert fit.covariance is not None
    assert again.covariance is not None
    np.testing.assert_allclose(fit.covariance, again.covariance, rtol=1e-9)
    gains = [float(next(iter(table.posts(f"model/{t}").values()))["gain"]) for t in range(fit.rounds)]
    assert gains == sorted(gains, reverse=True)
    assert fit.rounds <= 7


# Studies that stop with a sentence


def test_a_pool_without_events_stops_before_any_covariate_is_summed() -> None:
    columns, place, patient = read_cohort()
    columns["died"] = np.zeros(900)
    table = PatientProtocol(common_study(), (columns, place, patient))
    with pytest.raises(Separation, match="No patient of the 900 has the event died") as error:
        table.play()
    assert error.value.code == "CO-N301"
    assert table.topics == ["grid", "counts"]


def test_a_level_without_events_is_named() -> None:
    columns, place, patient = read_cohort()
    columns["died"] = np.where(columns["arm"] == 2, 0.0, columns["died"])
    with pytest.raises(Separation, match=r"Coefficients of arm\[c\] grow without bound") as error:
        play_cohort(common_study(), (columns, place, patient))
    assert error.value.code == "CO-N302"


def test_a_column_with_one_value_is_named() -> None:
    columns, place, patient = read_cohort()
    columns["stage"] = np.zeros(900)
    with pytest.raises(Collinear, match=r"no variation in stage\[late\]"):
        play_cohort(common_study(), (columns, place, patient))


def test_a_stratum_without_events_changes_nothing() -> None:
    columns, place, patient = read_cohort()
    late = columns["stage"] == 1
    columns["died"] = np.where(late, 0.0, columns["died"])
    fit, _ = play_cohort(common_study(strata="stage", formula="died ~ age + arm"), (columns, place, patient))
    early = {name: values[~late] for name, values in columns.items()}
    want, _ = play_cohort(common_study(formula="died ~ age + arm"), (early, place[~late], patient[~late]))
    check_same(fit, want)
    strata = fit.details["cox"]["baseline"]["strata"]
    assert [len(s["times"]) > 0 for s in strata] == [True, False]


def test_two_sites_read_each_other_s_sums_and_need_no_masks() -> None:
    study = common_study(2)
    _, table = play_cohort(study)
    assert set(next(iter(table.posts("sums/0").values()))) == set(list_cell_shapes(CoxPlan.of(study), 1))
    with pytest.raises(StudyError) as error:
        common_study(2, aggregation="masked")
    assert error.value.code == "CO-S305"


# Rows with a start and a stop


def test_rows_of_a_patient_that_overlap_are_refused() -> None:
    columns, place, patient = split_rows(read_cohort())
    columns["start"] = np.where(columns["start"] > 0, columns["start"] * 0.9, 0)
    study = common_study(entry="start", formula="died ~ age + treated", patient="pseudonym")
    with pytest.raises(DataError) as error:
        play_cohort(study, (columns, place, patient))
    assert error.value.code == "CO-D163"


def test_a_row_after_the_event_is_refused() -> None:
    columns, place, patient = split_rows(read_cohort())
    columns["died"] = np.ones(len(place))
    study = model_study(entry="start", formula="died ~ age + treated", patient="pseudonym")
    with pytest.raises(DataError) as error:
        play_cohort(study, (columns, place, patient))
    assert error.value.code == "CO-D164"


def test_patients_are_counted_once_however_many_rows_they_have() -> None:
    study = common_study(entry="start", formula="died ~ age + treated", patient="pseudonym")
    assert play_cohort(study, split_rows(read_cohort()))[0].n == 900


# Hostile posts


@pytest.mark.parametrize("field", ["s0", "d0"])
def test_risk_sets_that_no_patients_can_have_are_refused(field: str) -> None:
    study = common_study(2)
    table = PatientProtocol(study, read_cohort(2))
    post = {}
    while not any(topic == "sums/0" for topic in table.topics):
        topic, blobs = table.drafts()
        table.topics.append(topic)
        post = {name: table.machines[name].draft(study.sites, 0) for name in blobs}
        if topic != "sums/0":
            for machine in table.machines.values():
                machine.advance(post)
    sign = -1.0 if field == "s0" else 1e9
    bad = {**post, "north": {**post["north"], field: sign * np.asarray(post["north"][field])}}
    encode(Stamp("s", "sums/0", "north", 0), bad["north"])
    for machine in table.machines.values():
        machine.advance(bad)
    with pytest.raises(ProtocolError) as error:
        table.machines["south"].draft(study.sites, 0)
    assert error.value.code == "CO-P509"


def test_garbage_under_masks_ends_in_a_named_error() -> None:
    study = common_study()
    table = PatientProtocol(study, read_cohort())
    while table.topics[-1:] != ["sums/0"]:
        topic, _ = table.drafts()
        table.topics.append(topic)
        posts = {name: dict(m.draft(study.sites, 0)) for name, m in table.machines.items()}
        if topic == "sums/0":
            posts["east"]["masked"] = np.random.default_rng(5).integers(0, 2**63, posts["east"]["masked"].shape, "u8")
        for machine in table.machines.values():
            machine.advance(posts)
    with pytest.raises((ProtocolError, Collinear)):
        table.machines["north"].draft(study.sites, 0)


# The floor


def test_the_grid_is_coarsened_until_every_site_passes() -> None:
    options: dict[str, Any] = {"formula": "died ~ age", "max_rounds": 6}
    fit, _ = play_cohort(common_study(floor=5, ties="breslow", **options))
    grid = fit.details["cox"]["baseline"]["grid"]
    assert grid["width"] > grid["declared_width"] == 2
    assert f"steps of {grid['width']:g} months instead of 2" in fit.notes[0]
    exact, _ = play_cohort(common_study(width=grid["width"], ties="breslow", **options))
    check_same(fit, exact)


def test_a_study_whose_steps_all_show_few_patients_posts_no_counts() -> None:
    columns, place, patient = read_cohort()
    few = np.arange(900) < 30
    cohort = {name: values[few] for name, values in columns.items()}, place[few], patient[few]
    table = PatientProtocol(common_study(floor=5), cohort)
    with pytest.raises(Withheld) as error:
        table.play()
    assert error.value.code == "CO-N132"
    assert table.topics == ["grid"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"time_grid": None}, "CO-S344"),
        ({"baseline": "site"}, "CO-S344"),
        ({"width": 7}, "CO-S338"),
        ({"weights": "weight", "opening": "bits"}, "CO-S212"),
        ({"robust": "patient"}, "CO-S324"),
        ({"robust": True, "ridge": 1.0}, "CO-S345"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(options: dict[str, Any], code: str) -> None:
    grid = {"width": options.pop("width", 2), "horizon": 36}
    with pytest.raises(StudyError) as error:
        model_study(3, **{"baseline": "common", "time_grid": grid, **options})
    assert error.value.code == code


@pytest.mark.parametrize("options", [{"aggregation": "plain"}, {"proportionality": "km"}])
def test_a_baseline_of_each_site_has_no_option_of_a_common_one(options: dict[str, Any]) -> None:
    with pytest.raises(StudyError) as error:
        model_study(3, **options)
    assert error.value.code == "CO-S344"


def test_the_schedule_has_the_steps_of_the_script() -> None:
    study = complete_study(common_study(opening="counts"))
    schedule = learner_of(study).schedule(study)
    assert schedule.opening == ("each",) * 5
    assert schedule.closing == ("each", "server", "server")
    assert share_rows(read_cohort(), study.sites).keys() == set(study.sites)
