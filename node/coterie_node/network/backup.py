"""One encrypted file with all that makes a site: keys, sealer, peers' identities, journal, decisions, privacy log.

A backup is a tar archive, encrypted by age (https://age-encryption.org/v1) with a passphrase or for a public key, so
that the program `age` opens it too. A public key suits a backup that a timer makes, because it is no secret.

Not in it: the rows, copies of rows, and blocks of the chain and of the store, which other sites have.

A restored site knows how many records it had at the time of the backup. If the ledger has more, the privacy log lacks
them, and a person must approve every release (`settle_restoration`). The chain's blocks are in no backup: the answers
of a restored chain node count once it has caught up.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import pyrage  # type: ignore[import-untyped]
from pydantic_core import from_json

from coterie_chain.errors import ChainError, LedgerUnreachable
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import write_private
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.network.peers import find_open_ports, read_enode_place, read_swarm_place
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard
from coterie_node.privacy.files.folder_lock import FolderLock, InUse
from coterie_node.privacy.log import count_as_lost
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.state_copy import STATE_COPY, copy_state, request_copy

MAX_BACKUP_BYTES, MAX_BACKUP_FILES = 1 << 32, 1 << 20
COPY_SECONDS = 60.0
_MANIFEST, RESTORED = "backup.json", "restored.json"
# Never in a backup: the chain's blocks, the store's blocks, copies of rows, and state of running programs.
HISTORY = ("history.sqlite", "history.sqlite-wal", "history.sqlite-shm")
LEFT_OUT = ("geth/data", "kubo/repo", "besu/data", "copies", "store", STATE_COPY, RESTORED, *HISTORY)
# ... and the parts of these folders that are in it.
KEPT = ("kubo/repo/swarm.key",)
RUNNING = (".ipc", ".part", "-wal", "-shm")
NAMES_OF_RUNNING = frozenset({"run.json", "log", ".lock"})


@dataclass(frozen=True)
class BackupManifest:
    """The description of a backup: site, time (seconds since 1970), version, and the number of the site's records then.

    `records` is None if the chain did not answer: then no record counts as known.
    """

    format: int
    site: str
    time: int
    version: str
    records: int | None

    @classmethod
    def read(cls, text: bytes) -> BackupManifest:
        """The manifest in a text; ConfigError (CO-F504) for another one."""
        try:
            raw = from_json(text)
            records = raw["records"] if raw["records"] is None else int(raw["records"])
            manifest = cls(int(raw["format"]), str(raw["site"]), int(raw["time"]), str(raw["version"]), records)
        except (ValueError, KeyError, TypeError):
            raise _refuse("it names no site") from None
        if manifest.format != 1:
            raise _refuse(f"its format is {manifest.format}, and this version reads format 1")
        return manifest


@dataclass(frozen=True)
class Passphrase:
    """A passphrase that closes and opens a backup: slow on purpose, about a second each time."""

    text: str = field(repr=False)

    def seal(self, archive: bytes) -> bytes:
        """Encrypt."""
        return bytes(pyrage.passphrase.encrypt(archive, self.text))

    def open(self, sealed: bytes) -> bytes:
        """Decrypt; DecryptError where it does not fit."""
        return bytes(pyrage.passphrase.decrypt(sealed, self.text))


@dataclass(frozen=True)
class PublicKey:
    """A public key of age (age1...) that closes a backup; only its secret half opens it."""

    text: str

    def seal(self, archive: bytes) -> bytes:
        """Encrypt; ConfigError (CO-F504) for a text that is no such key."""
        try:
            recipient = pyrage.x25519.Recipient.from_str(self.text)
        except pyrage.RecipientError:
            message = f"{self.text[:80]!r} is no public key of age"
            raise ConfigError("CO-F504", f"{message}. `age-keygen` prints one, which begins with age1.") from None
        return bytes(pyrage.encrypt(archive, [recipient]))


@dataclass(frozen=True)
class SecretKey:
    """The secret half (AGE-SECRET-KEY-1...) that opens what was closed for its public key."""

    text: str = field(repr=False)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt; DecryptError where it does not fit, ConfigError (CO-F504) for a text that is no such key."""
        try:
            identity = pyrage.x25519.Identity.from_str(self.text)
        except pyrage.IdentityError:
            raise ConfigError("CO-F504", "The key file has no secret key of age. `age-keygen` writes one.") from None
        return bytes(pyrage.decrypt(sealed, [identity]))


class Lock(Protocol):
    """What closes a backup."""

    def seal(self, archive: bytes) -> bytes:
        """Encrypt."""


class Key(Protocol):
    """What opens a backup."""

    def open(self, sealed: bytes) -> bytes:
        """Decrypt."""


def write_backup(home: SiteFolder, file: Path, lock: Lock) -> BackupManifest:
    """Write a site's backup; the daemon may run. ConfigError (CO-F203) for a file that exists."""
    if file.exists():
        raise ConfigError("CO-F203", f"{file} exists, and a backup never replaces another. Name a new file.")
    # Before the copy: a record that comes in between counts as unknown, and asks a person.
    manifest = BackupManifest(1, home.name, int(time.time()), version("coterie"), _count_records(home))
    with _state_of(home) as state:
        archive = _pack(home, state, manifest)
    sealed = lock.seal(archive)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(sealed)
        out.flush()
        os.fsync(out.fileno())
    aside.replace(file)
    return manifest


def restore_backup(file: Path, folder: Path, key: Key) -> BackupManifest:
    """Make a site's folder from its backup, whole or not at all.

    ConfigError: the folder is not empty (CO-F203), the file or the key is wrong (CO-F504), or something answers
    at the site's own addresses (CO-F505): a second living copy would sign with the same keys.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("CO-F203", f"{folder} is not an empty folder. Name an empty one to restore into.")
    archive = _open_sealed(file, key)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700, parents=True)
    try:
        manifest = _unpack(archive, aside)
        check_no_living_copy(aside)
        if folder.exists():
            folder.rmdir()
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def check_no_living_copy(folder: Path) -> None:
    """ConfigError (CO-F505) if something takes connections at the addresses on the site's own card."""
    path = folder / "founder.json"
    if not path.exists():
        return
    card = FounderCard.read(path)
    places = {"chain node": read_enode_place(card.enode), "store": read_swarm_place(card.swarm)}
    opened = find_open_ports({name: place for name, place in places.items() if place is not None})
    if opened:
        where = ", ".join(f"{name} at {places[name][0]}:{places[name][1]}" for name in sorted(opened))  # type: ignore[index]
        message = f"Another copy of {card.site} seems to run: its {where} answers"
        raise ConfigError(
            "CO-F505", f"{message}. Two living copies would sign with the same keys. Stop that one first."
        )


def settle_restoration(
    home: SiteFolder,
    ledger: Ledger,
    vault: MutableMapping[str, bytes],
    read_age: Callable[[], float] = lambda: 0.0,
    oldest: float = math.inf,
) -> int:
    """After a restoration: how many records of this site the ledger has beyond its backup.

    If there are any, or nobody knows, the privacy log counts as incomplete. Does nothing the second time.
    LedgerUnreachable (CO-C302) while the chain node lacks blocks: its newest one has another age (`read_age`, seconds)
    than `oldest` at most, or it has fewer records than the backup knows. What it lacks would never be counted.
    """
    path = home.root / RESTORED
    try:
        known = BackupManifest.read(path.read_bytes()).records
    except FileNotFoundError:
        return 0
    age = read_age()
    head = ledger.heads().get(home.name)
    there = 0 if head is None else head.seq
    if age > oldest or there < (known or 0):
        raise _explain_lag(home.name, age, oldest, there, known)
    missing = there - known if known is not None else there
    if missing > 0:
        count_as_lost(vault, missing)
    path.replace(home.root / f"{RESTORED}.settled")
    return max(missing, 0)


def _explain_lag(site: str, age: float, oldest: float, there: int, known: int | None) -> LedgerUnreachable:
    message = f"The chain node of {site} has not caught up since the site was restored: its newest block is {age:.0f} s"
    limit = f" old, of {oldest:.0f} s at most" if oldest < math.inf else " old"
    records = f", and it has {there} records of {site}, fewer than the {known} of the backup" * (there < (known or 0))
    cure = (
        "This site joins and posts nothing until then. Wait; if this stays, look at its peers and this machine's clock"
    )
    return LedgerUnreachable("CO-C302", f"{message}{limit}{records}. {cure}: coterie doctor.")


def list_outside(home: SiteFolder) -> list[Path]:
    """Files that the site needs and that a backup lacks: its rows, and what node.toml names outside of its folder."""
    config, root = home.config, home.root.resolve()
    needed = [home.passphrase, home.path(config.api.token_file)]
    outside = [path for path in needed if not path.resolve().is_relative_to(root)]
    rows = [path for path in (home.data, home.exclude) if path is not None and path.exists()]
    return [*outside, *rows]


def _count_records(home: SiteFolder) -> int | None:
    """The records of this site that its privacy log may know; None where nobody can say."""
    unsettled = home.root / RESTORED
    if unsettled.exists():  # whatever the ledger has: the log is that of the backup before
        return BackupManifest.read(unsettled.read_bytes()).records
    try:
        with home.open_ledger() as ledger:
            head = ledger.heads().get(home.name)
    except (ChainError, ConfigError):
        return None
    return 0 if head is None else head.seq


@contextmanager
def _state_of(home: SiteFolder) -> Iterator[Path]:
    """A folder with journal and privacy log as of one moment; the daemon makes it if it holds the journal.

    One backup at a time: ConfigError (CO-F503) where another one goes on for two minutes.
    """
    copy = home.root / STATE_COPY
    with _hold_copy(home):
        try:
            _make_copy(home)
            yield copy
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _make_copy(home: SiteFolder) -> None:
    try:
        with SqliteJournal(home.journal) as journal:
            copy_state(home, journal)
    except ChainError as error:
        if error.code != "CO-C320":
            raise
        request_copy(home, COPY_SECONDS)


@contextmanager
def _hold_copy(home: SiteFolder) -> Iterator[None]:
    """Keep other backups from the copy: who ends first would take it away while another one packs it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(FolderLock(home.root).hold())
        except InUse as error:
            message = f"Another backup of {home.name} keeps the copy of its state: {error}"
            raise ConfigError("CO-F503", f"{message}. Wait until it is done, and try again.") from None
        yield


def _pack(home: SiteFolder, state: Path, manifest: BackupManifest) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        text = json.dumps(asdict(manifest)).encode()
        info = tarfile.TarInfo(_MANIFEST)
        info.size, info.mode = len(text), 0o600
        tar.addfile(info, io.BytesIO(text))
        for path in _list_files(home):
            with suppress(FileNotFoundError):  # the daemon takes files away while it works, and puts others there
                _add_file(tar, path, str(path.relative_to(home.root)))
        for path in sorted(state.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(state)), recursive=False)
    return out.getvalue()


def _add_file(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file as it is when it is read, also where it grows meanwhile."""
    content, info = path.read_bytes(), tar.gettarinfo(path, name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _list_files(home: SiteFolder) -> list[Path]:
    rows = {path.resolve() for path in (home.data, home.exclude) if path is not None}
    state = {"journal.sqlite", "privacy"}
    files = []
    for path in sorted(home.root.rglob("*")):
        name = str(path.relative_to(home.root))
        left = any(name == part or name.startswith(part + "/") for part in LEFT_OUT) and name not in KEPT
        runs = path.name.endswith(RUNNING) or path.name in NAMES_OF_RUNNING
        if left or runs or name.split("/")[0] in state or path.resolve() in rows or path.is_symlink():
            continue
        if path.is_file():
            files.append(path)
    return files


def _open_sealed(file: Path, key: Key) -> bytes:
    try:
        sealed = read_bounded(file, MAX_BACKUP_BYTES)
    except OSError as error:
        raise ConfigError("CO-F206", f"The backup {file} cannot be read: {error.strerror or error}.") from None
    try:
        return key.open(sealed)
    except pyrage.DecryptError:
        raise _refuse("it is damaged, or its passphrase or key is another one") from None


def _unpack(archive: bytes, folder: Path) -> BackupManifest:
    """Files into a folder: the filter `data` lets none out of it, and makes no device and no link to elsewhere."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            room = min(MAX_BACKUP_BYTES, shutil.disk_usage(folder).free)
            for count, member in enumerate(tar):
                room -= member.size
                if room < 0 or count >= MAX_BACKUP_FILES:
                    raise _refuse("what it unpacks to is larger than any site, or than the room on this disk")
                if not (member.isfile() or member.isdir()):
                    raise _refuse(f"it holds {member.name[:80]!r}, which is no file")
                member.mode = 0o700 if member.isdir() else 0o600
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _refuse(f"its archive is not whole ({type(error).__name__})") from None
    text = _read_manifest(folder)
    manifest = BackupManifest.read(text)
    if find_node(folder).name != manifest.site:
        raise _refuse(f"its node.toml is of another site than {manifest.site!r}")
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (folder / _MANIFEST).unlink()
    write_private(folder / RESTORED, text.decode())
    return manifest


def _read_manifest(folder: Path) -> bytes:
    try:
        return (folder / _MANIFEST).read_bytes()
    except FileNotFoundError:
        raise _refuse("it has no manifest") from None


def _refuse(cause: str) -> ConfigError:
    return ConfigError("CO-F504", f"This is no backup that can be restored: {cause}. Name the file and what opens it.")
