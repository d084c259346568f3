"""Patients in a table of any database, and the CSV of the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.load import load_site

STUDY = complete_study(
    Study.from_toml(
        """
name = "queries"
sites = ["north"]
formula = "death ~ age + sex"
rows = { missing = "drop", minimum = 1 }
disclosure = { rows = 1, cell = 0 }
learner = { name = "glore", aggregation = "plain", opening = "none" }
[variables.death]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.sex]
type = "category"
levels = ["female", "male"]
"""
    )
)
N = 400
QUERY = "SELECT pid, verstorben, alter_monate, geschlecht, aufnahme FROM patients ORDER BY pid"
COLUMNS = """
[columns]
death = { from = "verstorben" }
age = { from = "alter_monate", divisor = 12 }
sex = { from = "geschlecht", levels = { m = "male", w = "female" } }
"""
TABLE = (
    "CREATE TABLE patients (pid INTEGER PRIMARY KEY, verstorben {flag}, alter_monate NUMERIC(6, 1), "
    "geschlecht VARCHAR(10), aufnahme DATE)"
)


def draw_rows() -> list[tuple[int, int, float | None, str, str]]:
    rng = np.random.default_rng(8)
    months = np.round(rng.uniform(240, 1100, N), 1)
    died = (rng.random(N) < 1 / (1 + np.exp(-(months / 12 - 65) / 12))).astype(int)
    return [
        (k, int(died[k]), None if k % 50 == 7 else float(months[k]), "mw"[k % 2], f"2020-01-{1 + k % 28:02d}")
        for k in range(N)
    ]


def write_values(rows: list[tuple[int, int, float | None, str, str]], yes: tuple[str, str]) -> str:
    lines = [f"({k}, {yes[d]}, {'NULL' if a is None else a}, '{s}', '{day}')" for k, d, a, s, day in rows]
    return f"INSERT INTO patients VALUES {', '.join(lines)}"


def write_mapping(folder: Path, address: str, query: str = QUERY, more: str = "") -> Path:
    path = folder / "north.mapping.toml"
    path.write_text(f'[sql]\ndatabase = "{address}"\nquery = """{query}"""\n{more}{COLUMNS}')
    return path


def write_csv(folder: Path) -> Path:
    lines = ["death,age,sex"]
    lines += [
        f"{d},{'' if a is None else repr(a / 12)},{'male' if s == 'm' else 'female'}" for _, d, a, s, _ in draw_rows()
    ]
    (folder / "plain.csv").write_text("\n".join(lines) + "\n")
    return folder / "plain.csv"


def check_same_as_csv(path: Path, folder: Path) -> dict[str, str]:
    """A query's rows give the fit and the rows of the CSV; returns what the snapshot says of the source."""
    csv = write_csv(folder)
    ours, plain = (analyse(STUDY, {"north": where}) for where in (path, csv))
    assert ours.fit.estimates.tobytes() == plain.fit.estimates.tobytes()
    assert ours.as_dict()["ledger"]["payload_bytes"] == plain.as_dict()["ledger"]["payload_bytes"]
    left, right = (load_site(where, STUDY, "north") for where in (path, csv))
    assert left is not None
    assert right is not None
    assert (left.read, left.n) == (right.read, right.n)
    mine = make_snapshot(left, b"s" * 32)
    assert mine.root == make_snapshot(right, b"s" * 32).root
    return mine.provenance
