"""Intervals of the profile likelihood are those of R: roots of the constrained fits, and confint on a fine grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners.cohorts import draw, split, study
from support.learners.r_stays import fit_files, references, study_of, write_site_files
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.masked_sum import SiteSums
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.glore.glore import GlorePlan, glore
from coterie_learners.glore.likelihood_limits import begin_at_wald, shape_points, step_points
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import load_sites
from coterie_node.audit.replay import replay
from coterie_node.errors import ReleaseRefused
from coterie_node.run.simulate import simulate

STAY, PATIENT = "age + ward + frail", "age + sex + diabetes + htn"
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stays_logit": ("stays", f"readmit ~ {STAY}", {}),
    "stays_probit": ("stays", f"readmit ~ {STAY}", {"link": "probit"}),
    "stays_poisson": ("stays", f"infections ~ {STAY}", {"family": "poisson"}),
    "stays_weighted": ("stays", f"readmit ~ {STAY}", {"weights": "w"}),
    "cohort_logit": ("cohort", f"death ~ {PATIENT}", {}),
    "cohort_poisson": ("cohort", f"visits ~ {PATIENT}", {"family": "poisson"}),
}
QUICK = ("stays_logit", "cohort_poisson")
# The fifth hospital of the stays has nobody in intensive care, the fourth of the cohort nobody older than 80.
STAYS_SPLITS = [(5, "masked"), (2, "plain"), (3, "masked"), (3, "plain"), (5, "plain")]
COHORT_SPLITS = [(4, "masked"), (2, "plain"), (4, "plain")]
CASES = [
    pytest.param(model, *split, marks=() if k == 0 and model in QUICK else pytest.mark.long)
    for model, (data, _, _) in MODELS.items()
    for k, split in enumerate(STAYS_SPLITS if data == "stays" else COHORT_SPLITS)
]


def profile_study(count: int = 3, **options: Any) -> Study:
    return study("died ~ age + male", count, intervals="profile", **options)


@pytest.mark.parametrize(("model", "count", "aggregation"), CASES)
def test_limits_are_those_of_r(model: str, count: int, aggregation: str, tmp_path: Path) -> None:
    data, formula, options = MODELS[model]
    learner = {"name": "glore", "intervals": "profile", "aggregation": aggregation, **options}
    files = write_site_files(data, count, tmp_path)
    of_few = data == "stays" and aggregation == "plain"
    fit = fit_ungated(files, data, formula, learner) if of_few else fit_files(files, data, formula, learner).fit
    want = {term: value for term, (value, _) in references("profile")[model].terms.items()}
    for row in coefficient_table(fit):
        term = row.term.replace("[", "").replace("]", "")
        for end, value in (("low", row.ci_low), ("high", row.ci_high)):
            assert abs(value - want[f"{end} {term}"]) < 1e-8 * row.std_error
            assert abs(value - want[f"confint {end} {term}"]) < 1e-6 * row.std_error


def fit_ungated(files: Mapping[str, Path], data: str, formula: str, learner: Mapping[str, Any]) -> Fit:
    """The same fit, replayed to the bit, where a person at each hospital says yes to all that the gate keeps back."""
    of = study_of(files, data, formula, learner)
    world, runners, _ = simulate(of, {name: item.rows for name, item in load_sites(of, dict(files)).items()})
    assert replay(world.ledger(), world.blobs, world.number, granted=world.view()).verdict.grade == "identical"
    fit = runners[of.sites[0]].machine.result
    assert isinstance(fit, Fit)
    return fit


@pytest.mark.parametrize("count", [2, 3, 5])
def test_plain_limits_of_few_patients_are_kept_back(count: int, tmp_path: Path) -> None:
    """Two points for each coefficient are too many equations for the rows of so small a hospital."""
    files, learner = write_site_files("stays", count, tmp_path), {"name": "glore", "intervals": "profile"}
    with pytest.raises(ReleaseRefused, match=r"limits.*equations") as error:
        fit_files(files, "stays", f"readmit ~ {STAY}", {**learner, "aggregation": "plain"})
    assert error.value.code == "CO-R301"


def test_another_level_has_wald_s_limits(tmp_path: Path) -> None:
    learner = {"name": "glore", "intervals": "profile"}
    fit = fit_files(write_site_files("stays", 3, tmp_path), "stays", f"readmit ~ {STAY}", learner).fit
    (row, *_), (wide, *_) = coefficient_table(fit), coefficient_table(fit, 0.99)
    assert row.estimate - row.ci_low != pytest.approx(row.ci_high - row.estimate, rel=1e-6)
    assert wide.estimate - wide.ci_low == pytest.approx(wide.ci_high - wide.estimate)


def test_limits_far_from_wald_s_settle_too() -> None:
    """One event in a level of forty patients, none expected elsewhere: the lower limit lies far below Wald's."""
    codes = draw(600, seed=4)
    level = np.flatnonzero(codes["male"] == 1)[40:]
    codes["male"][level] = 0.0
    at = np.flatnonzero(codes["male"] == 1)
    codes["died"][at] = 0.0
    codes["died"][at[:1]] = 1.0
    fit, _ = play(profile_study(), codes)
    row = next(row for row in coefficient_table(fit) if row.term == "male")
    assert row.estimate - row.ci_low > 1.2 * (row.ci_high - row.estimate)
    assert math.isfinite(row.ci_low)


def play(study: Study, codes: Any) -> tuple[Fit, MemoryProtocol]:
    table = MemoryProtocol(glore, study, split(study, codes))
    fit = table.play()[study.sites[0]]
    assert isinstance(fit, Fit)
    return fit, table


def test_only_the_last_post_of_the_limits_ends_the_study() -> None:
    _, table = play(profile_study(), draw(400))
    ends = [topic for topic in table.topics if any(p.get("converged", False) for p in table.posts(topic).values())]
    assert ends == [[topic for topic in table.topics if topic.startswith("limits_model/")][-1]]
    assert table.auditor().unchecked == 0


def test_limits_change_nothing_else() -> None:
    codes = draw(400)
    fit, _ = play(profile_study(), codes)
    plain, _ = play(study("died ~ age + male", 3), codes)
    assert fit.estimates.tobytes() == plain.estimates.tobytes()
    assert fit.std_errors.tobytes() == plain.std_errors.tobytes()


def test_a_deviance_below_the_fit_s_is_refused() -> None:
    of = profile_study(2, aggregation="plain")
    _, table = play(of, draw(400))
    plan, model = GlorePlan.of(of), dict(next(iter(table.posts(_last_model(table)).values())))
    state, posts = begin_at_wald(plan, model), table.posts("limits/0")
    hostile = {**posts, "south": {**posts["south"], "deviance": -1e3 * np.ones(6)}}
    with pytest.raises(ProtocolError, match="below that of the fit") as error:
        step_points(plan, SiteSums(shape_points(plan), masked=False), model, state, hostile, 0)
    assert error.value.code == "CO-P508"


def _last_model(table: MemoryProtocol) -> str:
    return next(topic for topic in reversed(table.topics) if topic.startswith(("model/", "end/")))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"firth": True}, "CO-S354"),
        ({"ridge": 1.0}, "CO-S354"),
        ({"robust": True}, "CO-S354"),
        ({"site_intercepts": True}, "CO-S354"),
        ({"link": "identity"}, "CO-S354"),
        ({"family": "quasibinomial"}, "CO-S354"),
    ],
)
def test_a_model_without_such_limits_is_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as error:
        profile_study(**options)
    assert error.value.code == code


def test_a_study_that_may_lose_a_site_has_no_limits() -> None:
    plain = profile_study().model_dump()
    with pytest.raises(StudyError) as error:
        complete_study(Study.model_validate({**plain, "ledger": {"silent_site": "exclude"}}))
    assert error.value.code == "CO-S306"


def test_older_studies_keep_their_hashes() -> None:
    assert "intervals" not in study("died ~ age + male", 3).learner.options
