"""What the privacy log costs at 1,000,000 patients and 20 columns: seconds and megabytes, once for each file.

python benchmarks/privacy_log.py [ROWS] [COLUMNS] [RELEASES]
"""

from __future__ import annotations

import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.storage import FolderStorage
from coterie_node.privacy.values import Sample, judge_values


@contextmanager
def timed(what: str) -> Iterator[None]:
    start, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{what:52s} {time.perf_counter() - start:7.2f} s, CPU {time.process_time() - cpu:5.2f} s")


def draw(rows: int, columns: int) -> RawRows:
    rng = np.random.default_rng(1)
    values = {f"x{j}": np.round(rng.normal(size=rows), 2) for j in range(columns)}
    return RawRows(values, {}, [f"P{k:08d}" for k in range(rows)])


def candidate(log: PrivacyLog, raw: RawRows, k: int, left_out: int) -> Candidate:
    head = ReleaseHead(f"session-{k}", f"study-{k}", "00", 0, 0, ("a", "b", "c"), "masked", raw.n, {})
    rows = raw.take(np.arange(left_out, raw.n)) if left_out else raw
    return log.prepare(head, log.print_rows(rows))


def main(rows: int = 1_000_000, columns: int = 20, releases: int = 50) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = PrivacyLog(FolderStorage(Path(folder)))
        raw = draw(rows, columns)
        with timed("prints of 1 file: patients and columns"):
            raw.prints(log.key)
        with timed("prints, dictionary, columns"):
            first = candidate(log, raw, 0, 0)
        tracemalloc.start()
        first = candidate(log, raw, 0, 0)
        print(f"{'peak memory':44s} {tracemalloc.get_traced_memory()[1] / 1e6:7.0f} MB")
        tracemalloc.stop()
        with timed("written, on the disk"):
            log.write(first)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        print(f"{'on the disk':44s} {size / 1e6:7.0f} MB")
        with timed("the same rows again, judged"):
            print(log.judge(candidate(log, raw, 1, 0), 5))
        for k in range(releases):
            log.write(candidate(log, raw, k + 2, 10 * (k + 1)))
        last = candidate(log, raw, releases + 2, 3)
        with timed(f"judged against {releases + 1} releases"):
            print({objection.kind for objection in log.judge(last, 5)})
        sample = Sample(draw(100_000, 50).values, "x0")
        with timed("values of 100,000 x 50 judged, once for each file"):
            judge_values(sample, 5)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
