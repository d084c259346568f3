"""A bundle of a real run whose sites published what their persons signed: verified offline, honest and forged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.node.chains import Run
from support.node.forging import write_bundle
from support.node.houses import make_node_folder
from support.node.persons import add_persons, decide, join_network, sign_as

from coterie_chain.network.devnet import Anvil
from coterie_node.audit.report.build import report_on_bundle
from coterie_node.audit.verify import Verified, verify
from coterie_node.site.decisions import Decision, make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.participant import enter, make_site_runner
from coterie_node.site.statements.approvals import ActSubject, state_approvals

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("bundle")]
NAMES = {"north": ("Ada Berg",), "south": ("Bo Dahl", "Cy Holm")}


@pytest.fixture
def signed_run(tmp_path: Path) -> Iterator[Run]:
    """Three sites on an Anvil, of which none has joined."""
    with Anvil() as anvil:
        run = Run(tmp_path / "run", anvil)
        yield run
        run.close()


def open_home(run: Run, root: Path, name: str, approvals: int) -> SiteFolder:
    """A register of a site's persons."""
    home = make_node_folder(root / name, name)
    join_network(home, run.network)
    return add_persons(home, int(time.time()) - 60, *NAMES[name], approvals=approvals)


def join(run: Run, home: SiteFolder, decision: Decision, number: int) -> None:
    """Let a site join with its statement on a decision."""
    node = run.nodes[home.name]
    blobs, now = run.place.blobs(), int(time.time())
    digest = state_approvals(home, node.keys, run.network, blobs, decision, number, now)
    run.nodes[home.name] = replace(node, approvals=digest)
    enter(run.nodes[home.name])


def finish(run: Run, root: Path, forged: bool) -> Path:
    """Run the study to its end; with `forged` south joins on one signature where it says that two are asked for."""
    north, south = open_home(run, root, "north", 1), open_home(run, root, "south", 2)
    study = run.nodes["north"].study
    signed = sign_as(north, "Ada Berg", ActSubject(study.hash), int(time.time()), "propose")
    join(run, north, make_decision(study.hash, "propose", signatures=(signed,)), 0)
    view = run.nodes["south"].ledger.view(1)
    join(run, south, decide(south, view, int(time.time()), *NAMES["south"][: 1 if forged else 2]), 1)
    run.number = enter(run.nodes["west"])
    runners = {name: make_site_runner(node, run.number) for name, node in run.nodes.items()}
    while not all(runner.done for runner in runners.values()):
        for runner in runners.values():
            runner.turn()
    return write_bundle(run.files(), root)


def check(run: Run, path: Path) -> Verified:
    return verify(path, network=run.network)


def test_an_honest_bundle_says_who_signed_what_and_when(signed_run: Run, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    path = finish(signed_run, tmp_path, forged=False)
    outcome = check(signed_run, path)
    assert outcome.verdict.intact, outcome.verdict.problem
    names = {join.site: [s.name for s in join.signatures] for join in outcome.signed}
    assert names == {"north": ["Ada Berg"], "south": ["Bo Dahl", "Cy Holm"], "west": []}
    html = report_on_bundle(path, None, 0.0, datetime.now(UTC)).html()
    assert "Signatures of persons" in html
    assert "Signed by Cy Holm for south, in the role &#34;approve&#34;" in html
    assert [p["site"] for p in outcome.as_dict()["persons"]] == ["north", "south", "west"]


@pytest.mark.long
def test_one_pair_of_eyes_where_two_are_asked_for_fails_the_bundle(signed_run: Run, tmp_path: Path) -> None:
    outcome = check(signed_run, finish(signed_run, tmp_path, forged=True))
    assert (outcome.verdict.verdict, outcome.verdict.code, outcome.verdict.site) == ("FAIL", "CO-A214", "south")
    assert "its policy asks for 2 different persons, and 1 signed" in outcome.verdict.problem
