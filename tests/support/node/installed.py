"""Packages of other authors, as pip would have put them on the path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_node.run.simulate import World

# What the addresses `world:NAME` lead to.
WORLDS: dict[str, World] = {}


def install_packages(folder: Path, *packages: Path) -> None:
    """Install packages as their authors' users install them, into a folder for the path."""
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *install, "--target", str(folder), *map(str, packages)], check=True, timeout=120)


def open_world_ledger(address: str) -> Ledger:
    return WORLDS[address.partition(":")[2]].ledger()


def open_world_store(address: str) -> BlobStore:
    return WORLDS[address.partition(":")[2]].blobs


def install_entries(folder: Path, groups: dict[str, dict[str, str]]) -> None:
    """Write the metadata of a package with these entry points into a folder of the path."""
    info = folder / "another-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
