"""Hospitals with their files and privacy logs, on which studies are run one after the other through the real gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from support.red_team.sessions import run_in_own_session

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.privacy.log import PrivacyLog
from coterie_node.release.gate import Gate
from coterie_node.release.policy import Policy
from coterie_node.run import simulate as simulation

Columns = Mapping[str, NDArray[Any]]
N = 400
VARIABLES = {
    "death": 'type = "binary"',
    "relapse": 'type = "binary"',
    "age": 'type = "number"\nrange = [18, 110]',
    "sex": 'type = "binary"',
    "lab": 'type = "number"\nrange = [-9, 9]',
    "hiv": 'type = "binary"',
}


def draw(seed: int, n: int = N) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "age": np.round(rng.uniform(30, 90, n), 1),
        "sex": rng.integers(0, 2, n),
        "lab": np.round(rng.normal(size=n), 2),
        "hiv": (rng.random(n) < 0.2).astype(int),
        "death": (rng.random(n) < 0.3).astype(int),
        "relapse": (rng.random(n) < 0.3).astype(int),
    }


def text(formula: str, sites: str = "abc", learner: str = 'name = "glore"', rest: str = "", **variables: str) -> str:
    declared = VARIABLES | variables
    tables = "\n".join(f"[variables.{name}]\n{kind}" for name, kind in declared.items())
    return f'name = "probe"\nsites = {list(sites)}\nformula = "{formula}"\n{rest}\n[learner]\n{learner}\n{tables}\n'


@dataclass
class Network:
    """Sites with their files and privacy logs, on which studies are run one after the other."""

    root: Path
    data: dict[str, dict[str, NDArray[Any]]]
    logs: dict[str, PrivacyLog] = field(default_factory=dict)
    runs: int = 0
    policy: Policy = field(default_factory=Policy)
    ending: str = ".csv"

    def fit(self, study_text: str, rows: int | None = None, at: str = "") -> Any:
        """The result of a study on the first `rows` rows of the site `at` (all of the others'), or what stops it."""
        study = complete_study(Study.from_toml(study_text))
        self.runs += 1
        loaded = {}
        for site in study.owners:
            path = self.root / f"{site}-{self.runs}{self.ending}"
            write(path, self.data[site], rows if site == at or not at else None)
            loaded[site] = load_site(path, study, site).rows  # type: ignore[union-attr]
        gates = {s: Gate(study, self.policy, self.logs.setdefault(s, PrivacyLog())) for s in study.sites}
        with run_in_own_session(self.runs):
            _, runners, _ = simulation.simulate(study, loaded, gates=gates)
        return next(iter(runners.values())).machine.result


def write(path: Path, columns: Columns, rows: int | None) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: column[:rows] for name, column in columns.items()}), path)
        return
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines[: None if rows is None else rows + 1]) + "\n")


PLAIN, MASKED = 'name = "glore"\naggregation = "plain"', 'name = "glore"\naggregation = "masked"'
KNOWN = 'patient = "pseudonym"'
