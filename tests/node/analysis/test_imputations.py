"""One model on several completions of the data, fitted as models of one study, combined as R's mice::pool does."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from support.learners.r_stays import GOLDEN, SPLITS, STAYS, references
from typer.testing import CliRunner

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.imputations import combine_imputations, print_combinations
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError

COMPLETIONS = (1, 2, 3)
OUTCOMES = {"logit": ("readmit", "binomial"), "linear": ("stay", "gaussian")}
WITHIN = 1e-7


def write_completions(folder: Path) -> dict[str, Path]:
    """The stays of three sites with a column of ages for each completion, as imputations.R makes them."""
    parts: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    place = {hospital: site for site, members in SPLITS[3].items() for hospital in members}
    with (GOLDEN / "data" / "stays.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            ages = {k: 30 + number * (k + 6) % 60 if number % 5 == 0 else row["age"] for k in COMPLETIONS}
            parts[place[row["site"]]].append(row | {f"age_{k}": str(age) for k, age in ages.items()})
    for site, rows in parts.items():
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        (folder / f"{site}.csv").write_text("\n".join(lines) + "\n")
    return {site: folder / f"{site}.csv" for site in SPLITS[3]}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of one study with a model for each outcome and completion."""
    folder = tmp_path_factory.mktemp("completions")
    files = write_completions(folder)
    variables = {**STAYS, **{f"age_{k}": STAYS["age"] for k in COMPLETIONS}}
    models = [
        {"name": f"{name}{k}", "formula": f"{outcome} ~ age_{k} + frail", "family": family}
        for name, (outcome, family) in OUTCOMES.items()
        for k in COMPLETIONS
    ]
    plain = {"name": "completed", "sites": list(files), "models": models, "learner": {"name": "glore"}}
    plain |= {"variables": variables, "disclosure": {"cell": 0, "rows": 1}}
    fitted = analyse(complete_study(Study.model_validate(plain)), dict(files))
    (folder / "result.json").write_text(json.dumps(fitted.as_dict()))
    return folder / "result.json"


@pytest.mark.parametrize("name", OUTCOMES)
def test_rubin_s_rules_are_those_of_mice(result: Path, name: str) -> None:
    words = [word for k in COMPLETIONS for word in ("--model", f"{name}{k}")]
    run = CliRunner().invoke(app, ["study", "combine", str(result), *words, "--json"], catch_exceptions=False)
    want = references("imputations")[name].terms
    for term, own in zip(json.loads(run.output)["terms"], ("(Intercept)", "age", "frail"), strict=True):
        assert (term["estimate"], term["std_error"]) == pytest.approx(want[own], rel=WITHIN)
        for number in ("df", "p", "low", "high", "within", "between", "lost", "fmi"):
            assert term[number] == pytest.approx(want[f"{number} {own}"][0], rel=1e-6), number


def test_a_term_of_each_completion_has_the_first_and_the_last_name(result: Path) -> None:
    run = CliRunner().invoke(app, ["study", "combine", str(result), "--model", "logit1", "--model", "logit3"])
    assert "age_1 ... age_3" in run.output


@pytest.mark.parametrize(
    ("change", "words"),
    [({"n": 4}, "differ in n"), ({"terms": []}, "differ in terms"), ({"vcov": None}, "differ in vcov")],
)
def test_results_that_are_no_completions_of_one_model_are_refused(change: dict[str, Any], words: str) -> None:
    row = {"term": "x", "estimate": 1.0}
    plain = {"study": "s", "learner": "glore", "family": "gaussian", "link": "identity", "n": 5}
    plain |= {"terms": [row], "vcov": [[1.0]]}
    with pytest.raises(ConfigError, match=words) as error:
        combine_imputations([plain, plain | change], 0.95)
    assert error.value.code == "CO-F386"
    with pytest.raises(ConfigError, match="nothing to be combined with"):
        combine_imputations([plain], 0.95)


@pytest.mark.parametrize(("shift", "df"), [(0.0, 100), (0.5, 1.0)])
def test_completions_whose_columns_give_the_outcome_exactly_have_no_test(shift: float, df: float) -> None:
    parts = [
        {"learner": "glore", "family": "gaussian", "link": "identity", "n": 102, "df_residual": 100}
        | {"terms": [{"term": "x", "estimate": 2.0 + k * shift}], "vcov": [[0.0]]}
        for k in (0, 1)
    ]
    (term,) = combine_imputations(parts, 0.95)
    # T = (1 + 1/2) B, all of it between the completions; without any, nothing can be tested.
    assert term.std_error == pytest.approx((1.5 * shift**2 / 2.0) ** 0.5)
    assert math.isnan(term.statistic) == math.isnan(term.p) == (shift == 0.0)
    assert term.df == pytest.approx(df, rel=0.02)
    assert term.lost == (1.0 if shift else 0.0)
    assert "NA" in print_combinations([term], 0.95).text_lines()[1] or shift
