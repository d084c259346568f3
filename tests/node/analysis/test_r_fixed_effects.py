"""GLORE with an intercept that each site keeps, and with Firth's penalty, against R (tests/golden/r/fixed_effects.R).

R fits a dummy for each site; here no site's intercept, and no moment of it, leaves the site.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.lanes import diagonal, one_of_each
from support.learners.r_stays import fit_files, largest_differences, references, write_site_files

X = "age + ward + frail"
PRIOR, LOG = {"weights": "w"}, {"family": "gamma", "link": "log"}
# R's name of a model; its formula here, the number of sites, and the learner's options.
FIXED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "logit_3": (f"readmit ~ {X}", 3, {}),
    "logit_2": (f"readmit ~ {X}", 2, {}),
    "logit_5": (f"readmit ~ {X}", 5, {}),
    "probit_3": (f"readmit ~ {X}", 3, {"link": "probit"}),
    "poisson_3": (f"infections ~ {X}", 3, {"family": "poisson"}),
    "poisson_offset_5": (f"infections ~ {X} + offset(logdays)", 5, {"family": "poisson"}),
    "quasipoisson_3": (f"infections ~ {X}", 3, {"family": "quasipoisson"}),
    "linear_3": (f"stay ~ {X}", 3, {"family": "gaussian"}),
    "linear_2": (f"stay ~ {X}", 2, {"family": "gaussian"}),
    "gamma_log_3": (f"stay ~ {X}", 3, LOG),
    "gamma_inverse_2": (f"stay ~ {X}", 2, {"family": "gamma"}),
    "poisson_prior_3": (f"infections ~ {X}", 3, {"family": "poisson", **PRIOR}),
    "linear_prior_3": (f"stay ~ {X}", 3, {"family": "gaussian", **PRIOR}),
    "logit_hc0_3": (f"readmit ~ {X}", 3, {"robust": True}),
    "logit_hc1_3": (f"readmit ~ {X}", 3, {"robust": "HC1"}),
    "logit_hc3_3": (f"readmit ~ {X}", 3, {"robust": "HC3"}),
    "linear_hc2_3": (f"stay ~ {X}", 3, {"family": "gaussian", "robust": "HC2"}),
    "logit_patient_3": (f"readmit ~ {X}", 3, {"robust": "patient"}),
}
FIRTH = {"firth": f"readmit ~ {X}", "firth_separated": "readmit ~ age + ward + rare"}
ESTIMATES, ERRORS = 1e-8, 1e-7


def cases() -> list[Any]:
    both = [(model, how) for model, (_, count, _) in FIXED.items() for how in ("masked", "plain")]
    return [case for case in both if not (case[0].endswith("_2") and case[1] == "masked")]


@pytest.mark.parametrize(
    ("model", "aggregation"),
    one_of_each([c for c in cases() if c != ("logit_patient_3", "plain")], lambda case: case[0]),
)
def test_an_intercept_that_each_site_keeps_is_r_s_dummy_of_the_site(
    tmp_path: Path, model: str, aggregation: str
) -> None:
    formula, count, options = FIXED[model]
    files = write_site_files("stays", count, tmp_path)
    keys = {"patient": "patient"} if options.get("robust") == "patient" else {}
    learner = {"name": "glore", "aggregation": aggregation, "site_intercepts": True, **options}
    result = fit_files(files, "stays", formula, learner, **keys)
    estimates, errors = largest_differences(result, references("fixed_effects")[model])
    assert estimates <= ESTIMATES
    assert errors <= ERRORS
    assert result.fit.absorbed == count
    if keys:
        patients = sum(len(set(pd.read_csv(path)["patient"])) for path in files.values())
        assert any(f"of each patient together ({patients} clusters" in note for note in result.fit.notes)


@pytest.mark.parametrize(("model", "aggregation"), diagonal(list(FIRTH), ["plain", "masked"]))
def test_firth_s_penalty_on_rows_is_r_s(tmp_path: Path, model: str, aggregation: str) -> None:
    files = write_site_files("stays", 3, tmp_path)
    learner = {"name": "glore", "aggregation": aggregation, "firth": True, "max_rounds": 60}
    result = fit_files(files, "stays", FIRTH[model], learner)
    estimates, errors = largest_differences(result, references("fixed_effects")[model])
    assert estimates <= ESTIMATES
    assert errors <= ERRORS
    assert np.all(np.isfinite(result.fit.std_errors))


def test_every_stored_fixed_effect_is_compared() -> None:
    assert FIXED.keys() | FIRTH.keys() == references("fixed_effects").keys()
