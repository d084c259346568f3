"""Files that other programs of a site read are whole or not there, also where the disk is full for a moment."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.node.founded_sites import FoundedSites
from support.node.houses import NodeNetwork
from support.node.persons import add_persons, join_network, sign_as

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.private_files import replace_private
from coterie_node.network.founding import keep_cards
from coterie_node.network.membership.known_members import read_cards
from coterie_node.persons.acts import ActKind, SignedAct
from coterie_node.privacy.files import folder_lock
from coterie_node.privacy.files.folder_lock import FolderLock
from coterie_node.release.approval import ApprovalFolder
from coterie_node.site.decisions import DecisionFolder, make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.run_folder import RunFolder, RunSettings
from coterie_node.site.statements.approvals import ActSubject
from coterie_node.verbs.signing import record_decision

DIGEST = "ab" * 32


@contextmanager
def full_disk() -> Iterator[None]:
    """No file takes another byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail_then_try_again(write: Callable[[], object], folder: Path) -> None:
    """Write on a full disk, which leaves everything as it was, and then where there is room."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="File too large"), full_disk():
        write()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    write()


def test_a_yes_to_a_release_is_whole_or_none(tmp_path: Path) -> None:
    """The daemon took an empty yes for one to another payload, and removed it: the person had to say it again."""
    (tmp_path / "3-0.json").write_text(json.dumps({"payload_digest": DIGEST}))
    folder = ApprovalFolder(tmp_path)
    fail_then_try_again(lambda: folder.approve(DIGEST), tmp_path)
    assert (tmp_path / "3-0.yes").read_text() == DIGEST + "\n"
    assert folder.count_waiting() == 0


def test_a_founder_s_card_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    sites = FoundedSites(tmp_path)
    folder = sites.root / "north"
    fail_then_try_again(lambda: keep_cards(folder, sites.cards), folder / "founders")
    assert sorted(read_cards(folder)) == ["north", "south", "west"]


def test_a_network_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    place, settings = RunFolder(tmp_path), RunSettings("running", "folder", ("north",))
    old, new = (Network(f"http://127.0.0.1:{port}", 1, "0x" + "12" * 20, "0x" + "00" * 32, 0) for port in (1, 2))
    place.save(settings, old)
    fail_then_try_again(lambda: place.save(settings, new), tmp_path)
    assert place.network() == new


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    fail_then_try_again(lambda: replace_private(tmp_path / "a", "new"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"


def test_decisions_that_page_and_commands_write_at_once_are_all_kept(tmp_path: Path) -> None:
    """Two got the same number, and the second took the first one's place: a refusal could be lost."""
    study, begin = bytes(32), threading.Barrier(6)

    def decide(number: int) -> None:
        folder = DecisionFolder(tmp_path / "decisions")
        begin.wait()
        for turn in range(4):
            folder.record(make_decision(study, "decline", reason=f"{number} {turn}"))

    writers = [threading.Thread(target=decide, args=(number,)) for number in range(begin.parties)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    files = sorted((tmp_path / "decisions").glob("*.json"))
    assert {json.loads(file.read_text())["reason"] for file in files} == {
        f"{n} {t}" for n in range(6) for t in range(4)
    }
    assert DecisionFolder(tmp_path / "decisions").count(study) == 24


def test_a_program_that_keeps_the_decisions_is_named_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "LOG_LOCK_SECONDS", 0.1)
    folder = DecisionFolder(tmp_path / "decisions")
    with FolderLock(folder.root).hold(), pytest.raises(StoreFault, match="another program has kept it") as refused:
        folder.record(make_decision(bytes(32), "decline"))
    assert refused.value.code == "CO-C204"
    assert folder.count(bytes(32)) == 0
    folder.record(make_decision(bytes(32), "decline"))
    assert folder.count(bytes(32)) == 1


PERSONS = ("Ada Berg", "Bo Lind", "Cy Dahl", "Di Frost")


@dataclass
class SigningTogether:
    """A person who signs, and then waits for the others, so that all decisions are written at one moment."""

    name: str
    together: threading.Barrier

    def sign(self, home: SiteFolder, act: ActKind, subject: ActSubject) -> SignedAct:
        signed = sign_as(home, self.name, subject, int(time.time()), "approve")
        self.together.wait()
        return signed


def test_persons_who_sign_at_once_keep_each_other_s_signatures(node_network: NodeNetwork) -> None:
    home = add_persons(node_network.homes["south"], int(time.time()) - 60, *PERSONS)
    join_network(home)
    together = threading.Barrier(len(PERSONS))

    def sign(name: str) -> None:
        record_decision(home, make_decision(bytes(32), "approve"), SigningTogether(name, together))

    with ThreadPoolExecutor(len(PERSONS)) as pool:
        list(pool.map(sign, PERSONS))
    latest = home.decisions.latest(bytes(32))
    assert latest is not None
    assert sorted(act.text.name for act in latest.signatures) == list(PERSONS)
