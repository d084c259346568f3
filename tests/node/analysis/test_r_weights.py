"""Weights and sandwich errors in GLORE against R's glm, sandwich and survey (tests/golden/r/weights.R).

Masked at three and five sites, in the clear at two; patients who have several stays are known to their site alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.lanes import one_of_each
from support.learners.metamorphic import Trial
from support.learners.r_stays import STAYS, fit_files, largest_differences, references, write_site_files

from coterie_learners.errors import StudyError

X = "age + ward + frail"
PRIOR: dict[str, Any] = {"weights": "w"}
FREQUENCY: dict[str, Any] = {"weights": "f", "weight_kind": "frequency"}
SAMPLING: dict[str, Any] = {"weights": "w", "weight_kind": "sampling"}
LOG = {"family": "gamma", "link": "log"}
# R's name of a model; its formula here, and the learner's options.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "prior_logit": (f"readmit ~ {X}", PRIOR),
    "prior_poisson": (f"infections ~ {X}", {"family": "poisson", **PRIOR}),
    "prior_poisson_offset": (f"infections ~ {X} + offset(logdays)", {"family": "poisson", **PRIOR}),
    "prior_logit_offset": (f"readmit ~ {X} + offset(logdays)", PRIOR),
    "prior_linear": (f"stay ~ {X}", {"family": "gaussian", **PRIOR}),
    "prior_gamma": (f"stay ~ {X}", {**LOG, **PRIOR}),
    "prior_inverse_gaussian": (f"stay ~ {X}", {"family": "inverse_gaussian", "link": "log", **PRIOR}),
    "prior_quasipoisson": (f"infections ~ {X}", {"family": "quasipoisson", **PRIOR}),
    "frequency_logit": (f"readmit ~ {X}", FREQUENCY),
    "frequency_linear": (f"stay ~ {X}", {"family": "gaussian", **FREQUENCY}),
    "frequency_poisson": (f"infections ~ {X}", {"family": "poisson", **FREQUENCY}),
    "sampling_logit": (f"readmit ~ {X}", SAMPLING),
    "sampling_poisson": (f"infections ~ {X}", {"family": "poisson", **SAMPLING}),
    "sampling_linear": (f"stay ~ {X}", {"family": "gaussian", **SAMPLING}),
    "sampling_logit_patient": (f"readmit ~ {X}", {"robust": "patient", **SAMPLING}),
    "hc0_logit": (f"readmit ~ {X}", {"robust": True}),
    "hc1_logit": (f"readmit ~ {X}", {"robust": "HC1"}),
    "hc2_logit": (f"readmit ~ {X}", {"robust": "HC2"}),
    "hc3_logit": (f"readmit ~ {X}", {"robust": "HC3"}),
    "hc0_poisson": (f"infections ~ {X}", {"family": "poisson", "robust": "HC0"}),
    "hc3_poisson": (f"infections ~ {X}", {"family": "poisson", "robust": "HC3"}),
    "hc2_linear": (f"stay ~ {X}", {"family": "gaussian", "robust": "HC2"}),
    "hc3_linear": (f"stay ~ {X}", {"family": "gaussian", "robust": "HC3"}),
    "hc3_gamma": (f"stay ~ {X}", {**LOG, "robust": "HC3"}),
    "hc0_prior_logit": (f"readmit ~ {X}", {"robust": True, **PRIOR}),
    "hc3_prior_logit": (f"readmit ~ {X}", {"robust": "HC3", **PRIOR}),
    "patient_logit": (f"readmit ~ {X}", {"robust": "patient"}),
    "patient_poisson": (f"infections ~ {X}", {"family": "poisson", "robust": "patient"}),
    "patient_linear": (f"stay ~ {X}", {"family": "gaussian", "robust": "patient"}),
    "patient_gamma": (f"stay ~ {X}", {**LOG, "robust": "patient"}),
    "site_logit": ("readmit ~ age + frail", {"robust": "site"}),
    "site_poisson": ("infections ~ age + frail", {"family": "poisson", "robust": "site"}),
    "site_linear": ("stay ~ age + frail", {"family": "gaussian", "robust": "site"}),
}
MASKED, PLAIN = {"name": "glore", "aggregation": "masked"}, {"name": "glore", "aggregation": "plain"}
ESTIMATES, ERRORS = 1e-8, 1e-7


def cases() -> list[Any]:
    few = {model for model in MODELS if not model.startswith("site_")}
    out: list[tuple[str, int, dict[str, Any]]] = [(model, 3 if model in few else 5, MASKED) for model in MODELS]
    # Plain sums of patients with several rows the gate keeps back.
    out += [(model, 2, PLAIN) for model in MODELS if model in few and "patient" not in model]
    out += [("site_logit", 5, PLAIN)]
    out += [(model, 5, MASKED) for model in ("prior_logit", "sampling_linear", "hc3_logit", "patient_poisson")]
    return one_of_each(out, lambda case: case[0])


@pytest.mark.parametrize(("model", "count", "learner"), cases())
def test_weights_and_sandwich_errors_are_those_of_r(
    tmp_path: Path, model: str, count: int, learner: dict[str, Any]
) -> None:
    formula, options = MODELS[model]
    files = write_site_files("stays", count, tmp_path)
    keys = {"patient": "patient"} if options.get("robust") == "patient" else {}
    result = fit_files(files, "stays", formula, {**learner, **options}, **keys)
    estimates, errors = largest_differences(result, references("weights")[model])
    assert estimates <= ESTIMATES
    assert errors <= ERRORS


def test_every_stored_weighted_or_robust_model_is_compared() -> None:
    assert set(MODELS) == set(references("weights"))


@pytest.mark.parametrize(
    ("count", "terms", "keys"),
    [(4, "age", {}), (5, X, {}), (5, "age + frail", {"ledger": {"silent_site": "exclude"}})],
)
def test_sites_are_clusters_only_where_they_are_many_and_stay(
    tmp_path: Path, count: int, terms: str, keys: dict[str, Any]
) -> None:
    files = write_site_files("stays", 5, tmp_path)
    kept = dict(list(files.items())[:count])
    with pytest.raises(StudyError, match='robust = "site"') as error:
        fit_files(kept, "stays", f"readmit ~ {terms}", {"name": "glore", "robust": "site"}, **keys)
    assert error.value.code == "CO-S324"


@pytest.mark.parametrize("factor", [1.0, 5000.0])
def test_sampling_weights_in_any_unit_have_one_fit_and_no_warning_of_their_size(tmp_path: Path, factor: float) -> None:
    files = write_site_files("stays", 3, tmp_path)
    for path in files.values():
        rows = pd.read_csv(path)
        rows.assign(w=rows["w"] * factor).to_csv(path, index=False)
    wide = {**STAYS, "w": {"type": "number", "range": [0.1 * factor, 5 * factor]}}
    learner = {**MASKED, "family": "poisson", **SAMPLING}
    result = fit_files(files, "stays", f"infections ~ {X}", learner, variables=wide)
    estimates, errors = largest_differences(result, references("weights")["sampling_poisson"])
    assert (estimates < ESTIMATES, errors < ERRORS) == (True, True)
    assert result.fit.details["pearson"]["ratio"] < 3.0
    # The sandwich allows for more variation than the family has, and a sample has no chi-squared.
    assert not result.fit.warnings


def test_of_a_sample_no_site_is_said_to_stand_apart() -> None:
    rng = np.random.default_rng(3)
    codes = {"y": rng.integers(0, 2, 300).astype(float), "a": rng.integers(0, 2, 300).astype(float)}
    codes["w"] = np.round(rng.uniform(1000, 9000, 300))
    variables: dict[str, dict[str, Any]] = {"y": {"type": "binary"}, "a": {"type": "binary"}}
    variables["w"] = {"type": "number", "range": [1, 1e4]}
    own = Trial("y ~ a", {**MASKED, "opening": "none", **SAMPLING}, codes, variables, (100, 100, 100)).fit().own
    assert own == ("It cannot be said how far this site's rows are from those of the others.",)


def test_a_sandwich_allows_for_overdispersion(tmp_path: Path) -> None:
    files = write_site_files("stays", 3, tmp_path)
    plain, robust = (
        fit_files(files, "stays", "infections ~ age", {**MASKED, "family": "poisson", "robust": kind}).fit
        for kind in (False, "HC0")
    )
    assert any("standard errors are too small" in warning for warning in plain.warnings)
    assert not any("standard errors are too small" in warning for warning in robust.warnings)
    assert robust.details["pearson"]["ratio"] == pytest.approx(plain.details["pearson"]["ratio"])
