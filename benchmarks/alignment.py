"""The alignment of patients at three sites by private set intersection, whole, in one process.

`python benchmarks/alignment.py [ROWS ...]` prints one JSON line per size: CPU seconds of all sites together and of one,
bytes that one site posts, memory; 80 % of each site's patients are at all sites. Without sizes: 15,000 and 100,000.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np

from coterie_learners.core.payload import Stamp, decode, encode
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns
from coterie_learners.vertical.alignment import Alignment, align

SITES = ("clinic", "registry", "insurer")
SHARED = 0.8


def main() -> None:
    """Measure every size in turn."""
    for rows in [int(word) for word in sys.argv[1:]] or [15_000, 100_000]:
        print(json.dumps(measure(rows)), flush=True)


def measure(n: int) -> dict[str, Any]:
    """One whole alignment of n patients at each site; posts go through bytes, as they do on a ledger."""
    of = study(n)
    machines = {name: Machine(align, site(of, name, n)) for name in SITES}
    cpu, sent = dict.fromkeys(SITES, 0.0), dict.fromkeys(SITES, 0)
    results: dict[str, Alignment] = {}
    while len(results) < len(SITES):
        blobs = {}
        for name, machine in machines.items():
            assert machine.awaits is not None
            start = time.process_time()
            blobs[name] = encode(Stamp("bench", machine.awaits.topic, name, 0), machine.draft(SITES, 0))
            cpu[name] += time.process_time() - start
            sent[name] += len(blobs[name])
        for name, machine in machines.items():
            start = time.process_time()
            machine.advance({poster: decode(blob)[1] for poster, blob in blobs.items()})
            if machine.result is not None:
                results[name] = machine.result
                assert results[name].n == len(results[name].order()) == round(SHARED * n)
            cpu[name] += time.process_time() - start
    figures = {"cpu_all": round(sum(cpu.values()), 1), "cpu_site": round(max(cpu.values()), 1)}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"rows": n, "sites": len(SITES), **figures, "mb_site": round(max(sent.values()) / 1e6, 1), "mb_peak": memory}


def study(n: int) -> Study:
    """A study whose sites hold a column each of the same patients."""
    plain = {
        "name": "bench",
        "sites": SITES,
        "formula": "y ~ a + b",
        "identifier": {"code": "text"},
        "columns": {"clinic": ("y",), "registry": ("a",), "insurer": ("b",)},
        "variables": {"y": {"type": "binary"}, "a": {"type": "binary"}, "b": {"type": "binary"}},
        "learner": {"name": "vertigo"},
        "linkage": {"most": n},
    }
    return Study.model_validate(plain)


def site(of: Study, name: str, n: int) -> Site:
    """A site with n patients in an order of its own, of whom 80 % are everywhere."""
    place = SITES.index(name)
    common = round(SHARED * n)
    codes = [f"H{k:08d}" for k in range(common)] + [f"{name}{k:08d}" for k in range(n - common)]
    order = np.random.default_rng(place).permutation(n)
    columns = OwnColumns(tuple((codes[k],) for k in order), ("x",), np.zeros((n, 1)))
    shared = {peer: bytes([place + SITES.index(peer)]) * 32 for peer in SITES if peer != name}
    return Site(of, name, columns, bytes([place]) * 32, shared)


if __name__ == "__main__":
    main()
