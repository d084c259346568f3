"""Wheels of the project, and environments to try them in."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build_wheel(folder: Path, tree: Path = ROOT) -> Path:
    """The wheel of a tree of the project."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, tree]
    subprocess.run([str(part) for part in command], check=True)
    return next(folder.glob("coterie-*.whl"))


def read_pins(tree: Path) -> list[str]:
    """The pinned versions with their markers; the hashes are left out, which constraints do not take."""
    lines = (tree / "requirements" / "dev.lock").read_text(encoding="utf-8").splitlines()
    return [line.rstrip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#"))]


def make_environment(folder: Path, *packages: str | Path, tree: Path = ROOT) -> Path:
    """A new environment with these packages, at the pinned versions where there are any; the folder of its programs."""
    venv.create(folder, with_pip=True)
    pins = folder / "pins.txt"
    pins.write_text("\n".join(read_pins(tree)), encoding="utf-8")
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", pins, *packages]
    subprocess.run([str(part) for part in install], check=True)
    return folder / "bin"
