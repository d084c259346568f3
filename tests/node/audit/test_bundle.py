"""Bundles of a real run on Anvil: the honest one passes offline, each forged one fails with its step and site named."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.node.bare import run_bare
from support.node.chains import Run
from support.node.forging import (
    Files,
    bodies_of,
    change_header,
    edit_body,
    headers_of,
    relink_headers,
    set_roots,
    with_bodies,
    with_headers,
    write_bundle,
)

from coterie_chain.ethereum.network import Network
from coterie_chain.ethereum.reader import MODEL
from coterie_chain.ethereum.rlp_bounds import split_items
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.ledger.protocol import Post, Record
from coterie_chain.ledger.record_chain import flatten_post
from coterie_chain.network.devnet import Anvil
from coterie_chain.proof.evidence import BODIES, CODES, HEADERS, STATE
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_chain.store.cid import compute_raw_cid
from coterie_learners.glore.glore import GLORE
from coterie_node.audit.archive import write_archive
from coterie_node.audit.bundle import GUIDE, MANIFEST, METADATA, PAYLOADS, load_bundle
from coterie_node.audit.verify import Verified, verify
from coterie_node.demo.cases.secure_cola import CASE as ENCRYPTED
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.site.statements.joining import format_release, read_own_release

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("bundle")]


# What an audit of encrypted tables says without TenSEAL.
NOT_WHOLE = (
    "The audit is not whole: secure_cola needs a library of coterie[he], which is not installed here. Hash chains and "
    "history hold; payloads and model were not checked. Install coterie[he], and check it again."
)
# Steps that open the pool's counts before the first sums.
OPENING = 3


@dataclass(frozen=True)
class HonestRun:
    """An honest bundle's files, its records, and the network that it is of."""

    files: Files
    records: tuple[Record, ...]
    network: Network
    ledger: VerifiedLedger

    def last(self) -> Record:
        return self.records[-1]

    def record(self, position: int, site: str) -> Record:
        """A site's record at a position after the three steps that open the pool's counts."""
        return next(r for r in self.records if (r.post.position, r.site) == (position + OPENING, site))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HonestRun]:
    with Anvil() as anvil:
        run = Run(tmp_path_factory.mktemp("honest") / "run", anvil)
        run.finish()
        bundle = run.bundle()
        ledger = VerifiedLedger(bundle.evidence)
        records = tuple(e for e in ledger.history(run.number) if isinstance(e, Record))
        yield HonestRun(run.files(), records, run.network, ledger)
        run.close()


def check_failure(
    files: Files, folder: Path, code: str = "", site: str = "", topic: str = "", **options: Any
) -> Verified:
    """A bundle of these files fails with this code, and names this site and step."""
    outcome = verify(write_bundle(files, folder), **options)
    verdict = outcome.verdict
    assert (verdict.verdict, verdict.grade) == ("FAIL", "none")
    assert verdict.code == code or not code, verdict.problem
    assert (verdict.site, verdict.topic) == (site, topic), verdict.problem
    return outcome


def step(record: Record) -> str:
    return f"study {record.post.study}, position {record.post.position}"


# The honest bundle


def test_a_bundle_of_another_version_of_its_learner_is_not_checked_and_names_the_wheel(
    honest: HonestRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie_learners.glore.glore.GLORE", replace(GLORE, version="99"))
    outcome = verify(write_bundle(honest.files, tmp_path), network=honest.network)
    assert (outcome.verdict.verdict, outcome.verdict.status) == ("NOT CHECKED", 26)
    assert f"with coterie {format_release(read_own_release())}, whose wheel its sites had" in outcome.verdict.problem
    assert outcome.trust()
    cut = {name: data for name, data in honest.files.items() if not name.startswith(PAYLOADS)}
    (tmp_path / "cut").mkdir()
    check_failure(cut, tmp_path / "cut")


def test_an_honest_bundle_passes(honest: HonestRun, tmp_path: Path) -> None:
    outcome = verify(write_bundle(honest.files, tmp_path), network=honest.network)
    assert (outcome.verdict.verdict, outcome.verdict.grade, outcome.verdict.outcome) == (
        "PASS",
        "identical",
        "converged",
    )
    assert outcome.verdict.records == len(honest.records)
    assert outcome.anchor is not None
    assert (outcome.anchor.kind, outcome.anchor.first_hash) == ("none", honest.network.genesis)
    text = " ".join(outcome.trust())
    assert "development chain without seals" in text
    assert all(entry.address in text for entry in honest.ledger.sites())


def test_it_passes_in_a_fresh_process_without_network_node_keys_or_extras(honest: HonestRun, tmp_path: Path) -> None:
    path = write_bundle(honest.files, tmp_path)
    # A proxy that leads nowhere: whatever would be fetched fails.
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = run_bare("audit", "verify", path, "--json", folder=tmp_path, environment=proxies)
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["verdict"], verdict["grade"]) == (0, "PASS", "identical")
    assert verdict["chain"]["kind"] == "none"


@pytest.mark.long
def test_a_bundle_of_encrypted_tables_is_not_checked_without_the_extra_that_opens_them(tmp_path: Path) -> None:
    with Anvil() as anvil:
        run = Run(tmp_path / "run", anvil, case=ENCRYPTED)
        run.finish()
        files = run.files()
        run.close()
    path = write_bundle(files, tmp_path)
    assert verify(path, network=run.network).verdict.verdict == "PASS"
    done = run_bare("audit", "verify", path, folder=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (26, f"Replay: NOT CHECKED [CO-S406] {NOT_WHOLE}")
    assert not re.search("PASS|INTACT|verified", done.stdout + done.stderr)
    plain = json.loads(run_bare("audit", "verify", path, "--json", folder=tmp_path).stdout)
    assert (plain["verdict"], plain["code"], plain["grade"]) == ("NOT CHECKED", "CO-S406", "none")
    (tmp_path / "cut").mkdir()
    cut = {name: data for name, data in files.items() if not name.startswith(PAYLOADS)}
    assert run_bare("audit", "verify", write_bundle(cut, tmp_path / "cut"), folder=tmp_path).returncode == 22


def test_another_learner_or_another_study_in_words_is_found(honest: HonestRun, tmp_path: Path) -> None:
    cases: list[tuple[str, Callable[[Any], Any], str]] = [
        (MANIFEST, lambda m: m["code"].__setitem__("learner", "better 2"), "CO-A206"),
        (METADATA, lambda m: _root(m).__setitem__("identifier", "ab" * 32), "CO-A205"),
        (METADATA, lambda m: m["@graph"].append({**_root(m), "identifier": "ab" * 32}), "CO-A205"),
        (METADATA, lambda m: _root(m).pop("identifier"), "CO-A205"),
    ]
    for name, change, code in cases:
        plain = json.loads(honest.files[name])
        change(plain)
        files = {**honest.files, name: json.dumps(plain).encode()}
        if name == MANIFEST:
            crate = json.loads(files[METADATA])
            (entry,) = (e for e in crate["@graph"] if e["@id"] == MANIFEST)
            entry["sha256"] = hashlib.sha256(files[MANIFEST]).hexdigest()
            files[METADATA] = json.dumps(crate).encode()
        folder = tmp_path / hashlib.sha256(files[METADATA]).hexdigest()[:8]
        folder.mkdir()
        check_failure(files, folder, code)


def _root(crate: Any) -> Any:
    return next(e for e in crate["@graph"] if e["@id"] == "./")


def test_another_catalog_on_the_same_chain_is_not_the_one_that_the_auditor_knows(tmp_path: Path) -> None:
    """Whoever may write to the chain can found a Catalog there, with sites of the same names and keys of his own."""
    with Anvil() as anvil:
        real, false = (Run(tmp_path / name, anvil) for name in ("real", "false"))
        false.finish()
        path = write_bundle(false.files(), tmp_path)
        known, forged = real.network, false.network
        real.close()
        false.close()
    assert known.genesis == forged.genesis
    alone = verify(path, genesis=known.genesis)
    text = alone.trust()[0]
    assert (alone.verdict.verdict, alone.known, alone.catalog_known) == ("PASS", True, False)
    assert f"of chain {known.chain_id}, as you named it, and on the Catalog {forged.catalog}. The bundle names" in text
    assert text.endswith("The bundle names the Catalog: compare with a site's network.json.")
    for asked in ({"genesis": known.genesis, "catalog": known.catalog}, {"network": known}):
        verdict = verify(path, **asked).verdict
        assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A203")
    named = verify(path, genesis=known.genesis, catalog=forged.catalog.upper().replace("0X", "0x"))
    assert (named.verdict.verdict, named.catalog_known) == ("PASS", True)
    assert named.trust()[0].endswith(f"the Catalog {forged.catalog}, as you named it.")


def test_a_folder_passes_like_a_zip(honest: HonestRun, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_archive(folder, honest.files)
    assert verify(folder).verdict.verdict == "PASS"


def test_the_ledger_of_a_bundle_is_that_of_the_chain(honest: HonestRun) -> None:
    count = len(honest.ledger.view(1).terms.sites)
    rounds = (len(honest.records) - OPENING * count) // (count + 1)
    assert [r.post.position for r in honest.records][-1] == OPENING + 2 * rounds  # the conclusion
    view = honest.ledger.view(1)
    assert [r.site for r in honest.ledger.read_finished(1, 0) or ()] == list(view.terms.sites)
    assert honest.ledger.read_finished(1, 999) is None
    assert honest.ledger.heads()["north"].seq == sum(r.site == "north" for r in honest.records)


def test_a_bundle_is_the_same_bytes_each_time_and_never_written_over_another(honest: HonestRun, tmp_path: Path) -> None:
    first, second = write_bundle(honest.files, tmp_path, "a.zip"), write_bundle(honest.files, tmp_path, "b.zip")
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        write_archive(first, honest.files)


def test_a_bundle_is_an_ro_crate(honest: HonestRun) -> None:
    crate = json.loads(honest.files[METADATA])
    entities = {e["@id"]: e for e in crate["@graph"]}
    assert entities[METADATA]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert entities[METADATA]["about"] == {"@id": "./"}
    assert {"name", "description", "datePublished", "license"} <= entities["./"].keys()
    assert {p["@id"] for p in entities["./"]["hasPart"]} == set(honest.files) - {METADATA}
    for name in set(honest.files) - {METADATA}:
        assert entities[name]["sha256"] == hashlib.sha256(honest.files[name]).hexdigest()
        assert int(entities[name]["contentSize"]) == len(honest.files[name])
    referred = [v["@id"] for e in crate["@graph"] for v in e.values() if isinstance(v, dict) and "@id" in v]
    assert set(referred) - {"https://w3id.org/ro/crate/1.1"} <= set(entities)


def test_a_bundle_of_a_running_study_passes_as_far_as_it_came(tmp_path: Path) -> None:
    with Anvil() as anvil:
        run = Run(tmp_path / "run", anvil)
        run.until(run.start(), 3)
        outcome = verify(write_bundle(run.files(), tmp_path))
        run.close()
    assert (outcome.verdict.verdict, outcome.verdict.outcome) == ("PASS", "running")


# Forged: the chain's part


def test_a_dropped_last_step_is_found(honest: HonestRun, tmp_path: Path) -> None:
    last = honest.last()
    forged = with_bodies(honest.files, bodies_of(honest.files)[:-1])
    outcome = check_failure(forged, tmp_path, "CO-C355", last.site, step(last))
    assert f"records of {last.site} are missing" in outcome.verdict.problem


def test_a_dropped_last_block_is_found(honest: HonestRun, tmp_path: Path) -> None:
    last = honest.last()
    forged = with_headers(honest.files, headers_of(honest.files)[:-1])
    forged = with_bodies(forged, bodies_of(forged)[:-1])
    check_failure(forged, tmp_path, "CO-C352", last.site, step(last))


def test_a_record_dropped_from_the_middle_is_found(honest: HonestRun, tmp_path: Path) -> None:
    record = honest.record(1, "north")
    rest = [b for b in bodies_of(honest.files) if b.number != record.block]
    check_failure(with_bodies(honest.files, rest), tmp_path, "CO-C355", "north", step(record))


def test_a_bloom_emptied_to_hide_a_block_breaks_the_chain(honest: HonestRun, tmp_path: Path) -> None:
    record = honest.record(1, "north")
    headers = [
        change_header(h, logsBloom=bytes(256)) if h.number == record.block else h for h in headers_of(honest.files)
    ]
    rest = [b for b in bodies_of(honest.files) if b.number != record.block]
    outcome = check_failure(with_headers(with_bodies(honest.files, rest), headers), tmp_path, "CO-C354")
    assert f"Header {record.block} is not the one" in outcome.verdict.problem
    # with all headers linked again, the contracts' own count of records shows it
    forged = with_headers(with_bodies(honest.files, rest), relink_headers(headers))
    verdict = verify(write_bundle(forged, tmp_path, "again.zip")).verdict
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-C340")
    assert f"position {2 + OPENING}" in verdict.topic


def test_blocks_in_another_order_are_found(honest: HonestRun, tmp_path: Path) -> None:
    bodies = bodies_of(honest.files)
    check_failure(with_bodies(honest.files, [*bodies[:-2], bodies[-1], bodies[-2]]), tmp_path, "CO-C354")


def test_records_that_changed_places_are_found(honest: HonestRun, tmp_path: Path) -> None:
    first, second = honest.record(1, "north"), honest.record(3, "south")
    swapped = {first.block: second.block, second.block: first.block}
    by_number = {b.number: b for b in bodies_of(honest.files)}
    bodies = [replace(by_number[swapped.get(n, n)], number=n) for n in by_number]
    check_failure(with_bodies(honest.files, bodies), tmp_path, "CO-C354", "south", step(second))


def test_headers_in_another_order_are_found(honest: HonestRun, tmp_path: Path) -> None:
    headers = headers_of(honest.files)
    check_failure(with_headers(honest.files, [*headers[:-2], headers[-1], headers[-2]]), tmp_path, "CO-C354")


def test_another_genesis_is_found(honest: HonestRun, tmp_path: Path) -> None:
    headers = headers_of(honest.files)
    other = [change_header(headers[0], extraData=b"another"), *headers[1:]]
    check_failure(with_headers(honest.files, other), tmp_path, "CO-C354")


def test_another_genesis_with_all_headers_linked_to_it_is_found(honest: HonestRun, tmp_path: Path) -> None:
    headers = headers_of(honest.files)
    forged = with_headers(honest.files, relink_headers([change_header(headers[0], extraData=b"another"), *headers[1:]]))
    check_failure(forged, tmp_path, "CO-A203")
    manifest = json.loads(forged[MANIFEST])
    manifest["network"]["genesis"] = "0x" + headers_of(forged)[0].digest().hex()
    forged[MANIFEST] = json.dumps(manifest).encode()
    (tmp_path / "more").mkdir()
    check_failure(forged, tmp_path / "more", "CO-A203", genesis=honest.network.genesis)
    (tmp_path / "most").mkdir()
    check_failure(forged, tmp_path / "most", "CO-A203", network=honest.network)


def test_a_whole_other_network_is_not_the_one_that_the_auditor_knows(honest: HonestRun, tmp_path: Path) -> None:
    known = replace(honest.network, catalog="0x" + "12" * 20)
    check_failure(honest.files, tmp_path, "CO-A203", network=known)


def alter_logs(logs: list[Any]) -> None:
    """Another payload's digest in the last log, which is a record."""
    data = bytearray(logs[-1][2])
    data[9 * 32] ^= 1
    logs[-1][2] = bytes(data)


def test_an_altered_record_is_found_by_the_root_of_the_receipts(honest: HonestRun, tmp_path: Path) -> None:
    record = honest.record(3, "south")
    bodies = [edit_body(b, alter_logs) if b.number == record.block else b for b in bodies_of(honest.files)]
    check_failure(with_bodies(honest.files, bodies), tmp_path, "CO-C354", "south", step(record))


def test_an_altered_record_with_its_root_is_found_by_the_next_header(honest: HonestRun, tmp_path: Path) -> None:
    record = honest.record(3, "south")
    bodies = [edit_body(b, alter_logs) if b.number == record.block else b for b in bodies_of(honest.files)]
    body = next(b for b in bodies if b.number == record.block)
    forged = with_headers(with_bodies(honest.files, bodies), set_roots(headers_of(honest.files), body))
    check_failure(forged, tmp_path, "CO-C354", "south", step(record))


def test_an_altered_record_with_all_headers_linked_anew_is_not_what_its_site_signed(
    honest: HonestRun, tmp_path: Path
) -> None:
    """An unsealed chain can be written again around any log; what the site signed cannot be made to fit."""
    record = honest.record(3, "south")
    bodies = [edit_body(b, alter_logs) if b.number == record.block else b for b in bodies_of(honest.files)]
    body = next(b for b in bodies if b.number == record.block)
    forged = with_headers(with_bodies(honest.files, bodies), relink_headers(set_roots(headers_of(honest.files), body)))
    outcome = check_failure(forged, tmp_path, "CO-C357", "south", step(record))
    assert "signed by south for another call or another content" in outcome.verdict.problem


def test_whatever_log_an_operator_rewrites_with_all_headers_anew_is_found(honest: HonestRun, tmp_path: Path) -> None:
    rng, bodies = random.Random(3), bodies_of(honest.files)

    def flip(logs: list[Any]) -> None:
        log = logs[rng.randrange(len(logs))]
        data = bytearray(log[2] or log[1][0])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        log[2 if log[2] else 1] = bytes(data) if log[2] else [bytes(data), *log[1][1:]]

    for k in range(25):
        body = edit_body(rng.choice(bodies), flip)
        parts = [body if b.number == body.number else b for b in bodies]
        forged = with_headers(
            with_bodies(honest.files, parts), relink_headers(set_roots(headers_of(honest.files), body))
        )
        assert verify(write_bundle(forged, tmp_path, f"{k}.zip")).verdict.verdict == "FAIL"


def test_a_renamed_site_is_found(honest: HonestRun, tmp_path: Path) -> None:
    def rename(logs: list[Any]) -> None:
        logs[0][2] = logs[0][2].replace(b"north", b"south")

    bodies = bodies_of(honest.files)
    forged = with_bodies(honest.files, [edit_body(bodies[0], rename), *bodies[1:]])
    verdict = verify(write_bundle(forged, tmp_path)).verdict
    assert (verdict.verdict, verdict.code, verdict.site) == ("FAIL", "CO-C354", "south")
    headers = relink_headers(set_roots(headers_of(honest.files), edit_body(bodies[0], rename)))
    verdict = verify(write_bundle(with_headers(forged, headers), tmp_path, "linked.zip")).verdict
    assert verdict.verdict == "FAIL"
    assert verdict.site == "south"


def test_a_record_that_the_chain_s_operator_wrote_in_a_site_s_name_is_found(tmp_path: Path) -> None:
    """Whoever runs Anvil may send as anybody, but not sign: the one forgery that roots and contracts cannot see."""
    with Anvil() as anvil, Rpc(anvil.url) as rpc:
        run = Run(tmp_path / "run", anvil)
        run.until(run.start(), 1)
        view = run.nodes["north"].ledger.view(run.number)
        assert view.open is not None
        blob = b"a model of the operator's own"
        cid = run.place.blobs().put(blob)
        digest = hashlib.sha256(blob).digest()
        post = Post(run.number, 1, 0, cid, digest, len(blob), False, view.open.basis)
        key = run.nodes["north"].keys.address
        model = run.nodes["north"].ledger._reader.models[1]  # type: ignore[attr-defined]
        rpc.call("anvil_impersonateAccount", key)
        data = MODEL.encode("record", flatten_post(post))
        rpc.call(
            "eth_sendTransaction", {"from": key, "to": model, "data": data, "gas": hex(500_000), "gasPrice": "0x0"}
        )
        with pytest.raises(Exception, match="signed by") as caught:
            run.bundle()
        run.close()
    assert (caught.value.site, caught.value.topic) == ("north", "study 1, position 1")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["stateRoot", "timestamp", "transactionsRoot", "gasUsed", "miner"])
def test_any_field_of_a_header_that_changed_is_found(honest: HonestRun, tmp_path: Path, name: str) -> None:
    record = honest.record(2, "west")
    headers = headers_of(honest.files)
    value = bytes([headers[record.block][name][0] ^ 1, *headers[record.block][name][1:]])
    forged = with_headers(
        honest.files, [change_header(h, **{name: value}) if h.number == record.block else h for h in headers]
    )
    check_failure(forged, tmp_path, "CO-C354", "west", step(record))


def test_a_transaction_exchanged_for_another_is_found(honest: HonestRun, tmp_path: Path) -> None:
    first, second = honest.record(2, "west"), honest.record(4, "west")
    by_number = {b.number: b for b in bodies_of(honest.files)}
    forged = replace(by_number[first.block], transactions=by_number[second.block].transactions)
    bodies = [forged if b.number == first.block else b for b in by_number.values()]
    outcome = check_failure(with_bodies(honest.files, bodies), tmp_path, "CO-C354", "west", step(first))
    assert "transactions" in outcome.verdict.problem


def test_a_state_cut_short_is_found_and_says_how_far_the_history_goes(honest: HonestRun, tmp_path: Path) -> None:
    nodes = list(split_items(honest.files[STATE], STATE, 1 << 13))
    verdict = verify(write_bundle({**honest.files, STATE: b"".join(nodes[:-1])}, tmp_path)).verdict
    assert (verdict.verdict, verdict.code, verdict.topic) == ("FAIL", "CO-C352", "study 1")


def test_other_code_is_found(honest: HonestRun, tmp_path: Path) -> None:
    code = bytearray(honest.files[CODES])
    code[100] ^= 1
    assert check_any_failure({**honest.files, CODES: bytes(code)}, tmp_path).code == "CO-C356"


def check_any_failure(files: Files, folder: Path) -> Any:
    verdict = verify(write_bundle(files, folder)).verdict
    assert verdict.verdict == "FAIL"
    return verdict


# Forged: payloads and the study


def test_a_swapped_payload_is_found(honest: HonestRun, tmp_path: Path) -> None:
    first, second = honest.record(2, "west"), honest.record(2, "south")
    name = PAYLOADS + first.post.cid
    forged = {**honest.files, name: honest.files[PAYLOADS + second.post.cid]}
    check_failure(forged, tmp_path, "CO-C202", "west", "stats/1")


def test_a_missing_payload_is_found(honest: HonestRun, tmp_path: Path) -> None:
    record = honest.record(5, "west")
    forged = {k: v for k, v in honest.files.items() if k != PAYLOADS + record.post.cid}
    problem = check_any_failure(forged, tmp_path).problem
    assert record.post.cid in problem
    # There is no site to wait for: a bundle is read offline.
    assert "The bundle is not whole: ask another site for one." in problem


def test_an_edited_study_is_found(honest: HonestRun, tmp_path: Path) -> None:
    manifest = json.loads(honest.files[MANIFEST])
    name = PAYLOADS + compute_raw_cid(document := _document(honest))
    edited_document = document.replace(b'"death ~ age', b'"death ~ sex')
    assert edited_document != document
    assert compute_raw_cid(document) in check_any_failure({**honest.files, name: edited_document}, tmp_path).problem
    manifest["study"]["hash"] = hashlib.sha256(edited_document).hexdigest()
    forged = {**honest.files, PAYLOADS + compute_raw_cid(edited_document): edited_document}
    forged[MANIFEST] = json.dumps(manifest).encode()
    (tmp_path / "more").mkdir()
    check_failure(forged, tmp_path / "more", "CO-A206")


def test_a_study_that_the_ledger_has_not_is_found(honest: HonestRun, tmp_path: Path) -> None:
    manifest = json.loads(honest.files[MANIFEST])
    manifest["study"]["number"] = 7
    check_failure({**honest.files, MANIFEST: json.dumps(manifest).encode()}, tmp_path, "CO-A206")


def _document(honest: HonestRun) -> bytes:
    digest = json.loads(honest.files[MANIFEST])["study"]["hash"]
    return next(v for v in honest.files.values() if hashlib.sha256(v).hexdigest() == digest)


def test_a_crate_that_describes_other_files_is_found(honest: HonestRun, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    write_archive(path, {**honest.files, GUIDE: b"Trust me.\n"})
    verdict = verify(path).verdict
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A205")
    assert f"does not describe {GUIDE} as it is here" in verdict.problem
    assert "Ask another site for a bundle" in verdict.problem


def test_a_payload_that_no_entry_names_is_found(honest: HonestRun, tmp_path: Path) -> None:
    """Nothing vouches for it: with the crate described again, it would pass as a part of what was proved."""
    foreign = b"patients of another study"
    path = write_bundle({**honest.files, PAYLOADS + compute_raw_cid(foreign): foreign}, tmp_path)
    verdict = verify(path).verdict
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A205")
    assert compute_raw_cid(foreign) in verdict.problem


def test_a_guide_of_the_author_s_own_is_a_remark_and_nothing_vouches_for_the_version(
    honest: HonestRun, tmp_path: Path
) -> None:
    manifest = json.loads(honest.files[MANIFEST])
    manifest["code"]["coterie"] = "9.9.9"
    lies = {GUIDE: b"Install this first: evil.whl", MANIFEST: json.dumps(manifest).encode()}
    outcome = verify(write_bundle({**honest.files, **lies}, tmp_path))
    assert outcome.verdict.verdict == "PASS"
    assert any("do not do what it says" in remark for remark in outcome.replay.remarks)
    assert any("9.9.9 wrote it; no signature covers that" in line for line in outcome.trust())
    honest_remarks = verify(write_bundle(honest.files, tmp_path, "honest.zip")).replay.remarks
    assert not any("do not do what it says" in remark for remark in honest_remarks)


# Hostile bytes


def write_zip(entries: list[tuple[str, bytes]], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "payloads/../../evil",
        "payloads/evil",
        "x" * 500,
        "chain\\headers.rlp",
        "index.html",
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_no_bundle_has_is_refused(honest: HonestRun, tmp_path: Path, name: str) -> None:
    verdict = verify(write_zip([*honest.files.items(), (name, b"x")], tmp_path / "b.zip")).verdict
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A201")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(honest: HonestRun, tmp_path: Path) -> None:
    path = write_zip([*honest.files.items(), (MANIFEST, honest.files[MANIFEST])], tmp_path / "b.zip")
    assert "twice" in verify(path).verdict.problem


@pytest.mark.parametrize("name", [MANIFEST, PAYLOADS + compute_raw_cid(b"bomb")])
def test_a_zip_bomb_stops_at_the_limit(honest: HonestRun, tmp_path: Path, name: str) -> None:
    rest = [(k, v) for k, v in honest.files.items() if k != name]
    path = write_zip([*rest, (name, bytes(300 << 20))], tmp_path / "b.zip")
    assert path.stat().st_size < 1 << 20
    verdict = verify(path).verdict
    assert (verdict.code, verdict.verdict) == ("CO-A201", "FAIL")
    assert "unpacks to more than" in verdict.problem


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4", b"not a zip", b"PK\5\6" + bytes(18), random.Random(1).randbytes(500)],
    ids=["nothing", "a head", "text", "an empty zip", "noise"],
)
def test_bytes_that_are_no_bundle_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(content)
    assert verify(path).verdict.code in ("CO-A201", "CO-A202")


def test_a_truncated_zip_is_refused(honest: HonestRun, tmp_path: Path) -> None:
    path = write_bundle(honest.files, tmp_path)
    path.write_bytes(path.read_bytes()[:-3000])
    assert verify(path).verdict.code == "CO-A201"


@pytest.mark.parametrize(
    "manifest",
    [b"{", b"[" * 100_000, b"[]", b'{"format": "coterie-bundle/9"}', b"\xff\xfe", b'{"a": 1e999}'],
    ids=["torn", "deep", "a list", "of another release", "no text", "endless"],
)
def test_a_manifest_that_is_none_is_refused(honest: HonestRun, tmp_path: Path, manifest: bytes) -> None:
    verdict = verify(write_bundle({**honest.files, MANIFEST: manifest}, tmp_path)).verdict
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A202")


@pytest.mark.parametrize("name", [HEADERS, BODIES, STATE, CODES])
@pytest.mark.parametrize("content", [None, b"", b"\xc1" * 5000, b"\xff" * 100, b"\xb9\xff\xff", b"\x00\x01\x02"])
def test_evidence_that_cannot_be_read_is_refused(
    honest: HonestRun, tmp_path: Path, name: str, content: bytes | None
) -> None:
    files = {k: v for k, v in honest.files.items() if k != name} | ({} if content is None else {name: content})
    assert check_any_failure(files, tmp_path).code.startswith("CO-C35")


def test_links_and_pipes_in_a_folder_are_refused(honest: HonestRun, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_archive(folder, honest.files)
    (folder / GUIDE).unlink()
    (folder / GUIDE).symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="cannot be read"):
        verify(folder)
    (folder / GUIDE).unlink()
    os.mkfifo(folder / GUIDE)
    assert verify(folder).verdict.code == "CO-A201"


def test_a_bundle_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        verify(Path("nowhere.zip"))


def test_any_flipped_byte_fails_and_never_crashes(honest: HonestRun, tmp_path: Path) -> None:
    rng = random.Random(7)
    names = sorted(set(honest.files) - {METADATA})
    for k in range(60):
        name = rng.choice([*names, *[HEADERS, BODIES, STATE] * 10])
        content = bytearray(honest.files[name])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        forged = write_bundle({**honest.files, name: bytes(content)}, tmp_path, f"{k}.zip")
        # The guide is for people, nothing checks the code's name, and a verifier skips some nodes of the state.
        verdict = verify(forged, network=honest.network).verdict
        assert verdict.verdict == "FAIL" or name in (GUIDE, MANIFEST, STATE), name


def test_a_bundle_comes_back_as_it_was_saved(honest: HonestRun, tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(honest.files, tmp_path))
    assert bundle.evidence.files() == {k: honest.files[k] for k in (HEADERS, BODIES, STATE, CODES)}
    assert {PAYLOADS + k: v for k, v in bundle.blocks.items()}.items() <= honest.files.items()
    with pytest.raises(AuditFailed, match="not a bundle of Coterie"):
        load_bundle(write_zip([(GUIDE, b"x")], tmp_path / "other.zip"))
