"""A site's commitment to its rows: the digest on the ledger, and the inspection of rows and posts against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.learners import cohorts
from support.node.processes import run_command
from support.node.worlds import World

from coterie_chain.ledger.protocol import ZERO, Event
from coterie_learners.study.rows import ArrayRows, Codes, Data, OwnColumns
from coterie_node.data.commitment import Snapshot, commit, find_snapshot, make_snapshot, root_of
from coterie_node.data.findings import FileOrigin
from coterie_node.data.load import Loaded
from coterie_node.data.source import FileRows

STUDY = cohorts.study()
SALT = b"s" * 32


def load_pairs(folder: Path, x: np.ndarray, y: np.ndarray) -> Loaded:
    path = folder / "rows.csv"
    path.write_text(f"{x.tolist()}{y.tolist()}")
    return Loaded(
        FileRows(FileOrigin.of("north", path)), "north", len(x) + 2, {"age": 2}, int(y.sum()), ArrayRows(x, y)
    )


def numbers(n: int = 700) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.normal(size=(n, 3)), rng.integers(0, 2, n).astype(float)


class Coded:
    """Rows as values of variables."""

    def __init__(self, table: Codes) -> None:
        self._table = table

    @property
    def n(self) -> int:
        return len(next(iter(self._table.values())))

    def codes(self) -> Iterator[Codes]:
        yield self._table


def test_the_digest_stays_while_rows_and_salt_do(tmp_path: Path) -> None:
    x, y = numbers()
    vault: dict[str, bytes] = {}
    first = commit(load_pairs(tmp_path, x, y), STUDY, "net", vault)
    assert commit(load_pairs(tmp_path, x, y), STUDY, "net", vault) == first
    snapshot = find_snapshot(STUDY, "net", vault)
    assert snapshot is not None
    assert (snapshot.digest, snapshot.read, snapshot.used, snapshot.missing) == (first, 702, 700, {"age": 2})
    other: dict[str, bytes] = {}
    assert commit(load_pairs(tmp_path, x, y), STUDY, "net", other) != first
    assert find_snapshot(STUDY, "another net", vault) is None
    assert commit(None, STUDY, "net", vault) == ZERO


def tables() -> dict[str, Callable[[np.ndarray, np.ndarray], Data]]:
    ids = tuple((f"p{k}",) for k in range(700))
    return {
        "rows": lambda x, y: ArrayRows(x, y),
        "small blocks": lambda x, y: ArrayRows(x, y, size=300),
        "columns": lambda x, y: OwnColumns(ids, ("a", "b", "c"), x, y),
        "codes": lambda x, y: Coded({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y}),
    }


@pytest.mark.parametrize("form", tables())
def test_one_changed_number_a_swap_and_a_missing_row_change_the_root(form: str) -> None:
    make, (x, y) = tables()[form], numbers()
    root = root_of(make(x, y), SALT)
    assert root_of(make(x.copy(), y.copy()), SALT) == root
    changed = x.copy()
    changed[699, 2] = np.nextafter(changed[699, 2], 9)
    swapped = x.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    flipped = y.copy()
    flipped[0] = 1 - flipped[0]
    others = [make(changed, y), make(swapped, y), make(x, flipped)]
    if form != "columns":
        others.append(make(x[:-1], y[:-1]))
    roots = {root_of(other, SALT) for other in others} | {root_of(make(x, y), b"t" * 32)}
    assert len(roots) == len(others) + 1
    assert root not in roots


def test_an_identifier_is_part_of_what_is_committed() -> None:
    x, y = numbers(3)
    ids = (("a",), ("b",), ("c",))
    roots = {root_of(OwnColumns(i, ("u", "v", "w"), x, y), SALT) for i in (ids, (("a",), ("b",), ("d",)))}
    assert len(roots) == 2


def test_the_file_behind_the_rows_is_part_of_the_snapshot(tmp_path: Path) -> None:
    x, y = numbers(9)
    first = make_snapshot(load_pairs(tmp_path, x, y), SALT)
    pairs = load_pairs(tmp_path, x, y)
    (tmp_path / "rows.csv").write_text("other bytes, the same rows")
    assert make_snapshot(pairs, SALT) == replace(first, source=make_snapshot(pairs, SALT).source)
    assert make_snapshot(pairs, SALT).digest != first.digest
    assert Snapshot(**json.loads(first.document)) == first


def test_the_memory_ledger_has_the_digest_on_record() -> None:
    world = World(STUDY, {})
    joined = [e for e in world.ledger().history() if isinstance(e, Event) and e.name == "StudyJoined"]
    assert {dict(e.details)["snapshot"] for e in joined} == {"0x" + ZERO.hex()}


# On a development chain


anvil = [pytest.mark.anvil, pytest.mark.xdist_group("demo")]


class TestInspection:
    pytestmark = anvil

    def test_every_post_of_a_site_is_made_again_from_its_data(self, demo_run: Path) -> None:
        done = run_command("audit", "recompute", "--at", demo_run, "--site", "south", "--json")
        facts = json.loads(done.stdout)
        result = json.loads((demo_run / "result.json").read_text())
        assert (done.returncode, facts["verdict"], facts["snapshot"]) == (0, "PASS", "equal")
        # Three posts open the pool's counts; then come the rounds, of which the last has the test of agreement.
        assert [post["outcome"] for post in facts["posts"]] == ["equal"] * (3 + result["rounds"])
        history = json.loads(
            run_command("audit", "history", "--at", demo_run, "--kind", "StudyJoined", "--json").stdout
        )
        digests = {line["details"] for line in history}
        assert len(digests) == 3
        assert not any(f"snapshot=0x{'0' * 64}" in text for text in digests)

    def test_one_changed_patient_is_found(self, demo_run: Path) -> None:
        data = demo_run / "sites" / "west" / "data.csv"
        before = data.read_text()
        lines = before.splitlines()
        fields = lines[5].split(",")
        fields[lines[0].split(",").index("age")] = "37"
        data.write_text("\n".join([*lines[:5], ",".join(fields), *lines[6:]]) + "\n")
        try:
            done = run_command("audit", "recompute", "--at", demo_run, "--site", "west")
        finally:
            data.write_text(before)
        assert done.returncode == 22
        assert "its rows against the snapshot on the ledger: differs in root, source." in done.stdout
        assert "stats/0: differs" in done.stdout
        assert done.stdout.rstrip().endswith("FAIL")
