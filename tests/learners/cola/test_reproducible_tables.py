"""A fit of pattern tables has the same bits under every kernel of BLAS, number of threads and set of CPU features."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from learners.glore.test_reproducible import ENVIRONMENTS

# Tables from a generator of our own, which no version of numpy changes (Knuth's MMIX).
PROGRAM = """
import hashlib
import numpy as np
from coterie_learners.numeric import elementary
from coterie_learners.cola.cola import build_table, fit_tables, plan_table
from coterie_learners.core.registry import complete_study
from coterie_learners.core.payload import canonical
from coterie_learners.study.rows import ArrayCodes
from coterie_learners.study.document import Study
from coterie_learners.cola.tables.pattern_counts import count_patterns

state = 7

def integers(below, size):
    global state
    out = []
    for _ in range(size):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((state >> 33) % below)
    return np.array(out, dtype=float)

n, sites = 400, ("a", "b", "c")
rows = {s: {"x": integers(2, n), "v": integers(5, n), "w": integers(3, n), "o": integers(9, n) / 8} for s in sites}
for part in rows.values():
    part["y"] = (integers(100, n) < 20 + 30 * part["x"] + 5 * part["w"]).astype(float)
    part["k"], part["g"] = integers(3, n), integers(1000, n) / 64
    part["c"] = np.floor(part["g"] * (1 + part["x"]) / 8)
models = [
    ("y", {}), ("y", {"link": "probit"}), ("y", {"link": "cloglog"}), ("y", {"firth": True}), ("y", {"robust": True}),
    ("y", {"site_intercepts": True}), ("c", {"family": "poisson"}), ("c", {"family": "quasipoisson"}),
    ("g", {"family": "gaussian"}), ("k", {"family": "multinomial"}),
]
digest = hashlib.sha256()
for outcome, options in models:
    study = complete_study(Study.model_validate({
        "name": "same", "sites": list(sites), "formula": f"{outcome} ~ x + v + v^3 + w + x:v",
        "variables": {"y": {"type": "binary"}, "x": {"type": "binary"}, "v": {"type": "count", "range": [0, 4]},
            "w": {"type": "category", "levels": ["p", "q", "r"]}, "k": {"type": "category", "levels": ["p", "q", "r"]},
            "g": {"type": "number", "range": [0, 20]}, "c": {"type": "count", "range": [0, 99]}},
        "disclosure": {"cell": 5}, "learner": {"name": "cola", **options},
    }))
    plan = plan_table(study)
    tables = {s: build_table(plan, count_patterns(plan.tally, ArrayCodes(rows[s]))) for s in sites}
    # What logarithms a site takes of its own counts are its own; here they are the same everywhere.
    tables = {s: {k: np.round(np.asarray(v) * 64) / 64 if k in ("saturated", "constant") else v for k, v in t.items()}
        for s, t in tables.items()}
    digest.update(canonical(fit_tables(plan, tables)))
z = integers(10**6, 3000) / 5e4 - 10
normal = elementary.evaluate_normal(z)
values = (elementary.exp_of_array(z), elementary.log_of_array(z * z + 0.1), elementary.expm1(z))
values = (*values, normal.below, normal.log_above)
for values in (*values, normal.rate_below):
    digest.update(values.tobytes())
print(digest.hexdigest()[:32])
"""
# If this changes, studies that are on ledgers no longer replay: then COLA-GLM needs a new version.
DIGEST = "07227154e9307bf15e4cbb0614ce674d"


def _run(environment: dict[str, str]) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "NPY", "OMP"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_fit_of_tables_has_the_stored_digest_in_every_environment() -> None:
    with ThreadPoolExecutor(2) as pool:
        printed = dict(zip(ENVIRONMENTS, pool.map(_run, ENVIRONMENTS.values()), strict=True))
    assert printed == dict.fromkeys(ENVIRONMENTS, DIGEST)
