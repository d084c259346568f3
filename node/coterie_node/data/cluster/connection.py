"""A Dask cluster as the node uses it: every wait has an end, and every failure a code and a culprit."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np

from coterie_learners.errors import DataError, LearnerError
from coterie_node.data.arrow import find_arrow_version
from coterie_node.data.findings import Origin, printable
from coterie_node.data.mapping.document import DaskSource
from coterie_node.data.tables.packages import import_extra

CLUSTER_SECONDS = 10
# What the numbers depend on.
WORKER_PROGRAM = {"coterie": version("coterie"), "numpy": np.__version__, "pyarrow": find_arrow_version()}
Waited = TypeVar("Waited")
# Progress: what is done, how many parts of how many.
Observer = Callable[[str, int, int], None]


def write_progress(what: str, done: int, total: int) -> None:
    """A line on the terminal that is written over; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total} parts", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _close_aside(client: Any) -> None:
    """Close a client that nobody needs any more, in a thread: the one that collects garbage must not wait for it."""

    def close() -> None:
        with suppress(OSError, RuntimeError, AssertionError):
            client.close(timeout=CLUSTER_SECONDS)

    Thread(target=close, daemon=True).start()


def read_program() -> dict[str, str]:
    """Versions of what computes at a worker."""
    return WORKER_PROGRAM


@dataclass
class Cluster:
    """A client of the scheduler. `submit` starts work at a worker; its result stays there until it is asked for."""

    origin: Origin
    source: DaskSource
    folder: Path
    observe: Observer = write_progress
    _client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Connect; DataError (CO-D180) if nobody answers, or no worker is there."""
        self._library = import_extra("distributed", "dask", "The engine dask")
        try:
            self._client = self._open()
            self._client.wait_for_workers(1, timeout=CLUSTER_SECONDS)
        except (OSError, ValueError, TimeoutError, self._library.TimeoutError) as error:
            if hasattr(self, "_client"):
                self._client.close(timeout=1)
            raise self._error(
                "CO-D180", f"does not answer within {CLUSTER_SECONDS} s, or has no worker", error
            ) from None
        # The client goes with the last of the rows that need it.
        self._end = weakref.finalize(self, _close_aside, self._client)
        self._end.atexit = False  # the process's connections end with it
        self._check_programs()

    def _open(self) -> Any:
        """A client; TimeoutError for a scheduler that takes a connection and says nothing, which the client awaits."""
        opened: Future[Any] = Future()
        security = self._read_security()

        def connect() -> None:
            try:
                client = self._library.Client(
                    self.source.scheduler, timeout=CLUSTER_SECONDS, security=security, set_as_default=False
                )
            except (OSError, ValueError, AssertionError, RuntimeError, self._library.TimeoutError) as error:
                if opened.set_running_or_notify_cancel():
                    opened.set_exception(error)
                return
            if opened.set_running_or_notify_cancel():
                opened.set_result(client)
            else:  # nobody waits any more
                client.close(timeout=1)

        Thread(target=connect, daemon=True).start()
        try:
            return opened.result(timeout=2 * CLUSTER_SECONDS)
        finally:
            opened.cancel()

    def close(self) -> None:
        """Let the cluster go, with all that it keeps for this client."""
        if self._end.detach() is not None:
            self._client.close(timeout=CLUSTER_SECONDS)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Start work(*arguments) at a worker; futures among the arguments are their results there."""
        return self._guard(lambda: self._client.submit(work, *arguments, pure=False))

    def start_object(self, make: Callable[..., Any], *arguments: Any) -> ObjectAtWorker:
        """An object that stays at a worker; its methods are called there."""
        future = self._guard(lambda: self._client.submit(make, *arguments, pure=False, actor=True))
        return ObjectAtWorker(self, future, self.read(future))

    def ask(self, start: Callable[[], Any]) -> Any:
        """What a call at a worker answers."""
        return self._guard(lambda: start().result(timeout=self.source.seconds))

    def read(self, future: Any) -> Any:
        """A result; DataError says which worker or part of the cluster failed."""
        return self._guard(lambda: future.result(timeout=self.source.seconds))

    def read_in_order(self, what: str, tasks: Iterable[Callable[[], Any]], total: int) -> Generator[Any, None, None]:
        """The results of tasks, in order; a few more tasks than the cluster has threads run at once."""
        running: deque[Any] = deque()
        room, done = 2 * max(sum(self._ask_scheduler(self._client.nthreads).values()), 1), 0
        coming = iter(tasks)
        try:
            while True:
                running.extend(start() for start in islice(coming, room - len(running)))
                if not running:
                    return
                yield self.read(running[0])
                running.popleft()
                done += 1
                self.observe(what, done, total)
        finally:  # what nobody waits for any more is not computed
            for future in running:
                future.cancel()

    def _guard(self, wait: Callable[[], Waited]) -> Waited:
        """What is waited for; DataError if it does not come in time."""
        try:
            return self._guard_loss(wait)
        except (TimeoutError, self._library.TimeoutError):
            what = f"gave no result for {self.source.seconds} s; {self._describe_load()}"
            raise self._error("CO-D182", what, None) from None

    def _guard_loss(self, wait: Callable[[], Waited]) -> Waited:
        """What is waited for; DataError if the cluster or a worker is lost."""
        try:
            return wait()
        except (LearnerError, TimeoutError, self._library.TimeoutError):
            raise
        except self._library.scheduler.KilledWorker as error:
            raise self._error(
                "CO-D181", f"lost its workers at the same part again and again ({error.last_worker})", None
            ) from None
        except (OSError, self._library.client.FutureCancelledError) as error:
            raise self._error("CO-D181", "is gone, or a worker is", error) from None
        except MemoryError as error:
            raise self._error("CO-D181", "has a worker without enough memory", error) from None

    def _ask_scheduler(self, start: Callable[[], Any]) -> Any:
        """What the scheduler says of itself or its workers; DataError (CO-D182) if it says nothing for a while."""

        async def ask() -> Any:
            return await start()

        try:
            return self._guard_loss(lambda: self._client.sync(ask, callback_timeout=CLUSTER_SECONDS))
        except (TimeoutError, self._library.TimeoutError):
            raise self._error("CO-D182", f"does not answer for {CLUSTER_SECONDS} s", None) from None

    def _describe_load(self) -> str:
        """Which workers the cluster waits for."""
        try:
            processing = self._ask_scheduler(self._client.processing)
        except DataError:
            return "its scheduler does not answer"
        busy = sorted(worker for worker, keys in processing.items() if keys)
        return f"it waits for {', '.join(busy[:3])}" if busy else "it has no worker"

    def _check_programs(self) -> None:
        """DataError (CO-D185) if a worker computes with another version of what the numbers depend on."""
        programs = self._ask_scheduler(partial(self._client.run, read_program, on_error="return"))
        for worker, program in programs.items():
            if program != WORKER_PROGRAM:
                theirs = program if isinstance(program, dict) else {"coterie": "none, or it does not start"}
                other = next(name for name in WORKER_PROGRAM if theirs.get(name) != WORKER_PROGRAM[name])
                message = (
                    f"has {other} {theirs.get(other, 'none')} at {worker}, and the node has {WORKER_PROGRAM[other]}"
                )
                self.close()
                raise self._error("CO-D185", message, None)

    def _read_security(self) -> Any:
        if not self.source.ca:
            return None
        paths = [
            self.folder / Path(name).expanduser() for name in (self.source.ca, self.source.certificate, self.source.key)
        ]
        for path in paths:
            if not path.is_file():
                raise self.origin.error("CO-D180", f"There is no file {path} for the cluster's TLS. Correct the path.")
        ca, certificate, key = map(str, paths)
        return self._library.Security(
            tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True
        )

    def _error(self, code: str, what: str, error: BaseException | None) -> DataError:
        lines = [] if error is None else str(error).strip().splitlines()
        cause = f": {printable(lines[0])[:160]}" if lines else ""
        todo = {
            "CO-D180": "Start it, or correct `scheduler`, its certificates and the firewall.",
            "CO-D181": "Look at the logs of scheduler and workers, and give workers more memory. Then start again.",
            "CO-D182": "Look at the workers' load, or raise `seconds`.",
            "CO-D185": "Install the same versions at all workers.",
        }[code]
        return self.origin.error(code, f"The cluster {self.source.scheduler} {what}{cause}. {todo}")


@dataclass(frozen=True)
class ObjectAtWorker:
    """An object at a worker, which lives there as long as this one here."""

    cluster: Cluster = field(repr=False)
    future: Any = field(repr=False)
    actor: Any = field(repr=False)

    def ask(self, method: str, *arguments: object) -> Any:
        """What a method answers."""
        return self.cluster.ask(partial(getattr(self.actor, method), *arguments))
