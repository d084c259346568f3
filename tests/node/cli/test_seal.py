"""View keys and the end of keys: who opens a study's sealed payloads, and that nobody does once the keys are gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.learners import vertical
from support.node.worlds import keys_of

from coterie_chain.errors import KeyFault
from coterie_chain.keys.envelopes import is_sealed, list_readers
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.ledger.protocol import Record
from coterie_learners.core.protocol import Machine
from coterie_learners.core.registry import learner_of
from coterie_node.audit.replay import replay
from coterie_node.errors import ConfigError
from coterie_node.run.codec import PayloadCodec, fetch
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import World, make_world, run, site_of
from coterie_node.run.study_keys import current_keys, destroy, study_keys
from coterie_node.run.view_grants import load_grants, save_grant, view_of

HELD = {"north": ("died", "a1"), "south": ("b1", "b2"), "east": ("c1",)}
SESSION = "net/1"
Vaults = dict[str, dict[str, bytes]]


def finish_study() -> tuple[World, Vaults]:
    """A study on split columns whose sites seal to keys of this run alone, and the sites' vaults."""
    study, codes = vertical.study(HELD), vertical.draw(120, columns_by_site=HELD)
    world, rows = make_world(study), vertical.split(study, codes)
    vaults: Vaults = {name: {} for name in study.sites}
    entries, runners = world.ledger().sites(), []
    for name in study.sites:
        keys = world.keys[name]
        own = study_keys(keys, vaults[name], SESSION)
        site = site_of(study, name, rows[name], keys, entries, str(world.number))
        machine = Machine(learner_of(study).script, replace(site, vault=vaults[name], sealing=own.sealing))
        codec = PayloadCodec(study, name, keys, {e.name: e.sealing for e in entries}, own)
        runners.append(Runner(machine, world.ledger(name), world.blobs, world.number, codec))
    run(runners)
    assert all(runner.done for runner in runners)
    return world, vaults


@pytest.fixture(scope="module")
def done() -> tuple[World, Vaults]:
    return finish_study()


def list_sealed_blobs(world: World) -> list[bytes]:
    records = [e for e in world.chain.log if isinstance(e, Record)]
    return [blob for blob in (fetch(r.post, world.blobs) for r in records) if is_sealed(blob)]


def test_what_is_sealed_is_sealed_to_keys_of_this_run_and_not_to_the_catalog_s(done: tuple[World, Vaults]) -> None:
    world, _ = done
    assert len(list_sealed_blobs(world)) > 10
    assert all(list_readers(blob) == ("east", "north", "south") for blob in list_sealed_blobs(world))
    assert view_of(world.ledger(), world.blobs, world.number, "north", [world.keys["north"]]) == {}


def test_an_auditor_with_one_site_s_grant_replays_everything(done: tuple[World, Vaults], tmp_path: Path) -> None:
    world, vaults = done
    stranger = replay(world.ledger(), world.blobs, world.number).verdict
    assert (stranger.verdict, stranger.grade, stranger.steps) == ("RECORD INTACT", "partly sealed", 1)
    assert f"{stranger.unchecked} of {1 + stranger.unchecked} server steps use sealed payloads" in stranger.claim
    auditor, giver = keys_of("an auditor"), world.keys["south"]
    held = current_keys(giver, vaults["south"], SESSION)
    view = view_of(world.ledger(), world.blobs, world.number, "south", held)
    assert len(view) == len(list_sealed_blobs(world))
    save_grant(tmp_path / "grant", view, world.study.hash, auditor.sealing, giver)
    granted = load_grants([tmp_path / "grant"], world.study.hash, auditor)
    verdict = replay(world.ledger(), world.blobs, world.number, granted=granted).verdict
    assert (verdict.verdict, verdict.grade) == ("PASS", "identical")
    assert (verdict.steps, verdict.unchecked) == (1 + stranger.unchecked, 0)


def test_a_grant_is_for_one_auditor_and_one_study(done: tuple[World, Vaults], tmp_path: Path) -> None:
    world, _ = done
    path = tmp_path / "grant"
    save_grant(path, {b"a" * 32: b"b" * 32}, world.study.hash, keys_of("an auditor").sealing, world.keys["south"])
    assert load_grants([path], world.study.hash, keys_of("an auditor")) == {b"a" * 32: b"b" * 32}
    assert path.stat().st_mode & 0o777 == 0o600
    for study, auditor in ((world.study.hash, "another"), (bytes(32), "an auditor")):
        with pytest.raises(ConfigError) as caught:
            load_grants([path], study, keys_of(auditor))
        assert caught.value.code == "CO-F351"
    path.write_text("no grant")
    with pytest.raises(ConfigError):
        load_grants([path], world.study.hash, keys_of("an auditor"))


def test_a_wrong_key_in_a_grant_is_found(done: tuple[World, Vaults]) -> None:
    world, _ = done
    record = next(e for e in world.chain.log if isinstance(e, Record) and is_sealed(fetch(e.post, world.blobs)))
    verdict = replay(world.ledger(), world.blobs, world.number, granted={record.post.sha256: bytes(32)}).verdict
    assert (verdict.verdict, verdict.code, verdict.site) == ("FAIL", "CO-C221", record.site)


def test_after_the_keys_are_destroyed_payloads_are_noise_and_the_record_still_holds() -> None:
    world, vaults = finish_study()
    for name in world.study.sites:
        assert destroy(vaults[name], SESSION)
        assert not destroy(vaults[name], SESSION)
        held = current_keys(world.keys[name], vaults[name], SESSION)
        assert view_of(world.ledger(), world.blobs, world.number, name, held) == {}
        with pytest.raises(KeyFault) as caught:
            study_keys(world.keys[name], vaults[name], SESSION)
        assert caught.value.code == "CO-C108"
    verdict = replay(world.ledger(), world.blobs, world.number).verdict
    assert (verdict.verdict, verdict.grade, verdict.steps) == ("RECORD INTACT", "partly sealed", 1)


class DyingVault(dict[str, bytes]):
    """A private memory whose process ends before its change number `last`."""

    last = -1

    def change(self) -> None:
        self.last -= 1
        if self.last == -1:
            raise KeyboardInterrupt

    def __setitem__(self, key: str, value: bytes) -> None:
        self.change()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.change()
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        self.change()
        return super().pop(key, *default)


@pytest.mark.parametrize("last", [1, 2])
def test_a_destruction_that_is_cut_short_gives_the_run_no_other_key(last: int) -> None:
    """Between two changes the key was gone and not called destroyed: the run got a new one, which opens nothing."""
    vault, keys = DyingVault(), keys_of("north")
    study_keys(keys, vault, SESSION)
    vault.last = last
    with pytest.raises(KeyboardInterrupt):
        destroy(vault, SESSION)
    with pytest.raises(KeyFault) as caught:
        study_keys(keys, vault, SESSION)
    assert caught.value.code == "CO-C108"


def test_a_run_s_key_is_random_durable_and_gone_from_the_journal_once_destroyed(tmp_path: Path) -> None:
    keys = keys_of("north")
    with SqliteJournal(tmp_path / "journal.sqlite") as journal:
        own = study_keys(keys, journal.vault, SESSION)
        other_keys = study_keys(keys, journal.vault, "net/2")
        assert len({own.sealing, other_keys.sealing, keys.sealing}) == 3
        assert own.address == keys.address
    with SqliteJournal(tmp_path / "journal.sqlite") as journal:
        assert study_keys(keys, journal.vault, SESSION).sealing == own.sealing
        seed = journal.vault["sealing-key/" + SESSION]
        destroy(journal.vault, SESSION)
        assert not any(seed in file.read_bytes() for file in tmp_path.iterdir())
        assert study_keys(keys, journal.vault, "net/2").sealing == other_keys.sealing
