"""What the compose files start, started here without containers: the same scripts, files and arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from devnet.bed import needed

from coterie_chain.clique import await_block
from coterie_chain.ports import free_port
from coterie_chain.programs import GETH, IPFS
from coterie_chain.service import Service
from coterie_chain.swarm import Kubo
from coterie_node.consortium import make_trial

pytestmark = pytest.mark.devnet
COMPOSE = Path(__file__).parents[2] / "docker" / "compose.trial.yaml"


def moved(text: str, home: Path, ports: dict[str, int]) -> str:
    """A container's text for this machine: its folder, the loopback address, free ports."""
    text = re.sub(rf"(?<![\w/])/{home.name}/", f"{home}/", text).replace("$$", "$").replace("0.0.0.0", "127.0.0.1")
    for old, new in ports.items():
        text = re.sub(rf"\b{old}\b", str(new), text)
    return text


@contextmanager
def container(home: Path, name: str, settings: str, ports: dict[str, int], **variables: str) -> Iterator[Service]:
    """A service of the trial, as a program of this machine."""
    needed()
    spec = yaml.safe_load(COMPOSE.read_text())["services"][name]
    (home / settings).write_text(moved((home / settings).read_text(), home, ports))
    (script,) = spec["command"]
    shell, flags = spec["entrypoint"]
    path = f"{GETH.find().parent}:{IPFS.find().parent}:{os.environ['PATH']}"
    told = {key: moved(value, home, {}) for key, value in spec["environment"].items()} | variables | {"PATH": path}
    told["IPFS_PATH"] = str(home / "repo")
    service = Service(name, home, lambda: Path(shell), (flags, moved(script, home, ports)), told)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def test_the_trial_s_geth_starts_from_its_files_and_seals(tmp_path: Path) -> None:
    sealer = make_trial(tmp_path, ("north",))["NORTH_SEALER"]
    home, ports = tmp_path / "north" / "geth", {"30303": free_port(), "8551": free_port()}
    with container(home, "north-geth", "config.toml", ports, SEALER=sealer) as service:
        await_block(service, f"http://127.0.0.1:{ports['8551']}?jwt_file={home / 'jwt.hex'}")
    with container(home, "north-geth", "config.toml", ports, SEALER=sealer) as service:  # not from the beginning
        await_block(service, f"http://127.0.0.1:{ports['8551']}?jwt_file={home / 'jwt.hex'}")


def test_the_trial_s_kubo_starts_from_its_files_and_wants_its_token(tmp_path: Path) -> None:
    make_trial(tmp_path, ("north", "south", "west"))
    home, ports = tmp_path / "north" / "kubo", {"4001": free_port(), "5001": free_port()}
    with container(home, "north-kubo", "config.json", ports) as service:
        url = f"http://127.0.0.1:{ports['5001']}/api/v0/id"
        until_answered(service, url)
        assert httpx.post(url).status_code == 403
        answer = httpx.post(url, headers={"Authorization": f"Bearer {Kubo(home).token.read_text().strip()}"})
        assert answer.json()["ID"] == Kubo(home).peer


def until_answered(service: Service, url: str) -> None:
    while True:
        try:
            httpx.post(url)
            return
        except httpx.TransportError:
            assert service.pid is not None, service.said()
