"""What models cost: `python benchmarks/models.py table [ROWS]`, `weights [ROWS COLUMNS]`, `files [ROWS COLUMNS]`.

table: the table of characteristics of ROWS x 30 in memory, three sites, masked. weights: a logistic GLORE with weights
and an offset against one without, in turn. files: from three CSV files to coefficients, start-up apart, against glum,
scikit-learn, statsmodels and R from the same files, each in a process of its own that times itself after its imports;
CPU seconds beside wall seconds, as other work on the machine changes the latter.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, ArrayRows, Data
from coterie_node.run.simulate import simulate

SITES = ("a", "b", "c")
REPEATS = int(os.environ.get("REPEATS", "5"))
NUMBERS, CATEGORIES = 15, 14


def main() -> None:
    """Print the figures of the part that is named."""
    part, *sizes = sys.argv[1:]
    if part == "table":
        time_table(*map(int, sizes or ["1000000"]))
    elif part == "weights":
        time_weights(*map(int, sizes or ["1000000", "100"]))
    elif part == "read":
        read_and_fit(sizes[0], Path(sizes[1]))
    else:
        time_files(*map(int, sizes or ["100000", "20"]))


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def describe(name: str, runs: list[tuple[float, float]]) -> float:
    """Print the medians of some runs; the median of the CPU seconds."""
    wall, cpu = statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)
    print(f"{name}: {wall:.2f} s, CPU {cpu:.2f} s (medians of {len(runs)}, load {os.getloadavg()[0]:.0f})", flush=True)
    return cpu


# The table of characteristics


def time_table(n: int) -> None:
    """The whole protocol of a table of n patients and 30 variables, gates and replay apart."""
    rng = np.random.default_rng(1)
    variables: dict[str, Any] = {"g": {"type": "category", "levels": ["a", "b"]}}
    codes: dict[str, Any] = {"g": rng.integers(0, 2, n).astype(np.uint8)}
    for k in range(NUMBERS):
        variables[f"x{k}"], codes[f"x{k}"] = {"type": "number", "range": [-20, 20]}, rng.normal(size=n)
    for k in range(CATEGORIES):
        variables[f"c{k}"] = {"type": "category", "levels": ["p", "q", "r", "s"]}
        codes[f"c{k}"] = rng.integers(0, 4, n).astype(np.uint8)
    learner = {"name": "table_one", "quantiles": {"x0": {"width": 0.5, "low": -2, "high": 2}}}
    study = make_study("g ~ .", variables, learner)
    rows: dict[str, Data] = {
        site: ArrayCodes({name: values[k::3].copy() for name, values in codes.items()}) for k, site in enumerate(SITES)
    }
    describe(f"table one, {n} x 30, three sites", [measure(lambda: simulate(study, rows)) for _ in range(REPEATS)])


# Weights and an offset


def time_weights(n: int, p: int) -> None:
    """A logistic model with weights and an offset, and one without, in turn."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, p))
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-x @ rng.normal(0.0, 0.1, p)))).astype(np.float64)
    more = {"w": rng.uniform(0.5, 2.0, n), "o": rng.normal(0.0, 0.3, n)}
    names = [f"x{k}" for k in range(p)]
    variables: dict[str, Any] = {"y": {"type": "binary"}, "w": {"type": "number", "range": [0.5, 2.0]}}
    variables |= {name: {"type": "number", "range": [-20, 20]} for name in (*names, "o")}
    plain = make_study(f"y ~ {' + '.join(names)}", variables, {"name": "glore"})
    weighted = make_study(f"y ~ {' + '.join(names)} + offset(o)", variables, {"name": "glore", "weights": "w"})
    pairs = [(study, split_rows(study, x, y, more, names)) for study in (plain, weighted)]
    runs: tuple[list[tuple[float, float]], ...] = ([], [])
    for _ in range(REPEATS):
        for (study, rows), own in zip(pairs, runs, strict=True):
            own.append(measure(partial(simulate, study, rows)))
    one, other = (describe(name, own) for name, own in zip(("plain", "weights and offset"), runs, strict=True))
    print(f"{n} x {p}: {other / one:.2f} times the CPU of plain GLORE (asked: 1)")


def split_rows(study: Study, x: Array, y: Array, more: dict[str, Array], names: list[str]) -> dict[str, Data]:
    """Rows in memory, a third at each site."""
    design = Design(study)
    codes = {"y": y, **more, **{name: x[:, k] for k, name in enumerate(names)}}
    parts = ({name: codes[name][k::3] for name in design.variables} for k in range(3))
    return {site: ArrayRows.of(design.block(part)) for site, part in zip(SITES, parts, strict=True)}


def make_study(formula: str, variables: dict[str, Any], learner: dict[str, Any]) -> Study:
    """A completed study of three sites."""
    plain = {"name": "cost", "sites": list(SITES), "formula": formula, "variables": variables, "learner": learner}
    study = complete_study(Study.model_validate(plain))
    assert learner_of(study).name == learner["name"]
    return study


# From the same files


def time_files(n: int, p: int) -> None:
    """From three CSV files to coefficients, by each program in turn."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), n, p)
        runs: dict[str, list[tuple[float, float]]] = {}
        ends: dict[str, list[float]] = {}
        for _ in range(REPEATS):
            for name in ("coterie", "glum", "scikit-learn", "statsmodels", "R"):
                wall, cpu, ends[name] = run_reader(name, Path(folder))
                runs.setdefault(name, []).append((wall, cpu))
        for name, own in runs.items():
            off = max(abs(a - b) for a, b in zip(ends[name], ends["R"], strict=True))
            describe(f"{n} x {p}, {name} (largest difference to R {off:.1e})", own)


def write_files(folder: Path, n: int, p: int) -> None:
    """A file of each site, and the study."""
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(size=(n, p)), 3)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-x @ rng.normal(0.0, 0.3, p)))).astype(int)
    names = [f"x{k}" for k in range(p)]
    for k, site in enumerate(SITES):
        lines = [",".join(["y", *names])]
        lines += [",".join(map(repr, [int(y[i]), *x[i].tolist()])) for i in range(k, n, 3)]
        (folder / f"{site}.csv").write_text("\n".join(lines) + "\n")
    variables = {"y": {"type": "binary"}, **{name: {"type": "number", "range": [-20, 20]} for name in names}}
    plain = {"name": "files", "sites": list(SITES), "formula": "y ~ .", "variables": variables}
    (folder / "study.json").write_text(json.dumps(plain | {"learner": {"name": "glore"}}))


def run_reader(name: str, folder: Path) -> tuple[float, float, list[float]]:
    """Wall and CPU seconds of one program after its imports, and its coefficients."""
    if name == "R":
        command = ["Rscript", "-e", _R_SCRIPT, str(folder)]
    else:
        command = [sys.executable, __file__, "read", name, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, *coefficients = map(float, done.stdout.split())
    return wall, cpu, coefficients


_R_SCRIPT = """
folder <- commandArgs(TRUE)[1]
fast <- requireNamespace("data.table", quietly = TRUE)
reads <- if (fast) function(file) as.data.frame(data.table::fread(file)) else read.csv
before <- proc.time()
data <- do.call(rbind, lapply(c("a", "b", "c"), function(s) reads(file.path(folder, paste0(s, ".csv")))))
model <- glm(y ~ ., binomial, data, control = list(epsilon = 1e-12))
errors <- sqrt(diag(vcov(model)))
after <- proc.time() - before
cat(after[["elapsed"]], after[["user.self"]] + after[["sys.self"]], sprintf("%.15g", coef(model)))
"""


def read_and_fit(name: str, folder: Path) -> None:
    """Time one program, and print wall and CPU seconds and its coefficients."""
    fit = _FITS[name](folder)
    out: list[Array] = []
    wall, cpu = measure(lambda: out.append(fit()))
    print(wall, cpu, *out[0].tolist())


def prepare_coterie(folder: Path) -> Callable[[], Array]:
    """Files to coefficients by the product: gates, masks and replay are in it."""
    from coterie_node.analysis.analyse import analyse

    study = complete_study(Study.model_validate_json((folder / "study.json").read_text()))
    learner_of(study)
    return lambda: analyse(study, {site: folder / f"{site}.csv" for site in SITES}).params


def read_pooled(folder: Path) -> tuple[Array, Array]:
    """All rows of the three files, by Arrow."""
    from pyarrow import concat_tables
    from pyarrow.csv import read_csv

    table = concat_tables([read_csv(folder / f"{site}.csv") for site in SITES])
    columns = [np.asarray(table[name], dtype=np.float64) for name in table.column_names]
    return np.column_stack(columns[1:]), columns[0]


def prepare_glum(folder: Path) -> Callable[[], Array]:
    """The same by glum."""
    from glum import GeneralizedLinearRegressor

    def fit() -> Array:
        x, y = read_pooled(folder)
        model = GeneralizedLinearRegressor(family="binomial", alpha=0, gradient_tol=1e-6, solver="irls-ls").fit(x, y)
        model.std_errors(x, y)
        return np.array([model.intercept_, *model.coef_])

    return fit


def prepare_sklearn(folder: Path) -> Callable[[], Array]:
    """The same by scikit-learn, which has no standard errors."""
    from sklearn.linear_model import LogisticRegression

    def fit() -> Array:
        x, y = read_pooled(folder)
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(x, y)
        return np.array([*model.intercept_, *model.coef_[0]])

    return fit


def prepare_statsmodels(folder: Path) -> Callable[[], Array]:
    """The same by statsmodels."""
    import statsmodels.api as sm

    def fit() -> Array:
        x, y = read_pooled(folder)
        model = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-10)
        assert len(model.bse) == x.shape[1] + 1
        return np.asarray(model.params)

    return fit


_FITS: dict[str, Callable[[Path], Callable[[], Array]]] = {
    "coterie": prepare_coterie,
    "glum": prepare_glum,
    "scikit-learn": prepare_sklearn,
    "statsmodels": prepare_statsmodels,
}

if __name__ == "__main__":
    main()
