"""Endurance: many small studies on one Clique devnet; memory and open files of every program, from start to end.

`python benchmarks/soak.py --studies 1000 --every 100`: a Geth, a Kubo and a daemon (`coterie serve`) for each of three
sites. Each study is proposed at one site and approved at the others as their people would, a few at a time
(`--at-once`); it is COLA-GLM's demo: one round of tables. `--learner glore` is a study of some rounds: how long each
takes is reported, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from coterie_chain.errors import ChainError, PostRejected
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.ledger.protocol import Ledger, Record, State
from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.audit.replay import replay
from coterie_node.demo.cases import find_case
from coterie_node.demo.run import prepare
from coterie_node.network.devnet import make_settings, run_network, services
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.run.study_files import load_study
from coterie_node.site.decisions import DecisionFolder, make_decision
from coterie_node.site.run_folder import RunFolder

SITES = ("north", "south", "west")
LONGEST = 180.0


@dataclass(frozen=True)
class Sample:
    """One look at one program."""

    done: int
    memory: int
    handles: int


def main() -> None:
    """Run the studies and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--learner", default="cola")
    parser.add_argument("--every", type=int, default=100, help="studies between two looks at the programs")
    parser.add_argument("--sleep", action="store_true", help="the chain rests between the studies")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coterie-soak-") as folder:
        soak(
            RunFolder(Path(folder) / "net"),
            arguments.learner,
            arguments.studies,
            arguments.at_once,
            sleep=arguments.sleep,
            every=arguments.every,
        )


def soak(place: RunFolder, learner: str, studies: int, at_once: int, *, sleep: bool = False, every: int = 100) -> None:
    """Run a network and its daemons, decide on one study after the other, and look at all programs as they end."""
    prepare(place, find_case(learner), SITES)
    every = min(every, max(studies // 3, 1))
    samples: dict[str, list[Sample]] = {}
    with run_network(place, SITES, make_settings("clique", "kubo", sleep=sleep)):
        daemons = SiteDaemons(place)
        daemons.start()
        begun = time.monotonic()
        try:
            with place.reader() as ledger:
                for done in count_ended(place, ledger, studies, at_once):
                    if done % every == 0 or done == studies:
                        take_sample(place, samples, done)
        finally:
            daemons.stop()
        seconds = time.monotonic() - begun
        verdicts, rounds = check(place), measure_pace(place)
        sent_count, vain = transactions(place)
    print(f"{sent_count} transactions on the chain, {vain} reverted")
    print_samples(samples, seconds, studies, verdicts)
    print_growth(samples)
    if rounds:
        summary = f"median {statistics.median(rounds):.0f} s, longest {max(rounds):.0f} s"
        print(f"{len(rounds)} intervals between the servers' records of a study: {summary}")


def number_study(study: Study, k: int) -> Study:
    """The k-th study: the same under another name, hence with another hash."""
    raw = study.model_dump(mode="json")
    return complete_study(Study.model_validate(raw | {"name": f"soak-{k}"}))


def count_ended(place: RunFolder, ledger: Ledger, studies: int, at_once: int) -> Iterator[int]:
    """Keep a few studies open; yields how many have ended after each that does."""
    first, done, decided_on, moved = load_study(place.study), 0, 0, time.monotonic()
    while done < studies:
        while decided_on < min(done + at_once, studies):
            decide(place, number_study(first, decided_on))
            decided_on += 1
        states = read_states(ledger)
        if State.ABORTED in states:
            raise SystemExit(f"study {states.index(State.ABORTED) + 1} was aborted")
        for _ in range(states.count(State.COMPLETED) - done):
            done, moved = done + 1, time.monotonic()
            yield done
        if time.monotonic() - moved > LONGEST:
            raise SystemExit(f"no study has ended for {LONGEST:.0f} s after {done}")
        time.sleep(1.0)


def read_states(ledger: Ledger) -> list[State]:
    """The state of every study; none while the node cannot tell, as for a moment around a reorganisation."""
    try:
        return [ledger.view(number).state for number in ledger.studies()]
    except PostRejected:  # a study that was counted, and that a reorganisation took until the next block
        return []
    except ChainError as fault:
        if not fault.retry:
            raise
        return []


def decide(place: RunFolder, study: Study) -> None:
    """Propose a study at the first site, and approve it at the others, as `coterie study` does."""
    for site in SITES:
        folder = DecisionFolder(place.site(site).root / "decisions")
        folder.save_document(study.hash, study.document)
        folder.record(make_decision(study.hash, "propose" if site == SITES[0] else "approve"))


def take_sample(place: RunFolder, samples: dict[str, list[Sample]], done: int) -> None:
    """Take one sample of everything."""
    for (site, name), service in services(place).items():
        samples.setdefault(f"{name} {site}", []).append(Sample(done, service.memory, service.handles))
    last = {name: (series[-1].memory >> 20, series[-1].handles) for name, series in samples.items()}
    print(f"{done} studies, MiB and open files: {json.dumps(last)}", file=sys.stderr, flush=True)


def check(place: RunFolder) -> int:
    """Replay the first, the middle and the last study; returns how many pass."""
    with place.reader() as ledger:
        numbers = ledger.studies()
        picked = {numbers[0], numbers[len(numbers) // 2], numbers[-1]}
        return sum(replay(ledger, place.blobs(), n).verdict.verdict == "PASS" for n in picked)


def measure_pace(place: RunFolder) -> list[float]:
    """Seconds between the servers' records, within each study."""
    served: defaultdict[int, list[int]] = defaultdict(list)
    with place.reader() as ledger:
        for entry in ledger.history():
            if isinstance(entry, Record) and entry.kind == "server":
                served[entry.post.study].append(entry.time)
    return [float(b - a) for times in served.values() for a, b in pairwise(times)]


def transactions(place: RunFolder) -> tuple[int, int]:
    """How many transactions the chain holds, and how many of them were mined in vain."""
    with Rpc(place.network(SITES[0]).url) as rpc:
        blocks = range(rpc.call_quantity("eth_blockNumber") + 1)
        receipts = [receipt for number in blocks for receipt in rpc.call("eth_getBlockReceipts", hex(number))]
    return len(receipts), sum(receipt["status"] != "0x1" for receipt in receipts)


def print_samples(samples: dict[str, list[Sample]], seconds: float, studies: int, verdicts: int) -> None:
    """A table: each program at the first look, in the middle and at the end."""
    print(f"{studies} studies in {seconds:.0f} s, {seconds / studies:.1f} s each; {verdicts} of 3 replays pass")
    print("| program | MiB after " + " / ".join(str(s.done) for s in format_state(samples)) + " studies | open files |")
    print("|---|---|---|")
    for name, series in sorted(samples.items()):
        three = thirds(series)
        memory = " / ".join(f"{s.memory / 2**20:.0f}" for s in three)
        print(f"| {name} | {memory} | {' / '.join(str(s.handles) for s in three)} |")


def print_growth(samples: dict[str, list[Sample]]) -> None:
    """Memory of each program at every look, in MiB."""
    for name, series in sorted(samples.items()):
        print(f"{name}: {', '.join(f'{s.done} studies {s.memory / 2**20:.0f}' for s in series)}")


def format_state(samples: dict[str, list[Sample]]) -> list[Sample]:
    return thirds(next(iter(samples.values())))


def thirds(series: list[Sample]) -> list[Sample]:
    return [series[0], series[len(series) // 2], series[-1]]


if __name__ == "__main__":
    main()
