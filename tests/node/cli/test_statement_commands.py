"""After a study's end, by commands and daemons on a real chain: inspections, a superseded result, many refusals."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.node.commands import SITES, finish_study, nodes_on_anvil, refusal, run
from support.node.persons import typed

from coterie_chain.ledger.protocol import Event
from coterie_node.audit.verify import verify
from coterie_node.cli.site.serve import open_daemon
from coterie_node.run.study_files import load_study
from coterie_node.site.folder import find_node
from coterie_node.site.watch.log import EventLog

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("statements")]
REASON = "the codes of b were swapped at south"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with three sites' nodes on one Anvil, which have finished a study."""
    folder = tmp_path_factory.mktemp("nodes")
    with nodes_on_anvil(folder) as roots:
        finish_study(roots, 240.0)
        yield folder


def serve(folder: Path, condition: Callable[[list[Event]], bool]) -> list[Event]:
    """Let the three daemons work until the ledger's events are as wanted; returns them."""
    with ExitStack() as stack:
        log = EventLog(stack.enter_context((folder / "log.jsonl").open("a")))
        daemons = [stack.enter_context(open_daemon(find_node(folder / name), log)) for name in SITES]
        end = time.monotonic() + PATIENCE
        while True:
            events = [e for e in daemons[0].services.ledger.history() if isinstance(e, Event)]
            if condition(events):
                return events
            assert time.monotonic() < end, [daemon.status for daemon in daemons]
            for daemon in daemons:
                daemon.tick()


def status(folder: Path, number: int = 1, site: str = "south") -> dict[str, Any]:
    """A study's status as a site's people read it."""
    summary: dict[str, Any] = json.loads(run("study", "status", number, "--node", folder / site, "--json"))
    return summary


def report(folder: Path, study: object, aside: Path) -> dict[str, Any]:
    """The report on a study or a bundle, as JSON; it is HTML as well."""
    out = ("--out", aside / "report.json", "--out", aside / "report.html")
    run("audit", "report", study, "--node", folder / "west", *out, code=25)
    document: dict[str, Any] = json.loads((aside / "report.json").read_text())
    return document | {"html": (aside / "report.html").read_text()}


def test_what_is_said_after_the_end_stands_in_status_report_and_bundle(nodes: Path, tmp_path: Path) -> None:
    before = status(nodes)
    assert before["releases"].count(version("coterie")) == 3
    assert before["approvals"] == "north none signed, south none signed, west none signed"
    assert "superseded" not in before
    signed = run("audit", "recompute", "1", "--sign", "--node", nodes / "north")
    assert "north signs: " in signed
    assert "That is enough" in run("study", "supersede", "1", "--reason", REASON, "--node", nodes / "north")
    serve(nodes, lambda events: {"SiteAttested", "StudySuperseded"} <= {e.name for e in events})

    after = status(nodes)
    assert after["state"] == "completed, superseded"
    assert after["superseded"].endswith(f": {REASON}")
    assert after["inspected"].startswith("north on ")
    assert "with the rows to which it committed" in after["inspected"]
    assert run("study", "result", "1", "--node", nodes / "north").startswith("The result of study 1 is superseded")
    assert REASON in run("audit", "replay", "1", "--node", nodes / "west", code=25)

    run("audit", "export", "1", tmp_path / "study.zip", "--node", nodes / "north")
    assert REASON in verify(tmp_path / "study.zip").replay.remarks[0]
    for study in ("1", tmp_path / "study.zip"):
        document = report(nodes, study, tmp_path)
        assert document["superseded"].endswith(f": {REASON}")
        assert [(i["site"], i["same_rows"]) for i in document["inspections"]] == [("north", True)]
        assert document["uninspected"] == ["south", "west"]
        assert REASON in document["html"]
        assert "No inspection is on record of south, west" in document["html"]


def test_an_inspection_is_not_signed_by_a_site_of_a_run_nor_one_of_nothing(nodes: Path) -> None:
    assert refusal("audit", "recompute", "--sign", "--at", nodes, "--site", "north").code in ("CO-F201", "CO-F313")
    assert refusal("study", "supersede", "1", "--reason", "again", "--node", nodes / "north").code in ("CO-F328",)
    assert refusal("study", "withdraw", "1", "--node", nodes / "west").code == "CO-F333"


@pytest.mark.long
def test_a_member_s_flood_is_declined_with_one_command_and_one_transaction(nodes: Path) -> None:
    for k in range(6):
        file = nodes / f"flood-{k}.toml"
        file.write_text((nodes / "split.toml").read_text().replace('name = "split"', f'name = "flood-{k}"'))
        run("study", "propose", file, "--node", nodes / "west")
    serve(nodes, lambda events: sum(e.name == "StudyProposed" for e in events) == 7)
    signatures = nodes / "signatures"
    signatures.write_bytes(b"two persons")
    run("study", "approve", "3", "--approvals", signatures, "--node", nodes / "south")
    assert refusal("study", "approve", "3", "--approvals", nodes, "--node", nodes / "south").code == "CO-F206"
    text = run("study", "decline", "--proposer", "west", "--node", nodes / "south")
    assert "\nDeclined: 2, 4, 5, 6, 7." in text
    events = serve(nodes, lambda events: sum(e.name == "StudyDeclined" for e in events) == 5)
    declined = [e for e in events if e.name == "StudyDeclined"]
    assert ({e.site for e in declined}, len({e.tx for e in declined})) == ({"south"}, 1)
    third = serve(nodes, lambda events: any((e.name, e.study, e.site) == ("StudyJoined", 3, "south") for e in events))
    joined = next(dict(e.details) for e in third if (e.name, e.study, e.site) == ("StudyJoined", 3, "south"))
    assert joined["approvals"] == "0x" + hashlib.sha256(b"two persons").hexdigest()
    assert status(nodes, 3)["state"] == "proposed"
    assert status(nodes, 2, "west")["ended"] == "south: its people declined the study"
    assert refusal("study", "decline", "--proposer", "west", "--node", nodes / "south").code == "CO-F304"
    assert "withdraws its proposal, study 3" in run("study", "withdraw", "3", "--node", nodes / "west")
    serve(nodes, lambda events: any(e.name == "StudyDeclined" and e.study == 3 for e in events))
    assert status(nodes, 3)["ended"] == "west: its people withdrew their proposal"


def test_a_vote_about_a_member_is_taken_back_by_command(nodes: Path) -> None:
    run("site", "revoke", "west", "--node", nodes / "north")
    serve(nodes, lambda events: any(e.name == "RevocationVoted" for e in events))
    rows = json.loads(run("site", "list", "--node", nodes / "south", "--json"))
    assert ("west", "to revoke", "north: 1 of 2 votes") in [(r["site"], r["state"], r["votes"]) for r in rows]
    assert refusal("site", "withdraw", "west", "--node", nodes / "south").code == "CO-F333"
    assert "takes back its vote to revoke west" in run("site", "withdraw", "west", "--node", nodes / "north")
    serve(nodes, lambda events: any(e.name == "VoteWithdrawn" for e in events))
    rows = json.loads(run("site", "list", "--node", nodes / "south", "--json"))
    assert all(row["votes"] == "" for row in rows)


def sign_proposal(nodes: Path, name: str, study: object) -> str:
    """What `coterie study propose` prints where a person of north signs."""
    with typed() as descriptor:
        signed = ("--person", name, "--passphrase-fd", descriptor)
        return run("study", "propose", study, "--node", nodes / "north", *signed)


def test_the_next_person_signs_a_proposal_by_the_digits_of_its_hash(nodes: Path) -> None:
    home = find_node(nodes / "north")
    for name in ("Ada Berg", "Bo Dahl"):
        with typed() as descriptor:
            roles = ("--role", "propose", "--role", "approve")
            run("person", "add", name, *roles, "--node", home.root, "--passphrase-fd", descriptor, "--light")
    settings = home.root / "node.toml"
    settings.write_text(settings.read_text().replace("approvals = 0", "approvals = 2"))
    file = nodes / "signed.toml"
    file.write_text((nodes / "split.toml").read_text().replace('name = "split"', 'name = "signed"'))
    study = load_study(file).hash
    assert "1 of 2" in sign_proposal(nodes, "Ada Berg", file)
    file.unlink()
    for digits in (study.hex()[:7], "0" * 8):
        assert refusal("study", "propose", digits, "--node", home.root, "--person", "Bo Dahl").code.startswith("CO-")
    assert home.decisions.count(study) == 1
    text = sign_proposal(nodes, "Bo Dahl", study.hex()[:8])
    assert "Signed by Ada Berg, Bo Dahl: 2 of 2." in text
    assert f"Proposed: signed, hash {study.hex()}." in text
    latest = home.decisions.latest(study)
    assert latest is not None
    assert [(act.text.name, act.text.act) for act in latest.signatures] == [
        ("Ada Berg", "propose"),
        ("Bo Dahl", "propose"),
    ]


def test_a_revoked_or_unknown_site_is_named_before_a_study_is_proposed_or_approved(nodes: Path) -> None:
    text = (nodes / "split.toml").read_text()
    late, later, strange = (nodes / f"{name}.toml" for name in ("late", "later", "strange"))
    for file in (late, later):
        file.write_text(text.replace('name = "split"', f'name = "{file.stem}"'))
    strange.write_text(late.read_text().replace('"west"', '"nobody"').replace("west = ", "nobody = "))
    unknown = refusal("study", "propose", strange, "--node", nodes / "south")
    assert unknown.code == "CO-F334"
    assert "nobody (unknown); the active sites are north, south, west" in unknown.message
    listed = json.loads(run("study", "list", "--node", nodes / "south", "--json"))
    run("study", "propose", late, "--node", nodes / "south")
    serve(nodes, lambda events: sum(e.name == "StudyProposed" for e in events) > len(listed))
    for voter in ("south", "west"):
        run("site", "revoke", "west", "--node", nodes / voter)
    serve(nodes, lambda events: any(e.name == "SiteRevoked" for e in events))
    number = len(listed) + 1
    refused = [
        refusal("study", "approve", number, "--node", nodes / "west"),
        *(refusal("study", "propose", later, "--node", nodes / name) for name in ("south", "west")),
    ]
    assert {error.code for error in refused} == {"CO-F334"}
    assert all("No seat in this network: west (revoked)" in error.message for error in refused)
    assert not find_node(nodes / "south").decisions.document(load_study(later).hash).exists()
