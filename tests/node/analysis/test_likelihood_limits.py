"""Intervals of the profile likelihood over the real runner and the gates, and for people who read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lanes import later
from support.learners import pooled
from support.learners.cohorts import draw, split, study
from support.learners.r_stays import fit_files, write_site_files

from coterie_learners.study.design import Design
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model
from coterie_node.errors import ReleaseRefused

STAY = "age + ward + frail"


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_a_fit_with_limits_and_means_has_every_property_of_a_learner(aggregation: str) -> None:
    of, codes = study(count=3, intervals="profile", standardise="male", aggregation=aggregation), draw(700)
    want, names = pooled.fit(of, codes), Design(of).names
    reference = Reference(*(dict(zip(names, v.tolist(), strict=True)) for v in (want.estimates, want.std_errors)))
    report = check_learner(of, split(of, codes), reference)
    assert report.unchecked == 0
    assert report.restarts == report.records
    assert any(topic.startswith("limits/") for topic in report.disclosed)
    assert "standardised" in report.disclosed


def test_a_methods_section_names_limits_and_means() -> None:
    words = describe_model(study(count=3, link="logit", intervals="profile", standardise="male"), None)
    assert words == ("binomial regression (logit link), profile-likelihood intervals, standardised over male by GLORE")


def test_the_table_prints_the_limits_and_says_which_they_are(tmp_path: Path) -> None:
    learner = {"name": "glore", "intervals": "profile"}
    result = fit_files(write_site_files("stays", 3, tmp_path), "stays", "readmit ~ age + frail", learner)
    terms = {row["term"]: row for row in result.as_dict()["terms"]}
    own = result.fit.details["intervals"]
    assert [terms["age"]["ci_low"], terms["frail"]["ci_high"]] == [own["low"][1], own["high"][2]]
    assert "Intervals are of the profile likelihood (95 %)" in result.text()


def test_plain_sums_at_the_points_of_few_patterns_are_judged_pattern_by_pattern(tmp_path: Path) -> None:
    files = write_site_files("cohort", 2, tmp_path)
    learner = {"name": "glore", "intervals": "profile", "aggregation": "plain"}
    with pytest.raises(ReleaseRefused, match="pattern"):
        fit_files(files, "cohort", "death ~ age + sex + diabetes + htn", learner, disclosure={"cell": 9, "rows": 1})


def test_a_pool_of_few_patients_keeps_wald_s_intervals(tmp_path: Path) -> None:
    """480 numbers at 5 coefficients: a pool of 1,200 patients may open them, one of 257 may not."""
    files = write_site_files("stays", 3, tmp_path)
    for at, path in enumerate(files.values()):
        head, *rows = path.read_text().splitlines()
        path.write_text("\n".join([head, *rows[:140]]) + "\n")
        assert len(rows) > 140 + at
    learner = {"name": "glore", "intervals": "profile"}
    result = fit_files(files, "stays", f"readmit ~ {STAY}", learner, disclosure={"cell": 3, "rows": 1})
    assert "intervals" not in result.fit.details
    assert "Intervals are Wald's: the sums" in result.text()
