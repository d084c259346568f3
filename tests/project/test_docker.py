"""The container files: valid, in step with the launcher, without root and without open doors."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_pydantic import ComposeSpecification

from coterie_chain.network.programs import geth, kubo
from coterie_node.network.founding import make_trial

ROOT = Path(__file__).parents[2]
FILES = ("compose.site.yaml", "compose.trial.yaml")


def services(name: str) -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker" / name).read_text())["services"]
    return document


@pytest.mark.parametrize("name", FILES)
def test_a_compose_file_follows_the_published_schema(name: str) -> None:
    text = yaml.safe_load((ROOT / "docker" / name).read_text())
    ComposeSpecification.model_validate(text)
    with pytest.raises(ValueError, match="depends"):
        ComposeSpecification.model_validate({"services": {"a": {"image": "b", "depends_on": 3}}})


def test_the_compose_files_are_those_of_the_generator() -> None:
    done = subprocess.run([sys.executable, ROOT / "docker" / "generate.py", "--check"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", FILES)
def test_nobody_is_root_and_only_peers_come_in(name: str) -> None:
    for service in services(name).values():
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert service["healthcheck"]["test"][0] == "CMD"
        inside = {str(port).split("/")[0].rsplit(":", 1)[1] for port in service.get("ports", ())}
        assert inside <= {str(geth.P2P_PORT), str(kubo.SWARM_PORT)}
        needed = service.get("depends_on", {})
        assert set(needed) <= set(services(name))
        assert all(how["condition"] == "service_healthy" for how in needed.values())


def test_the_trial_s_files_and_addresses_fit_together(tmp_path: Path) -> None:
    make_trial(tmp_path, ("north", "south", "west"))
    trial = services("compose.trial.yaml")
    for site in ("north", "south", "west"):
        node = tomllib.loads((tmp_path / site / "node.toml").read_text())
        assert node["chain"]["url"].startswith(f"http://{site}-geth:8551?")
        assert node["store"]["url"].startswith(f"kubo+http://{site}-kubo:5001?")
        assert {f"{site}-geth", f"{site}-kubo"} == set(trial[f"{site}-node"]["depends_on"])
        listed = (tmp_path / site / "geth" / "config.toml").read_text()
        others = [s for s in ("north", "south", "west") if s != site]
        for other in others:
            assert f"@{trial[f'{other}-geth']['networks']['trial']['ipv4_address']}:{geth.P2P_PORT}" in listed
        peers = (tmp_path / site / "kubo" / "config.json").read_text()
        for other in others:
            assert f"/ip4/{trial[f'{other}-kubo']['networks']['trial']['ipv4_address']}/tcp/4001" in peers


DIGEST = "sha256:" + "ab" * 32


def run_tool(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A tool of a copy of docker/."""
    return subprocess.run([sys.executable, folder / name, *words], capture_output=True, text=True, check=False)


def test_the_digests_of_the_lock_are_those_of_the_compose_files(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    shutil.copytree(ROOT / "docker", folder)
    head, *_ = (folder / "images.lock").read_text().splitlines()
    images = {service["image"].split("@")[0] for service in services("compose.site.yaml").values()} - {"coterie"}
    lines = [f"{image} {DIGEST}" for image in [*images, "python:3.12-slim"]]
    (folder / "images.lock").write_text("\n".join([head, *lines]) + "\n")
    assert run_tool(folder, "images.py", "--check").returncode == 0
    assert run_tool(folder, "generate.py", "--check").returncode == 1
    assert run_tool(folder, "generate.py").returncode == 0
    for service in yaml.safe_load((folder / "compose.trial.yaml").read_text())["services"].values():
        image = service["build"]["args"]["BASE"] if service["image"] == "coterie" else service["image"]
        assert image.endswith(f"@{DIGEST}")


@pytest.mark.parametrize("line", ["ipfs/kubo:v1", "ipfs/kubo:v1 sha256:12", "python:3.12-slim " + DIGEST])
def test_an_image_without_a_digest_is_named(line: str, tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    shutil.copytree(ROOT / "docker", folder)
    (folder / "images.lock").write_text(line + "\n")
    done = run_tool(folder, "images.py", "--check")
    assert (done.returncode, "ipfs/kubo" in done.stderr) == (1, True)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "docker" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
