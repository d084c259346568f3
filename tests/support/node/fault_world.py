"""One site with everything around it that the doctor asks, nothing of which is wrong until a test plants a fault.

Real are the folder, its keys and files, and the contracts on Anvil. Geth's port and socket, Kubo's RPC and peer port,
and the other sites' ports are small servers at the byte seam, which a test may close or change.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from support.chain.kubo_server import KuboServer, serve_kubo
from support.node.founded_sites import FoundedSites

from coterie_chain.ethereum.network import Network
from coterie_chain.network.peers import read_enode_key
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.checks.check_result import CheckResult
from coterie_node.network.checks.examine import examine
from coterie_node.network.founding import FOUNDERS
from coterie_node.network.guided_founding import OWN_CARD
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import NETWORK, find_node
from coterie_node.site.watch.api import HttpApi
from coterie_node.site.watch.health import Health

PRIVATE, PUBLIC = b"", b"\x13/multistream/1.0.0\n\x13/noise"


@contextmanager
def greet(first: bytes) -> Iterator[int]:
    """A port that says these bytes to who comes, or the nonce of a private swarm; its number."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller, suppress(OSError):
                        caller.sendall(first or os.urandom(24))

        threading.Thread(target=run, daemon=True).start()
        yield int(server.getsockname()[1])
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


class GethPort:
    """Geth's authenticated port before a chain on Anvil: Clique of three sealers, with a newest block of some age."""

    def __init__(self, honest: str, secret: bytes, sealers: list[str]) -> None:
        self.honest, self.secret, self.age = honest, secret, 2.0
        self.extra = "0x" + "00" * 32 + "".join(s[2:].lower() for s in sorted(sealers)) + "00" * 65
        self.genesis = ""
        self.port = 0

    def is_allowed(self, header: str) -> bool:
        """Whether a token was signed with the secret and is a minute old at most."""
        signed, _, seal = header.removeprefix("Bearer ").rpartition(".")
        wanted = base64.urlsafe_b64encode(hmac.digest(self.secret, signed.encode(), "sha256")).rstrip(b"=")
        if not hmac.compare_digest(seal.encode(), wanted):
            return False
        body = signed.partition(".")[2]
        issued = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["iat"]
        return abs(time.time() - float(issued)) < 60

    def answer(self, body: bytes) -> bytes:
        """What the chain says, as a Geth would."""
        asked = json.loads(body)
        batch = asked if isinstance(asked, list) else [asked]
        mine = [self.refuse(q) for q in batch if not q["method"].startswith("eth_")]
        rest = [q for q in batch if q["method"].startswith("eth_")]
        answers = [*mine, *(self.pass_on(rest) if rest else [])]
        return json.dumps(answers if isinstance(asked, list) else answers[0]).encode()

    def refuse(self, question: dict[str, Any]) -> dict[str, Any]:
        """The port serves eth_* only."""
        error = {"code": -32601, "message": f"the method {question['method']} does not exist/is not available"}
        return {"jsonrpc": "2.0", "id": question["id"], "error": error}

    def pass_on(self, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Ask Anvil; blocks look as if sealers had made them."""
        request = urllib.request.Request(
            self.honest, json.dumps(questions).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answers: list[dict[str, Any]] = json.loads(response.read())
        methods = {q["id"]: q for q in questions}
        for answer in answers:
            question = methods[answer["id"]]
            if question["method"] == "eth_getBlockByNumber" and isinstance(answer.get("result"), dict):
                self.disguise(answer["result"])
        return answers

    def disguise(self, block: dict[str, Any]) -> None:
        """Make of Anvil's block one of Clique."""
        if int(block["number"], 16) == 0:
            block["extraData"], block["hash"] = self.extra, self.genesis or block["hash"]
        else:
            block["timestamp"] = hex(int(time.time() - self.age))


@contextmanager
def serve_geth(node: GethPort) -> Iterator[GethPort]:
    """The port, `node.port`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            allowed = node.is_allowed(self.headers.get("Authorization", ""))
            content = node.answer(body) if allowed else b"signature is invalid\n"
            with suppress(ConnectionError):
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        node.port = server.server_port
        yield node
        server.shutdown()


@contextmanager
def serve_socket(path: Path, answers: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Geth's administrator socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def run() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller, suppress(OSError, ValueError):
                        asked = json.loads(caller.recv(1 << 16))
                        replies = [{"id": q["id"], "result": answers()[q["method"]]} for q in asked]
                        caller.sendall(json.dumps(replies).encode())

        threading.Thread(target=run, daemon=True).start()
        yield
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


class SwarmKubo(KuboServer):
    """A Kubo that names its peers and its own address."""

    peer = ""
    peers: tuple[str, ...] = ()
    swarm_port = 0

    def answer(self, command: str, query: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        if command == "swarm/peers":
            return 200, json.dumps({"Peers": [{"Peer": peer, "Addr": "/ip4/1/tcp/1"} for peer in self.peers]}).encode()
        if command == "id":
            return 200, json.dumps(
                {"ID": self.peer, "Addresses": [f"/ip4/127.0.0.1/tcp/{self.swarm_port}/p2p/{self.peer}"]}
            ).encode()
        return super().answer(command, query, body)


class FaultWorld:
    """North in a network of three; `plant` what is wrong, and `examine` it."""

    def __init__(self, root: Path, anvil: str, network: Network, stack: ExitStack) -> None:
        self.sites, self.root, self.stack = FoundedSites(root), root / "north", stack
        self.health = Health("north", version("coterie"))
        secret = bytes.fromhex((self.root / "geth" / "jwt.hex").read_text().strip())
        self.geth_stack, self.kubo_stack = stack.enter_context(ExitStack()), stack.enter_context(ExitStack())
        sealers = [card.sealer for card in self.sites.cards]
        self.geth = self.geth_stack.enter_context(serve_geth(GethPort(anvil, secret, sealers)))
        self.kubo = SwarmKubo(token=(self.root / "kubo" / "token").read_text().strip())
        self.kubo_stack.enter_context(serve_kubo(self.kubo))
        self.kubo.peer = self.sites.cards[0].peer
        self.kubo.peers = tuple(card.peer for card in self.sites.cards[1:])
        self.greet_with(PRIVATE)
        self.chain_peers = [card.enode for card in self.sites.cards[1:]]
        self._open_socket()
        self.others = stack.enter_context(ExitStack())
        self._move_others()
        self._start_daemon()
        (self.root / NETWORK).write_text(network.to_json())
        (self.root / "data.csv").write_text("a\n1\n")
        self.change(f"127.0.0.1:{self.ports['rpc']}", f"127.0.0.1:{self.geth.port}")
        self.change(f"127.0.0.1:{self.ports['store']}", self.kubo.url.removeprefix("http://"))

    @property
    def ports(self) -> dict[str, int]:
        """The ports of the site's folder."""
        ports: dict[str, int] = json.loads((self.root / "ports.json").read_text())
        return ports

    def change(self, old: str, new: str) -> None:
        """Change a text in node.toml."""
        path = self.root / CONFIG
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    def change_network(self, **fields: object) -> None:
        """Change network.json."""
        path = self.root / NETWORK
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def greet_with(self, first: bytes) -> None:
        """Let the store's peer port say these bytes."""
        self.kubo.swarm_port = self.stack.enter_context(greet(first))

    def take_from(self, site: str, name: str) -> None:
        """Put another site's file in the place of this one's."""
        shutil.copy(self.sites.root / site / name, self.root / name)

    def pull_cable(self) -> None:
        """No peer is connected any more, and no port of another site answers."""
        self.chain_peers, self.kubo.peers = [], ()
        self.others.close()

    def examine(self) -> dict[str, CheckResult]:
        """What the doctor says, by check; settings that cannot be read are the one row that there is."""
        try:
            return {result.check: result for result in examine(find_node(self.root))}
        except ConfigError as error:
            return {"node.toml": CheckResult("node.toml", False, error.code, error.message)}

    def _open_socket(self) -> None:
        # A unix socket's path is short, and a test's folder is not.
        folder = Path(tempfile.mkdtemp(prefix="coterie-"))
        self.stack.callback(shutil.rmtree, folder)
        own = self.sites.cards[0].enode
        self.stack.enter_context(serve_socket(folder / "geth.ipc", lambda: self._answer_socket(own)))
        self.change('ipc = "geth/geth.ipc"', f'ipc = "{folder / "geth.ipc"}"')

    def _answer_socket(self, own: str) -> dict[str, Any]:
        return {"admin_peers": [{"enode": enode} for enode in self.chain_peers], "admin_nodeInfo": {"enode": own}}

    def _move_others(self) -> None:
        """The other sites' ports are on this machine."""
        for card in self.sites.cards[1:]:
            chain, swarm = (self.others.enter_context(greet(PRIVATE)) for _ in range(2))
            enode = f"enode://{read_enode_key(card.enode)}@127.0.0.1:{chain}?discport=0"
            moved = replace(card, enode=enode, swarm=f"/ip4/127.0.0.1/tcp/{swarm}")
            (self.root / FOUNDERS / f"{card.site}.json").write_text(moved.to_json())

    def _start_daemon(self) -> None:
        api = HttpApi("127.0.0.1", 0, "token", health=lambda: self.health, metrics=bytes, status=list)
        self.stack.enter_context(api)
        self.change(f"port = {self.ports['health']}", f"port = {api.port}")


@contextmanager
def open_world(root: Path, anvil: str, network: Network) -> Iterator[FaultWorld]:
    """A world in order."""
    with ExitStack() as stack:
        world = FaultWorld(root, anvil, network, stack)
        assert Kubo(world.root / "kubo").peer == world.kubo.peer
        assert (world.root / OWN_CARD).exists()
        yield world
