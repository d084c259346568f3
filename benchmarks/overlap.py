"""Time of a GLORE round on a chain whose blocks take time, with overlap of rounds and without.

`.venv/bin/python benchmarks/overlap.py`: three sites as threads of this process on an Anvil with a block every two
seconds (COTERIE_BENCH_PERIOD), their real ledger handles, a memory store. Rounds are counted by the chain's clock.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time
from itertools import pairwise

import numpy as np

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Record, SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.core.protocol import Machine
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import site_of
from coterie_node.run.study_files import study_terms
from coterie_node.run.supervisor import Supervisor

PERIOD = float(os.environ.get("COTERIE_BENCH_PERIOD", "2"))
STUDIES = int(os.environ.get("COTERIE_BENCH_STUDIES", "3"))
SITES = ("north", "south", "west")
TEXT = """
name = "overlap"
sites = ["north", "south", "west"]
formula = "y ~ x"
[learner]
name = "glore"
[variables.y]
type = "binary"
[variables.x]
type = "number"
range = [-5, 5]
"""


def main() -> None:
    """One line for each way."""
    keys = {name: SiteKeys.of(*(hashlib.sha256(f"{k} {name}".encode()).digest() for k in "ab")) for name in SITES}
    entries = [SiteEntry(k, name, s.address, s.sealing) for k, (name, s) in enumerate(keys.items(), 1)]
    with Anvil(block_time=PERIOD) as anvil, Rpc(anvil.url) as rpc:
        network = deploy(anvil.url, entries)
        for site in keys.values():
            rpc.call("anvil_setBalance", site.address, hex(10**18))
        for overlap in (False, True):
            gaps_by_study = [time_rounds(network, keys, entries, overlap) for _ in range(STUDIES)]
            gaps = [gap for study in gaps_by_study for gap in study]
            print(
                f"overlap {'on ' if overlap else 'off'}: {len(gaps)} rounds, median {statistics.median(gaps):.2f} s, "
                f"mean {statistics.mean(gaps):.2f} s, worst {max(gaps):.1f} s (period {PERIOD:g} s); "
                f"transactions in vain so far: {count_reverted(rpc)}"
            )


def time_rounds(network: Network, keys: dict[str, SiteKeys], entries: list[SiteEntry], overlap: bool) -> list[float]:
    """Seconds between the server posts of one study."""
    study = complete_study(Study.from_toml(TEXT))
    ledgers = {name: EthereumLedger(network, site.account) for name, site in keys.items()}
    first, *others = ledgers.values()
    number = first.propose(study_terms(study))
    joins = [threading.Thread(target=ledger.join, args=(number, study.hash)) for ledger in others]
    for thread in joins:
        thread.start()
    for thread in joins:
        thread.join()
    blobs, stamps = MemoryBlobs(), list[float]()

    def make_runner(name: str) -> Runner:
        site = site_of(study, name, rows_of(study, SITES.index(name)), keys[name], entries, str(number))
        codec = PayloadCodec(study, name, keys[name], {e.name: e.sealing for e in entries})
        ledger = ledgers[name]
        machine = Machine(learner_of(study).script, site)
        return Runner(machine, ledger, blobs, number, codec, ahead=ledger.pipelined if overlap else None)

    def attend(name: str) -> None:
        attendance = Supervisor(lambda: make_runner(name))
        while not attendance.done:
            if not attendance.tick():
                ledgers[name].wait(0.5)

    crew = [threading.Thread(target=attend, args=(name,)) for name in SITES]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    stamps = [e.time for e in first.history(number) if isinstance(e, Record) and e.kind == "server"]
    for ledger in ledgers.values():
        ledger.close()
    return [later - earlier for earlier, later in pairwise(stamps)]


def rows_of(study: Study, seed: int) -> ArrayRows:
    """A site's simulated rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=500).clip(-4, 4)
    y = (rng.random(500) < 1 / (1 + np.exp(-3 * x))).astype(float)
    block = Design(study).block({"y": y, "x": x})
    return ArrayRows(block.x, block.y)


def count_reverted(rpc: Rpc) -> int:
    """How many transactions were mined in vain."""
    reverted = 0
    for number in range(rpc.call_quantity("eth_blockNumber") + 1):
        hashes = rpc.call("eth_getBlockByNumber", hex(number), False)["transactions"]
        reverted += sum(rpc.call("eth_getTransactionReceipt", tx)["status"] != "0x1" for tx in hashes)
    return reverted


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s in all")
