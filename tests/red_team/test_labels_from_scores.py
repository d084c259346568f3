"""Attacks on evaluations: a patient's outcome read off the counts by score, of one study or of two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.lanes import later
from support.learners.evaluation_study import draw_sites, held_out_study, play_evaluation, validation_study
from support.learners.evaluation_study import split_stays as split_validation
from support.learners.table import MemoryProtocol
from support.red_team.hospitals import Network

from coterie_learners.core import masked_sum
from coterie_learners.core.registry import complete_study
from coterie_learners.evaluate.evaluation_plan import ShownRanges
from coterie_learners.evaluate.validate import plan_validation
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Floors, Study
from coterie_learners.study.rows import ArrayCodes
from coterie_node.errors import ReleaseRefused
from coterie_node.release.known_ranges import warn_of_evaluations
from coterie_node.release.policy import Policy

FLOOR = 5
STUDY = """
name = "evaluation"
sites = ["a", "b", "c"]
formula = "arm ~ age + sex"
{patient}
[learner]
{learner}
[evaluate]
{evaluate}
[variables.arm]
type = "binary"
[variables.sex]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
"""
GLORE = 'name = "glore"'
PUBLISHED = 'name = "validate"\ncoefficients = {{ "(Intercept)" = -6.0, age = {age}, sex = 0.4 }}'


def write_study(learner: str = GLORE, evaluate: str = "held_out = 0.2", patient: str = 'patient = "pseudonym"') -> str:
    return STUDY.format(learner=learner, evaluate=evaluate, patient=patient)


def unmask_last(study: Study, protocol: MemoryProtocol, topic: str, shapes: Mapping[str, Any]) -> dict[str, Array]:
    """The first site's own sums, as all others together see them when they take their pads off."""
    machines = {name: protocol.machines[name].seat(study.sites, 0) for name in study.sites}
    victim, *others = study.sites
    words: NDArray[np.uint64] = np.asarray(protocol.posts(topic)[victim]["masked"])
    for peer in others:
        pad = np.frombuffer(machines[peer].mask(victim, topic, words.nbytes), "<u8").reshape(words.shape)
        words = masked_sum.add_words(words, masked_sum.negate_words(pad) if victim < peer else pad)
    return masked_sum.unmask_sums({victim: {"masked": words}}, shapes)


def test_all_other_sites_together_see_no_small_count_of_the_last_one_by_score() -> None:
    study = validation_study("scores", floor=FLOOR, by=["ward"], scale="spread")
    _, protocol = play_evaluation(study, split_validation(study))
    plan = plan_validation(study)
    flags = masked_sum.unmask_sums(protocol.posts("evaluation/halves"), plan.flags)["halves"]
    shown = ShownRanges.of(plan, flags, len(study.sites))
    own = unmask_last(study, protocol, "evaluation/scores", shown.shapes)["counts"]
    assert own.sum() > 0
    assert len(own) > 4
    for counts in shown.split(own):
        # Any union of neighbouring ranges is a threshold's count.
        sums = [np.sum(counts[i:j], axis=0) for i in range(len(counts)) for j in range(i + 1, len(counts) + 1)]
        assert not [s for s in sums if np.any((s > 0) & (s < FLOOR)) or (s[1] > 0 and s[0] == 0)]


@pytest.mark.parametrize(("moved", "hidden"), [(0, []), (1, ["male"])])
def test_a_column_whose_levels_are_the_ranges_but_for_one_patient_is_not_shown(moved: int, hidden: list[str]) -> None:
    rows = draw_sites()
    for site in rows.values():
        assert isinstance(site, ArrayCodes)
        site.everything["male"][:] = site.everything["lab"] >= 0.0
        site.everything["male"][:moved] = 1.0 - site.everything["male"][:moved]
    plain = held_out_study(floor=FLOOR, by=["male"]).model_dump() | {"formula": "ill ~ lab"}
    plain["learner"] = {"name": "validate", "coefficients": {"(Intercept)": 0.0, "lab": 3.0}}
    plain["evaluate"] = {"by": ["male"], "grid": 2, "scale": "probability"}
    fit, _ = play_evaluation(complete_study(Study.model_validate(plain)), rows)
    assert fit.details["evaluation"]["not_shown"] == hidden
    assert [group["bins"] for group in fit.details["evaluation"]["groups"]][:1] == [2]


# Through the gate, over several studies


def draw(seed: int, n: int = 600) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    age, sex = np.round(rng.normal(64, 9, n), 1), rng.integers(0, 2, n)
    arm = rng.random(n) < 1.0 / (1.0 + np.exp(-(0.09 * (age - 64) + 0.5 * sex)))
    return {"pseudonym": np.array([f"{seed}-{k}" for k in range(n)]), "age": age, "sex": sex, "arm": arm.astype(int)}


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})


@pytest.mark.parametrize("patient", ['patient = "pseudonym"', *later("")])
def test_a_second_share_that_holds_few_more_out_is_refused(hospitals: Network, patient: str) -> None:
    hospitals.fit(write_study(patient=patient))
    # The evaluated part is judged first, of which the others are a few more.
    with pytest.raises(ReleaseRefused, match=r"'evaluation/labels'.*\((added|row count)\)"):
        hospitals.fit(write_study(evaluate="held_out = 0.205", patient=patient))


def test_the_same_evaluation_again_is_let_go(hospitals: Network) -> None:
    hospitals.fit(write_study())
    hospitals.fit(write_study())
    assert len([name for name in hospitals.logs["a"].storage if name.startswith("ranges/")]) == 2


def test_a_second_grid_over_the_same_patients_is_refused(hospitals: Network) -> None:
    published = PUBLISHED.format(age=0.09)
    hospitals.fit(write_study(published, "grid = 200"))
    with pytest.raises(ReleaseRefused, match=r"\(score ranges\)"):
        hospitals.fit(write_study(published, "grid = 300"))


def test_a_model_that_moves_one_patient_over_a_threshold_is_refused(hospitals: Network) -> None:
    grid = 'grid = 20\nscale = "probability"'
    hospitals.fit(write_study(PUBLISHED.format(age=0.09), grid))
    with pytest.raises(ReleaseRefused, match=r"\(score ranges\)"):
        hospitals.fit(write_study(PUBLISHED.format(age=0.0901), grid))


def test_another_model_on_the_same_few_patients_is_foreseen_refused_and_let_go_as_the_warning_says(
    hospitals: Network,
) -> None:
    first = write_study(evaluate='held_out = 0.2\nseed = "s4"')
    hospitals.fit(first)
    smaller = first.replace("age + sex", "age").replace('"evaluation"', '"smaller"')
    storage = hospitals.logs["a"].storage
    assert warn_of_evaluations(complete_study(Study.from_toml(first)), storage) == ""
    warning = warn_of_evaluations(complete_study(Study.from_toml(smaller)), storage)
    assert "evaluated on arm before, by evaluation" in warning
    with pytest.raises(ReleaseRefused, match=r"\(score ranges\)"):
        hospitals.fit(smaller)
    assert "another evaluate.seed" in warning
    assert "evaluate.grid = 2" in warning
    hospitals.fit(smaller.replace('seed = "s4"', 'seed = "s4"\ngrid = 2'))
    hospitals.fit(smaller.replace('seed = "s4"', 'seed = "others"'))


def test_a_study_that_evaluates_nothing_or_another_outcome_is_not_warned_of(hospitals: Network) -> None:
    hospitals.fit(write_study())
    storage = hospitals.logs["a"].storage
    for text in (write_study(evaluate=""), write_study().replace("arm ~ age + sex", "sex ~ age")):
        renamed = text.replace('"evaluation"', '"second"')
        assert warn_of_evaluations(complete_study(Study.from_toml(renamed)), storage) == ""


@pytest.mark.long
def test_many_models_on_the_same_patients_are_a_person_s_decision(hospitals: Network) -> None:
    for step in range(4):
        hospitals.fit(write_study(PUBLISHED.format(age=0.09 + 1e-12 * step), "grid = 20"))
    with pytest.raises(ReleaseRefused, match=r"\(several evaluations\)"):
        hospitals.fit(write_study(PUBLISHED.format(age=0.09 + 5e-12), "grid = 20"))


def test_a_cohort_keeps_the_held_out_patients_too(hospitals: Network) -> None:
    cohort = '[cohort]\nname = "once"\n[variables.arm]'
    text = write_study().replace("[variables.arm]", cohort)
    hospitals.fit(text)
    for site in hospitals.data.values():
        for name in site:
            site[name] = site[name][::-1].copy()
    # Cut down to the rows of the fit, the second study would hold others out and be refused.
    hospitals.fit(text)
    assert hospitals.logs["a"].heads()[0].rows == hospitals.logs["a"].heads()[2].rows


def test_a_site_s_stricter_floor_keeps_its_plain_counts_by_score_back(hospitals: Network) -> None:
    hospitals.policy = Policy(floors=Floors(cell=60))
    with pytest.raises(ReleaseRefused, match=r"counts below 60 patients"):
        hospitals.fit(write_study(PUBLISHED.format(age=0.09) + '\naggregation = "plain"', "grid = 200"))
