"""A study as deployed: a process for each of three sites, TLS on loopback, Anvil, a folder store."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from relay import run_delayed

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.nhefs import write_frame
from coterie_node.demo.run import prepare, run_sites
from coterie_node.network.devnet import make_settings, run_network
from coterie_node.site.run_folder import RunFolder

SITES = ("left", "right", "helper")


def declare_numbers(names: Sequence[str]) -> str:
    """The part of a study file that declares columns of numbers."""
    return "\n".join(f'[variables.{name}]\ntype = "number"\nrange = [-8, 8]\n' for name in names)


def run_once(text: str, frames: Mapping[str, pd.DataFrame], delay: float = 0.0) -> tuple[dict[str, Any], float]:
    """One run of a study file on two sites' rows; the first site's report, and the wall seconds from join to result.

    `delay`: seconds that each message between sites takes one way.
    """

    def write_sites(folder: Path, sites: Sequence[str]) -> Mapping[str, Path]:
        return {name: write_frame(frame, folder / name / "data.csv") for name, frame in frames.items()}

    case = Case(lambda _: SITES, lambda _: text, write_sites, lambda: Reference({}))
    with tempfile.TemporaryDirectory() as folder:
        place = RunFolder(Path(folder) / "run")
        place.root.mkdir()
        prepare(place, case, SITES)
        with run_network(place, SITES, make_settings("anvil", "folder")):
            reports, seconds = run_delayed(place, delay) if delay else run_sites(place, SITES, lambda _: None)
    return reports["left"], seconds


def read_peak() -> float:
    """MB of the largest of all processes that have ended, here those of the sites (Linux counts kilobytes)."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def read_children_seconds() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_busiest(session: Mapping[str, Any]) -> float:
    """MB that the busiest party of an interactive step sent."""
    return float(max(session["bytes_sent"].values())) / 1e6
