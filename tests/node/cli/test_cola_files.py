"""COLA-GLM the whole way: files, checks, counts, gate, ledger, replay; R's fits; pda's tables in and out."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from node.analysis.test_r_reference import GOLDEN, references
from support.lanes import later

from coterie_learners.cola.cola import CountedTable, build_table, plan_table
from coterie_learners.cola.tables.pattern_counts import count_patterns
from coterie_learners.core.payload import Payload, canonical
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, CodedRows
from coterie_node.analysis.analyse import analyse
from coterie_node.data import load
from coterie_node.data.load import load_site
from coterie_node.data.pda import as_pda
from coterie_node.data.streaming import StreamedCodes
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.pda_export import write_table
from coterie_node.release.policy import Policy

COLUMNS = ("age", "sex", "diabetes", "htn", "cci", "death", "visits", "logfollowup", "los", "disposition")
VARIABLES: dict[str, dict[str, Any]] = {
    "age": {"type": "category", "levels": ["lt65", "65_79", "ge80"]},
    "sex": {"type": "category", "levels": ["F", "M"]},
    "diabetes": {"type": "binary"},
    "htn": {"type": "binary"},
    "cci": {"type": "count", "range": [0, 40]},
    "death": {"type": "binary"},
    "visits": {"type": "count", "range": [0, 100]},
    "logfollowup": {"type": "number", "range": [-10, 10]},
    "los": {"type": "number", "range": [-100, 100]},
    "disposition": {"type": "category", "levels": ["home", "transfer", "death"]},
}
X = "age + sex + diabetes + htn"
# R's names of the models: outcome, further terms, options.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "logit": ("death", "", {}),
    "logit_cci_numeric": ("death", " + cci", {}),
    "probit": ("death", "", {"link": "probit"}),
    "cloglog": ("death", "", {"link": "cloglog"}),
    "poisson_log_on_binary": ("death", "", {"family": "poisson"}),
    "poisson": ("visits", "", {"family": "poisson"}),
    "poisson_offset_log_followup": ("visits", " + offset(logfollowup)", {"family": "poisson"}),
    "quasipoisson": ("visits", "", {"family": "quasipoisson"}),
    "gaussian": ("los", "", {"family": "gaussian"}),
    "logit_site_intercepts": ("death", "", {"site_intercepts": True}),
    "firth": ("death", "", {"firth": True}),
    "multinomial": ("disposition", "", {"family": "multinomial"}),
    "hc0_logit": ("death", "", {"robust": True}),
}
# Of families with one kind of table one model each.
KINDS = ("logit", "poisson_offset_log_followup", "gaussian", "logit_site_intercepts", "firth", "hc0_logit")
SECURE = {"masks": "probit", "bfv": "hc0_logit", "ckks": "multinomial", "newton": "logit_cci_numeric"}


def study(model: str, learner: str = "cola", floor: int = 0, **overrides: Any) -> Study:
    outcome, terms, options = MODELS[model]
    counted = {"death": {"type": "count", "range": [0, 1]}} if model == "poisson_log_on_binary" else {}
    plain = {
        "name": "reference",
        "sites": ["a", "b", "c", "d"],
        "formula": f"{outcome} ~ {X}{terms}",
        "variables": {**VARIABLES, **counted},
        "rows": {"constant": "allow"},
        "disclosure": {"cell": floor},
        "learner": {"name": learner, **options, **overrides},
    }
    return complete_study(Study.model_validate(plain))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file per site, with the logarithm of the follow-up that R takes in its formula."""
    folder = tmp_path_factory.mktemp("cohort")
    rows: defaultdict[str, list[list[str]]] = defaultdict(list)
    with (GOLDEN / "data" / "cohort.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            row["logfollowup"] = repr(math.log(float(row["followup"])))
            rows[row["site"].lower()].append([row[c] for c in COLUMNS])
    for site, lines in rows.items():
        text = "\n".join([",".join(COLUMNS), *map(",".join, lines)])
        (folder / f"{site}.csv").write_text(text + "\n")
    return {site: folder / f"{site}.csv" for site in sorted(rows)}


def check_against_r(of: Study, model: str, files: dict[str, Path]) -> None:
    result = analyse(of, files)
    assert result.replay is not None
    assert (result.replay.verdict, result.replay.grade, result.replay.unchecked) == ("PASS", "identical", 0)
    wanted = references()[model]
    dispersion = [v for name, v in wanted.numbers.items() if name == "dispersion"]
    terms = list(wanted.terms)
    names = [t.replace("[", "").replace("]", "") for t in result.fit.terms]
    assert [n.replace("site", "").lower() for n in names] == [n.replace("site", "").lower() for n in terms]
    pairs = np.array([wanted.terms[name] for name in terms])
    within = 1e-10
    assert np.abs(result.params - pairs[:, 0]).max() < within
    assert np.abs(result.bse - pairs[:, 1]).max() < within
    assert [result.fit.dispersion] * len(dispersion) == pytest.approx(dispersion, rel=1e-8)


@pytest.mark.parametrize("model", [*KINDS, *later(*(model for model in MODELS if model not in KINDS))])
def test_every_model_of_r_is_reproduced(files: dict[str, Path], model: str) -> None:
    check_against_r(study(model), model, files)


@pytest.mark.parametrize("scheme", SECURE)
def test_the_secure_schemes_reproduce_r_s_fits_too(files: dict[str, Path], scheme: str) -> None:
    model = SECURE[scheme]
    check_against_r(study(model, "secure_cola", scheme=scheme), model, files)


def test_r_has_a_reference_for_each_model() -> None:
    assert set(MODELS) <= set(references())


# The gate and the floor


def test_below_the_floor_patterns_are_dropped_and_the_gate_lets_the_table_pass(files: dict[str, Path]) -> None:
    result = analyse(study("logit", floor=5, suppress="drop"), files)
    assert result.fit.n < 1400
    assert "were left out" in " ".join(result.fit.notes)
    assert result.fit.details["suppression"]["floor"] == 5


def test_without_suppression_the_gate_keeps_small_patterns_back(files: dict[str, Path]) -> None:
    with pytest.raises(ReleaseRefused, match="single patterns of all covariates"):
        analyse(study("logit", floor=5, suppress="none"), files)


def test_the_gate_keeps_a_table_back_whose_x_y_shows_few_events(tmp_path: Path) -> None:
    """A hundred rows of each pattern, but three events among the smokers."""
    text = "died,smoker\n" + "0,0\n" * 80 + "1,0\n" * 20 + "0,1\n" * 97 + "1,1\n" * 3
    for name, body in (("a", text), ("b", "died,smoker\n" + "1,1\n" * 3 + "0,1\n" * 97 + "1,0\n" * 20 + "0,0\n" * 80)):
        (tmp_path / f"{name}.csv").write_text(body)
    paths = {name: tmp_path / f"{name}.csv" for name in ("a", "b")}
    plain = {
        "name": "few",
        "sites": ["a", "b"],
        "formula": "died ~ smoker",
        "variables": {"died": {"type": "binary"}, "smoker": {"type": "binary"}},
        "learner": {"name": "cola"},
    }
    with pytest.raises(ReleaseRefused, match="died by covariates"):
        analyse(complete_study(Study.model_validate(plain)), paths)
    allowed = complete_study(Study.model_validate({**plain, "disclosure": {"cell": 3}}))
    assert analyse(allowed, paths).fit.n == 400


def test_secure_cola_passes_the_same_gate_because_only_the_sum_exists(files: dict[str, Path]) -> None:
    refused = study("logit", floor=5, suppress="none")
    with pytest.raises(ReleaseRefused):
        analyse(refused, files)
    for scheme in ("masks", "newton"):
        assert analyse(study("logit", "secure_cola", 5, scheme=scheme), files).fit.n == 1400
    secure_result = analyse(study("logit", "secure_cola", 5), files)
    plain = analyse(study("logit", floor=5), files)
    assert plain.fit.n < secure_result.fit.n <= 1400


# Files


def table(of: Study, path: Path, site: str = "a") -> Payload:
    loaded = load_site(path, of, site)
    assert loaded is not None
    assert isinstance(loaded.rows, CodedRows)
    plan = plan_table(of)
    return build_table(plan, count_patterns(plan.tally, loaded.rows))


def same(one: Payload, other: Payload) -> bool:
    """Equal, but for the rounding of sums of fractions that are cut into blocks elsewhere."""
    return one.keys() == other.keys() and all(np.allclose(one[k], other[k], rtol=1e-13, atol=1e-12) for k in one)


def parquet(path: Path, folder: Path) -> Path:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {c: [r[c] for r in rows] for c in COLUMNS}
    text = ("age", "sex", "disposition")
    arrays = {
        c: pa.array(v).dictionary_encode() if c in text else pa.array([float(x) for x in v]) for c, v in columns.items()
    }
    out = folder / f"{path.stem}.parquet"
    pq.write_table(pa.table(arrays), out, row_group_size=50)
    return out


@pytest.mark.parametrize("model", ["logit_cci_numeric", "poisson_offset_log_followup", "gaussian", "multinomial"])
def test_csv_parquet_and_streamed_rows_give_the_same_table(
    files: dict[str, Path], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = study(model)
    stored = parquet(files["a"], tmp_path)
    in_memory = table(of, files["a"])
    assert same(table(of, stored), in_memory)
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    loaded = load_site(stored, of, "a")
    assert loaded is not None
    assert isinstance(loaded.rows, StreamedCodes)
    assert loaded.summary.streamed
    assert (loaded.n, loaded.events) == (520, 86 if of.formula.startswith("death") else None)
    assert same(table(of, stored), in_memory)


def test_whole_numbers_stay_in_few_bytes(files: dict[str, Path]) -> None:
    loaded = load_site(files["a"], study("logit_cci_numeric"), "a")
    assert loaded is not None
    assert isinstance(loaded.rows, ArrayCodes)
    assert {v.dtype for block in loaded.rows.codes() for v in block.values()} == {np.dtype(np.uint8)}


def test_a_streamed_file_that_changes_is_noticed(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    of, stored = study("logit"), parquet(files["a"], tmp_path)
    loaded = load_site(stored, of, "a")
    assert loaded is not None
    assert isinstance(loaded.rows, StreamedCodes)
    parquet(files["b"], tmp_path).replace(stored)
    with pytest.raises(DataError, match="changed since"):
        list(loaded.rows.codes())


def test_unknown_levels_and_collinear_columns_are_found_before_anything_is_counted(
    files: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "a.csv"
    broken.write_text(files["a"].read_text().replace("ge80", "over80", 1))
    with pytest.raises(DataError, match="over80"):
        load_site(broken, study("logit"), "a")
    lines = files["a"].read_text().splitlines()
    twin = [",".join([*row.split(",")[:3], row.split(",")[2], *row.split(",")[4:]]) for row in lines[1:]]
    broken.write_text("\n".join([lines[0], *twin]) + "\n")
    with pytest.raises(DataError, match="combination of diabetes") as caught:
        load_site(broken, study("logit"), "a")
    assert caught.value.code == "CO-D122"


# pda


def pda_json(of: Study, path: Path, folder: Path, shuffle: bool = False, drop_missing: bool = False) -> Path:
    """A site's table as the R package writes it; `shuffle` puts columns and patterns in another order, as data may."""
    loaded = load_site(path, of, path.stem)
    assert loaded is not None
    assert isinstance(loaded.rows, CodedRows)
    plan = plan_table(of)
    table_read = as_pda(plan.design, plan.grid, build_table(plan, count_patterns(plan.tally, loaded.rows)))
    if shuffle:
        names = [name for name in table_read["Xtable"][0] if name != "n"]
        order = np.random.default_rng(1).permutation(len(names))
        table_read["SXY"] = [[table_read["SXY"][0][k] for k in order]]
        table_read["Xtable"] = [
            {names[k]: line[names[k]] for k in order} | {"n": line["n"]} for line in table_read["Xtable"][::-1]
        ]
    if drop_missing:
        table_read["Xtable"] = [line for line in table_read["Xtable"] if line["n"]]
    out = folder / f"{path.stem}_initialize.json"
    out.write_text(json.dumps(table_read))
    return out


@pytest.mark.parametrize("model", ["logit", "logit_cci_numeric"])
def test_sites_that_run_r_and_sites_that_do_not_fit_one_model(
    files: dict[str, Path], tmp_path: Path, model: str
) -> None:
    of = study(model)
    mixed = {
        "a": pda_json(of, files["a"], tmp_path),
        "b": files["b"],
        "c": pda_json(of, files["c"], tmp_path, shuffle=True),
        "d": pda_json(of, files["d"], tmp_path, drop_missing=True),
    }
    check_against_r(of, model, mixed)


def test_an_exported_table_has_pda_s_form_and_comes_back_as_it_was(files: dict[str, Path], tmp_path: Path) -> None:
    of = study("logit")
    plan = plan_table(of)
    loaded = load_site(files["a"], of, "a")
    assert loaded is not None
    assert isinstance(loaded.rows, CodedRows)
    path = tmp_path / "a_initialize.json"
    write_table(path, plan, loaded.rows, Policy())
    written = json.loads(path.read_text())
    assert list(written) == ["SXY", "Xtable"]
    assert len(written["Xtable"]) == 24
    assert list(written["Xtable"][0]) == ["(Intercept)", "age65_79", "agege80", "sexM", "diabetes", "htn", "n"]
    assert sum(line["n"] for line in written["Xtable"]) == 520
    assert all(type(v) is int for line in written["Xtable"] for v in line.values())
    second_load = load_site(path, of, "a")
    assert second_load is not None
    assert isinstance(second_load.rows, CountedTable)
    assert canonical(second_load.rows.table(plan)) == canonical(
        build_table(plan, count_patterns(plan.tally, loaded.rows))
    )


def test_what_the_gate_would_keep_back_is_not_exported(files: dict[str, Path], tmp_path: Path) -> None:
    of = study("logit", floor=5, suppress="none")
    loaded = load_site(files["d"], of, "d")
    assert loaded is not None
    assert isinstance(loaded.rows, CodedRows)
    path = tmp_path / "d_initialize.json"
    with pytest.raises(ReleaseRefused, match="single patterns of all covariates"):
        write_table(path, plan_table(of), loaded.rows, Policy())
    strict = Policy.model_validate({"floors": {"rows": 1000}})
    with pytest.raises(ReleaseRefused, match="fewer than 1000 rows"):
        write_table(path, plan_table(study("logit")), loaded.rows, strict)
    assert not path.exists()


def test_an_export_is_another_release_than_every_former_one(files: dict[str, Path], tmp_path: Path) -> None:
    """After a release was lost there are as many as before: an export must not take the place of a former one."""
    of, log = study("logit"), PrivacyLog(FolderStorage(tmp_path / "privacy"))
    loaded = load_site(files["a"], of, "a")
    assert loaded is not None
    assert isinstance(loaded.rows, CodedRows)
    for name in ("first", "second"):
        write_table(tmp_path / f"{name}.json", plan_table(of), loaded.rows, Policy(), log)
    (tmp_path / "privacy" / "release" / "00000000").unlink()
    with pytest.raises(ReleaseRefused, match="log lost"):
        write_table(tmp_path / "second.json", plan_table(of), loaded.rows, Policy(), log)
    log.allow(of.hash.hex(), "there is no backup")
    write_table(tmp_path / "second.json", plan_table(of), loaded.rows, Policy(), log)
    assert len({head.session for head in log.heads()}) == len(log.heads()) == 2


def test_a_poisson_model_can_be_exported_too(files: dict[str, Path], tmp_path: Path) -> None:
    of = study("poisson")
    loaded = load_site(files["a"], of, "a")
    assert loaded is not None
    assert isinstance(loaded.rows, CodedRows)
    path = tmp_path / "a_initialize.json"
    write_table(path, plan_table(of), loaded.rows, Policy())
    with files["a"].open(newline="") as file:
        visits = sum(int(row["visits"]) for row in csv.DictReader(file))
    assert json.loads(path.read_text())["SXY"][0][0] == visits


PATTERN = {"(Intercept)": 1, "age65_79": 0, "agege80": 0, "sexM": 1, "diabetes": 0, "htn": 1}
GOOD = {"SXY": [[2, 0, 0, 2, 0, 2]], "Xtable": [{**PATTERN, "n": 9}]}


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("CO-D141", "["),
        ("CO-D141", "{}"),
        ("CO-D141", json.dumps({**GOOD, "SXY": []})),
        ("CO-D141", json.dumps({**GOOD, "Xtable": []})),
        ("CO-D141", json.dumps({**GOOD, "SXY": [["x"]]})),
        ("CO-D141", json.dumps({**GOOD, "Xtable": [PATTERN]})),
        ("CO-D141", json.dumps(GOOD).replace("9", "NaN")),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "n": 9.5}]})),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "n": -9}]})),
        ("CO-D142", json.dumps({**GOOD, "SXY": [[2, 0, 0, 2, 0]]})),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "n": 9, "more": 1}]})),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "n": 9}] * 2})),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "age65_79": 1, "agege80": 1, "n": 9}]})),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "sexM": 2, "n": 9}]})),
        ("CO-D142", json.dumps({**GOOD, "Xtable": [{**PATTERN, "(Intercept)": 0, "n": 9}]})),
    ],
)
def test_a_pda_table_that_does_not_fit_the_study_is_refused(code: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "a_initialize.json"
    path.write_text(json.dumps(GOOD))
    assert load_site(path, study("logit"), "a") is not None
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        load_site(path, study("logit"), "a")
    assert caught.value.code == code


@pytest.mark.parametrize("model", ["probit", "poisson", "hc0_logit"])
def test_a_model_that_needs_more_than_counts_and_x_y_refuses_pda_s_tables(
    files: dict[str, Path], model: str, tmp_path: Path
) -> None:
    path = pda_json(study("logit"), files["a"], tmp_path)
    of = study(model)
    with pytest.raises(StudyError, match="counts and X'y"):
        analyse(of, {**files, "a": path})


def test_pda_s_table_cannot_take_part_in_a_secure_sum(files: dict[str, Path], tmp_path: Path) -> None:
    path = pda_json(study("logit"), files["a"], tmp_path)
    with pytest.raises(StudyError, match="count the rows here"):
        analyse(study("logit", "secure_cola", scheme="masks"), {**files, "a": path})
