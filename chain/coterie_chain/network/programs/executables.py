"""The programs that a real network needs and that no Python package brings: Geth and Kubo, at the versions we test."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from coterie_chain.errors import StoreFault

_VERSION_TIMEOUT = 20.0


@dataclass(frozen=True)
class Program:
    """A program: its file's name, the version we use, how to ask its version, the variable that names another file.

    `source` is where its makers publish it, for people who install it by hand.
    """

    name: str
    version: str
    version_arguments: tuple[str, ...]
    variable: str
    source: str

    @property
    def cached(self) -> Path:
        """The path to which `make tools` writes it, outside every checkout."""
        return find_cache_folder() / f"{self.name}-{self.version}" / self.name

    def find(self) -> Path:
        """The program: $VARIABLE, what `make tools` built, or the PATH if the version is ours; StoreFault if absent."""
        named = os.environ.get(self.variable)
        if named:
            if not os.access(named, os.X_OK):
                raise StoreFault("CO-C330", f"{self.variable} does not name a program: {named}. Correct the variable.")
            return Path(named)
        on_path = shutil.which(self.name)
        for place in (self.cached, Path(on_path) if on_path else None):
            if place is not None and place.is_file() and read_version(place, self.version_arguments) == self.version:
                return place
        raise StoreFault(
            "CO-C330",
            f"{self.name} {self.version} is not installed. Run `make tools` in a checkout, or install "
            f"exactly this version from {self.source} and put it on the PATH or into {self.variable}.",
        )


# The last Geth that seals Clique.
GETH = Program("geth", "1.13.15", ("version",), "COTERIE_GETH", "geth.ethereum.org/downloads")
IPFS = Program("ipfs", "0.43.1", ("version", "--number"), "COTERIE_IPFS", "dist.ipfs.tech/kubo")


def find_cache_folder() -> Path:
    """$COTERIE_TOOLS, or `coterie/tools` in the user's cache."""
    own = os.environ.get("COTERIE_TOOLS")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coterie" / "tools"


def read_version(path: Path, version_arguments: tuple[str, ...]) -> str:
    """The version that a program reports; empty if it reports none.

    StoreFault (CO-C336) if it does not answer in time: that says nothing of its version.
    """
    try:
        return _ask_version(path, version_arguments)
    except OSError:
        return ""
    except subprocess.TimeoutExpired:
        message = f"{path} did not tell its version within {_VERSION_TIMEOUT:g} s"
        raise StoreFault("CO-C336", f"{message}. Repeat the command when the machine is less busy.") from None


@cache
def _ask_version(path: Path, version_arguments: tuple[str, ...]) -> str:
    """The answer, which is kept; a fault is not: a busy machine, or a file that is written just now, is no answer."""
    answer = subprocess.run(
        [path, *version_arguments], capture_output=True, text=True, timeout=_VERSION_TIMEOUT, check=False
    ).stdout
    lines = [line.removeprefix("Version:").strip() for line in answer.splitlines()]
    return next((line.removesuffix("-stable") for line in lines if line[:1].isdigit()), "")
