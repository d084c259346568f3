"""`coterie predict` against R's predict (tests/golden/r/predict.R): from a result's JSON, rows without an outcome."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.lanes import later
from support.learners.r_stays import COHORT, STAYS, fit_files, references, write_site_files
from typer.testing import CliRunner

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Study
from coterie_learners.sums.families import all_families
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.predict import open_predictor, predict_rows
from coterie_node.audit.result import Result
from coterie_node.cli.main import app
from coterie_node.errors import CoterieError

X, PLAIN = "age + ward * frail + age^2", "age + ward * frail"
NATURAL, B_SPLINE = "ns(age, knots = c(60, 75))", "bs(age, knots = 70)"
RESTRICTED = "rcs(age, c(40, 60, 75, 90))"
ORTHOGONAL = "poly(age, 3, coefs = list(alpha = c(65, 64, 66), norm2 = c(1, 1200, 3e5, 6e7, 1.2e10)))"
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "logit": (f"readmit ~ {X}", {}),
    "probit": (f"readmit ~ {X}", {"link": "probit"}),
    "cloglog_offset": (f"readmit ~ {X} + offset(logdays)", {"link": "cloglog"}),
    "poisson_offset": (f"infections ~ {X} + offset(logdays)", {"family": "poisson"}),
    "quasipoisson": (f"infections ~ {X}", {"family": "quasipoisson"}),
    "gaussian": (f"stay ~ {X}", {"family": "gaussian"}),
    "gaussian_no_intercept": ("stay ~ 0 + age + frail", {"family": "gaussian"}),
    "gamma_log": (f"stay ~ {X}", {"family": "gamma", "link": "log"}),
    "gamma_inverse": ("stay ~ age + ward + frail", {"family": "gamma"}),
    "inverse_gaussian_log": (f"stay ~ {X}", {"family": "inverse_gaussian", "link": "log"}),
    "logit_ns_offset": (f"readmit ~ {NATURAL} * frail + ward + offset(logdays)", {}),
    "probit_bs": (f"readmit ~ {B_SPLINE} + ward:frail + ward", {"link": "probit"}),
    "cloglog_rcs": (f"readmit ~ {RESTRICTED} * ward + frail", {"link": "cloglog"}),
    "log_binomial": (f"readmit ~ {PLAIN}", {"link": "log"}),
    "risk_difference": (f"readmit ~ {PLAIN}", {"link": "identity"}),
    "quasibinomial_poly": (f"readmit ~ {ORTHOGONAL} + ward / frail", {"family": "quasibinomial"}),
    "poisson_bs_offset": (f"infections ~ {B_SPLINE} * frail + offset(logdays)", {"family": "poisson"}),
    "rate_difference": (f"infections ~ {PLAIN}", {"family": "poisson", "link": "identity"}),
    "quasi_rate_difference": (f"infections ~ {PLAIN}", {"family": "quasipoisson", "link": "identity"}),
    "quasipoisson_ns_offset": (f"infections ~ {NATURAL} + ward + offset(logdays)", {"family": "quasipoisson"}),
    "gaussian_rcs_offset": (f"stay ~ {RESTRICTED} * frail + ward + offset(logdays)", {"family": "gaussian"}),
    "gaussian_poly": (f"stay ~ {ORTHOGONAL} * ward", {"family": "gaussian"}),
    "gaussian_bs": (f"stay ~ {B_SPLINE} * ward + frail", {"family": "gaussian"}),
    "gaussian_functions": ("stay ~ log(age) + I(age > 65):frail + I((age - 50)^2 / 100)", {"family": "gaussian"}),
    "gaussian_cut": (
        "stay ~ cut(age, c(-Inf, 60, 75, Inf)) * frail + relevel(ward, ref = 'surgical')",
        {"family": "gaussian"},
    ),
    "quasibinomial_probit": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "probit"}),
    "quasibinomial_cloglog": (f"readmit ~ {X}", {"family": "quasibinomial", "link": "cloglog"}),
    "quasibinomial_log": (f"readmit ~ {PLAIN}", {"family": "quasibinomial", "link": "log"}),
    "quasibinomial_identity": (f"readmit ~ {PLAIN}", {"family": "quasibinomial", "link": "identity"}),
    "gaussian_slopes": ("stay ~ 0 + ward + age:ward", {"family": "gaussian"}),
    "gaussian_log": (f"stay ~ {PLAIN}", {"family": "gaussian", "link": "log"}),
    "gamma_log_ns_offset": (
        f"stay ~ {NATURAL} * frail + ward + offset(logdays)",
        {"family": "gamma", "link": "log"},
    ),
    "gamma_identity": (f"stay ~ {PLAIN}", {"family": "gamma", "link": "identity"}),
    "inverse_gaussian": ("stay ~ age + ward + frail", {"family": "inverse_gaussian"}),
    "inverse_gaussian_inverse": ("stay ~ age + ward + frail", {"family": "inverse_gaussian", "link": "inverse"}),
    "inverse_gaussian_identity": ("stay ~ age + ward + frail", {"family": "inverse_gaussian", "link": "identity"}),
    "cauchit": (f"readmit ~ {PLAIN}", {"link": "cauchit"}),
    "quasibinomial_cauchit": (f"readmit ~ {PLAIN}", {"family": "quasibinomial", "link": "cauchit"}),
    "root_rate": (f"infections ~ {PLAIN}", {"family": "poisson", "link": "sqrt"}),
    "quasi_root_rate": (f"infections ~ {PLAIN}", {"family": "quasipoisson", "link": "sqrt"}),
    "negative_binomial_offset": (
        "infections ~ age * frail + offset(logdays)",
        {"family": "negative_binomial", "max_rounds": 60, "aggregation": "plain"},
    ),
}
CATEGORIES: dict[str, str] = {
    "multinomial": f"pain ~ {NATURAL} + ward + frail",
    "ordinal": f"pain ~ {B_SPLINE} + ward * frail",
}
PATIENTS = """\
who,age,ward,frail,logdays
p1,30,medical,0,0.5
p2,45.5,surgical,1,1.25
p3,61,intensive,0,2
p4,70,medical,1,3.5
p5,82,surgical,0,5
p6,99,intensive,1,6.5
"""
CLOSE = 1e-10
TESTS_OF_FAMILIES = Path(__file__).parents[2] / "learners" / "sums"


def fit(folder: Path, formula: str, learner: dict[str, Any]) -> Result:
    # A shape's sums in the clear are too many equations for the third hospital's rows.
    sites = 2 if learner.get("family") == "negative_binomial" else 3
    return fit_files(write_site_files("stays", sites, folder), "stays", formula, learner)


def read_result(result: Result) -> dict[str, Any]:
    """The result as a file has it."""
    document: dict[str, Any] = json.loads(json.dumps(result.as_dict()))
    return document


def predict(result: dict[str, Any], rows: Path) -> dict[str, Array]:
    predictor = open_predictor(result, "result.json")
    batches = [batch.columns for batch in predict_rows(predictor, rows, "here")]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Six rows without an outcome."""
    path = tmp_path / "patients.csv"
    path.write_text(PATIENTS)
    return path


# One of each link that is unlike the others; the rest waits for `make test-long`.
QUICK = ("logit_ns_offset", "poisson_bs_offset", "gaussian_no_intercept", "inverse_gaussian")


@pytest.mark.parametrize("model", [*QUICK, *later(*(model for model in MODELS if model not in QUICK))])
def test_predictions_and_their_errors_are_those_of_r(tmp_path: Path, patients: Path, model: str) -> None:
    formula, options = MODELS[model]
    result = fit(tmp_path, formula, {"name": "glore", **options})
    columns = predict(read_result(result), patients)
    for scale in ("link", "response"):
        terms = references("predict")[f"{model} {scale}"].terms
        wanted = np.array([terms[f"patient {k}"] for k in range(1, 7)])
        np.testing.assert_allclose(columns[scale], wanted[:, 0], rtol=CLOSE)
        np.testing.assert_allclose(columns[f"{scale}_se"], wanted[:, 1], rtol=CLOSE)


@pytest.mark.parametrize("family", CATEGORIES)
def test_chances_of_levels_and_their_errors_are_those_of_r(tmp_path: Path, patients: Path, family: str) -> None:
    columns = predict(read_result(fit(tmp_path, CATEGORIES[family], {"name": "glore", "family": family})), patients)
    terms = references("predict")[f"{family} probability"].terms
    for level in ("none", "mild", "severe"):
        wanted = np.array([terms[f"patient {k} {level}"] for k in range(1, 7)])
        np.testing.assert_allclose(columns[f"probability[{level}]"], wanted[:, 0], rtol=CLOSE)
        np.testing.assert_allclose(columns[f"probability_se[{level}]"], wanted[:, 1], rtol=CLOSE)
        assert np.all(columns[f"probability_low[{level}]"] < wanted[:, 0])
        assert np.all(wanted[:, 0] < columns[f"probability_high[{level}]"])


def test_every_stored_prediction_is_compared() -> None:
    assert {name.rsplit(" ", 1)[0] for name in references("predict")} == {*MODELS, *CATEGORIES}


def test_every_family_with_every_link_is_compared() -> None:
    compared = {(options.get("family", "binomial"), options.get("link")) for _, options in MODELS.values()}
    canonical = {(name, link or all_families()[name].links[0]) for name, link in compared}
    # A family that somebody adds is compared in the test of its own, which has its name.
    apart = {name for name in all_families() if (TESTS_OF_FAMILIES / f"test_family_{name}.py").exists()}
    every = {(name, link) for name, family in all_families().items() for link in family.links if name not in apart}
    assert canonical | {(name, "logit") for name in CATEGORIES} == every


def test_an_interval_under_an_inverse_link_ends_at_infinity_and_a_row_without_a_mean_has_none(tmp_path: Path) -> None:
    model = {"formula": "stay ~ age", "variables": {"stay": STAYS["stay"], "age": STAYS["age"]}}
    result = {
        "family": "gamma",
        "link": "inverse",
        "statistic": "t",
        "df_residual": 100,
        "terms": [{"term": "(Intercept)", "estimate": 0.5}, {"term": "age", "estimate": -0.006}],
        "vcov": [[0.01, 0.0], [0.0, 0.0]],
        "model": model,
    }
    rows = tmp_path / "rows.csv"
    rows.write_text("age\n20\n80\n90\n")
    columns = predict(result, rows)
    low, high = columns["conf_low"], columns["conf_high"]
    assert columns["response"] == pytest.approx([1.0 / 0.38, 1.0 / 0.02, 1.0 / -0.04], rel=1e-12)
    assert low[0] < columns["response"][0] < high[0] < math.inf
    assert low[1] < columns["response"][1] < high[1] == math.inf
    assert math.isnan(low[2])
    assert math.isnan(high[2])


def test_limits_are_those_of_the_predictor_carried_to_the_response(tmp_path: Path, patients: Path) -> None:
    columns = predict(
        read_result(fit(tmp_path, "stay ~ age + frail", {"name": "glore", "family": "gaussian"})), patients
    )
    assert np.all(columns["conf_low"] < columns["response"])
    assert np.all(columns["response"] < columns["conf_high"])


def test_probabilities_of_a_multinomial_model_follow_from_its_coefficients(tmp_path: Path) -> None:
    files = write_site_files("cohort", 4, tmp_path)
    learner = {"name": "cola", "family": "multinomial", "suppress": "none"}
    levels = {"disposition": {"type": "category", "levels": ["home", "transfer", "death"]}}
    formula = "disposition ~ sex + diabetes"
    result = fit_files(files, "cohort", formula, learner, variables={**COHORT, **levels})
    rows = tmp_path / "rows.csv"
    rows.write_text("sex,diabetes\nF,0\nM,1\n")
    columns = predict(read_result(result), rows)
    beta = result.params.reshape(2, 3)
    odds = np.exp(beta @ np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]).T)
    wanted = np.vstack([np.ones(2), odds]) / (1.0 + odds.sum(axis=0))
    names = [f"probability[{level}]" for level in ("home", "transfer", "death")]
    assert np.allclose([columns[name] for name in names], wanted, rtol=1e-14, atol=0.0)


def test_a_cox_model_predicts_hazard_ratios_to_a_patient_at_zero(tmp_path: Path) -> None:
    variables = {"died": {"type": "binary"}, "age": {"type": "number", "range": [18, 100]}, "frail": {"type": "binary"}}
    result = {
        "family": "Cox",
        "link": "log hazard, Efron ties",
        "statistic": "z",
        "terms": [{"term": "age", "estimate": 0.02}, {"term": "frail", "estimate": 0.5}],
        "vcov": [[1e-4, 2e-5], [2e-5, 0.04]],
        "model": {"formula": "died ~ age + frail", "variables": variables},
    }
    rows = tmp_path / "rows.csv"
    rows.write_text("age,frail\n50,1\n")
    columns = predict(result, rows)
    error = math.sqrt(1e-4 * 2500 + 2 * 2e-5 * 50 + 0.04)
    assert columns["hazard_ratio"][0] == pytest.approx(math.exp(1.5), rel=1e-14)
    assert columns["link_se"][0] == pytest.approx(error, rel=1e-14)
    assert columns["conf_high"][0] == pytest.approx(math.exp(1.5 + 1.959963984540054 * error), rel=1e-12)


# The command


@pytest.fixture(scope="module")
def result_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a logistic model, as --json prints it."""
    folder = tmp_path_factory.mktemp("result")
    path = folder / "result.json"
    path.write_text(json.dumps(fit(folder, "readmit ~ age + ward + frail", {"name": "glore"}).as_dict()))
    return path


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_the_command_prints_a_line_for_each_row_and_names_it(result_file: Path, patients: Path) -> None:
    done = run(result_file, "--data", patients, "--id", "who")
    lines = done.stdout.splitlines()
    assert lines[0] == '"who","link","link_se","response","response_se","conf_low","conf_high"'
    assert [line.split(",")[0] for line in lines[1:]] == [f'"p{k}"' for k in range(1, 7)]


def test_a_row_that_lacks_a_value_has_no_prediction(result_file: Path, patients: Path) -> None:
    patients.write_text(PATIENTS.replace("70,medical", ",medical"))
    lines = run(result_file, "--data", patients, "--id", "who").stdout.splitlines()
    assert lines[4] == '"p4",,,,,,'
    assert lines[5].split(",")[1]


def test_a_file_of_predictions_is_private_and_never_overwritten(
    result_file: Path, patients: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    assert run(result_file, "--data", patients, "--out", out).exit_code == 0
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    table = pq.read_table(out)
    assert table.num_rows == 6
    printed = run(result_file, "--data", patients).stdout.splitlines()[1].split(",")
    assert [repr(table[name][0].as_py()) for name in ("link", "response")] == [printed[0], printed[2]]
    before = out.read_bytes()
    again = run(result_file, "--data", patients, "--out", out)
    assert isinstance(again.exception, CoterieError)
    assert again.exception.code == "CO-F205"
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("surgical,0", "surgcal,0", "CO-D116"),
        ("99,", "199,", "CO-D113"),
        ("61,", "sixty,", "CO-D112"),
        ("who,age", "who,years", "CO-D106"),
    ],
)
def test_wrong_rows_are_refused_and_leave_no_file(
    result_file: Path, patients: Path, tmp_path: Path, old: str, new: str, code: str
) -> None:
    patients.write_text(PATIENTS.replace(old, new))
    out = tmp_path / "out.csv"
    done = run(result_file, "--data", patients, "--out", out)
    assert isinstance(done.exception, CoterieError)
    assert done.exception.code == code
    assert not out.exists()


def test_a_result_without_a_model_predicts_nothing(result_file: Path, patients: Path, tmp_path: Path) -> None:
    whole = json.loads(result_file.read_text())
    broken = {
        "no model": {name: value for name, value in whole.items() if name != "model"},
        "another formula": {**whole, "model": {**whole["model"], "formula": "readmit ~ age + ward"}},
        "a formula that cannot be read": {**whole, "model": {**whole["model"], "formula": "readmit ~ log(age)"}},
        "a term that a site keeps": {**whole, "terms": whole["terms"][1:]},
        "numbers that are none": {**whole, "vcov": "nothing"},
        "a covariance of another size": {**whole, "vcov": [[1.0]]},
        "terms without estimates": {**whole, "terms": [{"term": row["term"]} for row in whole["terms"]]},
        "a family that is none": {**whole, "family": "pareto"},
        "no covariates": {**whole, "model": {**whole["model"], "formula": "readmit ~ 1"}},
    }
    for document in broken.values():
        file = tmp_path / "broken.json"
        file.write_text(json.dumps(document))
        done = run(file, "--data", patients)
        assert isinstance(done.exception, CoterieError)
        assert done.exception.code == "CO-F354"


DERIVING = """
name = "deriving"
sites = ["north"]
formula = "death ~ age + old + sex"
rows = { missing = "drop", minimum = 1 }
disclosure = { rows = 1, cell = 0 }
learner = { name = "glore", aggregation = "plain", opening = "none" }
[cohort]
where = "age >= 18"
[derive]
age = "years(born, seen)"
old = "age > 65"
[variables]
born = { type = "date", range = [1900-01-01, 2010-12-31] }
seen = { type = "date", range = [2019-01-01, 2024-12-31] }
death = { type = "binary" }
sex = { type = "category", levels = ["female", "male"] }
"""


def write_visits(folder: Path) -> Path:
    rng = np.random.default_rng(4)
    lines = ["death,born,seen,sex"]
    for k in range(300):
        year = int(rng.integers(1930, 2000))
        died = int(rng.random() < 1 / (1 + np.exp((year - 1955) / 15)))
        lines.append(f"{died},{year}-0{1 + k % 9}-11,2021-06-0{1 + k % 7},{('female', 'male')[int(rng.integers(2))]}")
    (folder / "north.csv").write_text("\n".join(lines) + "\n")
    return folder / "north.csv"


def test_derived_variables_are_derived_from_the_columns_behind_them_or_read(tmp_path: Path) -> None:
    study = complete_study(Study.from_toml(DERIVING))
    result = analyse(study, {"north": write_visits(tmp_path)}).as_dict()
    predictor = open_predictor(json.loads(json.dumps(result)), "result")
    raw, plain = tmp_path / "raw.csv", tmp_path / "plain.csv"
    raw.write_text("born,seen,sex\n1950-03-01,2020-02-28,male\n2008-03-01,2020-02-28,female\n,2020-02-28,female\n")
    plain.write_text("age,old,sex\n69,1,male\n11,0,female\n,,female\n")
    ours, theirs = (next(predict_rows(predictor, path, "here")).columns["response"] for path in (raw, plain))
    assert ours.tobytes() == theirs.tobytes()
    assert np.isnan(ours).tolist() == [False, False, True]
    (tmp_path / "lacking.csv").write_text("sex,seen\nmale,2020-02-28\n")
    with pytest.raises(DataError, match=r"'age'.*derived from.*'born'") as caught:
        next(predict_rows(predictor, tmp_path / "lacking.csv", "here"))
    assert caught.value.code == "CO-D106"
