"""An offset with other links against R's glm on two data sets, at two to five sites, one of which lacks a level.

R's fits come to rest before they are stored (tests/golden/r/offsets.R). `test_r_families.py` and `test_r_reference.py`
have the offsets of the other links.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.lanes import one_of_each
from support.learners.r_stays import COHORT, STAYS, fit_files, largest_differences, references, write_site_files

X = "age + ward + frail + offset(part)"
C = "age + sex + diabetes + htn + offset(part)"
PART = {"type": "number", "range": [-0.1, 0.1]}
# R's name of a model; its formula here, and the learner's options.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "probit": (f"readmit ~ {X}", {"link": "probit"}),
    "cauchit": (f"readmit ~ {X}", {"link": "cauchit"}),
    "log_binomial": (f"readmit ~ {X}", {"link": "log"}),
    "risk_difference": (f"readmit ~ {X}", {"link": "identity"}),
    "quasi_cauchit": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "cauchit"}),
    "rate_difference": (f"infections ~ {X}", {"family": "poisson", "link": "identity"}),
    "root_rate": (f"infections ~ {X}", {"family": "poisson", "link": "sqrt"}),
    "quasi_root_rate": (f"infections ~ {X}", {"family": "quasipoisson", "link": "sqrt"}),
    "gaussian_log": (f"stay ~ {X}", {"family": "gaussian", "link": "log"}),
    "gamma_inverse": (f"stay ~ {X}", {"family": "gamma"}),
    "gamma_identity": (f"stay ~ {X}", {"family": "gamma", "link": "identity"}),
    # Halved steps, each of which is a round, keep the means of the canonical link above zero.
    "inverse_gaussian": (f"stay ~ {X}", {"family": "inverse_gaussian", "max_rounds": 60}),
    "inverse_gaussian_identity": (f"stay ~ {X}", {"family": "inverse_gaussian", "link": "identity"}),
    "inverse_gaussian_log": (f"stay ~ {X}", {"family": "inverse_gaussian", "link": "log"}),
    "cohort_probit": (f"death ~ {C}", {"link": "probit"}),
    "cohort_cauchit": (f"death ~ {C}", {"link": "cauchit"}),
    "cohort_log_binomial": (f"death ~ {C}", {"link": "log"}),
    "cohort_risk_difference": (f"death ~ {C}", {"link": "identity"}),
    "cohort_rate_difference": (f"visits ~ {C}", {"family": "poisson", "link": "identity"}),
    "cohort_root_rate": (f"visits ~ {C}", {"family": "poisson", "link": "sqrt"}),
}
MASKED, PLAIN = {"name": "glore", "aggregation": "masked"}, {"name": "glore", "aggregation": "plain"}
ESTIMATES, ERRORS = 1e-8, 1e-7


def cases() -> list[Any]:
    stays = [model for model in MODELS if not model.startswith("cohort")]
    out = [(model, count, MASKED) for model in stays for count in (3, 5)]
    out += [(model, 4, MASKED) for model in MODELS if model not in stays]
    # Of the last hospital's rows the gate keeps so many plain rounds back.
    out += [(model, 2, PLAIN) for model in stays if not model.startswith("inverse_gaussian")]
    marked = one_of_each(out, lambda case: case[0])
    fast = ("cauchit", "root_rate")
    return [case if case.values[0] in fast else pytest.param(*case.values, marks=pytest.mark.long) for case in marked]


@pytest.mark.parametrize(("model", "count", "learner"), cases())
def test_an_offset_means_with_each_link_what_it_means_in_r(
    tmp_path: Path, model: str, count: int, learner: dict[str, Any]
) -> None:
    formula, options = MODELS[model]
    data = "cohort" if model.startswith("cohort") else "stays"
    variables = {**(COHORT if data == "cohort" else STAYS), "part": PART}
    files = write_site_files(data, count, tmp_path)
    result = fit_files(files, data, formula, {**learner, **options}, variables=variables)
    estimates, errors = largest_differences(result, references("offsets")[model])
    assert estimates <= ESTIMATES
    assert errors <= ERRORS


def test_every_stored_offset_is_compared() -> None:
    assert set(MODELS) == set(references("offsets"))
