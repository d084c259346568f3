"""What the release gate costs beside the step that it judges: seconds of a plain GLORE study at two sites.

python benchmarks/release_gate.py [ROWS] [COLUMNS] [TABLES]

TABLES of the columns have four values, the others are measurements. First one site's first step, as its node makes it:
the file is read and checked, the sums are made, and the gate judges them by the log; from CSV, then from Parquet. The
same file comes twice, so that the log knows it the second time. The first pair, with imports in it, is left out;
the medians of five pairs are. Then the whole study runs four times on the same rows in memory. All figures are CPU
seconds of one site.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Machine, Site, Step
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_node.data.load import load_site
from coterie_node.data.patients.site_rows import SiteRows
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.prints import RawRows
from coterie_node.release.gate import Gate
from coterie_node.run import simulate as simulation

SITES = ("a", "b")


@dataclass
class TimedGate(Gate):
    """A gate that counts its CPU seconds: at its first admission, and at all later ones."""

    first: float = 0.0
    later: float = 0.0

    def admit(self, step: Step, site: Site, position: int, payload: Payload) -> bytes | None:
        start = time.process_time()
        digest = super().admit(step, site, position, payload)
        spent = time.process_time() - start
        self.first, self.later = (self.first, self.later + spent) if self.first else (spent, 0.0)
        return digest


def study_of(columns: int, tables: int) -> Study:
    names = [f"x{j}" for j in range(columns)]
    declared = [
        f'[variables.x{j}]\ntype = "number"\nrange = [{"0, 3" if j < tables else "-9, 9"}]' for j in range(columns)
    ]
    return complete_study(
        Study.from_toml(
            f'name = "cost"\nsites = {list(SITES)}\nformula = "y ~ {" + ".join(names)}"\n[learner]\nname = "glore"\n'
            f'aggregation = "plain"\n[variables.y]\ntype = "binary"\n' + "\n".join(declared)
        )
    )


def draw(rows: int, columns: int, tables: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    few, many = rng.integers(0, 4, (rows, tables)), rng.normal(size=(rows, columns - tables)).clip(-8.9, 8.9)
    x = np.column_stack([few, np.round(many, 3)]).astype(float)
    return x, (rng.random(rows) < 1 / (1 + np.exp(-x[:, -1] / 2))).astype(float)


def rows_of(study: Study, rows: int, columns: int, tables: int, seed: int) -> SiteRows:
    x, y = draw(rows, columns, tables, seed)
    inside = np.column_stack([np.ones(rows), (x[:, :tables] - 1.5) / 1.5, x[:, tables:] / 9])
    raw = RawRows({"y": y} | {f"x{j}": np.ascontiguousarray(x[:, j]) for j in range(columns)}, {})
    return SiteRows(ArrayRows(np.asfortranarray(inside), y), raw)


def measure_first_steps(study: Study, rows: int, columns: int, tables: int) -> None:
    """What the gate is of a site's first step, from the file to the verdict."""
    x, y = draw(rows, columns, tables, 0)
    names, words = [*(f"x{j}" for j in range(columns)), "y"], ("a new file", "a known one")
    with tempfile.TemporaryDirectory() as folder:
        csv, parquet = Path(folder) / "a.csv", Path(folder) / "a.parquet"
        formats = ["%d"] * tables + ["%.3f"] * (columns - tables) + ["%d"]
        np.savetxt(csv, np.column_stack([x, y]), formats, ",", header=",".join(names), comments="")
        pq.write_table(pa.table(dict(zip(names, [*x.T, y], strict=True))), parquet)
        for file in (csv, parquet):
            pairs = [[measure_first_step(study, file, log, word) for word in words] for log in map(new_log, range(6))]
            for word, parts in zip(words, np.median(pairs[1:], axis=0), strict=True):
                print_first_step(f"{file.suffix[1:]}, {word}", *parts)


def new_log(_: int) -> PrivacyLog:
    return PrivacyLog()


def print_first_step(what: str, reading: float, sums: float, gate: float) -> None:
    share = gate / (reading + sums + gate)
    print(f"{what:22s} read {reading:6.3f} s, sums {sums:6.3f} s, gate {gate:6.3f} s: {share:4.0%} of the step")


def measure_first_step(study: Study, file: Path, log: PrivacyLog, word: str) -> tuple[float, float, float]:
    """CPU seconds of reading, of the sums and of the gate."""
    gate, clock = TimedGate(study, log=log), time.process_time()
    loaded = load_site(file, study, "a")
    assert loaded is not None
    reading, clock = time.process_time() - clock, time.process_time()
    site = Site(study, "a", loaded.rows, bytes(32), {"b": bytes(32)}, session=word, parties=SITES)
    machine = Machine(learner_of(study).script, gate.seat(site))
    payload, step = machine.draft(SITES, 0), machine.awaits
    sums = time.process_time() - clock
    assert step is not None
    gate.admit(step, machine.site, 0, payload)
    return reading, sums, gate.first


def main(rows: int = 100_000, columns: int = 50, tables: int = 15) -> None:
    study = study_of(columns, tables)
    measure_first_steps(study, rows, columns, tables)
    data = {site: rows_of(study, rows, columns, tables, k) for k, site in enumerate(SITES)}
    logs, make_site = {site: PrivacyLog() for site in SITES}, simulation.site_of
    for run in range(4):
        gates = {site: TimedGate(study, log=logs[site]) for site in SITES}
        simulation.site_of = partial(rename_session, make_site, run)
        start = time.process_time()
        simulation.simulate(study, data, gates=gates)
        whole = (time.process_time() - start) / len(SITES)
        first, later = (np.median([getattr(gate, name) for gate in gates.values()]) for name in ("first", "later"))
        print(
            f"run {run + 1}: {whole:6.3f} s a site in all, gate {first:6.3f} s at the first step, {later:6.3f} s later"
        )


def rename_session(make: Callable[..., Site], run: int, *args: Any) -> Site:
    """A site in a session of its own for each run, as on a ledger."""
    of, name, rows, keys, entries, session, *more = args
    return make(of, name, rows, keys, entries, f"{session}/{run}", *more)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
