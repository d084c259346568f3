"""A hospital approves a study on the rows of an SQL query: by its command, and carried out by its daemon."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from support.node.commands import SITES, list_studies, run
from support.node.houses import study_file, write_rows
from support.node.installed import install_packages
from support.node.results import read_result

from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_node.cli.site.serve import open_daemon
from coterie_node.site.daemon import Daemon
from coterie_node.site.folder import find_node
from coterie_node.site.watch.log import EventLog

EXAMPLE = Path(__file__).parents[3] / "examples" / "source_sqlite"
QUERY = "SELECT died, age, male FROM patients ORDER BY id"
PATIENCE = 120.0

pytestmark = [pytest.mark.anvil]


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Three nodes of `coterie init` on one Anvil, in a Python that has the package of the source."""
    packages = tmp_path / "packages"
    install_packages(packages, EXAMPLE)
    monkeypatch.syspath_prepend(str(packages))
    folders = [tmp_path / name for name in SITES]
    with Anvil() as anvil:
        for k, root in enumerate(folders):
            store = f"folder:{tmp_path / 'store'}"
            run("init", root, "--site", root.name, "--chain", anvil.url, "--store", store, "--port", 0, "--light")
            write_rows(root / "data.csv", k)
        keys = {root.name: find_node(root).load_keys() for root in folders}
        network = deploy(anvil.url, [SiteEntry(k, n, s.address, s.sealing) for k, (n, s) in enumerate(keys.items(), 1)])
        for root in folders:
            (root / "network.json").write_text(network.to_json())
        yield folders


def move_rows(root: Path) -> str:
    """Put a site's rows into a database instead of its file; returns the address of the query."""
    rows = np.loadtxt(root / "data.csv", delimiter=",", skiprows=1)
    database = root / "hospital.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE patients (id INTEGER, died INTEGER, age REAL, male INTEGER)")
        for k, (died, age, male) in enumerate(rows.tolist()):
            connection.execute("INSERT INTO patients VALUES (?, ?, ?, ?)", (k, int(died), age, int(male)))
    (root / "data.csv").unlink()
    return f"sqlite:{database}?{QUERY}"


def work(daemons: list[Daemon], condition: Callable[[], bool]) -> None:
    """Let the daemons work until the condition is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, [daemon.status for daemon in daemons]
        for daemon in daemons:
            daemon.tick()


@pytest.mark.long
def test_a_study_runs_on_the_query_that_the_approval_names(roots: list[Path]) -> None:
    south, expected = roots[1], np.vstack([np.loadtxt(r / "data.csv", delimiter=",", skiprows=1) for r in roots])
    address = move_rows(south)
    with ExitStack() as stack:
        logs = [EventLog(stack.enter_context((root / "log.jsonl").open("a"))) for root in roots]
        daemons = [stack.enter_context(open_daemon(find_node(r), log)) for r, log in zip(roots, logs, strict=True)]
        run("study", "propose", study_file(roots[0].parent), "--node", roots[0])
        work(daemons, lambda: bool(list_studies(south)))
        assert "CO-D110" in run("study", "approve", 1, "--node", south, "--data", address.replace("patients", "nobody"))
        assert "CO-D" not in run("study", "approve", 1, "--node", south, "--data", address)
        run("study", "approve", 1, "--node", roots[2])
        results = [root / "results" / "1.json" for root in roots]
        work(daemons, lambda: all(path.exists() for path in results))
    fits = [read_result(path)["fit"] for path in results]
    assert fits[0] == fits[1] == fits[2]
    assert fits[0]["n"] == len(expected)
    assert fits[0]["events"] == int(expected[:, 0].sum())
