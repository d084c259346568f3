"""What the ledger adds to a round: the same GLORE study over a chain, over brokers and in memory, by local compute.

    federated_twin.py [RUNS] [COMPUTE ...]       seconds of local compute a round; default 30 runs of 0.03, 0.3 and 1
    federated_twin.py [RUNS] [COMPUTE ...] clique    also over Clique and Kubo, with blocks every 2 s

Rows are the example's (NHEFS, three sites, a new permutation each run). Each site is a thread with its own handles. Its
post of a round waits as long as its local compute would take, so that three machines are simulated on one. All
transports run in turn, each on a new network. Each run is kept in .twin-runs.jsonl until all are there, so that a call
that was ended goes on; without that file it begins from the start. A line has medians and quartiles of the whole fit,
from the last joining to the last result, over Newton's rounds. RabbitMQ and Redis are Debian's packages rabbitmq-server
and redis-server.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from coterie_node.experiment.cohort import load_experiment_rows
from coterie_node.experiment.comparison import Quartiles
from coterie_node.experiment.models import TrialRows, read_site_rows
from coterie_node.experiment.plan import read_plan
from coterie_node.experiment.splits import split_trial
from coterie_node.experiment.transports import Transport, conduct_runners, open_transport

# Runs of a call that was ended; it goes on from them, and a complete one deletes them.
KEPT = Path(__file__).parent / ".twin-runs.jsonl"
EXAMPLE = Path(__file__).parents[1] / "examples" / "experiment.toml"
TRANSPORTS = ("memory", "redis", "amqp", "anvil")


def time_round(rows: TrialRows, transport: Transport, compute: float) -> tuple[float, int]:
    """Seconds a round of one study, and the bytes of all its payloads."""
    study = rows.plan.study_of_rows(tuple(rows.split.sites), {"aggregation": "plain"})
    conducted, seconds = conduct_runners(transport, study, read_site_rows(rows, study), False, compute)
    rounds = max(runner.machine.result.rounds for runner in conducted.runners.values())
    return seconds / rounds, conducted.payload_bytes


@dataclass(frozen=True)
class Run:
    """One study over a transport: its number, local compute, seconds a round, bytes of payload, and the load."""

    number: int
    compute: float
    transport: str
    seconds: float
    size: int
    load: float


def read_runs(file: Path) -> list[Run]:
    """The runs that an earlier call left there; nothing if it came to its end."""
    return [Run(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def measure_all(file: Path, runs: int, computes: list[float], names: tuple[str, ...]) -> None:
    """Every run that the file has not yet, in turn, and the lines of a compute as soon as it has all."""
    plan, done = read_plan(EXAMPLE), read_runs(file)
    cohort = load_experiment_rows(plan, EXAMPLE.parent)
    trials = [TrialRows(plan, cohort, split_trial(plan, cohort, k), k) for k in range(runs)]
    with ExitStack() as stack, file.open("a") as log:
        transports = {name: stack.enter_context(open_transport(name)) for name in names}
        for compute in computes:
            for number, (name, transport) in itertools.product(range(runs), transports.items()):
                if any((run.number, run.compute, run.transport) == (number, compute, name) for run in done):
                    continue
                seconds, size = time_round(trials[number], transport, compute)
                done.append(Run(number, compute, name, seconds, size, os.getloadavg()[0]))
                print(json.dumps(asdict(done[-1])), file=log, flush=True)
            print_runs(compute, [run for run in done if run.compute == compute and run.number < runs], names)


def print_runs(compute: float, runs: list[Run], names: tuple[str, ...]) -> None:
    """The lines of a local compute."""
    loads = [run.load for run in runs]
    sizes = {number: {run.size for run in runs if run.number == number} for number in {run.number for run in runs}}
    same = all(len(own) == 1 for own in sizes.values())
    print(
        f"compute {compute:g} s, {len(sizes)} runs, load {min(loads):.1f} to {max(loads):.1f}, the same bytes of "
        f"payload: {same}",
        flush=True,
    )
    boxes = {name: [run.seconds for run in runs if run.transport == name] for name in names}
    broker = Quartiles.of(boxes["amqp"]).median
    for name, values in boxes.items():
        box = Quartiles.of(values)
        print(
            f"  {name:7s} {1000 * box.median:8.1f} ms a round ({1000 * box.low:.1f} to {1000 * box.high:.1f}), "
            f"least {1000 * min(values):.1f}; to RabbitMQ {100 * (box.median / broker - 1):+.1f} %",
            flush=True,
        )


def main() -> None:
    """Print a line for each local compute and transport; what was measured is kept until all is."""
    words = [word for word in sys.argv[1:] if word != "clique"]
    runs, computes = int((words or ["30"])[0]), [float(word) for word in words[1:]] or [0.03, 0.3, 1.0]
    names = (*TRANSPORTS, "clique") if "clique" in sys.argv else TRANSPORTS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # programs that were started end with it
    measure_all(KEPT, runs, computes, names)
    KEPT.unlink()


if __name__ == "__main__":
    main()
