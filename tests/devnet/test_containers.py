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
from support.devnet.bed import skip_without_programs

from coterie_chain.network.clique import await_block
from coterie_chain.network.programs.executables import GETH, IPFS
from coterie_chain.network.programs.ports import find_free_port
from coterie_chain.network.programs.service import Service
from coterie_chain.network.swarm import Kubo
from coterie_node.network.founding import make_trial

pytestmark = pytest.mark.devnet
COMPOSE = Path(__file__).parents[2] / "docker" / "compose.trial.yaml"


def relocate(text: str, home: Path, ports: dict[str, int]) -> str:
    """A container's text for this machine: its folder, the loopback address, free ports."""
    text = re.sub(rf"(?<![\w/])/{home.name}/", f"{home}/", text).replace("$$", "$").replace("0.0.0.0", "127.0.0.1")
    for old, new in ports.items():
        text = re.sub(rf"\b{old}\b", str(new), text)
    return text


@contextmanager
def run_container(home: Path, name: str, settings: str, ports: dict[str, int], **variables: str) -> Iterator[Service]:
    """A service of the trial, as a program of this machine."""
    skip_without_programs()
    spec = yaml.safe_load(COMPOSE.read_text())["services"][name]
    (home / settings).write_text(relocate((home / settings).read_text(), home, ports))
    (script,) = spec["command"]
    shell, flags = spec["entrypoint"]
    path = f"{GETH.find().parent}:{IPFS.find().parent}:{os.environ['PATH']}"
    environment = (
        {key: relocate(value, home, {}) for key, value in spec["environment"].items()} | variables | {"PATH": path}
    )
    environment["IPFS_PATH"] = str(home / "repo")
    service = Service(name, home, lambda: Path(shell), (flags, relocate(script, home, ports)), environment)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def test_the_trial_s_geth_starts_from_its_files_and_seals(tmp_path: Path) -> None:
    sealer = make_trial(tmp_path, ("north",))["NORTH_SEALER"]
    home, ports = tmp_path / "north" / "geth", {"30303": find_free_port(), "8551": find_free_port()}
    with run_container(home, "north-geth", "config.toml", ports, SEALER=sealer) as service:
        await_block(service, f"http://127.0.0.1:{ports['8551']}?jwt_file={home / 'jwt.hex'}")
    with run_container(home, "north-geth", "config.toml", ports, SEALER=sealer) as service:  # not from the beginning
        await_block(service, f"http://127.0.0.1:{ports['8551']}?jwt_file={home / 'jwt.hex'}")


def test_the_trial_s_kubo_starts_from_its_files_and_wants_its_token(tmp_path: Path) -> None:
    make_trial(tmp_path, ("north", "south", "west"))
    home, ports = tmp_path / "north" / "kubo", {"4001": find_free_port(), "5001": find_free_port()}
    with run_container(home, "north-kubo", "config.json", ports) as service:
        url = f"http://127.0.0.1:{ports['5001']}/api/v0/id"
        await_answer(service, url)
        assert httpx.post(url).status_code == 403
        answer = httpx.post(url, headers={"Authorization": f"Bearer {Kubo(home).token.read_text().strip()}"})
        assert answer.json()["ID"] == Kubo(home).peer


def await_answer(service: Service, url: str) -> None:
    while True:
        try:
            httpx.post(url)
            return
        except httpx.TransportError:
            assert service.pid is not None, service.read_log_tail()
