"""Daemons run a table one, a propensity study and a study of several models: results as pooled, records intact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from support.node.houses import SITES, NodeNetwork, study_file
from support.node.results import read_result

from coterie_node.audit.replay import replay

Rows = NDArray[np.float64]
MODELS = """
[[models]]
name = "crude"
formula = "died ~ male"
[[models]]
name = "adjusted"
formula = "died ~ age + male"
robust = "HC0"
"""
# What is replaced in the study of the plain world, by learner.
STUDIES: dict[str, dict[str, str]] = {
    "table_one": {'name = "glore"': 'name = "table_one"'},
    "propensity": {
        "died ~ age + male": "died ~ male + age",
        'name = "glore"': 'name = "propensity"\ntreatment = "male"\neffect = "difference"',
    },
    "models": {'formula = "died ~ age + male"\n': "", "[variables.died]": f"{MODELS}\n[variables.died]"},
}


def read_pool(network: NodeNetwork) -> Rows:
    """Died, age and male (n, 3) of all sites."""
    files = [network.root / name / "data.csv" for name in SITES]
    return np.vstack([np.loadtxt(path, delimiter=",", skiprows=1) for path in files])


def fit_logit(y: Rows, *columns: Rows) -> Any:
    return sm.GLM(y, np.column_stack([np.ones(len(y)), *columns]), family=sm.families.Binomial()).fit(tol=1e-14)


def check_table(fit: Mapping[str, Any], rows: Rows) -> None:
    values = dict(zip(fit["terms"], fit["estimates"], strict=True))
    means = [value for term, value in values.items() if "age" in term and "mean" in term]
    died, age = rows[:, 0], rows[:, 1]
    want = [age.mean(), age[died == 0].mean(), age[died == 1].mean()]
    assert sorted(means) == pytest.approx(sorted(want), rel=1e-9)


def check_effect(fit: Mapping[str, Any], rows: Rows) -> None:
    died, age, male = rows.T
    score = fit_logit(male, age).fittedvalues
    weights = np.where(male == 1, 1 / score, 1 / (1 - score))
    means = [np.average(died[male == arm], weights=weights[male == arm]) for arm in (0, 1)]
    got = [mean["value"] for mean in fit["details"]["causal"]["means"]]
    assert got == pytest.approx(means, rel=1e-8)
    assert fit["estimates"][-1] == pytest.approx(means[1] - means[0], rel=1e-6)


def check_models(fit: Mapping[str, Any], rows: Rows) -> None:
    died, age, male = rows.T
    crude, adjusted = fit_logit(died, male), fit_logit(died, age, male)
    assert fit["models"]["crude"]["estimates"] == pytest.approx(crude.params, rel=1e-8)
    assert fit["models"]["adjusted"]["estimates"] == pytest.approx(adjusted.params, rel=1e-8)


CHECKS = {"table_one": check_table, "propensity": check_effect, "models": check_models}


@pytest.mark.long
@pytest.mark.parametrize("learner", list(STUDIES))
def test_daemons_run_it_and_one_starts_again_at_every_beat(node_network: NodeNetwork, learner: str) -> None:
    study = node_network.propose(study_file(node_network.root, texts=STUDIES[learner]))
    node_network.approve(study, "south", "west")
    for _ in range(200):
        moved = sum(daemon.tick() for daemon in node_network.daemons.values())
        node_network.daemons["south"] = node_network.daemon("south")
        if not moved:
            break
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    fits = [read_result(node_network.root / name / "results" / "1.json")["fit"] for name in SITES]
    assert fits[0] == fits[1] == fits[2]
    CHECKS[learner](fits[0], read_pool(node_network))
    verdict = replay(node_network.chain.ledger(None), node_network.blobs, 1).verdict
    assert (verdict.verdict, verdict.grade) == ("PASS", "identical")
