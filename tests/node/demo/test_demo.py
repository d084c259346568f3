"""The main job on a real development chain: processes, kept run, replay under other arithmetic, tampering, kill -9."""

from __future__ import annotations

import hashlib
import html
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.lanes import later
from support.node.processes import run_command, run_process
from support.node.rows_files import file_of

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import Post, Record
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_chain.store.protocol import FolderBlobs
from coterie_learners.core import payload as pay
from coterie_learners.errors import DataError
from coterie_node.audit.replay import Verdict, replay
from coterie_node.data.load import load_site
from coterie_node.demo.cases.glore import CASE
from coterie_node.demo.run import DemoProcesses, await_reports, founders, prepare, start_site
from coterie_node.run.runner import Runner
from coterie_node.site.participant import enter, make_site_runner, open_node, pin_rows
from coterie_node.site.run_folder import RunFolder, RunSettings

SITES = ("north", "south", "west")

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("demo")]


def test_the_demo_equals_the_pooled_fit_and_replays_identically(demo_run: Path) -> None:
    result = json.loads((demo_run / "result.json").read_text())
    assert result["n"] == 1536
    assert result["pooled"]["max_abs_estimate"] < 1e-10
    assert result["pooled"]["max_abs_std_error"] < 1e-9
    assert (result["replay"]["verdict"], result["replay"]["grade"]) == ("PASS", "identical")
    # Three sites' labels and counts of levels, then the rounds, and the conclusion.
    assert result["ledger"]["records"] == 9 + 4 * result["rounds"] + 1
    assert result["ledger"]["gas"] > 0


def test_the_kept_run_has_a_certificate_and_a_bundle_that_carries_it(demo_run: Path, tmp_path: Path) -> None:
    certificate = json.loads((demo_run / "certificate.json").read_text())
    assert certificate["study"] == hashlib.sha256((demo_run / "study.json").read_bytes()).hexdigest()
    assert certificate["max_in_std_errors"] < 1e-8
    bundle = tmp_path / "study.zip"
    completed = run_command("audit", "export", "1", bundle, "--at", demo_run, "--json")
    assert completed.returncode == 0, completed.stderr
    checked = run_command("audit", "verify", bundle, "--network", demo_run / "network.json", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["known"]) == (0, True)
    refused = run_command("audit", "verify", bundle, "--sealed")
    assert (refused.returncode, "development chain" in refused.stdout) == (22, True)
    report = tmp_path / "report.html"
    assert run_command("audit", "report", bundle, "--out", report).returncode == 0
    assert f"On {certificate['rows']} rows of synthetic data the two are said to differ" in html.unescape(
        report.read_text()
    )
    from_chain = run_command("audit", "report", "--at", demo_run, "--out", report, "--out", tmp_path / "report.json")
    assert from_chain.returncode == 0, from_chain.stderr
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "PASS"


def test_files_with_rows_or_secrets_of_a_kept_run_are_their_owner_s_alone(demo_run: Path) -> None:
    private = [path for path in (demo_run / "sites").rglob("*") if path.is_file()]
    assert {path.name for path in private} >= {"data.csv", "journal.sqlite", "passphrase"}
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_the_kept_run_is_screened_in_words(demo_run: Path) -> None:
    done = run_command("audit", "screen", "--at", demo_run)
    assert done.returncode == 0
    assert "only sums over the sites exist" in done.stdout


def test_the_kept_run_s_history_is_asked_by_time_and_page_and_kept(demo_run: Path, tmp_path: Path) -> None:
    index, table = tmp_path / "history.sqlite", tmp_path / "history.parquet"
    arguments = ("audit", "history", "--at", demo_run, "--index", index)
    first = json.loads(run_command(*arguments, "--kind", "each", "--limit", "5", "--json").stdout)
    assert len(first) == 5
    assert run_command(*arguments, "--format", "parquet", "--out", table).returncode == 0
    assert table.stat().st_size > 1000
    offline = json.loads(
        run_command("audit", "history", "1", "--index", index, "--kind", "each", "--limit", "5", "--json").stdout
    )
    assert offline == first
    assert json.loads(run_command(*arguments, "--until", "2020-01-01", "--json").stdout) == []
    assert run_command(*arguments, "--since", "yesterday").returncode == 12
    assert run_command(*arguments, "--format", "parquet").returncode == 12


def test_the_kept_run_has_a_history(demo_run: Path) -> None:
    done = run_command("audit", "history", "--at", demo_run, "--json")
    entries = json.loads(done.stdout)
    records = [e for e in entries if e["what"] == "Recorded"]
    result = json.loads((demo_run / "result.json").read_text())
    assert len(records) == result["ledger"]["records"]
    servers = [e["site"] for e in records if e["kind"] == "server"]
    assert servers == [SITES[k % 3] for k in range(len(servers))]


def test_an_auditor_needs_only_a_chain_s_address_and_a_store(demo_run: Path) -> None:
    with Anvil(demo_run / "chain" / "state.json", frozen=True) as anvil:
        arguments = ("audit", "replay", "--chain", anvil.url, "--store", f"folder:{demo_run / 'store'}", "--json")
        done = run_command(*arguments)
        by_hash = run_command(*arguments, json.loads((demo_run / "result.json").read_text())["study"])
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["grade"] == "identical"
    assert by_hash.returncode == 12  # a name is no number, hash or file


ARITHMETICS = {
    "nehalem": {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"},
    "haswell": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    "prescott": {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "2"},
    "old vectors": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4", "OPENBLAS_NUM_THREADS": "1"},
}


@pytest.mark.parametrize("arithmetic", ["prescott", *later("nehalem", "haswell", "old vectors")])
def test_the_kept_run_replays_identically_under_other_arithmetic(demo_run: Path, arithmetic: str) -> None:
    done = run_process("audit", "replay", "--at", demo_run, "--json", **ARITHMETICS[arithmetic])
    verdict = json.loads(done.stdout)
    assert done.returncode == 0
    assert (verdict["verdict"], verdict["grade"], verdict["max_difference"]) == ("PASS", "identical", 0.0)


def test_one_flipped_byte_in_the_store_fails_the_replay_and_names_the_step(demo_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(demo_run, copy)
    history = json.loads(run_command("audit", "history", "--at", copy, "--kind", "server", "--json").stdout)
    block = next(p for p in (copy / "store").rglob(history[1]["cid"]))
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.chmod(0o644)
    block.write_bytes(content)
    done = run_command("audit", "replay", "--at", copy, "--json")
    verdict = json.loads(done.stdout)
    assert done.returncode == 22
    assert (verdict["verdict"], verdict["topic"], verdict["site"]) == ("FAIL", "model/1", history[1]["site"])


class DemoNetwork:
    """A demo's network whose sites run in this process, so that one of them can be made to cheat."""

    def __init__(self, folder: Path, anvil: Anvil) -> None:
        self.place = RunFolder(folder)
        prepare(self.place, CASE, SITES)
        self.network = deploy(anvil.url, founders(self.place, SITES))
        self.place.save(RunSettings("running", "folder:store"), self.network)
        self.approved = hashlib.sha256((folder / "study.json").read_bytes()).hexdigest()
        self.nodes = {name: open_node(self.place, name, self.approved, lambda _: None) for name in SITES}

    def start(self) -> int:
        """All sites join; returns the study's number."""
        numbers = {enter(node) for node in self.nodes.values()}
        return numbers.pop()

    def replay(self, number: int) -> Verdict:
        """An auditor's verdict."""
        with EthereumLedger(self.network, None) as ledger:
            return replay(ledger, self.place.blobs(), number).verdict

    def close(self) -> None:
        """Close journals and connections."""
        for node in self.nodes.values():
            node.ledger.close()  # type: ignore[attr-defined]
            node.journal.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[DemoNetwork]:
    """Three sites on an Anvil of their own."""
    with Anvil() as anvil:
        demo_network = DemoNetwork(tmp_path / "run", anvil)
        yield demo_network
        demo_network.close()


def runners_of(network: DemoNetwork, number: int) -> dict[str, Runner]:
    """Each site's runner, ready to take turns."""
    return {name: make_site_runner(node, number) for name, node in network.nodes.items()}


def cheat(network: DemoNetwork, number: int, blob: bytes) -> None:
    """The site whose turn it is records these bytes instead of what its learner would post."""
    view = network.nodes["north"].ledger.view(number)
    assert view.open is not None
    (site,) = view.open.posters
    node = network.nodes[site]
    node.ledger.record(
        Post(
            study=number,
            position=view.open.position,
            attempt=view.open.attempt,
            cid=node.blobs.put(blob),
            sha256=hashlib.sha256(blob).digest(),
            size=len(blob),
            converged=False,
            basis=view.open.basis,
        )
    )


def until_server_step(network: DemoNetwork, number: int, runners: dict[str, Runner], position: int) -> None:
    """Let the sites take turns until the server step at `position` is open and all inputs are fed."""
    while (view := network.nodes["north"].ledger.view(number)).open is None or view.open.position < position:
        for runner in runners.values():
            runner.turn()
    for runner in runners.values():
        while runner.position < position:
            runner.turn()


def test_a_server_post_off_by_a_millionth_fails_the_replay_and_is_disputed(network: DemoNetwork) -> None:
    number = network.start()
    runners = runners_of(network, number)
    until_server_step(network, number, runners, 6)
    honest = network.nodes["south"]
    step = runners["south"].machine.awaits
    assert step is not None
    payload = dict(runners["south"].machine.draft(SITES, 0))
    payload["beta"] = payload["beta"] + 1e-6
    stamp = pay.Stamp(honest.study.hash.hex(), step.topic, "south", 0)
    cheat(network, number, pay.pack(pay.encode(stamp, payload), pay.STORED))
    with pytest.raises(Exception, match="south posted 'model/1'"):
        runners["west"].turn()
    view = network.nodes["west"].ledger.view(number)
    assert view.state.name == "PAUSED"
    verdict = network.replay(number)
    assert (verdict.verdict, verdict.site, verdict.topic) == ("FAIL", "south", "model/1")
    assert verdict.max_difference == pytest.approx(1e-6)


def test_a_record_of_another_study_s_payload_fails_the_replay_and_names_the_step(network: DemoNetwork) -> None:
    number = network.start()
    runners = runners_of(network, number)
    until_server_step(network, number, runners, 4)
    node = network.nodes["north"]
    step = runners["north"].machine.awaits
    assert step is not None
    foreign = pay.Stamp("ab" * 32, step.topic, "north", 0)
    cheat(network, number, pay.pack(pay.encode(foreign, runners["north"].machine.draft(SITES, 0)), pay.STORED))
    # One site alone cannot end the study for a post that others may be able to read: a vote names the site.
    for name in ("west", "south"):
        with pytest.raises(Exception, match="was made for"):
            runners[name].turn()
    assert node.ledger.view(number).state.name == "ABORTED"
    verdict = network.replay(number)
    assert (verdict.verdict, verdict.site, verdict.topic) == ("FAIL", "north", "model/0")


@pytest.mark.long  # `tests/node/run/test_recovery.py` has the rule in `make test`
def test_a_site_killed_and_started_again_finishes_with_the_same_final_record(demo_run: Path, tmp_path: Path) -> None:
    place = RunFolder(tmp_path / "run")
    prepare(place, CASE, SITES)
    with Anvil() as anvil:
        place.save(RunSettings("running", "folder:store"), deploy(anvil.url, founders(place, SITES)))
        crew = DemoProcesses({name: start_site(place, name) for name in SITES})
        victim = crew.processes["south"]
        assert victim.stdout is not None
        victim.stdout.readline()  # it has taken part in a step
        victim.kill()
        victim.wait()
        victim.stdout.close()
        crew = DemoProcesses({**crew.processes, "south": start_site(place, "south")})
        try:
            reports = await_reports(crew, "north", lambda _: None)
        finally:
            crew.stop()
        with EthereumLedger(place.network(), None) as ledger:
            number = reports["north"]["study"]
            last = [e for e in ledger.history(number) if isinstance(e, Record) and e.kind == "server"][-2]
            verdict = replay(ledger, place.blobs(), number).verdict
    assert verdict.verdict == "PASS"
    # The same rows and the same exact sums give the same model to the bit, whatever keys and kills there were. The last
    # record of a server holds nothing; the one before it holds the model.
    history = json.loads(run_command("audit", "history", "--at", demo_run, "--kind", "server", "--json").stdout)
    _, own_payload = pay.decode(pay.unpack(FolderBlobs(place.root / "store").get(last.post.cid)))
    _, other_payload = pay.decode(pay.unpack(FolderBlobs(demo_run / "store").get(history[-2]["cid"])))
    assert pay.canonical(own_payload) == pay.canonical(other_payload)


def test_rows_that_do_not_fit_stop_a_site_before_it_touches_the_ledger(network: DemoNetwork) -> None:
    part = network.place.site("south")
    file_of(part.data).write_text(file_of(part.data).read_text().replace("female", "woman", 1))
    with pytest.raises(Exception, match="'woman'"):
        open_node(network.place, "south", network.approved, lambda _: None)
    with EthereumLedger(network.network, None) as ledger:
        assert ledger.studies() == ()


def test_rows_exchanged_after_the_study_began_are_refused(network: DemoNetwork) -> None:
    number = network.start()
    node = network.nodes["south"]
    pin_rows(node, number)
    part = network.place.site("south")
    file_of(part.data).write_text("\n".join(file_of(part.data).read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match="began here with another file than"):
        pin_rows(node, number)


def test_rows_exchanged_between_their_reading_and_the_study_s_begin_are_refused(network: DemoNetwork) -> None:
    """Else the study would be held to a file of which it has other rows."""
    number, node = network.start(), network.nodes["south"]
    part = network.place.site("south")
    content = file_of(part.data).read_text()
    file_of(part.data).write_text("\n".join(content.splitlines()[:-1]) + "\n")
    with pytest.raises(DataError) as caught:
        pin_rows(node, number)
    assert caught.value.code == "CO-D130"
    network.nodes["south"] = replace(node, rows=load_site(part.data, node.study, "south"))
    pin_rows(network.nodes["south"], number)


def test_the_sites_of_a_network_fit_the_model_in_threads_of_turns(network: DemoNetwork) -> None:
    number = network.start()
    runners = runners_of(network, number)
    while not all(r.done for r in runners.values()):
        for runner in runners.values():
            runner.turn()
    assert network.replay(number).verdict == "PASS"
