"""GLORE's families, weights, penalty, sandwiches and site intercepts with every site restarted after every record.

check_learner proves it beside the other properties; the coefficients are R's (tests/golden/r).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.lanes import later
from support.learners.r_stays import references, study_of, write_site_files

from coterie_learners.study.rows import Data
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.data.load import load_site

X = "age + ward + frail"
# R's script and its name of the model; the formula here, and the learner's options.
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "gamma": ("families", "gamma_inverse", f"stay ~ {X}", {"family": "gamma"}),
    "inverse_gaussian": ("families", "inverse_gaussian", f"stay ~ {X}", {"family": "inverse_gaussian"}),
    "negative_binomial": ("families", "capped", f"capped ~ {X}", {"family": "negative_binomial", "max_rounds": 60}),
    "firth": ("fixed_effects", "firth", f"readmit ~ {X}", {"firth": True, "max_rounds": 60}),
    "robust": ("weights", "hc3_logit", f"readmit ~ {X}", {"robust": "HC3"}),
    "robust by patient": ("weights", "patient_logit", f"readmit ~ {X}", {"robust": "patient"}),
    "site_intercepts": ("fixed_effects", "logit_3", f"readmit ~ {X}", {"site_intercepts": True}),
    "weights": ("weights", "prior_poisson", f"infections ~ {X}", {"family": "poisson", "weights": "w"}),
    "sampling": ("weights", "sampling_logit", f"readmit ~ {X}", {"weights": "w", "weight_kind": "sampling"}),
    "offset": ("weights", "prior_logit_offset", f"readmit ~ {X} + offset(logdays)", {"weights": "w"}),
}
FAST = "robust"


@pytest.mark.parametrize("case", [FAST, *later(*sorted(CASES.keys() - {FAST}))])
def test_sites_that_are_killed_after_every_record_end_with_the_same_bytes(tmp_path: Path, case: str) -> None:
    script, model, formula, options = CASES[case]
    keys = {"patient": "patient"} if options.get("robust") == "patient" else {}
    files = write_site_files("stays", 3, tmp_path)
    study = study_of(files, "stays", formula, {"name": "glore", "aggregation": "masked", **options}, **keys)
    rows: dict[str, Data] = {}
    for site, path in files.items():
        loaded = load_site(path, study, site)
        assert loaded is not None
        rows[site] = loaded.rows
    pairs = {name: pair for name, pair in references(script)[model].terms.items() if name != "theta"}
    terms = {
        name.replace("ward", "ward[", 1) + "]" if name.startswith("ward") else name: p for name, p in pairs.items()
    }
    reference = Reference({t: e for t, (e, _) in terms.items()}, {t: s for t, (_, s) in terms.items()})
    report = check_learner(study, rows, reference, tolerance=1e-8)
    assert report.restarts == report.records > 3
    assert (report.unchecked, report.order_difference) == (0, 0.0)
