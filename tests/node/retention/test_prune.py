"""Payloads go when their study has ended, its date has passed and a bundle verifies, and not before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.node.chains import Run

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import Ledger, State, StudyView
from coterie_chain.network.devnet import Anvil
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.glore.glore import GLORE
from coterie_node.audit.archive import write_archive
from coterie_node.audit.bundle import MANIFEST, read_payloads
from coterie_node.errors import ConfigError
from coterie_node.retention.prune import SECONDS_A_YEAR, check_age, find_bundle, list_payloads, prune
from coterie_node.run.study_keys import LABEL, has_key

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("bundle")]


class PinnedBlobs(MemoryBlobs):
    """A store that lets go at once."""

    def unpin(self, cid: str) -> None:
        self.blocks.pop(cid, None)

    def collect(self) -> None:
        """Nothing is left to delete."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with Anvil() as anvil:
        run = Run(tmp_path_factory.mktemp("kept") / "run", anvil)
        run.finish()
        yield run
        run.close()


@pytest.fixture
def ledger(run: Run) -> Iterator[Ledger]:
    with EthereumLedger(run.network) as ledger:
        yield ledger


@pytest.fixture
def view(run: Run, ledger: Ledger) -> StudyView:
    return ledger.view(run.number)


@pytest.fixture
def bundles(run: Run, tmp_path: Path) -> Path:
    write_archive(tmp_path / "study.zip", run.files())
    return tmp_path


def make_store(run: Run, ledger: Ledger) -> PinnedBlobs:
    store = PinnedBlobs()
    for payload in read_payloads(ledger, run.place.blobs(), run.number):
        store.put(payload)
    return store


def test_payloads_go_and_the_sealing_key_with_them(run: Run, ledger: Ledger, view: StudyView, bundles: Path) -> None:
    store, session = make_store(run, ledger), f"{run.network.scope}/{run.number}"
    vault = {LABEL + session: bytes(32)}
    bundle, before = find_bundle(bundles, run.network, view), len(store.blocks)
    plan = prune(ledger, store, vault, view, run.network, bundle, dry=True)
    assert (len(store.blocks), has_key(vault, session)) == (before, True)
    outcome = prune(ledger, store, vault, view, run.network, bundle)
    assert outcome == plan
    assert outcome.payloads == len(list_payloads(ledger, run.number)) == before
    assert (store.blocks, has_key(vault, session)) == ({}, False)
    assert prune(ledger, store, vault, view, run.network, bundle).key_destroyed is False


def test_nothing_goes_before_its_date_by_the_earlier_of_two_clocks(run: Run, ledger: Ledger, view: StudyView) -> None:
    ended = max(entry.time for entry in ledger.history(run.number))
    late = ended + 11 * SECONDS_A_YEAR
    check_age(ledger, view, 0.0, late)
    for years, now in ((10.0, ended + 9.9 * SECONDS_A_YEAR), (10.0, late), (0.0, ended - 1.0)):
        with pytest.raises(ConfigError, match="is kept until") as caught:
            check_age(ledger, view, years, now)
        assert caught.value.code == "CO-F522"


def test_nothing_goes_without_a_bundle_of_the_study_that_verifies(
    run: Run, view: StudyView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="has none") as caught:
        find_bundle(tmp_path, run.network, view)
    assert caught.value.code == "CO-F523"
    files = run.files()
    payload = next(name for name in files if name.startswith("payloads/"))
    write_archive(tmp_path / "damaged.zip", {**files, payload: files[payload][:-1] + b"!"})
    with pytest.raises(ConfigError, match=r"damaged\.zip: FAIL"):
        find_bundle(tmp_path, run.network, view)
    manifest = json.loads(files[MANIFEST])
    manifest["study"]["number"] += 1
    write_archive(tmp_path / "other", {**files, MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(ConfigError, match=r"damaged\.zip: FAIL"):
        find_bundle(tmp_path, run.network, view)
    write_archive(tmp_path / "whole", files)
    assert find_bundle(tmp_path, run.network, view) == tmp_path / "whole"
    monkeypatch.setattr("coterie_learners.glore.glore.GLORE", replace(GLORE, version="99"))
    with pytest.raises(ConfigError, match="whole: NOT CHECKED"):
        find_bundle(tmp_path, run.network, view)


def test_a_study_that_runs_and_a_store_without_pins_keep_everything(bundles: Path, run: Run, ledger: Ledger) -> None:
    view = ledger.view(run.number)
    with pytest.raises(ConfigError, match="is running") as caught:
        check_age(ledger, replace(view, state=State.RUNNING), 0.0, 1e12)
    assert caught.value.code == "CO-F521"
    with pytest.raises(ConfigError, match="no pins") as caught:
        prune(ledger, run.place.blobs(), {}, view, run.network, bundles / "study.zip")
    assert caught.value.code == "CO-F524"
