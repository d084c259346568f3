"""The product's commands in the test's process, and nodes of `coterie init` that have finished a study."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_node.cli.main import app
from coterie_node.cli.site.serve import open_daemon
from coterie_node.run.study_files import load_study
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import find_node
from coterie_node.site.watch.log import EventLog

SITES = ("north", "south", "west")
COLUMNS = {"north": ("died", "a"), "south": ("b",), "west": ("c",)}
# VERTIGO: its payloads are sealed to keys of this run.
STUDY = """
name = "split"
sites = ["north", "south", "west"]
formula = "died ~ a + b + c"
identifier = ["code"]
[columns]
north = ["died", "a"]
south = ["b"]
west = ["c"]
[learner]
name = "vertigo"
[disclosure]
rebuild = "allow"
[variables.died]
type = "binary"
[variables.a]
type = "number"
range = [-6, 6]
[variables.b]
type = "number"
range = [-6, 6]
[variables.c]
type = "number"
range = [-6, 6]
"""


def run(*words: object, code: int = 0) -> str:
    """Standard output of a command in this process."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if code == 0 and done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def refusal(*words: object) -> Any:
    """The error of ours with which a command ends."""
    error = CliRunner().invoke(app, [str(word) for word in words]).exception
    assert getattr(error, "code", "").startswith("CO-"), error
    return error


@contextmanager
def nodes_on_anvil(folder: Path) -> Iterator[list[Path]]:
    """The folders of three sites' nodes, made by `coterie init`, with one store and one network on an Anvil."""
    roots = [folder / name for name in SITES]
    with Anvil() as anvil:
        for root in roots:
            store = f"folder:{folder / 'store'}"
            run("init", root, "--site", root.name, "--chain", anvil.url, "--store", store, "--port", 0, "--light")
        keys = {root.name: find_node(root).load_keys() for root in roots}
        network = deploy(anvil.url, [SiteEntry(k, n, s.address, s.sealing) for k, (n, s) in enumerate(keys.items(), 1)])
        for root in roots:
            (root / "network.json").write_text(network.to_json())
        yield roots


def write_split_rows(roots: Sequence[Path], n: int = 80) -> None:
    """Each site's own columns of the same people, in the nodes' folders."""
    rng = np.random.default_rng(11)
    a, b, c = rng.normal(size=(3, n)).clip(-5, 5)
    died = (rng.random(n) < 1 / (1 + np.exp(-(0.5 * a - 0.4 * b + 0.3 * c)))).astype(int)
    columns = {"died": died.tolist(), "a": a.tolist(), "b": b.tolist(), "c": c.tolist()}
    for site, root in zip(SITES, roots, strict=True):
        rows = zip(*(columns[name] for name in COLUMNS[site]), strict=True)
        lines = [",".join([f"P{k:03d}", *map(repr, row)]) for k, row in enumerate(rows)]
        (root / "data.csv").write_text("\n".join([",".join(["code", *COLUMNS[site]]), *lines]) + "\n")


def finish_study(roots: Sequence[Path], deadline: float) -> int:
    """Let three nodes of one network propose, approve and fit a study, by their commands and their daemons.

    Returns its number.
    """
    write_split_rows(roots)
    for root in roots:  # their people let the outcome's factor leave, which the study asks for
        settings = root / CONFIG
        settings.write_text(settings.read_text().replace('rebuild = "refuse"', 'rebuild = "allow"'))
    file = roots[0].parent / "split.toml"
    file.write_text(STUDY)
    run("study", "propose", file, "--node", roots[0])
    study = load_study(file).hash.hex()
    with ExitStack() as stack:
        logs = [stack.enter_context((root / "log.jsonl").open("a")) for root in roots]
        folders = [find_node(root) for root in roots]
        daemons = [stack.enter_context(open_daemon(f, EventLog(log))) for f, log in zip(folders, logs, strict=True)]

        def await_all(condition: Callable[[], bool], what: str) -> None:
            end = time.monotonic() + deadline
            while not condition():
                status = [daemon.status for daemon in daemons]
                assert time.monotonic() < end, (what, status)
                phases = {task["phase"] for tasks in status for task in tasks if task["hash"] == study}
                assert "aborted" not in phases, (what, status)
                for daemon in daemons:
                    daemon.tick()

        def find_numbers() -> list[int]:
            return [row["study"] for row in list_studies(roots[1]) if study.startswith(row["hash"])]

        await_all(lambda: bool(find_numbers()), "the proposal")
        (number,) = find_numbers()
        for root in roots[1:]:
            run("study", "approve", number, "--node", root)
        await_all(lambda: all((root / "results" / f"{number}.json").exists() for root in roots), "the results")
    return number


def list_studies(root: Path) -> list[dict[str, Any]]:
    """The studies on the ledger, as a node lists them."""
    rows: list[dict[str, Any]] = json.loads(run("study", "list", "--node", root, "--json"))
    return rows


def make_grant(folder: Path, *site: object) -> tuple[object, ...]:
    """Let an auditor make keys and a site grant it a view; returns the options of a replay with that grant."""
    folder.mkdir()
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("the auditor's passphrase, long enough\n")
    own = ("--keys", folder / "keys", "--passphrase-file", secret)
    sealing = run("seal", "auditor", *own).strip()
    run("seal", "grant", *site, "--to", sealing, "--out", folder / "grant")
    return ("--grant", folder / "grant", *own)


def replay_grade(*options: object) -> tuple[str, str]:
    """Verdict and grade of a replay of the newest study."""
    done = CliRunner().invoke(app, ["audit", "replay", *map(str, options), "--json"])
    verdict = json.loads(done.stdout)
    assert done.exit_code == {"PASS": 0, "RECORD INTACT": 25}[verdict["verdict"]], done.output
    return verdict["verdict"], verdict["grade"]
