"""What is public is what the document lists, and an author needs nothing else."""

from __future__ import annotations

import ast
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners import cohorts
from support.node import installed
from support.node.commands import run
from typer.testing import CliRunner

from coterie import sdk
from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.store.protocol import BlobStore, MemoryBlobs
from coterie_chain.store.urls import open_store
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.cli.main import app
from coterie_node.data.installed_source import SourceAddress
from coterie_node.data.load import load_site
from coterie_node.data.source import check_unchanged
from coterie_node.errors import ConfigError
from coterie_node.run.simulate import simulate as run_simulation
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import find_node
from coterie_node.verbs.decide import resolve_rows

ROOT = Path(__file__).parents[2]
SITES = ("north", "south")
STUDY = """
name = "ages"
sites = ["north", "south"]
formula = "{formula}"
[learner]
name = "{learner}"
[variables.died]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
"""
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml"))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, installed as their authors' users install them."""
    folder = tmp_path_factory.mktemp("packages")
    installed.install_packages(folder, *EXAMPLES)
    return folder


@pytest.fixture
def store(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    """The example's store, opened by its address."""
    monkeypatch.syspath_prepend(str(packages))
    return open_store(f"directory:{tmp_path / 'blocks'}")


def make_hospital(folder: Path) -> dict[str, str]:
    """Rows of two sites in one SQLite database; the address of each site's query."""
    rng = np.random.default_rng(11)
    ages, deaths = rng.normal(60, 9, 400).round(1), rng.integers(0, 2, 400)
    rows = [(k, SITES[k % 2], ages[k], int(deaths[k])) for k in range(400)]
    with closing(sqlite3.connect(folder / "hospital.db")) as database, database:
        database.execute("CREATE TABLE patients (id INTEGER, site TEXT, age REAL, died INTEGER)")
        database.executemany("INSERT INTO patients VALUES (?, ?, ?, ?)", rows)
    for site in SITES:
        table = [f"{died},{age}\n" for _, home, age, died in rows if home == site]
        (folder / f"{site}.csv").write_text("died,age\n" + "".join(table))
    query = "SELECT died, age FROM patients WHERE site = '{site}' ORDER BY id"
    return {site: f"sqlite:{folder / 'hospital.db'}?{query.format(site=site)}" for site in SITES}


def coterie(packages: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The product's command in a process that has the packages."""
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, "-m", "coterie_node", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def simulate(packages: Path, folder: Path, learner: str, formula: str, data: dict[str, str]) -> dict[str, Any]:
    (folder / "study.toml").write_text(STUDY.format(learner=learner, formula=formula))
    options = [f"--data={site}={at}" for site, at in data.items()]
    done = coterie(packages, folder, "simulate", "study.toml", *options, "--json")
    return {"status": done.returncode, **json.loads(done.stdout)}


def test_the_public_names_are_those_that_the_document_lists() -> None:
    tables = (ROOT / "docs/sdk.md").read_text().partition("## Which files")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(names) == sorted(sdk.__all__)
    assert all(hasattr(sdk, name) for name in names)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_only_the_public_interface_and_has_few_files(example: Path) -> None:
    files = [path for path in example.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) <= 3
    for file in example.glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        own = [str(node.module) for node in imports if str(node.module).startswith("coterie")]
        assert own == ["coterie.sdk"]


@pytest.mark.parametrize("size", [(1 << 20) + 1, *later(0, 1)])
def test_the_example_s_store_gives_back_what_was_put_under_the_same_name(store: BlobStore, size: int) -> None:
    data = bytes(size)
    cid = store.put(data)
    assert cid == MemoryBlobs().put(data)
    assert (store.get(cid), store.has(cid)) == (data, True)


def test_the_example_s_store_misses_and_refuses_as_every_store_does(store: BlobStore, tmp_path: Path) -> None:
    cid = store.put(b"some bytes")
    (tmp_path / "blocks" / cid).write_bytes(b"other bytes")
    with pytest.raises(BlobCorrupt):
        store.get(cid)
    with pytest.raises(BlobMissing):
        store.get(MemoryBlobs().put(b"never stored"))


def test_a_study_on_the_example_s_source_equals_the_one_on_files(packages: Path, tmp_path: Path) -> None:
    addresses = make_hospital(tmp_path)
    files = {site: f"{site}.csv" for site in SITES}
    by_query, by_file = (simulate(packages, tmp_path, "glore", "died ~ age", data) for data in (addresses, files))
    assert (by_query["status"], by_file["status"]) == (0, 0)
    assert by_query["terms"] == by_file["terms"]
    assert by_query["n"] == 400


def test_a_decision_and_node_toml_name_an_address_as_they_name_a_file(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(packages))
    address = make_hospital(tmp_path)["north"]
    run("init", tmp_path / "node", "--site", "north", "--data", address, "--light")
    folder = find_node(tmp_path / "node")
    assert folder.locate_rows("") == SourceAddress("sqlite", address)
    assert folder.locate_rows("south.csv") == tmp_path / "node" / "south.csv"
    folder.decisions.record(make_decision(bytes(32), "approve", data=resolve_rows(address)))
    assert folder.find_rows(bytes(32)) == SourceAddress("sqlite", address)
    study = complete_study(Study.from_toml(STUDY.format(learner="glore", formula="died ~ age"), ""))
    rows = load_site(folder.locate_rows(""), study, "north")
    assert rows is not None
    before = rows.source.digest()
    with closing(sqlite3.connect(tmp_path / "hospital.db")) as database, database:
        database.execute("UPDATE patients SET age = age + 1 WHERE id = 6")
    assert rows.source.digest() != before
    with pytest.raises(DataError) as caught:
        check_unchanged(rows.source, str(rows.before))
    assert caught.value.code == "CO-D130"


def test_what_is_wrong_with_a_query_s_rows_is_said_without_the_query(packages: Path, tmp_path: Path) -> None:
    addresses = make_hospital(tmp_path)
    with closing(sqlite3.connect(tmp_path / "hospital.db")) as database, database:
        database.execute("UPDATE patients SET age = 'old' WHERE id = 6")
    error = simulate(packages, tmp_path, "glore", "died ~ age", addresses)["error"]
    assert error["code"] == "CO-D111"
    assert "'sqlite:hospital.db'" in error["message"]
    assert "SELECT" not in error["message"]
    twice = simulate(packages, tmp_path, "glore", "died ~ age", dict.fromkeys(SITES, addresses["south"]))
    assert twice["error"]["code"] == "CO-D124"


def test_the_example_s_learner_obeys_and_is_fitted_by_the_command(packages: Path, tmp_path: Path) -> None:
    make_hospital(tmp_path)
    result = simulate(packages, tmp_path, "mean", "age ~ 1", {site: f"{site}.csv" for site in SITES})
    ages = np.concatenate([np.loadtxt(tmp_path / f"{site}.csv", delimiter=",", skiprows=1)[:, 1] for site in SITES])
    assert result["status"] == 0
    assert result["terms"][0]["estimate"] == pytest.approx(ages.mean(), rel=1e-12)
    script = (
        "import numpy as np; from coterie import simulate; from coterie.sdk import Reference, Study, check_learner;"
        "from support.learners import cohorts;"
        "study = Study.model_validate({**cohorts.study('visits ~ age', family='poisson').model_dump(),"
        " 'learner': {'name': 'mean', 'version': '1.0.0'}}); codes = cohorts.draw(90);"
        "check_learner(study, cohorts.split(study, codes), Reference({'mean': float(codes['visits'].mean())}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT / "tests")])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)


def test_a_ledger_and_a_store_of_another_package_are_audited_by_their_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = cohorts.study("died ~ age")
    installed.WORLDS["finished"] = run_simulation(study, cohorts.split(study, cohorts.draw(90)))[0]
    place = "support.node.installed"
    entries = {"coterie.ledgers": "open_world_ledger", "coterie.stores": "open_world_store"}
    installed.install_entries(tmp_path, {group: {"world": f"{place}:{name}"} for group, name in entries.items()})
    monkeypatch.syspath_prepend(str(tmp_path))
    where = ["--chain", "world:finished"]
    verdict = json.loads(run("audit", "replay", "1", *where, "--store", "world:finished", "--json"))
    assert verdict["verdict"] == "PASS"
    assert "StudyProposed" in run("audit", "history", *where)
    refusal = CliRunner().invoke(app, ["audit", "export", "1", str(tmp_path / "b.zip"), *where])
    assert isinstance(refusal.exception, ConfigError)
    assert refusal.exception.code == "CO-F305"


def test_every_file_that_contributing_names_is_there() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things are")[2].partition("## How we write")[0]
    places = [place for place in re.findall(r"`([\w./-]+/[\w./-]*)`", table) if "*" not in place]
    assert len(places) > 30
    assert [place for place in places if not (ROOT / place).exists()] == []
