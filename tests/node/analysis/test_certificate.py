"""The certificate: the federated fit on made-up data equals statsmodels' fit_pooled_rows one, and the file says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from support.learners import cohorts
from support.learners.pooled import FAMILIES, LINKS

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.sums.frame import Frame, Layout
from coterie_node.analysis.certificate import Certificate, certifiable, certify, fit_pooled_rows, save_certificate
from coterie_node.cli.study.certify import certify_command
from coterie_node.data.synthetic import draw
from coterie_node.errors import ConfigError

SHAPES: dict[str, dict[str, Any]] = {
    "logit, three sites, masked": {},
    "logit, one site": {"count": 1, "aggregation": "plain"},
    "logit, five sites, plain": {"count": 5, "aggregation": "plain"},
    "logit, ridge": {"ridge": 0.7},
    "probit": {"link": "probit"},
    "cloglog": {"link": "cloglog"},
    "poisson, offset": {"formula": "visits ~ age + crp + offset(years)", "family": "poisson"},
    "gaussian": {"formula": "score ~ age * male + stage", "family": "gaussian"},
    "no intercept": {"formula": "died ~ 0 + age + stage"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_study_of_each_shape_equals_the_pooled_fit(shape: str) -> None:
    study = cohorts.study(**SHAPES[shape])
    certificate = certify(study)
    assert certificate.study == study.hash.hex()
    assert certificate.sites == study.sites
    assert certificate.rows >= 200 * len(study.sites)
    assert certificate.max_in_std_errors < 1e-7
    assert certificate.max_abs_std_error < 1e-8


SPLIT = {
    "columns": {"mid": ["male"], "north": ["died", "age"], "south": ["crp", "stage"]},
    "identifier": ["code"],
    "sites": ["north", "south", "mid"],
}
TABLES = {"formula": "died ~ male + stage", "sites": ["north", "south", "mid"]}
OTHERS: dict[str, dict[str, Any]] = {
    "cola": {**TABLES, "learner": {"name": "cola"}},
    "cola, probit": {**TABLES, "learner": {"name": "cola", "link": "probit"}},
    "cola, numbers on a grid": {
        **TABLES,
        "formula": "died ~ age + male",
        "learner": {"name": "cola", "grids": {"age": [-2.0, -1.0, 0.0, 1.0, 2.0]}},
    },
    "secure_cola, masks": {**TABLES, "learner": {"name": "secure_cola", "scheme": "masks"}},
    "secure_cola, bfv": {**TABLES, "learner": {"name": "secure_cola"}},
    "vertigo": {**SPLIT, "learner": {"name": "vertigo"}},
    "valoris": {**SPLIT, "learner": {"name": "valoris"}},
}


@pytest.mark.parametrize("shape", OTHERS)
def test_other_learners_equal_the_pooled_fit(shape: str) -> None:
    study = complete_study(Study.model_validate({**cohorts.study().model_dump(exclude={"learner"}), **OTHERS[shape]}))
    certificate = certify(study)
    assert certificate.study == study.hash.hex()
    assert certificate.max_in_std_errors < 1e-7
    assert certificate.max_abs_std_error < 1e-8


@pytest.mark.parametrize("option", ["firth", "robust", "site_intercepts"])
def test_options_that_the_pooled_fit_does_not_know_are_named(option: str) -> None:
    learner = {"name": "cola", option: True}
    study = complete_study(Study.model_validate({**cohorts.study().model_dump(), **TABLES, "learner": learner}))
    with pytest.raises(ConfigError, match="No pooled fit is known for cola with these options"):
        certify(study)
    ridge = {**SPLIT, "learner": {"name": "vertigo", "ridge": 3.0}}
    assert not certifiable(
        complete_study(Study.model_validate({**cohorts.study().model_dump(exclude={"learner"}), **ridge}))
    )


@pytest.mark.parametrize("shape", [s for s in SHAPES if "ridge" not in s])
def test_the_pooled_fit_is_that_of_statsmodels(shape: str) -> None:
    study = cohorts.study(**SHAPES[shape])
    design, rng = Design(study), np.random.default_rng(5)
    blocks = [draw(design, rng.normal(0, 0.3, len(design.columns)), 300, rng) for _ in study.sites]
    estimates, errors = fit_pooled_rows(study, design, blocks)
    x, y = np.concatenate([b.x for b in blocks]), np.concatenate([b.y for b in blocks])
    offset = None if blocks[0].offset is None else np.concatenate([b.offset for b in blocks if b.offset is not None])
    options = study.learner.options
    link = options["link"] or {"binomial": "logit", "poisson": "log", "gaussian": "identity"}[options["family"]]
    model = sm.GLM(y, x, family=FAMILIES[options["family"]](link=LINKS[link]()), offset=offset)
    fit = model.fit(tol=1e-14, tol_criterion="params", maxiter=500)
    assert estimates == pytest.approx(np.asarray(fit.params), abs=1e-8)
    assert errors == pytest.approx(np.asarray(fit.bse), rel=1e-6)


def test_made_up_rows_stay_within_what_the_study_declares() -> None:
    study = cohorts.study("score ~ age + visits + male + stage", family="gaussian")
    design, rng = Design(study), np.random.default_rng(1)
    block = draw(design, rng.normal(0, 1, len(design.columns)), 2000, rng)
    assert np.abs(Frame.from_ranges(Layout.of(design, linear=False)).block(block).x).max() <= 1.5
    for name in ("age", "visits"):
        low, high = study.variables[name].bounds
        column = block.x[:, design.names.index(name)]
        assert low <= column.min() <= column.max() <= high
    low, high = study.variables["score"].bounds
    assert low <= block.y.min() <= block.y.max() <= high
    assert np.linalg.matrix_rank(block.x) == len(design.columns)


def test_a_certificate_is_the_same_each_time_and_another_with_another_seed() -> None:
    study = cohorts.study()
    assert certify(study) == certify(study)
    assert certify(study, 250, 1).rows == 750


def test_a_learner_without_a_known_pooled_fit_is_named() -> None:
    study = cohorts.study()
    other = Study.model_validate({**study.model_dump(), "learner": {"name": "lasso", "version": "1"}})
    with pytest.raises(ConfigError, match="No pooled fit is known for lasso") as caught:
        certify(other)
    assert caught.value.code == "CO-F312"


def test_the_command_stores_it_beside_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.json").write_bytes(cohorts.study().document)
    certify_command(tmp_path / "study.json", rows=None, seed=3, out=None, as_json=True)
    saved = json.loads((tmp_path / "certificate.json").read_text())
    assert saved == json.loads(capsys.readouterr().out)
    assert saved["seed"] == 3
    assert f"{saved['max_abs_estimate']:.1e}" in saved["sentence"]
    with pytest.raises(ConfigError, match="cannot be written"):
        save_certificate(Certificate("", "", (), 1, 1, 1, 0.0, 0.0, 0.0, ""), tmp_path / "nowhere" / "c.json")
