"""Families and links against R's glm on two data sets: masked, in the clear, as tables; at two, three and five sites.

One site lacks a level. R's fits come to rest before they are stored (tests/golden/r/families.R).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.lanes import one_of_each
from support.learners.r_stays import fit_files, largest_differences, references, write_site_files

X = "age + ward + frail"
C = "age + sex + diabetes + htn"
NEGATIVE: dict[str, Any] = {"family": "negative_binomial", "max_rounds": 60}
# R's name of a model; its formula here, and the learner's options.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gamma_inverse": (f"stay ~ {X}", {"family": "gamma"}),
    "gamma_log": (f"stay ~ {X}", {"family": "gamma", "link": "log"}),
    "gamma_identity": (f"stay ~ {X}", {"family": "gamma", "link": "identity"}),
    "gamma_log_offset": (f"stay ~ {X} + offset(logdays)", {"family": "gamma", "link": "log"}),
    "inverse_gaussian": (f"stay ~ {X}", {"family": "inverse_gaussian"}),
    "inverse_gaussian_log": (f"stay ~ {X}", {"family": "inverse_gaussian", "link": "log"}),
    "gaussian_log": (f"stay ~ {X}", {"family": "gaussian", "link": "log"}),
    "log_binomial": (f"readmit ~ {X}", {"link": "log"}),
    "risk_difference": (f"readmit ~ {X}", {"link": "identity"}),
    "rate_difference": (f"infections ~ {X}", {"family": "poisson", "link": "identity"}),
    "quasi_probit": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "probit"}),
    "quasi_cloglog": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "cloglog"}),
    "quasi_log_binomial": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "log"}),
    "quasi_risk_difference": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "identity"}),
    "quasi_rate_difference": (f"infections ~ {X}", {"family": "quasipoisson", "link": "identity"}),
    "root_rate": (f"infections ~ {X}", {"family": "poisson", "link": "sqrt"}),
    "quasi_root_rate": (f"infections ~ {X}", {"family": "quasipoisson", "link": "sqrt"}),
    "cauchit": (f"readmit ~ {X}", {"link": "cauchit"}),
    "quasi_cauchit": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "cauchit"}),
    "cohort_root_rate": (f"visits ~ {C}", {"family": "poisson", "link": "sqrt"}),
    "cohort_quasi_root_rate": (f"visits ~ {C}", {"family": "quasipoisson", "link": "sqrt"}),
    "cohort_cauchit": (f"death ~ {C}", {"link": "cauchit"}),
    "cohort_quasi_cauchit": (f"death ~ {C}", {"family": "quasibinomial", "link": "cauchit"}),
    "logit_offset": (f"readmit ~ {X} + offset(logdays)", {}),
    "cloglog_offset": (f"readmit ~ {X} + offset(logdays)", {"link": "cloglog"}),
    "negative_binomial": (f"infections ~ {X}", NEGATIVE),
    "negative_binomial_offset": (f"infections ~ {X} + offset(logdays)", NEGATIVE),
    "capped": (f"capped ~ {X}", NEGATIVE),
    "capped_offset": (f"capped ~ {X} + offset(logdays)", NEGATIVE),
    "cohort_capped": (f"capped ~ {C}", NEGATIVE),
    "cohort_negative_binomial": (f"visits ~ {C}", NEGATIVE),
    "cohort_gamma_inverse": (f"stay ~ {C}", {"family": "gamma"}),
    "cohort_gamma_log": (f"stay ~ {C}", {"family": "gamma", "link": "log"}),
    "cohort_gamma_identity": (f"stay ~ {C}", {"family": "gamma", "link": "identity"}),
    "cohort_inverse_gaussian": (f"stay ~ {C}", {"family": "inverse_gaussian"}),
    "cohort_inverse_gaussian_log": (f"stay ~ {C}", {"family": "inverse_gaussian", "link": "log"}),
    "cohort_gaussian_log": (f"stay ~ {C}", {"family": "gaussian", "link": "log"}),
    "cohort_log_binomial": (f"death ~ {C}", {"link": "log"}),
    "cohort_quasi_probit": (f"death ~ {C}", {"family": "quasibinomial", "link": "probit"}),
    "cohort_quasi_cloglog": (f"death ~ {C}", {"family": "quasibinomial", "link": "cloglog"}),
    "cohort_quasi_log_binomial": (f"death ~ {C}", {"family": "quasibinomial", "link": "log"}),
    "cohort_quasi_rate_difference": (f"visits ~ {C}", {"family": "quasipoisson", "link": "identity"}),
    "cohort_rate_difference": (f"visits ~ {C}", {"family": "poisson", "link": "identity"}),
}
MASKED, PLAIN = {"name": "glore", "aggregation": "masked"}, {"name": "glore", "aggregation": "plain"}
TABLES = {"name": "cola", "suppress": "none"}
ESTIMATES, ERRORS = 1e-8, 1e-7


def cases() -> list[Any]:
    stays = [model for model in MODELS if not model.startswith("cohort")]
    # Masked sums for a shape need counts of which none is rare.
    masked = [model for model in MODELS if "negative_binomial" not in model]
    out: list[tuple[str, int, dict[str, Any]]] = [(model, 3, MASKED) for model in masked if model in stays]
    out += [(model, 4, MASKED) for model in masked if model not in stays]
    # Of the last hospital's rows the gate keeps so many plain rounds back.
    out += [(model, 2, PLAIN) for model in MODELS if model != "inverse_gaussian"]
    out += [("gamma_log", 5, MASKED), ("log_binomial", 5, MASKED), ("gamma_inverse", 5, PLAIN)]
    rows_only = ("gaussian_log", "negative_binomial", "capped")
    tables = [m for m in MODELS if m.startswith("cohort") and not m.endswith(rows_only)]
    out += [(model, 4, TABLES) for model in [*tables, "cohort_inverse_gaussian_log"]]
    return one_of_each(out, lambda case: case[0])


@pytest.mark.parametrize(("model", "count", "learner"), cases())
def test_a_family_with_its_link_is_fitted_as_r_fits_it(
    tmp_path: Path, model: str, count: int, learner: dict[str, Any]
) -> None:
    formula, options = MODELS[model]
    data = "cohort" if model.startswith("cohort") else "stays"
    files = write_site_files(data, count, tmp_path)
    result = fit_files(files, data, formula, {**learner, **options})
    estimates, errors = largest_differences(result, references("families")[model])
    assert estimates <= ESTIMATES
    assert errors <= ERRORS


def test_every_stored_family_is_compared() -> None:
    assert set(MODELS) == set(references("families"))
