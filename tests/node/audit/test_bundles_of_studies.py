"""Bundle and report of a study of several models, and of a propensity study: kept, exported, verified, described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.learners.r_stays import write_site_files
from support.node.processes import run_command

pytestmark = [pytest.mark.long, pytest.mark.anvil]

VARIABLES = """
[variables.readmit]
type = "binary"
[variables.frail]
type = "binary"
[variables.age]
type = "number"
range = [18, 100]
[variables.infections]
type = "count"
range = [0, 60]
[variables.logdays]
type = "number"
range = [0, 7]
"""
MODELS = """
[[models]]
name = "crude"
formula = "readmit ~ frail"
[[models]]
name = "adjusted"
formula = "readmit ~ frail + age"
robust = "HC3"
[[models]]
name = "rates"
formula = "infections ~ frail + age + offset(logdays)"
family = "poisson"
"""
# By study: its formula, learner and models; what the methods paragraph says; the terms of its table.
STUDIES = {
    "models": (
        "",
        'name = "glore"',
        MODELS,
        [
            "set of 3 models in shared rounds by GLORE",
            "binomial regression (logit link)",
            "sandwich standard errors (HC3)",
            "poisson regression (log link)",
        ],
        ["crude", "adjusted", "rates"],
    ),
    "propensity": (
        'formula = "readmit ~ frail + age"',
        'name = "propensity"\ntreatment = "frail"\nestimand = "ATT"\neffect = "ratio"',
        "",
        ["weighted by propensity scores", "for the effect of frail in the treated (ATT), by PROPENSITY"],
        ["frail"],
    ),
}


def run(*words: str | Path) -> str:
    done = run_command(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", list(STUDIES))
def test_it_is_kept_exported_verified_and_described(tmp_path: Path, kind: str) -> None:
    formula, learner, models, words, terms = STUDIES[kind]
    files = write_site_files("stays", 3, tmp_path)
    study, kept, bundle, page = (tmp_path / name for name in ("study.toml", "run", "bundle.zip", "report.html"))
    head = f'name = "stays"\nsites = {json.dumps(list(files))}\n{formula}\n[learner]\n{learner}\n'
    study.write_text(head + models + VARIABLES)
    data = [word for site, path in files.items() for word in ("--data", f"{site}={path}")]
    result = json.loads(run("simulate", study, *data, "--keep", kept, "--json"))
    assert result["replay"]["verdict"] == "PASS"
    run("audit", "export", "1", bundle, "--at", kept)
    verified = json.loads(run("audit", "verify", bundle, "--json"))
    assert verified["verdict"] == "PASS"
    run("audit", "report", "1", "--at", kept, "--out", page)
    text = page.read_text()
    assert [word for word in (*words, *terms) if word not in text] == []
    published = tmp_path / "result.json"
    published.write_text(json.dumps(result))
    run("audit", "verify", bundle, "--result", published)
