"""What a study costs on disk, by learner, from bundles of the demos: `python benchmarks/disk.py FOLDER`.

`make previous COMMIT=58c2c416 INTO=FOLDER` makes such a folder. Payloads are what each site's store keeps. Transactions
and receipts are what each chain node keeps for good besides its blocks. A row of `history.sqlite` is the daemon's
own copy of an entry, with its indexes. The journal does not grow: it keeps 64 transactions and some bytes for each run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from coterie_chain.ethereum.entries.entry_file import EntryFile
from coterie_chain.ethereum.entries.entry_log import Entry, Extent
from coterie_chain.ledger.protocol import Record
from coterie_chain.proof.receipts import Body
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_node.audit.bundle import load_bundle

# Bytes of the longest transaction of an entry; the deployment of the contracts is longer.
MAX_MOVE = 4_000


def main() -> None:
    """Print a line for each bundle."""
    print("| learner | records | entries | payloads, kB | moves, kB | history, kB | 1,000 studies, MB |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(Path(sys.argv[1]).glob("*.zip")):
        print(describe(path), flush=True)


def describe(path: Path) -> str:
    """The line of one bundle."""
    bundle = load_bundle(path)
    number = bundle.manifest.study.number
    entries = list(VerifiedLedger(bundle.evidence, number).history(number))
    payloads = sum(map(len, bundle.blocks.values())) / 1e3
    bodies = [Body.decode(raw) for raw in bundle.evidence.bodies]
    # The deployment is on the chain once, in the first transactions: those of entries are of some hundred bytes.
    chain = (
        sum(len(part) for body in bodies for part in (*body.transactions, *body.receipts) if len(part) < MAX_MOVE) / 1e3
    )
    history = measure_history(entries) / 1e3
    records = sum(isinstance(entry, Record) for entry in entries)
    return (
        f"| {path.stem} | {records} | {len(entries)} | {payloads:.0f} | {chain:.0f} | {history:.0f} "
        f"| {payloads + chain + history:.0f} |"
    )


def measure_history(entries: Sequence[Entry]) -> float:
    """Bytes that the file of the history grows by, from two hundred times these entries."""
    times = 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.sqlite"
        file = EntryFile(path, "scope")
        for _ in range(times):
            file.extend(entries, Extent())
        file.close()
        return path.stat().st_size / times


if __name__ == "__main__":
    main()
