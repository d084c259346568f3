"""Work that takes longer than a page may: each job once at a time, in a thread, with its outcome kept for the page.

none --start--> runs --> done (value) or failed (code and sentence); a start replaces an outcome
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

from coterie_node.errors import CoterieError

# Jobs at a time, and outcomes that are kept.
MOST_JOBS, MOST_OUTCOMES = 2, 60


@dataclass(frozen=True)
class PageJob:
    """The state of one job: it runs while there is neither a value nor a problem; `at` is when it began or ended."""

    name: str
    by: str
    at: float
    value: Any = None
    problem: str = ""
    runs: bool = False


class JobDesk:
    """The jobs of one page process; `version` counts what changed."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(MOST_JOBS, thread_name_prefix="job")
        self._jobs: OrderedDict[str, PageJob] = OrderedDict()
        self._lock = Lock()
        self.version = 0

    def start(self, name: str, by: str, work: Callable[[], Any]) -> None:
        """Begin a job under a name, unless it runs already."""
        with self._lock:
            if name in self._jobs and self._jobs[name].runs:
                return
        self._keep(PageJob(name, by, self._clock(), runs=True))
        self._pool.submit(self._run, name, by, work)

    def find(self, name: str) -> PageJob | None:
        """The job of a name, if one has begun."""
        with self._lock:
            return self._jobs.get(name)

    def close(self) -> None:
        """Begin nothing more; a job that runs goes on to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, name: str, by: str, work: Callable[[], Any]) -> None:
        job, begun = None, self._clock()
        try:
            job = PageJob(name, by, self._clock(), work())
        except CoterieError as error:
            code, message = getattr(error, "code", ""), getattr(error, "message", str(error))
            job = PageJob(name, by, self._clock(), problem=f"{code}: {message}")
        except (ArithmeticError, LookupError, TypeError, ValueError, OSError, AttributeError, RuntimeError) as error:
            job = PageJob(name, by, self._clock(), problem=f"a defect of the program: {type(error).__name__}")
        finally:  # whatever ends it, it does not run any more: else nobody could start it again
            self._keep(job or PageJob(name, by, begun, problem="a defect of the program"))

    def _keep(self, job: PageJob) -> None:
        with self._lock:
            self._jobs[job.name] = job
            self._jobs.move_to_end(job.name)
            self.version += 1
            ended = [name for name, kept in self._jobs.items() if not kept.runs]
            for name in ended[: max(len(self._jobs) - MOST_OUTCOMES, 0)]:
                del self._jobs[name]
