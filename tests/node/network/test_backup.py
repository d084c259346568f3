"""A backup holds all that makes a site and no row; it is restored whole or not at all, never beside a living copy."""

from __future__ import annotations

import errno
import io
import json
import shutil
import socket
import tarfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest
from support.node.houses import CANARY, SITES, NodeNetwork, make_node_folder, study_file

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.keys.journal import MemoryJournal, Signed, SqliteJournal
from coterie_chain.ledger.protocol import Head
from coterie_node.errors import ConfigError
from coterie_node.network import backup as backup_module
from coterie_node.network.backup import (
    RESTORED,
    Passphrase,
    PublicKey,
    SecretKey,
    restore_backup,
    settle_restoration,
    write_backup,
)
from coterie_node.network.founding import make_keys, write_network_files
from coterie_node.privacy.log import PrivacyLog
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.state_copy import REQUEST, STATE_COPY, answer_request

IDENTITY = pyrage.x25519.Identity.generate()
LOCK, KEY = PublicKey(str(IDENTITY.to_public())), SecretKey(str(IDENTITY))
TX = Signed(3, "record", b"raw", "0x" + "ab" * 32)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A founder's folder after a while: chain, store, journal, privacy log, decisions, and rows that are nobody's."""
    folder = tmp_path_factory.mktemp("founded")
    cards = [make_keys(folder / s, s, "127.0.0.1", "127.0.0.1", scrypt=1 << 12) for s in SITES]
    cards = [replace(card, enode=card.enode.replace(":30303", ":1"), swarm="/ip4/127.0.0.1/tcp/1") for card in cards]
    root = folder / "north"
    write_network_files(root, "north", cards)
    (root / "founder.json").write_text(cards[0].to_json())
    settings = make_node_folder(folder / "settings", "north").root
    for name in (CONFIG, "api.token", "data.csv"):
        shutil.copy(settings / name, root / name)
    for name in ("geth/data/geth/chaindata/1.ldb", "kubo/repo/blocks/a", "copies/rows.arrow"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(CANARY))
    for name in ("decisions/1.json", "privacy/release/1"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(name)
    with SqliteJournal(root / "journal.sqlite") as journal:
        journal.vault["seed"] = b"secret"
        journal.save("scope", TX)
    return root


@pytest.fixture
def home(founded: Path, tmp_path: Path) -> SiteFolder:
    """A copy of that folder."""
    shutil.copytree(founded, tmp_path / "north")
    return find_node(tmp_path / "north")


@pytest.fixture
def backup(home: SiteFolder, tmp_path: Path) -> Path:
    """A backup of that folder."""
    write_backup(home, tmp_path / "north.backup", LOCK)
    return tmp_path / "north.backup"


def list_state(root: Path) -> dict[str, bytes]:
    """The files of a site by name, without those that a backup leaves out."""
    left = (".lock", "geth/data", "kubo/repo/blocks", "copies", "data.csv", "journal.sqlite", RESTORED)
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(left)}


def test_a_restored_site_is_the_site_to_the_byte(home: SiteFolder, backup: Path, tmp_path: Path) -> None:
    before = list_state(home.root)
    shutil.rmtree(home.root)
    manifest = restore_backup(backup, tmp_path / "again", KEY)
    restored = find_node(tmp_path / "again")
    assert list_state(restored.root) == before
    assert (manifest.site, manifest.records) == ("north", None)  # no chain answers here
    with SqliteJournal(restored.journal) as journal:
        assert journal.vault["seed"] == b"secret"
        assert journal.list_sent("scope") == ((TX, False),)
    assert not [path for path in restored.root.rglob("*") if path.stat().st_mode & 0o077]


def test_a_backup_has_no_row_no_block_and_nothing_in_the_clear(home: SiteFolder, backup: Path) -> None:
    assert home.passphrase.read_bytes().strip() not in backup.read_bytes()
    assert backup.stat().st_mode & 0o077 == 0
    archive = KEY.open(backup.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = set(tar.getnames())
        texts = b"".join(file.read() for member in tar if (file := tar.extractfile(member)) is not None)
    assert str(CANARY).encode() not in texts
    assert {"keys/operator.json", "geth/nodekey", "kubo/repo/swarm.key", "privacy/release/1"} <= names
    assert not {name for name in names if name.startswith(("geth/data", "kubo/repo/b", "copies", "data.csv"))}


def test_a_backup_never_replaces_a_file(home: SiteFolder, backup: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        write_backup(home, backup, LOCK)
    assert refused.value.code == "CO-F203"


def test_neither_a_wrong_key_nor_a_damaged_file_leaves_anything(backup: Path, tmp_path: Path) -> None:
    sealed, other = backup.read_bytes(), SecretKey(str(pyrage.x25519.Identity.generate()))
    turned = sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:]
    for content, key in ((sealed, other), (sealed, SecretKey("none")), (sealed[:-9], KEY), (turned, KEY), (b"", KEY)):
        backup.write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            restore_backup(backup, tmp_path / "again", key)
        assert refused.value.code == "CO-F504"
        assert not (tmp_path / "again").exists()


@pytest.mark.long
def test_a_passphrase_closes_and_opens_a_backup_and_another_does_not(home: SiteFolder, tmp_path: Path) -> None:
    write_backup(home, tmp_path / "b", Passphrase("correct horse"))
    with pytest.raises(ConfigError, match="another one"):
        restore_backup(tmp_path / "b", tmp_path / "again", Passphrase("battery staple"))
    assert restore_backup(tmp_path / "b", tmp_path / "again", Passphrase("correct horse")).site == "north"


def test_a_text_that_is_no_public_key_closes_nothing(home: SiteFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="age-keygen"):
        write_backup(home, tmp_path / "b", PublicKey("age1none"))
    assert not (tmp_path / "b").exists()


def seal_archive(backup: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """Replace a backup by one with these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    backup.write_bytes(LOCK.seal(out.getvalue()))


def make_link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """A member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


MANIFEST = (
    tarfile.TarInfo("backup.json"),
    json.dumps({"format": 1, "site": "north", "time": 0, "version": "0", "records": 0}).encode(),
)


@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../evil"), b"x")],
        [(tarfile.TarInfo("/tmp/coterie-evil"), b"x")],
        [make_link("node.toml", "/etc/passwd", tarfile.SYMTYPE)],
        [make_link("node.toml", "../north/node.toml", tarfile.LNKTYPE)],
        [make_link("fifo", "", tarfile.FIFOTYPE)],
        [MANIFEST],
        [(tarfile.TarInfo("node.toml"), b'site = "north"')],
        [(tarfile.TarInfo("backup.json"), b'{"format": 2, "site": "north", "time": 0, "version": "", "records": 0}')],
        [(tarfile.TarInfo("backup.json"), b"[")],
        [(tarfile.TarInfo("backup.json"), MANIFEST[1]), (tarfile.TarInfo("node.toml"), b'site = "south"')],
    ],
)
def test_an_archive_that_would_write_elsewhere_or_is_no_site_is_refused_whole(
    members: list[tuple[tarfile.TarInfo, bytes]], backup: Path, tmp_path: Path
) -> None:
    seal_archive(backup, *members)
    with pytest.raises(ConfigError) as refused:
        restore_backup(backup, tmp_path / "again", KEY)
    assert refused.value.code in {"CO-F504", "CO-F320"}
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/coterie-evil").exists()


def test_no_second_copy_is_made_while_the_site_s_own_address_answers(home: SiteFolder, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as living:
        card = (home.root / "founder.json").read_text()
        (home.root / "founder.json").write_text(card.replace("127.0.0.1:1?", f"127.0.0.1:{living.getsockname()[1]}?"))
        write_backup(home, tmp_path / "b", LOCK)
        with pytest.raises(ConfigError) as refused:
            restore_backup(tmp_path / "b", tmp_path / "again", KEY)
    assert refused.value.code == "CO-F505"
    assert not (tmp_path / "again").exists()
    assert restore_backup(tmp_path / "b", tmp_path / "again", KEY).site == "north"


# While the daemon runs


def test_a_daemon_that_holds_the_journal_makes_the_copy_itself(home: SiteFolder, tmp_path: Path) -> None:
    with SqliteJournal(home.journal) as journal:
        journal.vault["late"] = b"in the write-ahead log"
        stop = threading.Event()

        def serve() -> None:
            while not stop.wait(0.01):
                answer_request(home, journal)

        daemon = threading.Thread(target=serve)
        daemon.start()
        try:
            write_backup(home, tmp_path / "b", LOCK)
        finally:
            stop.set()
            daemon.join()
    restore_backup(tmp_path / "b", tmp_path / "again", KEY)
    with SqliteJournal(tmp_path / "again" / "journal.sqlite") as copy:
        assert copy.vault["late"] == b"in the write-ahead log"
    assert not (home.root / STATE_COPY).exists()
    assert not (home.root / REQUEST).exists()


def test_a_daemon_that_makes_no_copy_is_named(
    home: SiteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie_node.network.backup.COPY_SECONDS", 0.2)
    with SqliteJournal(home.journal), pytest.raises(ConfigError) as refused:
        write_backup(home, tmp_path / "b", LOCK)
    assert refused.value.code == "CO-F503"
    assert not (tmp_path / "b").exists()
    assert not (home.root / REQUEST).exists()


def test_the_daemon_answers_a_request_at_its_next_tick(node_network: NodeNetwork) -> None:
    home = node_network.homes["north"]
    (home.root / REQUEST).touch()
    node_network.daemons["north"].tick()
    assert not (home.root / REQUEST).exists()
    SqliteJournal(home.root / STATE_COPY / "journal.sqlite").close()


def test_two_backups_at_once_are_both_whole(home: SiteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one to end took the copy of the state away while the other one packed it."""
    begun, may_pack = threading.Event(), threading.Event()
    pack = backup_module._pack

    def pack_late(*arguments: Any) -> bytes:
        if not begun.is_set():
            begun.set()
            may_pack.wait(60)
        return pack(*arguments)

    monkeypatch.setattr(backup_module, "_pack", pack_late)
    first = threading.Thread(target=write_backup, args=(home, tmp_path / "first", LOCK))
    first.start()
    assert begun.wait(60)
    second = threading.Thread(target=write_backup, args=(home, tmp_path / "second", LOCK))
    second.start()
    second.join(0.5)  # where nothing keeps it, it is over
    may_pack.set()
    for thread in (first, second):
        thread.join(60)
    for name in ("first", "second"):
        restored = restore_backup(tmp_path / name, tmp_path / f"{name}-again", KEY)
        assert restored.site == "north"
        assert (tmp_path / f"{name}-again" / "journal.sqlite").exists()
        assert (tmp_path / f"{name}-again" / "privacy" / "release" / "1").exists()


def test_a_file_that_the_daemon_takes_away_meanwhile_is_not_missed(
    home: SiteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, list_files = home.root / "decisions" / "1.json", backup_module._list_files

    def list_then_lose(of: SiteFolder) -> list[Path]:
        files = list_files(of)
        gone.unlink()
        return files

    monkeypatch.setattr(backup_module, "_list_files", list_then_lose)
    write_backup(home, tmp_path / "b", LOCK)
    restore_backup(tmp_path / "b", tmp_path / "again", KEY)
    assert not (tmp_path / "again" / "decisions" / "1.json").exists()
    assert (tmp_path / "again" / "founder.json").exists()


def test_a_copy_for_which_there_is_no_room_stops_neither_the_daemon_nor_its_studies(
    node_network: NodeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = node_network.daemons["north"]
    home = node_network.homes["north"]
    (home.root / "privacy" / "release").mkdir(parents=True)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, SqliteJournal(home.journal):
        patch.setattr("coterie_node.site.state_copy.shutil.copytree", full)
        stop = threading.Event()
        node_network.propose(study_file(node_network.root))
        thread = threading.Thread(target=daemon.run, args=(stop,))
        thread.start()
        try:
            with pytest.raises(ConfigError, match="made none") as refused:
                write_backup(home, tmp_path / "b", LOCK)
        finally:
            stop.set()
            thread.join(60)
    assert refused.value.code == "CO-F503"
    assert node_network.chain.ledger(None).studies() == (1,)
    assert "CO-C204" in node_network.log("north")
    assert not (home.root / STATE_COPY).exists()
    assert not (home.root / REQUEST).exists()
    assert not (tmp_path / "b").exists()


def test_the_journal_in_memory_copies_itself_as_the_one_in_a_file_does(tmp_path: Path) -> None:
    memory = MemoryJournal()
    memory.vault["seed"] = b"secret"
    memory.save("scope", TX)
    memory.mark_mined("scope", TX.nonce)
    memory.copy_to(tmp_path / "copy")
    with SqliteJournal(tmp_path / "copy") as journal:
        assert (journal.vault["seed"], journal.list_sent("scope")) == (b"secret", ((TX, True),))
    with pytest.raises(StoreFault):
        SqliteJournal(tmp_path / "missing" / "journal")


# After a restoration


@pytest.mark.parametrize(("then", "now", "lost"), [(0, 0, False), (0, 4, True), (None, 4, True), (None, 0, False)])
def test_records_since_the_backup_make_every_release_ask_a_person(
    then: int | None, now: int, lost: bool, node_network: NodeNetwork
) -> None:
    home, vault = node_network.homes["north"], MemoryJournal().vault
    ledger = node_network.daemons["north"].services.ledger
    manifest = {"format": 1, "site": "north", "time": 0, "version": "0", "records": then}
    (home.root / RESTORED).write_text(json.dumps(manifest))
    head = ledger.heads()["north"]

    class Later:
        """The ledger as the restored site finds it."""

        def heads(self) -> object:
            return {"north": replace(head, seq=now)}

    assert settle_restoration(home, Later(), vault) == (now if lost else 0)  # type: ignore[arg-type]
    assert PrivacyLog(counter=vault).is_lost is lost
    assert settle_restoration(home, Later(), vault) == 0  # type: ignore[arg-type]


@dataclass
class CatchingUp:
    """The ledger at a restored chain node that fetches its blocks: its records of north, and the newest block's age."""

    head: Head
    records: int = 0
    age: float = 86_400.0

    def heads(self) -> dict[str, Head]:
        return {"north": replace(self.head, seq=self.records)}


@pytest.mark.parametrize("known", [2, None])
def test_a_chain_node_that_lacks_blocks_does_not_say_what_the_log_lacks(
    known: int | None, node_network: NodeNetwork
) -> None:
    """Its first look counted for ever: the records that it had not fetched yet were never missed."""
    home, journal = node_network.homes["north"], node_network.journals["north"]
    daemon = node_network.daemons["north"]
    manifest = {"format": 1, "site": "north", "time": 0, "version": "0", "records": known}
    (home.root / RESTORED).write_text(json.dumps(manifest))
    node = CatchingUp(daemon.services.ledger.heads()["north"])

    def settle() -> int:
        return settle_restoration(home, node, journal.vault, lambda: node.age, 60.0)  # type: ignore[arg-type]

    daemon.services = replace(daemon.services, settle=settle)
    node_network.propose(study_file(node_network.root))
    for node.records, node.age in ((0, 86_400.0), (2, 4000.0), (0, 5.0))[: 2 if known is None else 3]:
        with pytest.raises(LedgerUnreachable, match="has not caught up since the site was restored") as waited:
            daemon.tick()
        assert waited.value.code == "CO-C302"
    assert node_network.chain.ledger(None).studies() == ()
    node.records, node.age = 5, 4.0
    daemon.tick()
    assert PrivacyLog(counter=journal.vault).is_lost
    assert node_network.chain.ledger(None).studies() == (1,)


def test_a_backup_of_a_site_that_waits_for_its_chain_node_knows_no_more_than_the_one_before(
    home: SiteFolder, tmp_path: Path
) -> None:
    manifest = {"format": 1, "site": "north", "time": 0, "version": "0", "records": 3}
    (home.root / RESTORED).write_text(json.dumps(manifest))
    assert write_backup(home, tmp_path / "b", LOCK).records == 3
    assert restore_backup(tmp_path / "b", tmp_path / "again", KEY).records == 3


def test_a_site_that_was_never_restored_settles_nothing(node_network: NodeNetwork) -> None:
    ledger, vault = node_network.daemons["north"].services.ledger, MemoryJournal().vault
    assert settle_restoration(node_network.homes["north"], ledger, vault) == 0
    assert not dict(vault)
