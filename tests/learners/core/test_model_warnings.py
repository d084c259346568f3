"""A fit comes with the warnings that its reader needs, and with none where none is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from learners.cola.test_cola import codes as patterns
from learners.cola.test_cola import federated as tabled
from learners.glore.test_glore import codes, federated
from support.learners import cohorts, strata, vertical

from coterie_learners.core import model_warnings
from coterie_learners.sums.families import choose_family
from coterie_learners.vertical.site_columns import ColumnSplit, SplitOptions, build_split_fit


@pytest.mark.parametrize(
    ("law", "n", "events", "coefficients", "message"),
    [
        ("binomial", 1000, 60, 6, None),
        ("binomial", 1000, 59, 6, "59 patients with the rarer outcome for 6 coefficients"),
        ("binomial", 1000, 941, 6, "59 patients with the rarer outcome for 6 coefficients"),
        ("poisson", 20, 500, 6, None),
        ("poisson", 1000, 12, 6, "12 events for 6 coefficients"),
        ("gaussian", 59, None, 6, "59 rows for 6 coefficients"),
        ("gaussian", 60, None, 6, None),
        ("binomial", 9, 1, 0, None),
    ],
)
def test_ten_events_for_each_coefficient(
    law: str, n: int, events: int | None, coefficients: int, message: str | None
) -> None:
    binary = choose_family(law, None).has_events
    warnings = model_warnings.warn_of_few_events(n, events, coefficients, binary, "Leave terms out.")
    assert len(warnings) == (message is not None)
    if message is not None:
        assert warnings[0].startswith(message)
        assert warnings[0].endswith(". Leave terms out.")


def test_a_fit_of_few_events_says_so_and_one_of_many_does_not() -> None:
    fit, _ = federated(cohorts.study(), codes())
    enough = min(fit.events or 0, fit.n - (fit.events or 0)) >= 10 * (len(fit.terms) - 1)
    assert bool(fit.notes) != enough
    few, _ = federated(cohorts.study("died ~ age + crp + male + stage"), {k: v[:90] for k, v in codes().items()})
    assert "fewer than 10 for each" in "".join(few.notes)


@pytest.mark.parametrize(
    ("options", "message"), [({"robust": True}, model_warnings.ROBUST[0]), ({"firth": True}, model_warnings.FIRTH[0])]
)
def test_other_standard_errors_and_another_likelihood_are_reported(options: dict[str, Any], message: str) -> None:
    assert message in tabled(strata.study(**options), patterns())[0].notes
    assert message not in tabled(strata.study(), patterns())[0].notes


def test_a_ridge_is_reported() -> None:
    assert any(note.startswith("Ridge 0.5:") for note in federated(cohorts.study(ridge=0.5), codes())[0].notes)
    assert not any(note.startswith("Ridge") for note in federated(cohorts.study(), codes())[0].notes)


def test_counts_have_events() -> None:
    fit, _ = federated(cohorts.study("visits ~ age", family="poisson"), codes())
    assert fit.events == int(codes()["visits"].sum())


def test_split_columns_count_the_coefficients_of_all_sites() -> None:
    split = ColumnSplit.of(vertical.study(ridge=1.0), SplitOptions(ridge=1.0))
    few = build_split_fit(split, ("a1",), np.zeros(1), None, {"n": 500, "events": 100})
    assert few.notes[0].startswith("Ridge 1:")
    assert few.notes[1].startswith("100 patients with the rarer outcome for 18 coefficients")
    assert len(build_split_fit(split, ("a1",), np.zeros(1), None, {"n": 500}).notes) == 1


@pytest.mark.parametrize(("groups", "few"), [(29, True), (30, False)])
def test_a_sandwich_of_clusters_says_how_many_there_are_and_that_few_are_rough(groups: int, few: bool) -> None:
    (note,) = model_warnings.describe_sandwich("patient", False, groups)
    assert f"of each patient together ({groups} clusters" in note
    assert ("are few" in note) is few
    assert "clusters" not in model_warnings.describe_sandwich("HC1", False, groups)[0]
