"""The process of one site of a run, or of the warm one that forks several: `coterie take-part`.

Its options are read here, because the library that reads those of other commands takes longer to import than a small
study takes rounds. Progress, the report and an error are JSON lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie_node.errors import CoterieError, exit_status
from coterie_node.process_settings import set_up_process

if TYPE_CHECKING:
    from coterie_node.run.follower import Progress
    from coterie_node.site.run_folder import RunFolder


def run_site_process() -> None:
    """Take part, as the arguments of the process say; the exit status is that of the error, if there was one."""
    set_up_process()
    options = _read_options(sys.argv[2:])
    try:
        take_part_in(options.at, options.site, options.approve, options.to)
    except CoterieError as error:
        status = exit_status(error)
        _print_line({"error": {"code": error.code, "message": error.message, "status": status}})
        sys.exit(status)


def take_part_in(at: Path, sites: Sequence[str], approve: str, to: Sequence[int] | None) -> None:
    """Take part in a study as one site, or fork one process for each of several, with the open file of its lines."""
    from coterie_node.site.run_folder import RunFolder

    place = RunFolder(at)
    if to is None:
        _take_part(place, sites[0], approve)
        return
    from coterie_node.demo.forked_sites import fork_sites, leave

    name = fork_sites(place, dict(zip(sites, to, strict=True)), partial(_start_site, at, approve))
    if name is not None:
        _take_part(place, name, approve)
    leave()


def build_step_line(progress: Progress) -> dict[str, Any]:
    """A finished step as one line says it."""
    figures = {k: progress.figures[k] for k in ("deviance", "gain") if k in progress.figures}
    return {"step": progress.topic, "round": progress.round, "sites": list(progress.sites), **figures}


def _read_options(words: Sequence[str]) -> Any:
    parser = ArgumentParser("coterie take-part", description="Take part in a study as one site.")
    parser.add_argument("--at", type=Path, required=True, help="Folder of the run.")
    parser.add_argument("--site", action="append", required=True, help="Name of a site.")
    parser.add_argument("--approve", required=True, help="Hash of the study that the site's people approved.")
    parser.add_argument("--to", type=int, action="append", help="Open file for the lines of each --site.")
    return parser.parse_args(words)


def _take_part(place: RunFolder, site: str, approve: str) -> None:
    from coterie_node.site.participant import await_start, enter, open_node, report, take_part

    node = open_node(place, site, approve, lambda progress: _print_line(build_step_line(progress)))
    with closing(node.journal):
        number = enter(node)
        await_start(node, number)
        started = time.time()
        runner = take_part(node, number)
        _print_line({**report(node, number, runner), "started": started, "ended": time.time()})


def _start_site(at: Path, approve: str, name: str, output: int) -> int:
    """Start one site as a process without relation to this one; returns its number."""
    words = ["take-part", "--at", str(at), "--site", name, "--approve", approve]
    return subprocess.Popen([sys.executable, "-m", "coterie_node", *words], stdout=output).pid


def _print_line(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)
