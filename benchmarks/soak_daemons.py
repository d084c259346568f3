"""Endurance: many small studies on one Clique devnet; memory and open files of every program, from start to end.

`python benchmarks/soak.py --studies 200`. Each site has one process for all studies, which keeps its handles on ledger,
store and journal, and works on a few studies at a time. The study is COLA-GLM's demo: one round of tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from coterie_chain.ledger import State
from coterie_learners.learner import complete
from coterie_learners.study import Study
from coterie_node.audit import replay
from coterie_node.cases import case_of
from coterie_node.data import load_site
from coterie_node.demo import prepare
from coterie_node.devnet import launched, services, settings_of
from coterie_node.participant import Node, await_start, enter, open_node, take_part
from coterie_node.place import Place
from coterie_node.studies import load_study

SITES = ("north", "south", "west")
AT_ONCE = 4
EVERY = 20


@dataclass(frozen=True)
class Sample:
    """One look at one program."""

    done: int
    memory: int
    handles: int


def main() -> None:
    """Run the studies and print the figures; or, as a site's process, take part in them."""
    told = argparse.ArgumentParser()
    told.add_argument("--studies", type=int, default=200)
    told.add_argument("--at", type=Path)
    told.add_argument("--site")
    given = told.parse_args()
    if given.site:
        work(Place(given.at), given.site, given.studies)
    else:
        with tempfile.TemporaryDirectory(prefix="coterie-soak-") as folder:
            soak(Place(Path(folder) / "net"), given.studies)


# A site's process


def work(place: Place, site: str, studies: int) -> None:
    """Take part in all studies, some at a time; one line for each that has ended."""
    first = open_node(place, site, load_study(place.study).hash.hex())
    # In order, so that all sites work on the same few.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in pool.map(lambda k: one_study(first, k), range(studies)):
            print(json.dumps({"site": site, "study": number}), flush=True)


def numbered(study: Study, k: int) -> Study:
    """The k-th study: the same under another name, hence with another hash."""
    raw = study.model_dump(mode="json")
    return complete(Study.model_validate(raw | {"name": f"soak-{k}"}))


def one_study(first: Node, k: int) -> int:
    """Join, take part to the end; returns the study's number."""
    study = numbered(first.study, k)
    assert first.rows is not None
    node = replace(first, study=study, rows=load_site(first.rows.path, study, first.name))
    number = enter(node)
    await_start(node, number)
    take_part(node, number)
    while node.ledger.view(number).state == State.RUNNING:
        node.ledger.wait(1.0)
    return number


# The whole


def soak(place: Place, studies: int) -> None:
    """Run a network and its sites' processes, and look at all of them as the studies end."""
    prepare(place, case_of("cola"), SITES)
    with launched(place, SITES, settings_of("clique", "kubo")):
        command = [sys.executable, __file__, "--studies", str(studies), "--at", str(place.root)]
        workers = {
            s: subprocess.Popen([*command, "--site", s], stdout=subprocess.PIPE, text=True, bufsize=1) for s in SITES
        }
        samples: dict[str, list[Sample]] = {}
        begun = time.monotonic()
        try:
            follow(place, workers, samples, studies)
        finally:
            for process in workers.values():
                process.kill()
                process.wait()
        seconds = time.monotonic() - begun
        verdicts = check(place, studies)
    tell(samples, seconds, studies, verdicts)


def follow(
    place: Place, workers: dict[str, subprocess.Popen[str]], samples: dict[str, list[Sample]], studies: int
) -> None:
    """Sample every program after each twenty studies; the first site's process tells how many have ended."""
    drains = [threading.Thread(target=drain, args=(workers[s],), daemon=True) for s in SITES[1:]]
    for thread in drains:
        thread.start()
    done, lines = 0, workers[SITES[0]].stdout
    assert lines is not None
    for _ in lines:
        done += 1
        if done % EVERY == 0 or done == studies:
            look(place, workers, samples, done)
    if done < studies:
        raise SystemExit(f"{SITES[0]} ended after {done} studies")


def drain(process: subprocess.Popen[str]) -> None:
    """Read what nobody needs, so that the process can write it."""
    for _ in process.stdout or ():
        pass


def look(place: Place, workers: dict[str, subprocess.Popen[str]], samples: dict[str, list[Sample]], done: int) -> None:
    """Take one sample of everything."""
    for (site, name), service in services(place).items():
        samples.setdefault(f"{name} {site}", []).append(Sample(done, service.memory, service.handles))
    for site, worker in workers.items():
        process = psutil.Process(worker.pid)
        seen = Sample(done, process.memory_info().rss, process.num_fds())
        samples.setdefault(f"node {site}", []).append(seen)
    last = {name: (series[-1].memory >> 20, series[-1].handles) for name, series in samples.items()}
    print(f"{done} studies, MiB and open files: {json.dumps(last)}", file=sys.stderr, flush=True)


def check(place: Place, studies: int) -> int:
    """Replay the first, the middle and the last study; returns how many pass."""
    with place.reader() as ledger:
        numbers = ledger.studies()
        picked = {numbers[0], numbers[len(numbers) // 2], numbers[-1]}
        return sum(replay(ledger, place.blobs(), n).verdict.verdict == "PASS" for n in picked)


def tell(samples: dict[str, list[Sample]], seconds: float, studies: int, verdicts: int) -> None:
    """A table: each program at the first look, in the middle and at the end."""
    print(f"{studies} studies in {seconds:.0f} s, {seconds / studies:.1f} s each; {verdicts} of 3 replays pass")
    print("| program | MiB after " + " / ".join(str(s.done) for s in shown(samples)) + " studies | open files |")
    print("|---|---|---|")
    for name, series in sorted(samples.items()):
        three = thirds(series)
        memory = " / ".join(f"{s.memory / 2**20:.0f}" for s in three)
        print(f"| {name} | {memory} | {' / '.join(str(s.handles) for s in three)} |")


def shown(samples: dict[str, list[Sample]]) -> list[Sample]:
    return thirds(next(iter(samples.values())))


def thirds(series: list[Sample]) -> list[Sample]:
    return [series[0], series[len(series) // 2], series[-1]]


if __name__ == "__main__":
    main()
