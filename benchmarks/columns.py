"""Columns split over two sites at D-CLEF's COVID size: whole fits in one process, each in a process of its own.

`python benchmarks/columns.py` prints one JSON line per case; VERTIGO's thin exchange beside the paper's Gram matrices
where these fit, and VALORIS. Wall clock, CPU seconds, largest memory of the process before and after, bytes per site,
largest differences to statsmodels on the joined columns (ridge 0).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import statsmodels.api as sm

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.core.registry import complete_study
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns
from coterie_node.run.simulate import simulate

SITES = {"clinic": 16, "registry": 84}
NUMBERS = 1
CASES: tuple[tuple[int, str, Mapping[str, Any]], ...] = (
    (15279, "vertigo", {}),
    (15279, "valoris", {}),
    (1000, "vertigo", {"ridge": 10.0}),
    (1000, "vertigo", {"ridge": 10.0, "exchange": "gram"}),
    (2000, "vertigo", {"ridge": 20.0}),
    (2000, "vertigo", {"ridge": 20.0, "exchange": "gram"}),
    (4000, "vertigo", {"ridge": 40.0}),
    (4000, "vertigo", {"ridge": 40.0, "exchange": "gram"}),
)


def main() -> None:
    """Run all cases, or the one whose number is given."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(*CASES[int(sys.argv[1])])))
        return
    for k in range(len(CASES)):
        subprocess.run([sys.executable, __file__, str(k)], check=True)


def measure(n: int, learner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """One whole fit, alignment and checks included, and what it took."""
    study, x, y = cohort(n, learner, options)
    data = deal_columns(study, x, y)
    before, wall, cpu = read_peak(), time.perf_counter(), time.process_time()
    _world, runners, _ = simulate(study, data)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    fit = merge_fits({name: runner.machine.result for name, runner in runners.items()}, Design(study).names)
    figures = {
        "wall": round(wall, 2),
        "cpu": round(cpu, 2),
        "mb_before": before,
        "mb_peak": read_peak(),
        "rounds": fit.rounds,
    }
    bytes_ = {name: round(runner.payload_bytes / 1e6, 2) for name, runner in runners.items()}
    return {"n": n, "learner": learner, **options, **figures, "mb_sent": bytes_, **differences(fit, options, x, y)}


def differences(fit: Fit, options: Mapping[str, Any], x: Array, y: Array) -> dict[str, float]:
    """Largest differences to statsmodels, which knows no ridge."""
    if options.get("ridge"):
        return {}
    pooled = sm.Logit(y, np.column_stack([np.ones(len(y)), x])).fit(disp=0, method="newton", tol=1e-14)
    estimate, error = fit.estimates - pooled.params, fit.std_errors - pooled.bse
    return {"estimate": float(np.max(np.abs(estimate))), "std_error": float(np.max(np.abs(error)))}


def read_peak() -> int:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def cohort(n: int, learner: str, options: Mapping[str, Any]) -> tuple[Study, Array, Array]:
    """A study of 1 measurement and 99 findings of 3 to 40 per cent, their values (n, 100) and the outcome (n,)."""
    rng = np.random.default_rng(2)
    width = sum(SITES.values())
    names = [f"x{j}" for j in range(width)]
    x = (rng.random((n, width)) < rng.uniform(0.03, 0.4, width)).astype(float)
    x[:, :NUMBERS] = np.clip(rng.standard_normal((n, NUMBERS)), -5, 5)
    y = (rng.random(n) < 1 / (1 + np.exp(1.5 - (x - x.mean(0)) @ rng.normal(0, 0.3, width)))).astype(float)
    ends = np.cumsum([0, *SITES.values()])
    columns_by_site = {site: names[a:b] for site, a, b in zip(SITES, ends, ends[1:], strict=False)}
    study = {
        "name": "columns",
        "sites": list(SITES),
        "formula": "y ~ " + " + ".join(names),
        "identifier": ["code"],
        "columns": {site: [*own, *(["y"] if site == "clinic" else [])] for site, own in columns_by_site.items()},
        "variables": {"y": {"type": "binary"}} | {name: kind(j) for j, name in enumerate(names)},
        "learner": {"name": learner, **options},
        "disclosure": {"rebuild": "allow"},
    }
    return complete_study(Study.model_validate(study)), x, y


def kind(j: int) -> dict[str, Any]:
    """How a column is declared."""
    return {"type": "number", "range": [-5, 5]} if j < NUMBERS else {"type": "binary"}


def deal_columns(study: Study, x: Array, y: Array) -> dict[str, OwnColumns]:
    """Each site's own columns, in an order of its own."""
    out, rng = {}, np.random.default_rng(3)
    for site in study.sites:
        order, design = rng.permutation(len(y)), Design(study, site)
        values = {f"x{j}": column[order] for j, column in enumerate(x.T)} | {"y": y[order]}
        codes = tuple((f"p{k:06d}",) for k in order.tolist())
        outcome = values["y"] if design.outcome_here else None
        out[site] = OwnColumns(codes, design.names, design.matrix(values, len(y)), outcome)
    return out


if __name__ == "__main__":
    main()
