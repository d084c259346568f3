"""A demo's network on a real Anvil whose sites run in the test's process, so that one of them can be made to cheat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_chain.proof.evidence import gather
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_node.audit.bundle import Bundle, collect, files_of
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.glore import CASE
from coterie_node.demo.run import founders, prepare
from coterie_node.run.runner import Runner
from coterie_node.site.participant import Node, enter, make_site_runner, open_node
from coterie_node.site.run_folder import RunFolder, RunSettings

SITES = ("north", "south", "west")
Found = Callable[[str, tuple[SiteEntry, ...]], Network]


class Run:
    """Three sites on an Anvil, with the rows, the study and the keys of the demo."""

    def __init__(self, folder: Path, anvil: Anvil, found: Found = deploy, case: Case = CASE) -> None:
        self.place = RunFolder(folder)
        prepare(self.place, case, SITES)
        self.network = found(anvil.url, founders(self.place, SITES))
        self.place.save(RunSettings("running", "folder:store"), self.network)
        approved = hashlib.sha256((folder / "study.json").read_bytes()).hexdigest()
        self.nodes: dict[str, Node] = {n: open_node(self.place, n, approved, lambda _: None) for n in SITES}
        self.number = 0

    def start(self) -> dict[str, Runner]:
        """All sites join; returns their runners."""
        self.number = {enter(node) for node in self.nodes.values()}.pop()
        return {name: make_site_runner(node, self.number) for name, node in self.nodes.items()}

    def finish(self) -> None:
        """Run the study to its end."""
        runners = self.start()
        while not all(r.done for r in runners.values()):
            for runner in runners.values():
                runner.turn()

    def until(self, runners: dict[str, Runner], position: int) -> None:
        """Let the sites take turns until a position is open."""
        ledger = self.nodes[SITES[0]].ledger
        while (view := ledger.view(self.number)).open is None or view.open.position < position:
            for runner in runners.values():
                runner.turn()

    def bundle(self) -> Bundle:
        """A bundle of the study as it is now."""
        with ExitStack() as stack:
            ledger = stack.enter_context(EthereumLedger(self.network))
            evidence = gather(ledger.network)
        return collect(self.network, evidence, VerifiedLedger(evidence), self.place.blobs(), self.number)

    def files(self) -> dict[str, bytes]:
        """That bundle's files."""
        return files_of(self.bundle())

    def close(self) -> None:
        """Close journals and connections."""
        for node in self.nodes.values():
            node.ledger.close()  # type: ignore[attr-defined]
            node.journal.close()
