"""Development networks as their users meet them, and the doors that must stay shut."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from support.chain.web3_reader import connect_web3
from support.devnet.bed import SITES, scale_with_load, skip_without_programs
from support.devnet.founding import await_true

from coterie_chain.errors import BlobMissing, LedgerUnreachable, StoreFault
from coterie_chain.ethereum.abi import load_artifact
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.network.clique import CliqueChain, await_block
from coterie_chain.network.programs import kubo
from coterie_chain.network.programs.executables import IPFS
from coterie_chain.network.programs.ports import read_ports
from coterie_chain.network.swarm import Kubo, KuboSwarm
from coterie_chain.store.kubo import HttpClientBlobs, KuboBlobs
from coterie_chain.store.kubo_files import RepoBlobs
from coterie_chain.store.urls import open_store
from coterie_node.network.checks.examine import examine
from coterie_node.site.folder import find_node
from coterie_node.site.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.devnet, pytest.mark.xdist_group("network")]


def run_coterie(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "coterie_node", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=scale_with_load(240.0), check=False)


def read_status(folder: Path) -> list[dict[str, Any]]:
    """What the command says of every program of a network."""
    lines: list[dict[str, Any]] = json.loads(run_coterie("devnet", "status", folder, "--json").stdout)
    return lines


def read_newest(chain: CliqueChain, site: str) -> int:
    """The newest block of a site's node, which has more time to say so on a busy machine than for its status."""
    with Rpc(chain.url(site), scale_with_load(30.0)) as rpc:
        return rpc.call_quantity("eth_blockNumber")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A devnet that was started with the command."""
    skip_without_programs()
    folder = tmp_path_factory.mktemp("devnet") / "net"
    try:
        done = run_coterie("devnet", "up", folder, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        run_coterie("devnet", "down", folder)


@pytest.fixture(scope="module")
def demo(running: Path) -> Path:
    """The demo's study, run on it."""
    done = run_coterie("demo", "--at", running, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return running


def test_the_demo_on_clique_and_kubo_has_the_coefficients_of_the_one_on_anvil(demo: Path, tmp_path: Path) -> None:
    anvil = run_coterie("demo", "--json", "--keep", tmp_path / "anvil")
    assert anvil.returncode == 0, anvil.stdout + anvil.stderr
    mine, theirs = json.loads((demo / "result.json").read_text()), json.loads(anvil.stdout)
    assert mine["terms"] == theirs["terms"]
    assert (mine["replay"]["verdict"], mine["replay"]["grade"]) == ("PASS", "identical")
    assert mine["seconds"]["round"] == pytest.approx(mine["seconds"]["total"] / mine["rounds"])
    assert mine["ledger"]["records"] == 9 + 4 * mine["rounds"] + 1  # three steps open the pool, one concludes


def test_web3_py_solc_x_and_ipfshttpclient_do_their_part_on_the_network(demo: Path) -> None:
    """web3 reads the code that py-solc-x compiles; ipfshttpclient stores, and reads what the audit asks for."""
    place = RunFolder(demo)
    subprocess.run([sys.executable, ROOT / "contracts/scripts/compile.py", "--check"], timeout=240, check=True)
    network = place.network("north")
    with connect_web3(network.url) as w3:
        code = bytes(w3.eth.get_code(w3.to_checksum_address(network.catalog)))
    assert load_artifact("Catalog").matches(code)
    node = Kubo(demo / "sites/north/kubo")
    address = f"ipfshttpclient+{node.api}?token_file={node.token}"
    verdict = run_coterie("audit", "replay", "1", "--at", demo, "--store", address, "--json")
    assert json.loads(verdict.stdout)["verdict"] == "PASS", verdict.stdout + verdict.stderr
    store, other = open_store(address), KuboBlobs(node.api, node.token.read_text().strip())
    assert isinstance(store, HttpClientBlobs)
    data = bytes(range(256)) * 5000  # more than one block
    assert other.get(store.put(data)) == data
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("learner", "close", "grade"), [("vertigo", 1e-9, "partly sealed"), ("secure_lasso", 5e-4, "opened results")]
)
def test_learners_of_split_columns_run_on_the_same_nodes(learner: str, close: float, grade: str, demo: Path) -> None:
    """Each site's decision names its own file; Secure Lasso's sites talk to each other at the ports in node.toml."""
    done = run_coterie("demo", "--at", demo, "--learner", learner, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["sites"] == list(SITES)
    assert summary["pooled"]["max_abs_estimate"] < close
    assert (summary["replay"]["verdict"], summary["replay"]["grade"]) == ("RECORD INTACT", grade)


def test_status_and_logs_show_every_program(running: Path) -> None:
    lines = read_status(running)
    assert {(line["site"], line["program"]) for line in lines} == {
        (s, p) for s in SITES for p in ("geth", "kubo", "node")
    }
    assert all(line["pid"] for line in lines)

    def tells_all() -> bool:
        """What a program says of itself is left out where it does not answer in two seconds."""
        now = read_status(running)
        peers = [line["facts"].get("peers") for line in now if line["program"] != "node"]
        return all(line["facts"] for line in now) and peers == [2] * (2 * len(SITES))

    await_true(tells_all, "facts of every program, and two peers of each")
    logs = run_coterie("devnet", "logs", running, "--site", "south", "--program", "kubo")
    assert logs.stdout.startswith("== south kubo")
    assert "north" not in logs.stdout.partition("\n")[0]


def test_doctor_finds_a_site_s_node_well_and_its_swarm_private(running: Path) -> None:
    done = run_coterie("doctor", "--node", running / "sites" / "north", "--json")
    checks = {check["check"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, checks
    assert (checks["swarm"]["result"], checks["swarm"]["found"]) == ("ok", "private")
    assert checks["versions"]["found"].endswith(f"Kubo {IPFS.version}")
    well = ("folder", "key", "store", "chain", "clock", "finality", "seat")
    assert {checks[name]["result"] for name in well} == {"ok"}


def test_doctor_finds_results_that_are_reported_too_soon(running: Path) -> None:
    home = find_node(running / "sites" / "north")
    chain = home.config.chain.model_copy(update={"confirmations": 1})
    hasty = replace(home, config=home.config.model_copy(update={"chain": chain}))
    checks = {finding.check: finding for finding in examine(hasty)}
    assert (checks["finality"].well, checks["finality"].found) == (False, "results wait for 1 block; needed: 2")
    assert "confirmations = 2" in checks["finality"].cure


def test_a_network_is_never_started_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run_coterie("devnet", "up", tmp_path)
    assert (done.returncode, done.stderr[:8]) == (12, "CO-F203:")
    done = run_coterie("devnet", "down", tmp_path, "--delete")
    assert (done.returncode, done.stderr[:8]) == (12, "CO-F201:")
    assert (tmp_path / "mine.txt").exists()


# Doors


def test_no_port_is_open_but_on_the_loopback_address(running: Path) -> None:
    pids = [line["pid"] for line in json.loads(run_coterie("devnet", "status", running, "--json").stdout)]
    listening = [c for pid in pids for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
    assert len(listening) == 6 * len(SITES)
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_geth_answers_nobody_without_a_token_and_never_its_sealer_s_signature(running: Path) -> None:
    url = RunFolder(running).network("north").url
    bare = url.partition("?")[0]
    with Rpc(bare) as rpc, pytest.raises(LedgerUnreachable):
        rpc.call("eth_blockNumber")
    with (
        Rpc(RunFolder(running).network("south").url.replace("/south/", "/north/")) as rpc,
        pytest.raises(LedgerUnreachable),
    ):
        rpc.call("eth_blockNumber")  # another site's secret
    with Rpc(url) as rpc:
        assert rpc.call_quantity("eth_blockNumber") > 0
        for method in ("admin_peers", "personal_listAccounts", "debug_setHead", "clique_getSigners", "miner_stop"):
            with pytest.raises(LedgerUnreachable, match="does not exist"):
                rpc.call(method)


def test_kubo_answers_only_its_token_and_only_what_a_node_needs(running: Path) -> None:
    north = Kubo(running / "sites" / "north" / "kubo")
    token, other = north.token.read_text().strip(), Kubo(running / "sites" / "west" / "kubo").token.read_text().strip()
    asked = [
        (None, "id"),
        (other, "id"),
        (token, "config/show"),
        (token, "key/list"),
        (token, "shutdown"),
        (token, "id"),
    ]
    answers = []
    for create_bearer_token, path in asked:
        headers = {} if create_bearer_token is None else {"Authorization": f"Bearer {create_bearer_token}"}
        answers.append(httpx.post(f"{north.api}/api/v0/{path}", headers=headers).status_code)
    assert answers == [403, 403, 403, 403, 403, 200]


def test_no_secret_shows_in_the_process_list_or_in_a_log(running: Path) -> None:
    secrets = [
        line
        for name in (
            "passphrase",
            "api.token",
            "sealer.passphrase",
            "jwt.hex",
            "token",
            "nodekey",
            "swarm.key",
            "identity.json",
        )
        for file in running.rglob(name)
        for line in file.read_text().splitlines()
        if len(line) >= 32
    ]
    assert len(secrets) >= 8 * len(SITES)
    lines = json.loads(run_coterie("devnet", "status", running, "--json").stdout)
    processes = [psutil.Process(line["pid"]) for line in lines]
    visible_text = " ".join(" ".join(p.cmdline()) + str(p.environ()) for p in processes)
    visible_text += "".join(log.read_text(errors="replace") for log in running.rglob("log"))
    assert [s for s in secrets if s in visible_text] == []


def test_a_kubo_with_another_swarm_s_key_gets_nothing(running: Path, tmp_path: Path) -> None:
    cid = open_store(RunFolder(running).store().url("north")).put(b"for members only")
    stranger = KuboSwarm(tmp_path, ["stranger"])
    stranger.prepare()
    try:
        stranger.start()
        north = Kubo(running / "sites" / "north" / "kubo")
        at = f"{kubo.format_multiaddr('127.0.0.1', read_ports(north.ports)['swarm'])}/p2p/{north.peer}"
        mine = Kubo(tmp_path / "sites" / "stranger" / "kubo")
        headers = {"Authorization": f"Bearer {mine.token.read_text().strip()}"}
        answer = httpx.post(f"{mine.api}/api/v0/swarm/connect", params={"arg": at}, headers=headers, timeout=30.0)
        assert answer.status_code == 500
        blobs = KuboBlobs(mine.api, mine.token.read_text().strip(), timeout=2.0)
        with pytest.raises(BlobMissing) as caught:
            blobs.get(cid)
        assert caught.value.code == "CO-C201"
        blobs.close()
    finally:
        stranger.stop()


def test_a_kubo_without_a_swarm_s_key_does_not_start(tmp_path: Path) -> None:
    skip_without_programs()
    swarm = KuboSwarm(tmp_path, ["alone"])
    swarm.prepare()
    Kubo(tmp_path / "sites" / "alone" / "kubo").key.unlink()
    try:
        with pytest.raises(StoreFault, match="private network was not configured") as caught:
            swarm.start()
        assert caught.value.code == "CO-C336"
    finally:
        swarm.stop()


# After the end


def test_what_is_down_leaves_nothing_but_its_folder_and_can_be_audited_and_started_again(tmp_path: Path) -> None:
    skip_without_programs()
    folder = tmp_path / "net"
    try:
        assert run_coterie("devnet", "up", folder, "--sites", "2", "--period", "1").returncode == 0
        pids = [line["pid"] for line in json.loads(run_coterie("devnet", "status", folder, "--json").stdout)]
        ports = [p for file in folder.rglob("ports.json") for p in read_ports(file).values()]
        assert run_coterie("devnet", "down", folder).returncode == 0
        assert [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"] == []
        for port in ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        assert [p for p in folder.rglob("*") if p.is_socket() or p.name == "run.json"] == []
        assert run_coterie("devnet", "status", folder).returncode == 1
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
        assert run_coterie("audit", "history", "--at", folder).returncode == 0
        assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
        second_run = run_coterie("devnet", "up", folder, "--json")
        assert second_run.returncode == 0
        assert all(line["facts"] for line in json.loads(second_run.stdout))
    finally:
        run_coterie("devnet", "down", folder, "--delete")
    assert not folder.exists()


def test_a_finished_run_is_audited_on_the_stopped_network(demo: Path) -> None:
    assert run_coterie("devnet", "down", demo).returncode == 0
    done = run_coterie("audit", "replay", "1", "--at", demo, "--json")
    assert json.loads(done.stdout)["grade"] == "identical"
    history = run_coterie("audit", "history", "1", "--at", demo, "--json")
    cid = next(event["cid"] for event in json.loads(history.stdout) if event.get("cid"))
    copies = [p for site in SITES for p in RepoBlobs([demo / "sites" / site / "kubo" / "repo"])._list_paths(cid)]
    existing = [path for path in copies if path.exists()]
    assert existing
    for copy in existing:
        original = copy.read_bytes()
        copy.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    failed = run_coterie("audit", "replay", "1", "--at", demo, "--json")
    assert (failed.returncode, json.loads(failed.stdout)["verdict"]) == (22, "FAIL")


@pytest.mark.xdist_group("stalled")
def test_a_chain_whose_sealers_each_missed_the_other_s_block_is_started_until_it_grows(tmp_path: Path) -> None:
    skip_without_programs()
    chain = CliqueChain(tmp_path, ["alone", "apart"], 1)
    chain.prepare([])
    chain._assign_ports()
    configs = {tmp_path / "sites" / site / "geth" / "config.toml": "" for site in ("alone", "apart")}
    try:
        for file in configs:
            configs[file] = file.read_text()
            file.write_text(re.sub(r"(StaticNodes|TrustedNodes) = .*", r"\1 = []", configs[file]))
        for site, service in chain.services().items():
            service.start()
            await_block(service, chain.url(site))
        for file, text in configs.items():
            file.write_text(text)
        assert {read_newest(chain, site) for site in ("alone", "apart")} == {1}
        chain._await_growth()
        assert all(read_newest(chain, site) >= 1 + chain.confirmations for site in ("alone", "apart"))
    finally:
        chain.stop()
