"""What an inspector and an auditor ask of a node that has finished a study; the same on Anvil and on a devnet."""

from __future__ import annotations

import json
from pathlib import Path

from support.node.commands import SITES, make_grant, replay_grade, run


def check_grant(node: Path, folder: Path) -> None:
    """A site's grant lets its auditor recompute what was sealed."""
    assert replay_grade("--node", node) == ("RECORD INTACT", "partly sealed")
    options = make_grant(folder / "auditor", "--node", node)
    assert replay_grade("--node", node, *options) == ("PASS", "identical")


def check_destruction(node: Path, folder: Path) -> None:
    """After its key is destroyed, a site can grant nothing."""
    assert "is destroyed" in run("seal", "destroy", "--node", node)
    assert "was not there" in run("seal", "destroy", "--node", node)
    options = make_grant(folder / "late", "--node", node)
    assert replay_grade("--node", node, *options) == ("RECORD INTACT", "partly sealed")


def check_recomputation(node: Path, site: str) -> None:
    """A site's rows are those that it committed to, and its posts come out again; other rows do not."""
    inspection = json.loads(run("audit", "recompute", "1", "--node", node, "--json"))
    assert (inspection["verdict"], inspection["site"], inspection["snapshot"]) == ("PASS", site, "equal")
    assert {post["outcome"] for post in inspection["posts"]} >= {"equal"}
    data = node / "data.csv"
    rows = data.read_text()
    data.write_text("\n".join(rows.splitlines()[:-1]) + "\n")
    changed = json.loads(run("audit", "recompute", "1", "--node", node, "--json", code=22))
    data.write_text(rows)
    assert changed["snapshot"].startswith("differs")


def check_history(node: Path) -> None:
    """The history lists what each site did."""
    entries = json.loads(run("audit", "history", "1", "--node", node, "--json"))
    assert {entry["site"] for entry in entries if entry["what"] == "StudyJoined"} >= set(SITES[1:])
    assert any(entry["what"] == "Recorded" for entry in entries)


def check_export(node: Path, bundle: Path) -> None:
    """A node's bundle verifies offline against that node's network."""
    summary = json.loads(run("audit", "export", "1", bundle, "--node", node, "--json"))
    assert summary["study"] == 1
    outcome = json.loads(run("audit", "verify", bundle, "--node", node, "--json", code=25))
    assert outcome["verdict"] == "RECORD INTACT"
