"""What studies disclose follows from their options; one object says it, with and without docstrings."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.learners import cohorts, glm_studies, joins, strata, vertical

from coterie_learners.core.registry import Learner, learner_of
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure
from coterie_learners.glore.glore import glore
from coterie_learners.study.document import Frozen, Schedule, Study

TESTS = Path(__file__).parents[2]


def disclose(study: Study) -> Disclosure:
    return learner_of(study).discloses(study)


def words(disclosure: Disclosure) -> str:
    return " ".join(line for lines in disclosure.paragraphs.values() for line in lines)


def protection(disclosure: Disclosure, topic: str) -> str:
    step = disclosure.find_step(topic)
    assert step is not None
    return step.protection


def test_glore_discloses_sums_of_all_sites_under_masks_and_each_sites_in_the_clear() -> None:
    masked, plain = (disclose(cohorts.study(aggregation=choice)) for choice in ("masked", "plain"))
    assert (protection(masked, "stats/3"), protection(plain, "stats/3")) == ("masked", "plain")
    assert "two-way table" not in words(masked)
    assert "two-way table" in words(plain)
    assert "must not collude" in words(masked)


def test_cola_discloses_the_outcome_of_each_pattern_only_with_cells() -> None:
    plain, cells = (disclose(strata.study(learner="cola", cells=choice)) for choice in (False, True))
    assert "Readers see the outcome of each pattern." not in words(plain)
    assert "Readers see the outcome of each pattern." in words(cells)
    assert protection(plain, "table") == "plain"


@pytest.mark.parametrize(
    ("scheme", "sentence"),
    [
        ("masks", "learns the summed table over all sites"),
        ("bfv", "holds the key and learns the summed table"),
        ("ckks", "rounded to whole numbers"),
        ("newton", "Nobody sees any table"),
    ],
)
def test_each_scheme_of_secure_cola_discloses_its_own(scheme: str, sentence: str) -> None:
    disclosure = disclose(strata.study(learner="secure_cola", scheme=scheme))
    assert sentence in words(disclosure)
    assert "All sites but one together" in words(disclosure)
    assert protection(disclosure, "stats/0" if scheme == "newton" else "table") == "masked"


def test_valoris_discloses_factors_by_site_and_a_sum_in_the_aggregated_mode() -> None:
    apart, summed = (disclose(vertical.study(learner="valoris", mode=mode)) for mode in ("per_site", "aggregated"))
    assert {step.protection for step in apart.steps if step.topic.startswith("factor/")} == {"plain"}
    assert {step.protection for step in summed.steps if step.topic.startswith("factor/")} == {"masked"}
    assert "undo the rotation" in words(summed)
    assert "undo the rotation" not in words(apart)


def test_what_no_step_seals_is_read_by_members_and_by_readers_of_the_store() -> None:
    step = StepDisclosure("sums", "each", "Sums")
    assert "Every member of the study and everybody who can read the store can read this." in step.line
    assert "store" not in replace(step, readers=("north",)).line


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_the_floor_of_encrypted_tables_is_that_of_what_the_holder_opens(scheme: str) -> None:
    text = words(disclose(strata.study(learner="secure_cola", floor=5, scheme=scheme, holder="south")))
    assert "fewer than 5 rows over all sites" in text
    assert "rows over all sites is not opened. south sees these patterns too." in text
    assert "a site may have fewer in a pattern that is opened" in text
    none = words(disclose(strata.study(learner="secure_cola", scheme=scheme, suppress="none")))
    assert "No pattern of the sum is left out" in none


def test_valoris_discloses_that_covariate_sites_can_combine_their_answers() -> None:
    three = words(disclose(vertical.study(learner="valoris", mode="per_site")))
    assert "must not collude: " in three
    assert "combine their columns and answers" in three
    assert "does not bound how well a reader can guess an outcome" in three
    assert "No reader can" not in three


def test_valoris_discloses_no_covariance_without_standard_errors() -> None:
    assert "covariance" not in words(disclose(vertical.study(learner="valoris", standard_errors=False)))


def test_vertigo_discloses_the_outcome_to_every_member_and_what_it_exchanges() -> None:
    thin, gram = (disclose(vertical.study(learner="vertigo", exchange=kind, ridge=1.0)) for kind in ("thin", "gram"))
    assert "Gram matrix" in words(gram)
    assert "Gram matrix" not in words(thin)
    assert "Every member reads the outcome" in words(thin)


def test_secure_lasso_discloses_the_join_to_the_helper_and_what_is_opened() -> None:
    masks, paillier = (disclose(joins.cohort(alpha=[0.1], linkage=kind).study) for kind in ("masks", "paillier"))
    assert "read the rows of another owner" in words(masks)
    assert "own key even if" in words(paillier)
    assert all("sees no identifier and no value" in words(disclosure) for disclosure in (masks, paillier))
    assert "scores of cross-validation" in words(disclose(joins.rows_cohort(alpha=[0.1], folds=3).study))


def test_secure_glm_discloses_what_one_of_two_hospitals_can_take_off() -> None:
    two, three = (disclose(glm_studies.rows_cohort(hospitals=count).study) for count in (2, 3))
    assert "it then knows the other's score" in words(two)
    assert "it then knows the other's score" not in words(three)
    assert "No two of s0, s1, hub may collude" in words(two)
    assert "hub sees no identifier and no value" in words(disclose(glm_studies.columns_cohort().study))


def test_a_learner_that_discloses_nothing_cannot_be_constructed() -> None:
    parts: dict[str, Any] = {"name": "silent", "version": "1", "options": Frozen, "check": lambda study: None}
    with pytest.raises(TypeError, match="discloses"):
        Learner(**parts, schedule=lambda study: Schedule(opening=("each",)), script=glore)


def test_a_study_discloses_the_same_without_docstrings() -> None:
    code = (
        "from support.learners import cohorts\n"
        "from coterie_learners.core.registry import learner_of\n"
        "study = cohorts.study()\n"
        "print(*learner_of(study).discloses(study).leaves, sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-OO", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert run.stdout.splitlines() == list(disclose(cohorts.study()).leaves)
