"""Wheels of the project, and environments to try them in."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = "pins.txt"
BROUGHT_BY_PIP = frozenset({"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils"})


def build_wheel(folder: Path, tree: Path = ROOT) -> Path:
    """The wheel of a tree of the project."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, tree]
    subprocess.run([str(part) for part in command], check=True)
    return next(folder.glob("coterie-*.whl"))


def read_pins(tree: Path) -> list[str]:
    """The pinned versions with their markers; the hashes are left out, which constraints do not take."""
    lines = (tree / "requirements" / "dev.lock").read_text(encoding="utf-8").splitlines()
    return [line.rstrip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#"))]


def weigh(folder: Path) -> dict[str, int]:
    """Bytes of each package of an environment, the largest first, without what pip brings and compiled files."""
    sizes: Counter[str] = Counter()
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in (path for path in packages.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        name = path.relative_to(packages).parts[0].partition("-")[0].partition(".")[0]
        sizes[name] += 0 if name in BROUGHT_BY_PIP else path.stat().st_size
    return dict(sizes.most_common())


def make_environment(folder: Path, *packages: str | Path, tree: Path = ROOT) -> Path:
    """A new environment with these packages, at the pinned versions where there are any; the folder of its programs."""
    venv.create(folder, with_pip=True)
    (folder / PINS).write_text("\n".join(read_pins(tree)), encoding="utf-8")
    install(folder / "bin", *packages)
    return folder / "bin"


def install(programs: Path, *packages: str | Path) -> None:
    """Install more packages into such an environment, at the same pins."""
    command = [programs / "python", "-m", "pip", "install", "--quiet", "-c", programs.parent / PINS, *packages]
    subprocess.run([str(part) for part in command], check=True)
