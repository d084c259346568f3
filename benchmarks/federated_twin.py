"""What the ledger adds to a round: the same GLORE study over a chain, over brokers and in memory, by local compute.

    federated_twin.py [RUNS] [COMPUTE ...]       seconds of local compute a round; default 30 runs of 0.03, 0.3 and 1
    federated_twin.py [RUNS] [COMPUTE ...] clique    also over Clique and Kubo, with blocks every 2 s

Rows are the example's (NHEFS, three sites, a new permutation each run). Each site is a thread with its own handles. Its
post of a round waits as long as its local compute would take, so that three machines are simulated on one. All
transports run in turn, each on a new network. A line has medians and quartiles of the whole fit, from the last joining
to the last result, over Newton's rounds. RabbitMQ and Redis are Debian's packages rabbitmq-server and redis-server.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from coterie_node.experiment.cohort import load_experiment_rows
from coterie_node.experiment.comparison import Quartiles
from coterie_node.experiment.models import TrialRows, read_site_rows
from coterie_node.experiment.plan import read_plan
from coterie_node.experiment.splits import split_trial
from coterie_node.experiment.transports import Transport, conduct_runners, open_transport

EXAMPLE = Path(__file__).parents[1] / "examples" / "experiment.toml"
TRANSPORTS = ("memory", "redis", "amqp", "anvil")


def time_round(rows: TrialRows, transport: Transport, compute: float) -> tuple[float, int]:
    """Seconds a round of one study, and the bytes of all its payloads."""
    study = rows.plan.study_of_rows(tuple(rows.split.sites), {"aggregation": "plain"})
    conducted, seconds = conduct_runners(transport, study, read_site_rows(rows, study), False, compute)
    rounds = max(runner.machine.result.rounds for runner in conducted.runners.values())
    return seconds / rounds, conducted.payload_bytes


def main() -> None:
    """Print a line for each local compute and transport."""
    words = [word for word in sys.argv[1:] if word != "clique"]
    runs, computes = int((words or ["30"])[0]), [float(word) for word in words[1:]] or [0.03, 0.3, 1.0]
    names = (*TRANSPORTS, "clique") if "clique" in sys.argv else TRANSPORTS
    plan = read_plan(EXAMPLE)
    cohort = load_experiment_rows(plan, EXAMPLE.parent)
    trials = [TrialRows(plan, cohort, split_trial(plan, cohort, k), k) for k in range(runs)]
    with ExitStack() as stack:
        transports = {name: stack.enter_context(open_transport(name)) for name in names}
        for compute in computes:
            seconds: dict[str, list[float]] = {name: [] for name in transports}
            sizes: dict[str, set[int]] = {name: set() for name in transports}
            started, load = time.monotonic(), [os.getloadavg()[0]]
            for rows in trials:
                for name, transport in transports.items():
                    each, size = time_round(rows, transport, compute)
                    seconds[name].append(each)
                    sizes[name].add(size)
                load.append(os.getloadavg()[0])
            same = all(size == sizes["memory"] for size in sizes.values())
            print(
                f"compute {compute:g} s, {runs} runs, load {min(load):.1f} to {max(load):.1f}, "
                f"{time.monotonic() - started:.0f} s in all, the same bytes of payload: {same}"
            )
            for name, values in seconds.items():
                box, broker = Quartiles.of(values), Quartiles.of(seconds["amqp"]).median
                print(
                    f"  {name:7s} {1000 * box.median:8.1f} ms a round ({1000 * box.low:.1f} to {1000 * box.high:.1f}), "
                    f"least {1000 * min(values):.1f}; to RabbitMQ {100 * (box.median / broker - 1):+.1f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
