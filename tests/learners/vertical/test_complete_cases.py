"""Complete cases over all owners: who lacks a value is left out everywhere, counted by owner, and shown to nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from learners.vertical.test_vertigo import remove_patients
from support.learners import vertical
from support.learners.cohorts import Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.disclosure import judge_exposure
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns
from coterie_learners.vertical.alignment import Alignment, count_incomplete, expose_report

N = 300
# Patients who lack a value at each owner; six of them at both.
LACKING = {"south": range(20), "east": range(14, 40)}


def study(learner: str = "vertigo", cell: int = 5, **rows: Any) -> Study:
    plain = vertical.study(learner=learner, rows=rows).model_dump()
    plain["disclosure"]["cell"] = cell
    return Study.model_validate(plain)


def blank(own: OwnColumns, patients: Any) -> OwnColumns:
    """The same columns of a file in which these patients lack a value."""
    people = {f"patient {k:05d}" for k in patients}
    lacking = tuple(row for row in own.identifiers if row[0] in people)
    return replace(remove_patients(own, people), incomplete=lacking)


def files(of: Study, codes: Codes, lacking: Any = None) -> dict[str, OwnColumns]:
    own = vertical.split(of, codes)
    return own | {name: blank(own[name], people) for name, people in (lacking or LACKING).items()}


def play(of: Study, codes: Codes, lacking: Any = None) -> tuple[dict[str, Any], MemoryProtocol]:
    table = MemoryProtocol(learner_of(of).script, of, files(of, codes, lacking))
    return table.play(), table


def few(codes: Codes, first: int) -> Codes:
    return {name: values[first:] for name, values in codes.items()}


@pytest.mark.parametrize("learner", ["vertigo", "valoris"])
def test_the_fit_is_that_of_the_complete_cases_and_each_owner_s_losses_are_named(learner: str) -> None:
    codes = vertical.draw(N)
    results, _ = play(study(learner), codes)
    fit = results["north"]
    estimates, errors = vertical.pooled(study(), few(codes, 40))
    at = [vertical_names().index(term) for term in fit.terms]
    np.testing.assert_allclose(fit.estimates, estimates[at], rtol=0, atol=1e-8)
    np.testing.assert_allclose(fit.std_errors, errors[at], rtol=0, atol=1e-8)
    assert fit.n == N - 40
    counts = fit.details["alignment"]
    assert (counts["common"], counts["complete"]) == (N, N - 40)
    assert counts["incomplete"] == {"north": 0, "south": 20, "east": 26}
    assert counts["unmatched"] == {"north": 0, "south": 0, "east": 0}
    assert any("Complete cases: 260 of 300 patients; without a value at south 20, east 26." in n for n in fit.notes)


def vertical_names() -> list[str]:
    from coterie_learners.study.design import Design

    return list(Design(study()).names)


def test_a_count_below_the_floor_is_not_posted_and_the_gate_would_refuse_it() -> None:
    results, table = play(study(), vertical.draw(N), {"south": range(3), "east": range(9)})
    counts = results["north"].details["alignment"]["incomplete"]
    assert counts == {"north": 0, "south": -1, "east": 9}
    assert any("south 1 to 4, east 9" in note for note in results["north"].notes)
    assert [count_incomplete(k, 5) for k in (0, 1, 4, 5)] == [0, -1, -1, 5]
    post = dict(table.posts("align/report")["east"])
    site = table.machines["east"].site
    assert not judge_exposure(expose_report(site, post), study().disclosure, "align/report").refused
    verdict = judge_exposure(
        expose_report(site, {**post, "incomplete": np.int64(4)}), study().disclosure, "align/report"
    )
    assert verdict.refused
    assert "patients in common who lack a value" in verdict.sentence
    assert not expose_report(table.machines["south"].site, dict(table.posts("align/report")["south"])).cells


def test_no_post_says_at_which_of_three_owners_a_patient_lacks_a_value() -> None:
    _, table = play(study(), vertical.draw(N))
    words = {name: np.asarray(post["lacking"]) for name, post in table.posts("align/report").items()}
    total = sum(words.values(), np.zeros(N, dtype=np.uint64))
    assert np.count_nonzero(total) == 40
    for own in words.values():
        # Uniform words: none is 0, and those of complete cases look like the others.
        assert np.count_nonzero(own == 0) == 0
        assert abs(float(np.mean(own[total == 0] / 2.0**64)) - 0.5) < 0.1
    # What two of the three add up to is as uniform as one.
    assert np.count_nonzero(words["south"] + words["east"] == 0) == 0


def test_a_patient_with_a_complete_row_too_is_a_complete_case() -> None:
    codes = vertical.draw(N)
    of = study()
    own = vertical.split(of, codes)
    own["south"] = replace(own["south"], incomplete=(own["south"].identifiers[0], ("somebody else",)))
    fit = MemoryProtocol(learner_of(of).script, of, own).play()["north"]
    assert (fit.n, fit.details["alignment"]["incomplete"]["south"]) == (N, 0)
    assert fit.details["alignment"]["unmatched"]["south"] == 1


def test_too_few_complete_cases_end_the_study_before_the_fit_and_name_the_owners() -> None:
    with pytest.raises(StudyError, match=r"260 complete cases in common.*south 20, east 26") as caught:
        play(study(minimum=280), vertical.draw(N))
    assert caught.value.code == "CO-N205"


def test_a_report_on_other_patients_is_refused_and_named() -> None:
    _, table = play(study(), vertical.draw(N))
    machine = table.machines["north"]
    from learners.vertical.test_valoris import _part_of

    part = _part_of(machine.site, study("valoris"), table)
    reports = {name: dict(post) for name, post in table.posts("align/report").items()}
    reports["east"]["lacking"] = reports["east"]["lacking"][:-1]
    with pytest.raises(ProtocolError, match="east reports on 299 patients") as caught:
        _ = Alignment(part.alignment.matches, reports).complete
    assert caught.value.code == "CO-P541"
