"""A private IPFS swarm of this machine: one Kubo per site, each with a token of its own, peers named one by one."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from coterie_chain.errors import StoreFault
from coterie_chain.http_client import WIRE_FAULTS, Answer, HttpClient, Waits, encode_query
from coterie_chain.keys.private_files import read_private, replace_private, supply_private
from coterie_chain.network.peers import list_neighbours
from coterie_chain.network.programs.executables import IPFS
from coterie_chain.network.programs.kubo import (
    ENVIRONMENT,
    build_daemon_arguments,
    build_kubo_config,
    create_identity,
    create_swarm_key,
    format_multiaddr,
)
from coterie_chain.network.programs.ports import LOOPBACK, read_ports, reserve_for_all
from coterie_chain.network.programs.service import Service, explain_early_end, scale_wait
from coterie_chain.store.kubo_files import RepoBlobs
from coterie_chain.store.kubo_rpc import build_headers, read_peer_ids
from coterie_chain.store.protocol import BlobStore

_READY_TIMEOUT = 60.0
_INIT_TIMEOUT = 60.0
_WAITS = Waits(connect=3.0, silence=10.0, answer=10.0)
_MAX_ANSWER_BYTES = 1 << 20
_PORT_NAMES = ("swarm", "api")


@dataclass(frozen=True)
class Kubo:
    """One site's Kubo in its folder."""

    folder: Path

    @property
    def repo(self) -> Path:
        """Kubo's own data."""
        return self.folder / "repo"

    @property
    def token(self) -> Path:
        """The token that opens its RPC."""
        return self.folder / "token"

    @property
    def config(self) -> Path:
        """Its configuration, which the repository gets a copy of."""
        return self.folder / "config.json"

    @property
    def key(self) -> Path:
        """The swarm's key."""
        return self.repo / "swarm.key"

    @property
    def identity(self) -> Path:
        """Its id among peers, and the key of that."""
        return self.folder / "identity.json"

    @property
    def ports(self) -> Path:
        """Which ports it listens on."""
        return self.folder / "ports.json"

    @property
    def peer(self) -> str:
        """Its peer id."""
        return str(json.loads(read_private(self.identity, "the peer's key"))["PeerID"])

    @property
    def api(self) -> str:
        """Address of its RPC."""
        return f"http://{LOOPBACK}:{read_ports(self.ports).get('api', 0)}"

    @property
    def environment(self) -> dict[str, str]:
        """What the program must find in its environment."""
        return {**ENVIRONMENT, "IPFS_PATH": str(self.repo.absolute())}

    def create(self, key: str) -> None:
        """Make what it lacks: the swarm's key, which is this one, a token of its own, and last its identity."""
        self.repo.mkdir(parents=True, mode=0o700, exist_ok=True)
        supply_private(self.key, lambda: key)
        supply_private(self.token, lambda: secrets.token_urlsafe(32) + "\n")
        supply_private(self.identity, lambda: json.dumps(create_identity()) + "\n")

    def join(self, key: str) -> None:
        """Change into the swarm of another key."""
        replace_private(self.key, key)

    def listen(self, swarm: str, api: str, peers: Mapping[str, str]) -> None:
        """Write the configuration: where peers and this site reach it, and the only peers it talks to."""
        settings = build_kubo_config(
            json.loads(read_private(self.identity, "the peer's key")),
            swarm=swarm,
            api=api,
            token=read_private(self.token, "the token file").strip(),
            peers=peers,
        )
        # It holds the peer's key and the token.
        replace_private(self.config, json.dumps(settings, indent=2) + "\n")


class KuboSwarm:
    """The store of a development network; a Launcher of `devnet`."""

    def __init__(self, root: Path, sites: Sequence[str]) -> None:
        self._nodes = {name: Kubo(root / "sites" / name / "kubo") for name in sites}

    def prepare(self) -> None:
        """Make each site's repository and token, and one key for all."""
        key = create_swarm_key()
        for node in self._nodes.values():
            node.create(key)
        self._assign_ports()
        for node in self._nodes.values():
            _initialise(node)

    def start(self) -> None:
        """Start every Kubo that does not run; returns when all of them are connected to all their peers."""
        if not any(service.pid for service in self.services().values()):
            self._assign_ports()
        for service in self.services().values():
            service.start()
        for site, service in self.services().items():
            self._join(site, service)

    def stop(self) -> None:
        """End every Kubo."""
        for service in self.services().values():
            service.stop()

    def services(self) -> dict[str, Service]:
        """Each site's Kubo."""
        return {
            name: Service("kubo", node.folder, IPFS.find, build_daemon_arguments(), node.environment)
            for name, node in self._nodes.items()
        }

    def url(self, site: str) -> str:
        """Address of a site's own daemon, as `open_store` reads it."""
        node = self._nodes[site]
        return f"kubo+{node.api}?token_file={node.token.absolute()}"

    def facts(self, site: str) -> dict[str, int]:
        """Numbers of peers and of blocks."""
        with self._open_client(site) as client, suppress(*WIRE_FAULTS, ValueError, KeyError):
            return {"peers": count_peers(client), "blocks": int(_read_object(_ask(client, "repo/stat"))["NumObjects"])}
        return {}

    def open_reader(self) -> BlobStore:
        """What all sites' repositories hold, read as files: needs no daemon, changes nothing, checks every block."""
        return RepoBlobs(node.repo for node in self._nodes.values())

    def _assign_ports(self) -> None:
        files = [node.ports for node in self._nodes.values()]
        ports = dict(zip(self._nodes, reserve_for_all(files, _PORT_NAMES), strict=True))
        addresses = {
            name: (node.peer, format_multiaddr(LOOPBACK, ports[name]["swarm"])) for name, node in self._nodes.items()
        }
        for name, node in self._nodes.items():
            peers = dict(addresses[other] for other in self._list_peers(name))
            node.listen(addresses[name][1], format_multiaddr(LOOPBACK, ports[name]["api"]), peers)
            if (node.repo / "version").exists():
                replace_private(node.repo / "config", node.config.read_text())

    def _list_peers(self, site: str) -> list[str]:
        """A site's peers: of many Kubos of one machine only some.

        A payload that all sites fetch comes over them. A Kubo passes nothing on that its own site did not fetch: a
        study of a few sites that are no neighbours gets no payloads.
        """
        names = list(self._nodes)
        return [names[place] for place in list_neighbours(names.index(site), len(names))]

    def _join(self, site: str, service: Service) -> None:
        """Connect a site to its peers at once, as Kubo's own peering takes seconds to do."""
        others = {name: self._nodes[name] for name in self._list_peers(site)}
        with self._open_client(site) as client:
            within = scale_wait(_READY_TIMEOUT, len(self._nodes))
            _await_ready(service, lambda: _ask(client, "id").status == 200, within)
            for other in others.values():
                port = read_ports(other.ports)["swarm"]
                # A daemon that does not answer in time connects by itself; the wait names the sites that it lacks.
                with suppress(*WIRE_FAULTS):
                    _ask(client, "swarm/connect", {"arg": f"{format_multiaddr(LOOPBACK, port)}/p2p/{other.peer}"})
            await_peers(site, client, {other.peer: name for name, other in others.items()}, within)

    def _open_client(self, site: str) -> HttpClient:
        node = self._nodes[site]
        token = read_private(node.token, "the token file").strip()
        return HttpClient(node.api, _WAITS, build_headers(token))


def count_peers(client: HttpClient) -> int:
    """How many peers a daemon is connected to."""
    return len(_read_object(_ask(client, "swarm/peers")).get("Peers") or ())


def _ask(client: HttpClient, command: str, params: Mapping[str, str] | None = None) -> Answer:
    return client.post(encode_query(f"/api/v0/{command}", params or {}), limit=_MAX_ANSWER_BYTES)


def _read_object(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; ValueError if it is something else."""
    document = from_json(answer.body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def await_peers(site: str, client: HttpClient, names: Mapping[str, str], within: float) -> None:
    """Wait until a daemon is connected to all peers; StoreFault (CO-C336) names the sites that it does not reach."""
    deadline, said = time.monotonic() + within, ""
    missing = set(names)
    while missing:
        try:
            missing, said = set(names) - read_peer_ids(_ask(client, "swarm/peers").body), ""
        except WIRE_FAULTS as fault:
            said = f", and did not answer last ({fault or type(fault).__name__})"
        if missing and time.monotonic() > deadline:
            away = ", ".join(sorted(names[peer] for peer in missing))
            message = f"The store of {site} does not reach {away} within {within:.0f} s{said}"
            raise StoreFault("CO-C336", f"{message}. Read the logs of these sites' Kubos.")
        time.sleep(0.05 if missing else 0.0)


def _await_ready(service: Service, ready: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            if ready():
                return
        except WIRE_FAULTS:
            if service.pid is None:
                raise explain_early_end(service) from None
        if time.monotonic() > deadline:
            raise explain_early_end(service)
        time.sleep(0.05)


def _initialise(node: Kubo) -> None:
    command: list[str | Path] = [IPFS.find(), "init", "--empty-repo", node.config]
    environment = {**os.environ, **node.environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INIT_TIMEOUT, env=environment, check=False)
    if done.returncode != 0:
        raise StoreFault("CO-C336", f"ipfs does not make a repository in {node.repo}: {done.stderr[-500:].strip()}")
