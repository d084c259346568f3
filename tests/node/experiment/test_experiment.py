"""Whole experiments: what the models agree on, what separation leads to, and a killed experiment that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from support.node.commands import run
from support.node.experiments import write_plan, write_rows
from support.node.installed import install_entries

from coterie_learners.study.design import Design
from coterie_node.errors import ConfigError
from coterie_node.experiment.cohort import load_experiment_rows
from coterie_node.experiment.models import ModelScore, restrict_formula
from coterie_node.experiment.plan import read_plan
from coterie_node.experiment.run import run_experiment
from coterie_node.experiment.trials import TrialFiles, run_trial, run_trials

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "experiment.toml"
FEDERATED = ("glore", "vertigo", "valoris")
CANCER = """
name = "cancer"
data = "breast-cancer"
formula = "benign ~ mean_radius + mean_texture + mean_smoothness"
estimators = []
models = ["centralised", "glore", "vertigo", "valoris"]
[columns]
images = ["benign", "mean_radius"]
texture = ["mean_texture", "mean_smoothness"]
[variables.benign]
type = "binary"
[variables.mean_radius]
type = "number"
range = [5, 30]
[variables.mean_texture]
type = "number"
range = [5, 45]
[variables.mean_smoothness]
type = "number"
range = [0.04, 0.18]
"""


def score(path: Path, number: int = 0, gated: bool = False) -> dict[str, ModelScore]:
    """Every model's score in one trial."""
    plan = read_plan(path)
    result = run_trial(plan, load_experiment_rows(plan, path.parent), number, gated)
    return {score.model: score for score in result.scores}


def strip_seconds(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what a clock measured."""
    return {key: value for key, value in document.items() if key != "seconds_per_iteration"}


def test_rows_and_columns_of_nhefs_score_as_the_pooled_fit() -> None:
    plan = read_plan(EXAMPLE)
    only = plan.model_copy(update={"models": ("siloed_columns", "centralised", *FEDERATED)})
    result = run_trial(only, load_experiment_rows(plan, EXAMPLE.parent), 0)
    scores = {part.model: part for part in result.scores}
    assert {name: scores[name].auc for name in FEDERATED} == pytest.approx(
        dict.fromkeys(FEDERATED, scores["centralised"].auc), abs=1e-12
    )
    assert {part.policy for part in scores.values()} == {""}
    assert len(scores) == 7


@pytest.mark.parametrize(
    ("formula", "clinic", "registry"),
    [
        ("died ~ age + sex + dose", "died ~ age", "died ~ sex + dose"),
        (
            "died ~ 0 + ns(age, knots = c(50, 70)) + sex:dose",
            "died ~ 0 + ns(age,knots=c(50,70))",
            "died ~ 0 + sex:dose",
        ),
        ("died ~ age^2 + I(age > 60) * sex", "died ~ age^2 + I(age>60)", "died ~ sex"),
        (
            "died ~ cut(age, c(-Inf, 50, Inf)) + relevel(sex, ref = 'female') + offset(dose)",
            "died ~ cut(age,c(-Inf,50,Inf))",
            'died ~ relevel(sex,ref="female") + offset(dose)',
        ),
        ("died ~ . - hospital", "died ~ age", "died ~ sex + dose"),
        ("died ~ age", "died ~ age", ""),
    ],
)
def test_a_site_s_own_formula_has_each_term_of_which_it_has_all_columns(
    tmp_path: Path, formula: str, clinic: str, registry: str
) -> None:
    plan = read_plan(write_plan(tmp_path, formula=json.dumps(formula)))
    texts = {site: restrict_formula(plan, site) for site in ("clinic", "registry")}
    assert {site: text.replace(" ", "") for site, text in texts.items()} == {
        "clinic": clinic.replace(" ", ""),
        "registry": registry.replace(" ", ""),
    }
    for text in texts.values():
        if text:
            own = Design(plan.study_of_rows(("pool",), {}, text)).names
            assert set(own) <= set(Design(plan.base).names)


def test_models_with_functions_score_as_the_pooled_fit_of_rows_and_columns(tmp_path: Path) -> None:
    write_rows(tmp_path, 600)
    formula = '"died ~ ns(age, knots = c(50, 70)) + sex + I(dose > 0)"'
    models = '["siloed_columns", "centralised", "glore", "vertigo", "valoris", "ensemble_columns"]'
    scores = score(write_plan(tmp_path, formula=formula, models=models))
    assert {"siloed_columns:clinic", "siloed_columns:registry"} <= set(scores)
    federated = {name: scores[name].auc for name in FEDERATED}
    assert federated == pytest.approx(dict.fromkeys(FEDERATED, scores["centralised"].auc), abs=1e-12)
    assert {part.policy for part in scores.values()} == {""}


@pytest.mark.long
def test_breast_cancer_scores_as_scikit_learns_regression_without_a_penalty(tmp_path: Path) -> None:
    (tmp_path / "cancer.toml").write_text(CANCER)
    plan = read_plan(tmp_path / "cancer.toml")
    cohort = load_experiment_rows(plan, tmp_path)
    from coterie_node.experiment.splits import split_trial

    parts = split_trial(plan, cohort, 0)
    x = np.column_stack([cohort.codes[name] for name in ("mean_radius", "mean_texture", "mean_smoothness")])
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), np.asarray(cohort.codes["benign"])
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(x[parts.train], y[parts.train])
    area = roc_auc_score(y[parts.test], model.decision_function(x[parts.test]))
    scores = score(tmp_path / "cancer.toml")
    assert {name: part.auc for name, part in scores.items()} == pytest.approx(dict.fromkeys(scores, area), abs=1e-12)


@pytest.mark.parametrize(
    ("policy", "glore", "vertigo"),
    [
        ("ridge", "ridge", "ridge"),
        pytest.param("firth", "firth", "skip", marks=pytest.mark.long),
        pytest.param("skip", "skip", "skip", marks=pytest.mark.long),
    ],
)
def test_separated_rows_follow_the_policy_and_are_counted(
    tmp_path: Path, policy: str, glore: str, vertigo: str
) -> None:
    write_rows(tmp_path, 180, separated=True)
    models = '["centralised", "glore", "vertigo"]'
    scores = score(write_plan(tmp_path, separation=f'"{policy}"', models=models))
    expected = {"glore": glore, "centralised": glore, "vertigo": vertigo}
    assert {name: scores[name].policy for name in expected} == expected
    for part in scores.values():
        assert (part.auc is None) == (part.policy == "skip") == bool(part.cause)


def test_the_gate_judges_only_where_it_is_asked_to(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    path = write_plan(tmp_path, models='["centralised", "glore"]', learner='{ aggregation = "plain" }')
    assert score(path)["glore"].auc is not None
    refused = score(path, gated=True)["glore"]
    assert (refused.auc, refused.cause) == (None, "CO-R301")


def test_a_finished_trial_is_not_run_again_and_a_broken_file_is(tmp_path: Path) -> None:
    write_rows(tmp_path)
    plan, trials = read_plan(write_plan(tmp_path, models='["centralised", "glore"]')), tmp_path / "trials"
    first = run_experiment(plan, tmp_path, trials).as_dict()
    whole = (trials / "00001.json").read_text()
    (trials / "00000.json").write_text("{")
    (trials / "00002.json").unlink()
    assert strip_seconds(run_experiment(plan, tmp_path, trials).as_dict()) == strip_seconds(first)
    assert (trials / "00001.json").read_text() == whole


def test_trials_of_other_rows_or_another_plan_do_not_stand(tmp_path: Path) -> None:
    write_rows(tmp_path)
    trials, models = tmp_path / "trials", '["centralised"]'
    areas = []
    for changes in ({}, {"seed": "8"}):
        plan = read_plan(write_plan(tmp_path, trials="1", models=models, **changes))
        areas.append(run_experiment(plan, tmp_path, trials).areas)
    write_rows(tmp_path, seed=5)
    areas.append(run_experiment(plan, tmp_path, trials).areas)
    assert areas[0] != areas[1] != areas[2]


@pytest.mark.long
def test_a_killed_experiment_goes_on_to_the_same_document(tmp_path: Path) -> None:
    write_rows(tmp_path)
    path, out = write_plan(tmp_path, trials="8", models='["centralised", "glore"]'), tmp_path / "out"
    words = [sys.executable, "-m", "coterie_node", "experiment", str(path), "--out", str(out), "--jobs", "2"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((out / "trials").glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    finished = len(list((out / "trials").glob("0*.json")))
    assert 0 < finished < 8
    resumed = json.loads(run("experiment", path, "--out", out, "--jobs", 1, "--json"))
    whole = run_experiment(read_plan(path), tmp_path, tmp_path / "whole").as_dict()
    assert strip_seconds(resumed) == strip_seconds(whole)


def test_the_command_prints_one_document_and_leaves_all_files(tmp_path: Path) -> None:
    write_rows(tmp_path)
    out = tmp_path / "out"
    document = json.loads(run("experiment", write_plan(tmp_path), "--trials", 2, "--out", out, "--jobs", 1, "--json"))
    assert document["trials"] == 2
    assert "no release gate" in document["setting"]
    assert {len(model["auc"]) for model in document["models"].values()} == {2}
    assert {*FEDERATED} <= set(document["seconds_per_iteration"])
    assert {"a", "b", "p_value"} <= document["tests"][0].keys()
    assert document == json.loads((out / "experiment.json").read_text())
    table = pq.read_table(out / "trials.parquet")
    assert table.num_rows == 2 * len(document["models"])
    assert pc.read_csv(out / "trials.csv").num_rows == table.num_rows
    page = (out / "report.html").read_text()
    assert "Small &amp; &lt;quick&gt;" in page
    assert "<quick>" not in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == 2
    assert "| glore | 2 |" in (out / "report.md").read_text()
    assert "glore" in run("experiment", write_plan(tmp_path), "--trials", 2, "--out", out)


def test_an_estimator_of_another_package_is_part_of_the_ensemble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    (package / "trees_of_others.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\n"
        "def make(seed):\n    return DecisionTreeClassifier(max_depth=2, random_state=seed)\n"
    )
    install_entries(package, {"coterie.estimators": {"trees": "trees_of_others:make"}})
    monkeypatch.syspath_prepend(str(package))
    scores = score(write_plan(tmp_path, estimators='["trees"]', models='["ensemble_rows", "ensemble_columns"]'))
    assert scores.keys() == {"ensemble_rows:trees", "ensemble_columns:trees"}
    assert all(part.auc is not None and part.auc > 0.6 for part in scores.values())


def test_an_unknown_estimator_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    write_rows(tmp_path)
    plan = read_plan(write_plan(tmp_path, estimators='["oracle"]', models='["ensemble_rows"]'))
    with pytest.raises(ConfigError, match="logistic, mlp") as caught:
        run_experiment(plan, tmp_path, tmp_path / "trials")
    assert caught.value.code == "CO-F363"
    assert not (tmp_path / "trials").exists()


@pytest.mark.long
def test_an_error_in_another_process_keeps_its_code(tmp_path: Path) -> None:
    write_rows(tmp_path)
    plan = read_plan(write_plan(tmp_path, trials="2", estimators='["oracle"]', models='["ensemble_rows"]'))
    files = TrialFiles(tmp_path / "trials", "key")
    with pytest.raises(ConfigError) as caught:
        run_trials(plan, load_experiment_rows(plan, tmp_path), files, jobs=2)
    assert caught.value.code == "CO-F363"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": "0"}, "trials"),
        ({"data": '"nowhere.csv"'}, "nowhere.csv"),
        ({"stratify": '[]\nby = "age"'}, "category"),
        ({"separation": '"hope"'}, "separation"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_by_key(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    path = write_plan(tmp_path, **changes)
    with pytest.raises(ConfigError, match=words) as caught:
        load_experiment_rows(read_plan(path), tmp_path)
    assert caught.value.code == "CO-F361"


def test_models_of_columns_need_columns(tmp_path: Path) -> None:
    (tmp_path / "cancer.toml").write_text(CANCER.replace("[columns]", "[learner]"))
    with pytest.raises(ConfigError, match=r"vertigo need \[columns\]"):
        read_plan(tmp_path / "cancer.toml")
