"""A daemon after years: memory and start with a history of 100,000 records, on a chain node that is simulated.

    python benchmarks/long_history.py [STUDIES]

Studies of three sites with 25 records each (4,000 studies make 100,000 records), all completed, each decided on and
with a result in the site's folder. The simulated node answers in this process from the studies' numbers and keeps no
log, so that the memory is the daemon's. Each line is a process of its own: the first reads the whole chain, the second
starts on its file of the history, the third keeps the history in memory, as daemons did up to 0.2.0.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from eth_abi.abi import encode

from coterie_chain.ethereum.calldata import load_codec, to_hex
from coterie_chain.ethereum.decode import TERMS_TYPE
from coterie_chain.ethereum.entries.entry_file import EntryFile
from coterie_chain.ethereum.entries.entry_log import EntryLog, MemoryEntryLog
from coterie_chain.ethereum.network import Network
from coterie_chain.ethereum.reader import Reader
from coterie_chain.ethereum.rpc import Request, Rpc
from coterie_chain.keys.journal import MemoryJournal
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Event, Head, Mark, Record, SiteEntry, StudyView
from coterie_chain.ledger.readonly import ReadOnly
from coterie_chain.store.cid import RAW
from coterie_chain.store.protocol import MemoryBlobs
from coterie_node.cli.site.init import init_command
from coterie_node.site.daemon import Daemon, NodeServices
from coterie_node.site.decisions import DecisionFolder, make_decision
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.watch.log import EventLog

SITES = ("north", "south", "west")
ROUNDS = 6
STEPS = 2 * ROUNDS + 1
RECORDS = 4 * ROUNDS + 1
CATALOG = "0x" + "c0" * 20
NETWORK = Network("http://127.0.0.1:1", 20240, CATALOG, "0x" + "00" * 32, 0)
FOUNDED = 10
_CATALOG, _MODEL = load_codec("Catalog"), load_codec("Model")
TOPICS = {name: topic for topic, name in (_CATALOG.topics | _MODEL.topics).items()}


def digest(*words: object) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()


def word(value: int | bytes) -> bytes:
    return value.rjust(32, b"\0") if isinstance(value, bytes) else value.to_bytes(32)


def model_of(site: int) -> str:
    return "0x" + bytes([site] * 20).hex()


class SimulatedNode(Rpc):
    """A chain of `studies` completed studies, a block each, made up as it is asked for."""

    def __init__(self, studies: int) -> None:
        super().__init__(NETWORK.url)
        self._studies = studies
        self.asked = 0

    def call(self, method: str, *params: Any) -> Any:
        """The answer to one request."""
        self.asked += 1
        if method == "eth_getBlockByNumber":
            newest = FOUNDED + self._studies
            return self._block(newest if params[0] in ("latest", "pending") else int(params[0], 16))
        if method == "eth_getLogs":
            first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
            asked = set(params[0]["address"])
            logs = (log for number in range(first, last + 1) for log in self._logs(number))
            return [log for log in logs if log["address"] in asked]
        if method == "eth_blockNumber":
            return hex(FOUNDED + self._studies)
        return self._answer(params[0]["data"])

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """The answers to several."""
        return [self.call(method, *params) for method, params in requests]

    def _block(self, number: int) -> Any:
        now = hex(1_700_000_000 + 5 * number)
        return {
            "number": hex(number), "hash": to_hex(digest("block", number)),
            "parentHash": to_hex(digest("block", number - 1)), "timestamp": now,
        }  # fmt: skip

    def _answer(self, data: str) -> str:
        name = next(name for name in ("studyCount", "status", "terms", "seat") if _selector(name) == data[:10])
        if name == "studyCount":
            return to_hex(word(self._studies))
        number = int(data[10:74], 16)
        if name == "terms":
            return to_hex(encode([TERMS_TYPE], [self._terms(number)]))
        if name == "seat":
            text = SITES[number - 1].encode().ljust(32, b"\0")
            key = "0x" + bytes([number] * 20).hex()
            types = ["bytes32", "address", "bytes32", "bytes32", "address", "bool", "uint64"]
            return to_hex(encode(types, [text, key, bytes(32), bytes(32), model_of(number), True, 0]))
        values: list[int | bytes] = [4, RECORDS, 0, ROUNDS, 3, 0, 0, 0, True, 14, 14, 14, 0, bytes(32), 0, 0, 1, False]
        return to_hex(b"".join(word(v) for v in values))

    def _terms(self, number: int) -> tuple[object, ...]:
        return study_hash(number), bytes([1, 2, 3]), (b"\xff\xfe", b"\xff\xfe", b"\xfe"), ROUNDS, 600, 0, 1

    def _logs(self, number: int) -> Iterator[dict[str, Any]]:
        entries = self._found(number) if number <= FOUNDED else self._study(number - FOUNDED)
        block = self._block(number)
        for k, (address, topics, data) in enumerate(entries):
            yield {
                "address": address, "topics": topics, "data": to_hex(data), "blockNumber": block["number"],
                "blockHash": block["hash"], "blockTimestamp": block["timestamp"], "logIndex": hex(k),
                "transactionHash": to_hex(digest("tx", number, k)),
            }  # fmt: skip

    def _found(self, number: int) -> Iterator[tuple[str, list[str], bytes]]:
        if 1 <= number <= len(SITES):
            name, own = SITES[number - 1].encode().ljust(32, b"\0"), bytes([number] * 20)
            words = [name, word(own), bytes(32), bytes(32), word(own)]
            yield CATALOG, [TOPICS["SiteAdmitted"], to_hex(word(number))], b"".join(words)

    def _study(self, study: int) -> Iterator[tuple[str, list[str], bytes]]:
        head = [to_hex(word(study))]
        by = [to_hex(word(site)) for site in (1, 2, 3)]
        yield CATALOG, [TOPICS["StudyProposed"], *head, by[0]], encode([TERMS_TYPE], [self._terms(study)])
        for member in by:
            yield CATALOG, [TOPICS["StudyJoined"], *head, member], bytes(96)
        yield CATALOG, [TOPICS["StudyStarted"], *head], b""
        for position in range(STEPS):
            for site in _posters(position):
                yield self._record(study, position, site)
        yield CATALOG, [TOPICS["StudyCompleted"], *head], b""

    def _record(self, study: int, position: int, site: int) -> tuple[str, list[str], bytes]:
        number = (study - 1) * _count_records(site, STEPS) + _count_records(site, position) + 1
        kind = 0xFF if len(_posters(position)) > 1 else 0xFE
        words: list[int | bytes] = [kind, position // 2, study, position, 0, RAW, 1000, 0, digest(study, position)]
        words += [digest(what, study, position, site) for what in ("payload", "basis", "verdict", "head")]
        topics = [TOPICS["Recorded"], *(to_hex(word(value)) for value in (study, position, number))]
        return model_of(site), topics, b"".join(map(word, words))


def _selector(name: str) -> str:
    return _CATALOG.encode(name, *(() if name == "studyCount" else (1,)))[:10]


def _posters(position: int) -> tuple[int, ...]:
    return (1, 2, 3) if position % 2 == 0 and position < 2 * ROUNDS else (1 + position % 3,)


def _count_records(site: int, until: int) -> int:
    return sum(site in _posters(position) for position in range(until))


def study_hash(number: int) -> bytes:
    return digest("study", number)


class ReadingLedger(ReadOnly):
    """What a daemon reads of the simulated chain."""

    def __init__(self, studies: int, log: EntryLog) -> None:
        self.node = SimulatedNode(studies)
        self._reader = Reader(self.node, NETWORK, confirmations=0, poll=0.5, clock="latest", log=log)

    def now(self) -> int:
        return self._reader.now()

    def sites(self) -> tuple[SiteEntry, ...]:
        return self._reader.sites()

    def studies(self) -> tuple[int, ...]:
        return self._reader.studies()

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        return self._reader.list_proposals(after)

    def view(self, study: int) -> StudyView:
        return self._reader.view(study)

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        return self._reader.read_finished(study, position)

    def history(self, study: int | None = None) -> Iterator[Record | Event]:
        return self._reader.history(study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Record | Event, ...]]:
        return self._reader.read_new(mark)

    def heads(self) -> dict[str, Head]:
        return self._reader.heads()

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        return self._reader.list_voters(motion)

    def read_successor(self) -> str:
        return self._reader.read_successor()

    def wait(self, seconds: float) -> None:
        self._reader.wait(seconds)


def make_home(root: Path, studies: int) -> SiteFolder:
    """A site's folder with a decision and a result for each study."""
    init_command(root, "north", "data.csv", NETWORK.url, "folder:store", port=0, light=True)
    home = find_node(root)
    decisions = DecisionFolder(root / "decisions")
    decisions.root.mkdir(exist_ok=True)
    home.results.mkdir(exist_ok=True)
    filler = [[0.123456789] * 20] * 20
    for number in range(1, studies + 1):
        study = study_hash(number).hex()
        text = make_decision(study_hash(number), "approve").model_dump_json()
        (decisions.root / f"{study}.0000.json").write_text(text)
        result = {"study": number, "hash": study, "name": "s", "network": NETWORK.scope, "fit": filler}
        (home.results / f"{number}.json").write_text(json.dumps(result))
    return home


def measure(root: Path, kind: str, studies: int) -> None:
    """Start a daemon, tick until nothing is left, and print what it took."""
    home, process = find_node(root), psutil.Process()
    keys = SiteKeys.of(bytes(31) + b"\1", bytes(31) + b"\2")
    before, start, cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
    log: EntryLog = MemoryEntryLog() if kind == "memory" else EntryFile(home.history, NETWORK.scope)
    ledger = ReadingLedger(studies, log)
    services = NodeServices(
        home=home, keys=keys, network=NETWORK, ledger=ledger, blobs=MemoryBlobs(), journal=MemoryJournal(),
        log=EventLog(open("/dev/null", "w")),  # noqa: SIM115
    )  # fmt: skip
    daemon = Daemon(services)
    daemon.tick()
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    asked, memory = ledger.node.asked, process.memory_info().rss - before
    begun = time.process_time()
    for _ in range(10):
        daemon.tick()
    tick = (time.process_time() - begun) / 10
    states = {task.phase for task in daemon.tasks.values()}
    size = home.history.stat().st_size / 2**20 if home.history.exists() else math.nan
    print(
        f"| {kind} | {studies * RECORDS:,} | {wall:.1f} ({spent:.1f}) | {asked:,} | {memory / 2**20:.0f} "
        f"| {tick * 1000:.0f} | {size:.0f} | {', '.join(sorted(states))} |",
        flush=True,
    )


def main() -> None:
    """Measure each way in a process of its own."""
    if len(sys.argv) == 4:
        return measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print(
        "| history | records | start: wall (CPU) s | requests | MiB above the start | ms a tick | file MiB | states |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="coterie-history-") as folder:
        root = Path(folder) / "north"
        make_home(root, studies)
        for kind in ("first", "file", "memory"):
            subprocess.run([sys.executable, __file__, str(root), kind, str(studies)], check=True)
    return None


if __name__ == "__main__":
    main()
