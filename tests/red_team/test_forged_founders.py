"""Whoever runs a development chain can write any block; he can neither found a network nor pass for a sealed one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.node.chains import SITES, Run
from support.node.forging import Files, write_bundle
from typer.testing import CliRunner, Result

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.calldata import to_hex
from coterie_chain.ethereum.network import Network
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.ledger.protocol import Event, SiteEntry
from coterie_chain.network.devnet import Anvil
from coterie_chain.proof.deployment import compute_contract_address, encode_deployment
from coterie_chain.proof.evidence import gather
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_node.audit.bundle import RULINGS
from coterie_node.audit.verify import verify
from coterie_node.cli.main import app

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("bundle")]
MALLORY = "0x" + "ab" * 20


def forge_founding(url: str, sites: tuple[SiteEntry, ...]) -> Network:
    """Found a Catalog as Anvil allows its operator: in the name of an address whose key he does not have."""
    with Rpc(url) as rpc:
        rpc.call("anvil_impersonateAccount", MALLORY)
        data = to_hex(encode_deployment([make_admission(site) for site in sites]))
        call = {"from": MALLORY, "data": data, "gas": hex(20_000_000), "gasPrice": "0x0"}
        sent = rpc.call("eth_sendTransaction", call)
        rpc.call("evm_mine")
        receipt = rpc.call("eth_getTransactionReceipt", sent)
        genesis = rpc.call("eth_getBlockByNumber", "0x0", False)["hash"]
        place = (rpc.call_quantity("eth_chainId"), receipt["contractAddress"], genesis)
        return Network(url, *place, int(receipt["blockNumber"], 16))


def make_admission(site: SiteEntry) -> Event:
    details = {"name": site.name, "key": site.address, "sealing": to_hex(site.sealing), "peer": to_hex(site.peer)}
    return Event("SiteAdmitted", 0, "", tuple(details.items()), 1, 0, "0x")


@dataclass(frozen=True)
class FinishedRun:
    """A bundle of an honest run, and its network."""

    files: Files
    network: Network


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    with Anvil() as anvil:
        run = Run(tmp_path_factory.mktemp("founders") / "run", anvil)
        run.finish()
        yield FinishedRun(run.files(), run.network)
        run.close()


def audit(*words: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, words)])


def test_a_catalog_that_nobody_signed_for_is_refused(tmp_path: Path) -> None:
    with Anvil() as anvil:
        run = Run(tmp_path / "run", anvil, forge_founding)
        run.finish()
        evidence = gather(run.network)
        run.close()
    with pytest.raises(LedgerMismatch, match="was not founded as the ledger says") as caught:
        VerifiedLedger(evidence)
    assert caught.value.code == "CO-C358"


def test_a_signed_deployment_binds_the_catalog_s_address_and_its_founders(finished_run: FinishedRun) -> None:
    assert [name for name, _ in finished_run.network.founders] == list(SITES)
    # go-ethereum's own vector for an address made from sender and nonce
    sender = "0x970e8128ab834e8eac17ab8e3812f010678cf791"
    assert compute_contract_address(sender, 0) == "0x333c3310824b7c685133f2bedb2ca4b8b4df633d"
    assert compute_contract_address(sender, 1) == "0x8bda78331c916a08481428e4b07c96d3e916d165"


def test_a_bundle_has_the_founders_that_network_json_names(finished_run: FinishedRun, tmp_path: Path) -> None:
    path, network = write_bundle(finished_run.files, tmp_path), finished_run.network
    outcome = verify(path, network=Network.from_json(network.to_json()))
    assert (outcome.verdict.verdict, outcome.founders_known) == ("PASS", True)
    forged = replace(network, founders=(*network.founders[:-1], (SITES[-1], MALLORY)))
    verdict = verify(path, network=forged).verdict
    assert (verdict.verdict, verdict.code, verdict.site) == ("FAIL", "CO-A207", SITES[-1])


@pytest.mark.parametrize("change", [{"west": MALLORY}, {"west": None}, {"east": MALLORY}])
def test_the_founders_may_come_from_a_file_of_keys(
    finished_run: FinishedRun, tmp_path: Path, change: dict[str, str | None]
) -> None:
    path, keys = write_bundle(finished_run.files, tmp_path), tmp_path / "sites.json"
    place = ("--genesis", finished_run.network.genesis, "--catalog", finished_run.network.catalog, "--sites", keys)
    keys.write_text(json.dumps(dict(finished_run.network.founders)))
    assert audit("verify", path, *place).exit_code == 0
    changed = {**dict(finished_run.network.founders), **change}
    keys.write_text(json.dumps({name: key for name, key in changed.items() if key}))
    done = audit("verify", path, *place, "--json")
    assert (done.exit_code, json.loads(done.stdout)["code"]) == (22, "CO-A207")
    keys.write_text('{"north": 7}')
    assert getattr(audit("verify", path, *place).exception, "code", "") == "CO-F202"


def test_no_pass_on_a_chain_without_seals_stands_alone_in_its_line(finished_run: FinishedRun, tmp_path: Path) -> None:
    path, page = write_bundle(finished_run.files, tmp_path), tmp_path / "report.html"
    lines = audit("verify", path).stdout.splitlines() + audit("report", path, "--out", page).stdout.splitlines()
    passes = [line for line in lines if "PASS" in line]
    assert len(passes) == 2
    assert all("on a chain without seals" in line for line in passes)
    assert "1. Verdict: PASS (on a chain without seals)" in page.read_text()
    plain = json.loads(audit("verify", path, "--json").stdout)
    steps = plain["steps"]
    assert (plain["unsealed"], plain["recomputed"]) == (True, {"server_steps": steps, "of": steps})


def test_the_gate_s_rulings_are_in_the_bundle_without_a_count_and_cannot_be_changed(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    rulings = json.loads(finished_run.files[RULINGS])
    assert set(rulings) == {"rules", "floors", "steps", "rulings"}
    words = {line["ruling"] for line in rulings["rulings"]}
    assert words == {"sums only", "passed"}  # the masked sums, and the counts that open the pool
    assert {line["site"] for line in rulings["rulings"]} == set(SITES)
    assert set(rulings["rules"]) <= set(rulings["floors"])
    cells = {step["topic"]: (step["cells"], step["cells_of"]) for step in rulings["steps"]}
    kinds, owner = cells["stats/*"]
    assert ("death" in kinds, owner) == (True, "all sites together")
    assert not any(kind[-1].isdigit() for kinds, _ in cells.values() for kind in kinds)
    (first, *_) = rulings["rulings"]
    first["ruling"] = (words - {first["ruling"]}).pop()
    forged = {**finished_run.files, RULINGS: json.dumps(rulings).encode()}
    verdict = verify(write_bundle(forged, tmp_path)).verdict
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A208")
