"""Three nodes of `coterie init` on one Anvil, each with a daemon of its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.node.commands import run
from support.node.houses import SITES, write_rows

from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_node.site.invitation import Invitation

PATIENCE = 90.0


class CommandNetwork:
    """Three nodes' folders on one Anvil, and the processes of their daemons."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for k, name in enumerate(SITES):
            store = f"folder:{root / 'store'}"
            run("init", root / name, "--site", name, "--chain", url, "--store", store, "--port", 0, "--light")
            write_rows(root / name / "data.csv", k)
        # More than half of west's rows lack a value.
        with (root / "west" / "data.csv").open("a") as file:
            file.write("1,0.5,\n" * 150)

    def join_all(self) -> None:
        """Found the network, and let the others join by its invitation."""
        invitation = self.create_network()
        for name in SITES[1:]:
            run("join", invitation, *self.node(name), "--fingerprint", Invitation.load(invitation).fingerprint)

    def kill(self, name: str) -> None:
        """End a daemon without a word, and start it again."""
        self.processes[name].kill()
        self.processes.pop(name).wait()
        self.serve(name)

    def create_network(self) -> Path:
        """Deploy the Catalog with all cards, and let the first site invite the others."""
        cards = [json.loads((self.root / name / "card.json").read_text()) for name in SITES]
        entries = [
            SiteEntry(k, c["name"], c["address"], bytes.fromhex(c["sealing"][2:])) for k, c in enumerate(cards, 1)
        ]
        network = deploy(self.url, entries)
        (self.root / "north" / "network.json").write_text(network.to_json())
        invitation = self.root / "invitation.json"
        invitation.write_text(run("invite", "--node", self.root / "north", "--title", "trial"))
        return invitation

    def node(self, name: str) -> tuple[str, Path]:
        return "--node", self.root / name

    def serve(self, name: str) -> None:
        log = (self.root / name / "log.jsonl").open("a")
        command = [sys.executable, "-m", "coterie_node", "serve", "--node", str(self.root / name)]
        self.processes[name] = subprocess.Popen(command, stderr=log, text=True)
        log.close()

    def log(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / name / "log.jsonl").read_text().splitlines()]

    def until(self, what: str, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = [n for n, p in self.processes.items() if p.poll() is not None]
            assert not ended, f"{ended} ended: {self.log(ended[0])[-3:]}"
            assert time.monotonic() < deadline, f"not in time: {what}"
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
