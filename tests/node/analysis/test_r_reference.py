"""Fits of four sites' files against R's glm, stored with the script that made them (tests/golden/glm).

The files go the whole way: CSV, checks, design, sums, masks, ledger, replay. Site D has nobody older than 80.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse

GOLDEN = Path(__file__).parents[2] / "golden" / "glm"
COLUMNS = ("age", "sex", "diabetes", "htn", "cci", "death", "visits", "logfollowup", "los")
STUDY = """
name = "reference"
sites = ["a", "b", "c", "d"]
formula = "{formula}"
[learner]
name = "glore"
family = "{family}"
link = "{link}"
aggregation = "{aggregation}"
[rows]
constant = "allow"
[disclosure]
cell = 0
[variables]
age = {{ type = "category", levels = ["lt65", "65_79", "ge80"] }}
sex = {{ type = "category", levels = ["F", "M"] }}
diabetes = {{ type = "binary" }}
htn = {{ type = "binary" }}
cci = {{ type = "count", range = [0, 40] }}
death = {{ type = "{death}"{extra} }}
visits = {{ type = "count", range = [0, 100] }}
logfollowup = {{ type = "number", range = [-10, 10] }}
los = {{ type = "number", range = [-100, 100] }}
"""
X = "age + sex + diabetes + htn"
# R's names of the models: outcome, further terms, family, link.
MODELS = {
    "logit": ("death", "", "binomial", "logit"),
    "logit_cci_numeric": ("death", " + cci", "binomial", "logit"),
    "probit": ("death", "", "binomial", "probit"),
    "cloglog": ("death", "", "binomial", "cloglog"),
    "poisson_log_on_binary": ("death", "", "poisson", "log"),
    "poisson": ("visits", "", "poisson", "log"),
    "poisson_offset_log_followup": ("visits", " + offset(logfollowup)", "poisson", "log"),
    "gaussian": ("los", "", "gaussian", "identity"),
}


def reference() -> dict[str, dict[str, tuple[float, float]]]:
    """Estimate and standard error by R's model and term."""
    estimates: defaultdict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    with (GOLDEN / "reference_own_R.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            se = math.nan if row["se"] == "NA" else float(row["se"])
            estimates[row["model"]][row["term"]] = (float(row["est"]), se)
    return estimates


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file per site, with the logarithm of the follow-up that R takes in its formula."""
    folder = tmp_path_factory.mktemp("synth4")
    rows: defaultdict[str, list[list[str]]] = defaultdict(list)
    with (GOLDEN / "synth4.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            row["logfollowup"] = repr(math.log(float(row["followup"])))
            rows[row["site"].lower()].append([row[c] for c in COLUMNS])
    for site, lines in rows.items():
        text = "\n".join([",".join(COLUMNS), *map(",".join, lines)])
        (folder / f"{site}.csv").write_text(text + "\n")
    return {site: folder / f"{site}.csv" for site in sorted(rows)}


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_r_is_reproduced(files: dict[str, Path], model: str, aggregation: str) -> None:
    outcome, extra, family, link = MODELS[model]
    counted = model == "poisson_log_on_binary"
    text = STUDY.format(
        formula=f"{outcome} ~ {X}{extra}",
        family=family,
        link=link,
        aggregation=aggregation,
        death="count" if counted else "binary",
        extra=", range = [0, 1]" if counted else "",
    )
    result = analyse(complete_study(Study.from_toml(text)), files)
    assert result.replay is not None
    assert result.replay.grade == "identical"
    wanted = reference()[model]
    names = [t.replace("[", "").replace("]", "") for t in result.fit.terms]
    assert names == [t for t in wanted if t != "sigma2"]
    pairs = np.array([wanted[name] for name in names])
    assert np.abs(result.params - pairs[:, 0]).max() < 1e-8
    assert np.abs(result.bse - pairs[:, 1]).max() < 1e-8
    if model == "gaussian":
        assert result.fit.dispersion == pytest.approx(wanted["sigma2"][0], rel=1e-10)
