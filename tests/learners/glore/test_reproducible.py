"""A server's post has the same bits under every kernel of BLAS, number of threads and set of CPU features.

Each environment is a process of its own, because numpy and OpenBLAS choose their code when they are loaded.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# The names by which this version of numpy knows the CPU features that it can do without.
DISPATCHED = importlib.import_module("numpy._core._multiarray_umath").__cpu_dispatch__

# Sums whose entries are multiples of 1/64, so that they are the same whoever adds them up; three posts of a server:
# the first round, a later one, and the one that ends the fit.
PROGRAM = '''
import hashlib
import numpy as np
from coterie_learners.numeric import linalg
from coterie_learners.glore.glore import GlorePlan, next_model
from coterie_learners.core.registry import complete_study
from coterie_learners.core.payload import canonical
from coterie_learners.study.document import Study
from coterie_learners.sums.newton import begin

P, N = 24, 500
variables = {f"x{j}": {"type": "number", "range": [-3, 5]} for j in range(1, P)}
study = complete_study(Study.model_validate({
    "name": "same", "sites": ["a", "b"], "formula": "y ~ " + " + ".join(variables),
    "variables": {"y": {"type": "binary"}, **variables},
    "learner": {"name": "glore", "aggregation": "plain", "ridge": 0.3, "tolerance": 1e-2},
}))
plan = GlorePlan.of(study)
state = 5

def integers(below, count):
    """Whole numbers from a generator of our own, which no version of numpy changes (Knuth's MMIX)."""
    global state
    out = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((state >> 33) % below)
    return np.array(out, dtype=float)

def posts(weight, **more):
    out = {}
    for site in study.sites:
        x = (integers(17, N * P).reshape(N, P) - 8) / 8
        x[:, 0] = 1
        y = integers(2, N)
        scale = 0.25 if more else 1.0
        information = ((x.T @ x) * scale)[np.triu_indices(P)]
        sums = {"score": weight * (x.T @ (y - 0.5)), "information": information, "deviance": np.float64(690.0)}
        out[site] = sums | {"n": np.float64(N), "outcome": np.float64(203)} | more
    return out

one = next_model(plan, begin(plan.rules), posts(1.0))
first = {"saturated": np.float64(0), "null": np.array([1e4, 203.0])}
two = next_model(plan, {**one, "step": np.zeros(P)}, posts(1.0, **first))
end = next_model(plan, {**two, "objective": 1e4}, posts(2.0**-30, saturated=np.float64(0)))
assert not one["rests"] and not two["rests"] and end["rests"]
functions = {"f": np.array([[linalg.exp(v), linalg.log(1 + v * v)] for v in (integers(10**6, 500) / 1e5 - 5).tolist()])}
print(*(hashlib.sha256(canonical(p)).hexdigest()[:16] for p in (one, two, end, functions)))

# Columns split over sites: null model, a step and the last step of VERTIGO, both exchanges, from whole numbers.
from coterie_learners.vertical import vertigo

M, K = 700, 5
held = {"a": ["y", *(f"x{j}" for j in range(1, K + 1))], "b": [f"x{j}" for j in range(K + 1, 2 * K + 1)]}
split = {
    "name": "same", "sites": ["a", "b"], "columns": held, "identifier": ["code"],
    "formula": "y ~ " + " + ".join(v for names in held.values() for v in names[names[0] == "y":]),
    "variables": {"y": {"type": "binary"}, **variables},
}
y = integers(2, M).astype(np.uint8)
halves = {s: (integers(401, M // 2 * K).reshape(-1, K) - 200) / 64 for s in held}
factors = {s: np.concatenate([half, -half]) for s, half in halves.items()}
digests = []
binary, count = {"type": "binary"}, {"type": "count", "range": [0, 1]}
models = (
    ("thin", binary, {}), ("gram", binary, {}), ("thin", binary, {"link": "probit"}),
    ("gram", binary, {"link": "cloglog"}), ("thin", count, {"family": "poisson"}),
    ("gram", count, {"family": "gaussian"}),
)
for exchange, kind, model in models:
    learner = {"name": "vertigo", "exchange": exchange, "ridge": 3.0, **model}
    study = complete_study(Study.model_validate(
        {**split, "variables": {**split["variables"], "y": kind}, "learner": learner}
    ))
    posts = {}
    for s, z in factors.items():
        upper = sum(z[:, k, None] * z[:, k] for k in range(K))[np.triu_indices(M)]
        own = {"factor": z} if exchange == "thin" else {"gram": upper}
        values = {"outcome": y if kind is binary else y.astype(float)} if s == "a" else {}
        posts[s] = {**own, "shift": np.arange(K) / 8, **values}
    problem = vertigo.VertigoProblem(vertigo.plan_vertigo(study), posts)
    last = vertigo.start_model(problem)
    digests += [last, vertigo.newton_step_of(problem, last)]
    while not last.get("converged"):
        last = vertigo.newton_step_of(problem, last)
    digests.append(last)
print(*(hashlib.sha256(canonical(p)).hexdigest()[:16] for p in digests))

z = integers(10**6, 30000).reshape(-1, 30) / 1e6
print(hashlib.sha256((z.T @ z).tobytes() + np.exp(z).tobytes() + np.linalg.inv(z.T @ z).tobytes()).hexdigest()[:16])
'''
ENVIRONMENTS = {
    "as it comes": {},
    "Nehalem, one thread": {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"},
    "Haswell, two threads": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    "Prescott, two threads": {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "2"},
    "no CPU features": {"NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED), "OPENBLAS_CORETYPE": "Nehalem"},
}
# First round, later round, last round, exp and log. If these change, studies that are on ledgers no longer replay:
# then GLORE needs a new version.
DIGESTS = "d92a33c0f4e06bd0 233433d46bd907bc 794d0ab909a3fcf0 87af0698b680fb97"
# The same for VERTIGO: null model, first and last step of the thin exchange, then of the paper's, then of other
# families: probit (thin), cloglog (the paper's), Poisson (thin), linear (the paper's).
SPLIT_DIGESTS = (
    "7f0dd9b218c0576d b7f50ca490237191 40bf83c82b1ff74a c5422c03db1b6587 6ed766c5716c090c aed7d516ef9e7805 "
    "708ff37f6a69331e 23d1a1f31bad6c04 8198e80e6799a5c3 d4c0ab192255b2b8 89327ba87262475c 82fce543364890e2 "
    "3953d8eb6067cd83 8fad41f9d32af6ad 628e35740f4ba367 044206836802cf9d 09fb53807758ac90 0385c6bb59a48631"
)


def _run(environment: dict[str, str]) -> list[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "NPY", "OMP"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_a_server_post_has_the_stored_digest_in_every_environment_though_plain_numpy_has_not() -> None:
    with ThreadPoolExecutor(2) as pool:
        printed = dict(zip(ENVIRONMENTS, pool.map(_run, ENVIRONMENTS.values()), strict=True))
    assert {name: lines[0] for name, lines in printed.items()} == dict.fromkeys(ENVIRONMENTS, DIGESTS)
    assert {name: lines[1] for name, lines in printed.items()} == dict.fromkeys(ENVIRONMENTS, SPLIT_DIGESTS)
    if platform.machine() == "x86_64":  # the kernels named here are those of x86; there they do differ
        assert len({lines[2] for lines in printed.values()}) > 1
