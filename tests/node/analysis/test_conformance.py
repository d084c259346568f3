"""check_learner: passes what obeys, and names the first property of what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.learners import cohorts, pooled
from support.learners.cohorts import FULL
from support.node import crooked

from coterie_learners.core.registry import Learner, complete_study, find_learner
from coterie_learners.errors import NotConverged, StudyError
from coterie_learners.glore.glore import GLORE
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Rows
from coterie_node.analysis.conformance import ConformanceReport, NonConformant, Property, check_learner
from coterie_node.analysis.pooled import Reference

CODES = cohorts.draw(90)


def reference(study: Study, codes: cohorts.Codes = CODES) -> Reference:
    """The pooled fit by statsmodels."""
    want, names = pooled.fit(study, codes), Design(study).names
    return Reference(
        dict(zip(names, want.estimates.tolist(), strict=True)), dict(zip(names, want.std_errors.tolist(), strict=True))
    )


# GLORE obeys


@pytest.mark.parametrize(
    ("count", "formula", "options"),
    [
        (1, f"died ~ {FULL}", {}),
        pytest.param(2, f"died ~ {FULL}", {"link": "probit"}, marks=pytest.mark.long),
        # `make test` has a masked model in test_restarts.py.
        pytest.param(3, f"died ~ {FULL}", {"aggregation": "masked"}, marks=pytest.mark.long),
        (3, f"visits ~ {FULL} + offset(years)", {"family": "poisson", "aggregation": "plain"}),
        pytest.param(4, f"score ~ {FULL}", {"family": "gaussian"}, marks=pytest.mark.long),
    ],
)
def test_glore_has_every_property(count: int, formula: str, options: dict[str, Any]) -> None:
    study = cohorts.study(formula, count, **options)
    report = check_learner(study, cohorts.split(study, CODES), reference(study))
    assert (report.learner, report.version, report.sites) == ("glore", GLORE.version, study.sites)
    assert report.estimate_difference < 1e-10
    assert report.std_error_difference is not None
    assert report.std_error_difference < 1e-9
    assert (report.order_difference, report.unchecked) == (0.0, 0)
    assert report.records == report.server_steps * (count + 1) + 1
    assert report.restarts == report.records
    masked = count >= 3 and study.learner.options["aggregation"] != "plain"
    fields = {"masked": (30, 2)} if masked else {"score": (6,), "information": (21,)}
    assert fields.items() <= report.disclosed["stats/0"].items()


# Learners of a third party


@pytest.fixture(autouse=True)
def install_learners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crooked learners as an installed package: what pip would have written, on the path."""
    info = tmp_path / "crooked-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crooked\nVersion: 1.0\n")
    lines = [f"{key.lower().replace('_', '-')} = support.node.crooked:{key}" for key in learners()]
    (info / "entry_points.txt").write_text("\n".join(["[coterie.learners]", *lines, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))


def learners() -> dict[str, Learner]:
    return {key: value for key, value in vars(crooked).items() if isinstance(value, Learner)}


def prove(name: str, want: Reference | None = None, tolerance: float = 1e-10) -> ConformanceReport:
    """check_learner on a learner by its entry point."""
    plain = cohorts.study(f"visits ~ {FULL}", family="poisson").model_dump()
    study = Study.model_validate({**plain, "learner": {"name": name, "version": "1"}})
    return check_learner(
        study, rows(study), want or Reference({"mean": float(CODES["visits"].mean())}), tolerance=tolerance
    )


def rows(study: Study) -> Mapping[str, Rows]:
    return cohorts.split(study, CODES)


def fails(name: str, failed: Property, word: str, want: Reference | None = None) -> NonConformant:
    with pytest.raises(NonConformant) as caught:
        prove(name, want)
    assert caught.value.property == failed
    assert caught.value.code == "CO-L101"
    assert f"fails the property '{failed}'" in caught.value.message
    assert word in caught.value.message
    return caught.value


def test_a_learner_of_a_third_party_that_obeys_passes() -> None:
    report = prove("honest")
    assert (report.learner, report.records, report.server_steps, report.restarts) == ("honest", 4, 1, 4)
    assert report.std_error_difference is None
    assert report.disclosed == {"sums": {"n": (), "square": (), "sum": ()}}


def test_a_learner_that_seals_its_posts_passes_and_what_nobody_can_recompute_is_counted() -> None:
    report = prove("discreet")
    assert (report.server_steps, report.unchecked) == (1, 0)
    assert report.disclosed.keys() == {"sums", "mean"}


def test_standard_errors_are_compared_if_they_are_given() -> None:
    mean = float(CODES["visits"].mean())
    error = float(CODES["visits"].std() / np.sqrt(90))
    assert prove("honest", Reference({"mean": mean}, {"mean": error})).std_error_difference == pytest.approx(
        0, abs=1e-9
    )
    message = fails("honest", Property.POOLED, "standard error of mean", Reference({"mean": mean}, {"mean": 2 * error}))
    assert "apart" in message.message


CROOKED = [
    ("biased", Property.POOLED, "1e-06 apart"),
    ("partial", Property.ORDER, "differs by 0.001"),
    ("counted", Property.ORDER, "allowed is 0"),
    ("forgetful", Property.RESTARTS, "other bytes"),
    ("random", Property.REPLAYS, "CO-P201"),
    ("two-faced", Property.REPLAYS, "the auditor arrives at other numbers for mean"),
    ("quarrelling", Property.RUNS, "two sites end with different numbers for mean"),
    ("undeclared", Property.DECLARED, "'sums' has no Schema"),
    ("talkative", Property.DECLARED, "unknown ['patients']"),
    ("unwritable", Property.ROUND_TRIP, "'phase'"),
    ("fitless", Property.RUNS, "not a Fit"),
    ("desperate", Property.RUNS, "No luck today"),
    ("hasty", Property.RUNS, "still RUNNING"),
    ("secretive", Property.DISCLOSED, "has readers None"),
    ("silent-on-a-step", Property.DISCLOSED, "discloses nothing of the step 'mean'"),
    ("inventive", Property.DISCLOSED, "discloses extra, and makes no such step"),
    ("mistaken-in-posters", Property.DISCLOSED, "has posters 'server', and it discloses 'each'"),
    ("unmasked", Property.DISCLOSED, "posts fractions, and it discloses masked words"),
    ("unblinded", Property.DISCLOSED, "posts fractions, and it discloses blinded words"),
    ("two-tongued", Property.DISCLOSED, "'sums' and 'su*' both disclose the step 'sums'"),
    ("not-talking", Property.DISCLOSED, "has a conversation False, and it discloses True"),
    ("countable", Property.DISCLOSED, "can solve for events"),
    ("mistimed", Property.RUNS, "Position 1 is 'each' on the ledger but 'server'"),
]


@pytest.mark.parametrize(("name", "failed", "word"), CROOKED, ids=[c[0] for c in CROOKED])
def test_a_learner_that_does_not_obey_learns_which_property_it_fails_first(
    name: str, failed: Property, word: str
) -> None:
    fails(name, failed, word)


def test_every_crooked_learner_is_tried_and_every_property_is_failed_by_one() -> None:
    obeying = {"honest", "discreet"}
    assert {c[0] for c in CROOKED} | obeying == {key.lower().replace("_", "-") for key in learners()}
    assert {c[1] for c in CROOKED} == set(Property)


def test_what_stopped_a_learner_is_kept() -> None:
    assert isinstance(fails("desperate", Property.RUNS, "NotConverged").__cause__, NotConverged)


def test_other_terms_than_the_references_are_named() -> None:
    fails("honest", Property.POOLED, "its terms are mean, the reference's average", Reference({"average": 1.0}))


def test_the_tolerance_is_the_callers() -> None:
    assert prove("biased", tolerance=1e-5).estimate_difference == pytest.approx(1e-6, rel=1e-3)


def test_rows_for_other_sites_are_refused() -> None:
    study = cohorts.study()
    with pytest.raises(StudyError, match="missing for east, north, south"):
        check_learner(study, {}, Reference({}))


def test_a_study_is_completed_with_a_third_partys_learner() -> None:
    study = Study.model_validate({**cohorts.study().model_dump(), "learner": {"name": "honest"}})
    assert complete_study(study).learner.version == "1"
    with pytest.raises(StudyError) as caught:
        complete_study(Study.model_validate({**cohorts.study().model_dump(), "learner": {"name": "honest", "x": 1}}))
    assert caught.value.code == "CO-S404"


def test_an_entry_point_that_leads_to_something_else_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crooked, "HONEST", "honest")
    with pytest.raises(StudyError, match="which is not a Learner") as caught:
        find_learner("honest")
    assert caught.value.code == "CO-S403"


@pytest.mark.parametrize("part", ["discloses", "script"])
def test_a_learner_without_one_of_its_parts_is_refused_by_name(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crooked, "HONEST", replace(crooked.HONEST, **cast(Any, {part: None})))
    with pytest.raises(StudyError) as caught:
        find_learner("honest")
    assert caught.value.code == "CO-S407"
    assert f"no function {part}" in caught.value.message
