"""The table of split patients has the numbers of base R on all of them, and shows nothing below the floor."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners.r_stays import references
from support.learners.table_study import (
    arm_study,
    find_differences,
    play_table,
    read_stays,
    split_arms,
    split_stays,
    table_study,
)

from coterie_learners.core.fit import Fit, fit_from_json, fit_to_json
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import ProtocolError, StudyError, Withheld
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data
from coterie_learners.table_one.site_tally import tally_rows
from coterie_learners.table_one.table_one import table_one
from coterie_learners.table_one.table_plan import CharacteristicsPlan
from coterie_node.audit.printed.characteristics import print_characteristics

WITHIN = 1e-12


@pytest.mark.parametrize("split", [(3, "masked"), *later((3, "plain"), (2, "plain"), (5, "masked"))])
def test_the_table_of_stays_is_that_of_base_r(split: tuple[int, str]) -> None:
    count, aggregation = split
    fit, _ = play_table(table_study(count, learner={"aggregation": aggregation}), split_stays(count))
    assert find_differences(fit, "stays") < WITHIN


@pytest.mark.parametrize("count", [2, *later(3, 5)])
def test_the_table_and_rates_of_the_survival_cohort_are_those_of_base_r(count: int) -> None:
    fit, _ = play_table(arm_study(count), split_arms(count))
    assert find_differences(fit, "survival") < WITHIN


def test_exact_limits_of_shares_and_rates_are_those_of_binom_test_and_poisson_test() -> None:
    table = play_table(arm_study(), split_arms())[0].details["table"]
    (stage,) = (line for line in table["lines"] if line["name"] == "stage")
    for end in ("low", "high"):
        want = {term: value for term, (value, _) in references("table_one")[f"survival {end}"].terms.items()}
        for column, cell, rate in zip(table["columns"], stage["cells"], table["rate"]["cells"], strict=True):
            got = dict(zip(("early", "late"), cell[end], strict=True))
            for level, value in got.items():
                assert value == pytest.approx(want[f"stage = {level}: {column}"], rel=1e-10)
            assert rate[end] == pytest.approx(want[f"rate rate: {column}"], rel=1e-10)
            prevalence = want[f"prevalence: {column}"]
            assert rate[f"percent_{end}"] == pytest.approx(prevalence, rel=1e-10)


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_columns_of_sites_are_those_of_base_r_and_leave_the_rest_as_it_is(aggregation: str) -> None:
    plain = table_study(5, learner={"aggregation": aggregation})
    fit, protocol = play_table(table_study(5, learner={"aggregation": aggregation, "by_site": True}), split_stays(5))
    hospitals = dict(zip("ABCDE", ("north", "south", "west", "east", "mid"), strict=True))
    got = dict(zip(fit.terms, fit.estimates.tolist(), strict=True))
    for term, (value, _) in references("table_one")["sites"].terms.items():
        name, hospital = term.rsplit(": ", 1)
        assert got[f"{name}: {hospitals[hospital]}"] == pytest.approx(value, rel=WITHIN, abs=0.0)
    pooled = play_table(plain, split_stays(5))[0]
    assert {term: got[term] for term in pooled.terms} == dict(zip(pooled.terms, pooled.estimates.tolist(), strict=True))
    assert fit.details["table"]["sites"] == list(hospitals.values())
    assert len(protocol.posts("columns")) == 5


def test_a_site_shows_only_what_passes_the_floor_everywhere() -> None:
    study = table_study(3, floor=60, learner={"by_site": True})
    table = play_table(study, split_stays(3))[0].details["table"]
    shown = [cell for line in table["lines"] for cell in (line.get("site_cells") or ()) if cell]
    hidden = [line["name"] for line in table["lines"] if line["cells"] is None]
    assert shown
    assert hidden
    assert all(not any(line["site_cells"]) for line in table["lines"] if line["name"] in hidden)
    assert not [
        n for cell in shown for n in (*cell.get("counts", ()), cell["missing"]) if 0 < n < study.disclosure.cell
    ]


def test_columns_that_do_not_add_up_to_the_table_are_refused() -> None:
    study = table_study(3, learner={"by_site": True})
    _, protocol = play_table(study, split_stays())
    machine = Machine(table_one, Site(study, "auditor"))
    for topic in protocol.topics[: protocol.topics.index("columns")]:
        machine.advance(protocol.posts(topic))
    posts = {site: dict(post) for site, post in protocol.posts("columns").items()}
    counts = posts["north"]["counts"].copy()
    counts[1], counts[2] = counts[1] - 1.0, counts[2] + 1.0
    machine.advance(posts | {"north": posts["north"] | {"counts": counts}})
    with pytest.raises(ProtocolError, match="do not add up") as error:
        machine.draft(study.sites, 0)
    assert error.value.code == "CO-P508"


@pytest.mark.long
def test_a_column_of_all_patients_needs_no_groups() -> None:
    study = table_study(3, learner={"groups": False})
    fit, _ = play_table(study, split_stays())
    grouped, _ = play_table(table_study(3), split_stays())
    values = dict(zip(grouped.terms, grouped.estimates.tolist(), strict=True))
    for term, value in zip(fit.terms, fit.estimates.tolist(), strict=True):
        other = term if not term.startswith("ward = ") else f"n: ward[{term[7:].partition(':')[0]}]"
        assert value == pytest.approx(values[other])
    assert next(line["name"] for line in fit.details["table"]["lines"]) == "ward"


@pytest.mark.long
def test_a_site_without_a_group_is_counted_all_the_same() -> None:
    hospitals, columns = read_stays()
    inside = np.array(hospitals) == "E"
    assert not np.any(columns["ward"][inside] == 2)
    assert find_differences(play_table(table_study(3), split_stays())[0], "stays") < WITHIN


@pytest.mark.long
def test_the_result_does_not_depend_on_declared_ranges() -> None:
    wide = {**table_study(3).model_dump()["variables"], "stay": {"type": "number", "range": [-1e6, 1e6]}}
    fit, _ = play_table(table_study(3, variables=wide), split_stays())
    assert find_differences(fit, "stays") < 1e-8


def test_an_auditor_without_rows_recomputes_the_same_table() -> None:
    fit, protocol = play_table(table_study(3), split_stays())
    auditor = protocol.auditor()
    assert (auditor.checked, auditor.unchecked) == (2, 0)
    assert repr(auditor.result.details) == repr(fit.details)


@pytest.mark.long
def test_the_result_is_json() -> None:
    fit, _ = play_table(table_study(3, learner={"quantiles": {}}), split_stays())
    again = fit_from_json(json.loads(json.dumps(fit_to_json(fit))))
    assert again.terms == fit.terms
    assert again.details["table"] == fit.details["table"]


def test_under_masks_nothing_but_words_leaves_a_site() -> None:
    _, protocol = play_table(table_study(3), split_stays())
    for topic in ("floors", "counts", "squares"):
        assert {name for post in protocol.posts(topic).values() for name in post} == {"masked"}


# The floor


def test_a_variable_with_few_patients_in_a_group_is_shown_for_all_or_not_at_all() -> None:
    fit, _ = play_table(table_study(3, floor=5), split_stays())
    shown = {line["name"]: line["shown"] for line in fit.details["table"]["lines"]}
    assert shown == {"age": "overall", "frail": "overall", "pain": "overall", "infections": "groups", "stay": "groups"}
    assert any(note.startswith("age: shown for all patients alone") for note in fit.notes)
    values = dict(zip(fit.terms, fit.estimates.tolist(), strict=True))
    want = references("table_one")["stays"].terms
    for term in ("age mean: overall", "stay sd: ward[medical]", "pain = none: overall", "frail missing: overall"):
        assert values[term] == pytest.approx(want[term][0], rel=1e-12)


def test_bins_are_widened_until_every_site_passes() -> None:
    grid = {"age": {"width": 1, "low": 54, "high": 78}}
    study = table_study(3, formula="frail ~ age", floor=5, learner={"quantiles": grid})
    hospitals, columns = read_stays()
    full = ~np.isnan(columns["age"]) & ~np.isnan(columns["frail"])
    kept = {name: values[full] for name, values in columns.items()}
    rows = {
        site: ArrayCodes({k: v[np.isin(np.array(hospitals)[full], list(members))] for k, v in kept.items()})
        for site, members in {"north": "AB", "south": "C", "west": "DE"}.items()
    }
    fit, _ = play_table(study, dict(rows))
    (line,) = fit.details["table"]["lines"]
    assert line["width"] in (2, 3, 4, 6)
    median = line["cells"][0]["quantiles"][1]
    assert median["low"] <= np.median(kept["age"]) <= median["high"]


@pytest.mark.long
def test_a_sensitive_variable_of_which_all_in_a_group_have_one_level_is_not_shown_by_group() -> None:
    _, columns = read_stays()
    columns["pain"] = np.where(columns["ward"] == 0, 1.0, np.arange(len(columns["ward"])) % 2)
    for sensitive, shown in (([], "groups"), (["pain"], "overall")):
        disclosure = {"cell": 5, "rows": 1, "sensitive": sensitive}
        study = table_study(3, formula="ward ~ pain", learner={"quantiles": {}}, disclosure=disclosure)
        (line,) = play_table(study, split_stays(3, columns))[0].details["table"]["lines"]
        assert line["shown"] == shown


def test_a_site_below_the_floor_stops_the_study_before_its_counts() -> None:
    _, columns = read_stays()
    few = {name: ArrayCodes({k: v[:3] for k, v in columns.items()}) for name in ("north", "south", "west")}
    with pytest.raises(Withheld) as error:
        play_table(table_study(3, floor=5), dict(few))
    assert error.value.code == "CO-N133"


# What is refused


@pytest.mark.parametrize(
    ("formula", "learner", "code"),
    [
        ("ward ~ age:stay", {}, "CO-S339"),
        ("ward ~ age^2", {}, "CO-S339"),
        ("ward ~ frail + offset(logdays)", {"quantiles": {}}, "CO-S339"),
        ("age ~ frail", {"quantiles": {}}, "CO-S339"),
        ("ward ~ age", {"quantiles": {"pain": {"width": 1}}}, "CO-S340"),
        ("ward ~ age", {"quantiles": {"age": {"width": 80}}}, "CO-S340"),
        ("ward ~ age", {"quantiles": {"age": {"width": 1e-3}}}, "CO-S340"),
        ("ward ~ age", {"quantiles": {"age": {"width": 1, "low": 200, "high": 300}}}, "CO-S340"),
        ("ward ~ age", {"quantiles": {"age": {"width": 0}}}, "CO-S404"),
        ("ward ~ age", {"quantiles": {}, "time": "stay"}, "CO-S341"),
        ("ward ~ age", {"quantiles": {}, "time": "stay", "event": "pain"}, "CO-S341"),
        ("ward ~ age", {"quantiles": {}, "time": "pain", "event": "frail"}, "CO-S341"),
    ],
)
def test_a_study_that_does_not_fit_is_refused_in_words(formula: str, learner: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as error:
        table_study(3, formula=formula, learner=learner)
    assert error.value.code == code


def test_a_table_has_all_sites_or_none() -> None:
    with pytest.raises(StudyError) as error:
        table_study(3, ledger={"silent_site": "exclude"})
    assert error.value.code == "CO-S332"


def test_two_sites_have_no_masked_table() -> None:
    with pytest.raises(StudyError) as error:
        table_study(2, learner={"aggregation": "masked"})
    assert error.value.code == "CO-S305"


@pytest.mark.parametrize(
    ("field", "change", "code"),
    [("counts", -1.0, "CO-P503"), ("counts", 0.5, "CO-P503"), ("counts", 7.0, "CO-P508"), ("sums", 1e9, "CO-P508")],
)
def test_counts_that_no_patients_can_give_are_refused(field: str, change: float, code: str) -> None:
    study = table_study(3, learner={"aggregation": "plain"})
    _, protocol = play_table(study, split_stays())
    machine = Machine(table_one, Site(study, "auditor"))
    machine.advance(protocol.posts("floors"))
    posts = {site: dict(post) for site, post in protocol.posts("counts").items()}
    post = posts["north"][field].copy()
    post[4 if field == "counts" else 0] += change if change != -1.0 else -1e6
    posts["north"][field] = post
    machine.advance(posts)
    with pytest.raises(ProtocolError) as error:
        machine.draft(study.sites, 0)
    assert error.value.code == code


def test_a_quantile_in_an_open_bin_has_no_value_and_an_end() -> None:
    study = table_study(3, formula="ward ~ age", learner={"quantiles": {"age": {"width": 1, "low": 80, "high": 90}}})
    (line,) = play_table(study, split_stays())[0].details["table"]["lines"]
    quantile = line["cells"][0]["quantiles"][0]
    assert math.isnan(quantile["value"])
    assert (quantile["low"], quantile["high"]) == (-math.inf, 80.0)


ODD = {
    "arm": {"type": "binary"},
    "same": {"type": "number", "range": [0, 77]},
    "far": {"type": "number", "range": [-2e9, 2e9]},
    "lost": {"type": "number", "range": [0, 1e12]},
    "near": {"type": "number", "range": [0, 1e-7], "unit": "mol/L"},
    "rule": {"type": "category", "levels": ["a", "b", "c", "d"]},
}


def odd_table(aggregation: str, same: float = 1.1) -> tuple[Fit, dict[str, Any]]:
    """The table of columns without spread, with little beside their range, and of levels that no two groups share."""
    rng = np.random.default_rng(4)
    arm, n = (rng.random(301) < 0.37).astype(float), 301
    drawn = np.round(rng.normal(0, 1, n), 3)
    columns = {"arm": arm, "same": np.full(n, same), "far": 1.0 + 0.12 * drawn, "lost": 5.0 + 1e-4 * drawn}
    columns |= {"near": 5e-9 + 1e-9 * drawn, "rule": np.where(arm == 1.0, 0.0, rng.integers(1, 4, n))}
    learner, formula = {"name": "table_one", "aggregation": aggregation}, "arm ~ same + far + lost + near + rule"
    plain = {"name": "odd", "sites": ["a", "b", "c"], "formula": formula, "variables": ODD, "learner": learner}
    study = complete_study(Study.model_validate({**plain, "disclosure": {"cell": 0, "rows": 1}}))
    parts: dict[str, Data] = {s: ArrayCodes({k: v[at::3] for k, v in columns.items()}) for at, s in enumerate("abc")}
    return play_table(study, parts)[0], columns


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("same", [1.1, *later(0.3, 12.6, 76.9)])
def test_a_column_without_spread_has_none_and_no_difference_in_units_of_it(aggregation: str, same: float) -> None:
    fit, columns = odd_table(aggregation, same)
    lines = {line["name"]: line for line in fit.details["table"]["lines"]}
    assert [cell["sd"] for cell in lines["same"]["cells"]] == [0.0, 0.0, 0.0]
    assert math.isnan(lines["same"]["smd"])
    # The groups share no level: there is no spread between which their distance could be measured.
    assert math.isnan(lines["rule"]["smd"])
    assert lines["near"]["cells"][0]["sd"] == pytest.approx(np.std(columns["near"], ddof=1), rel=1e-9)
    printed = print_characteristics(fit.details["table"]).text_lines()
    (near,) = (line for line in printed if line.startswith("near"))
    assert f"{np.mean(columns['near']):.4g} ({np.std(columns['near'], ddof=1):.2g})" in near


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_deviation_that_the_declared_range_hides_is_told_to_be_unsure_or_not_told(aggregation: str) -> None:
    fit, columns = odd_table(aggregation)
    lines = {line["name"]: line for line in fit.details["table"]["lines"]}
    doubts = [note for note in fit.notes if "Declare a narrower range" in note]
    assert [note.partition(":")[0] for note in doubts] == (["far", "lost"] if aggregation == "masked" else ["lost"])
    for column, cell in zip(("", 0.0, 1.0), lines["lost"]["cells"], strict=True):
        assert math.isnan(cell["sd"])
        inside = columns["arm"] == column if column != "" else columns["arm"] >= 0.0
        assert cell["mean"] == pytest.approx(np.mean(columns["lost"][inside]), abs=1e-3)
    (far, *_), wanted = lines["far"]["cells"], np.std(columns["far"], ddof=1)
    assert far["sd"] == pytest.approx(wanted, rel=1e-2 if aggregation == "masked" else 1e-6)


def test_equal_values_have_no_spread_however_many_there_are() -> None:
    rng = np.random.default_rng(5)
    plan = CharacteristicsPlan.of(table_study(3, "ward ~ stay", learner={"quantiles": {}}))
    rows = ArrayCodes({"ward": rng.integers(0, 3, 400_000).astype(float), "stay": np.full(400_000, 0.3)})
    sums = tally_rows(plan, rows).sums["stay"]
    counts = tally_rows(plan, rows).patients
    low, high = plan.design.declared["stay"].bounds
    means = 0.5 * (low + high) + 0.5 * (high - low) * sums / counts
    np.testing.assert_allclose(means, 0.3, rtol=1e-12)
