"""Compile the contracts into the artifacts that coterie_chain carries; `--check` rebuilds them and compares.

The compiler is the first there is of: the SOLC environment variable's path, a binary that py-solc-x has installed, the
npm package behind solc.js, one that py-solc-x installs now. All give the same bytes, on whatever machine and path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import solcx
from evm import list_faults
from solcx.exceptions import SolcError, SolcNotInstalled
from solcx.install import get_executable
from solcx.wrapper import get_solc_version

VERSION = "0.8.37"
NAMES = ("Catalog", "Model")
CONTRACTS = Path(__file__).resolve().parents[1]
ARTIFACTS = CONTRACTS.parent / "chain" / "coterie_chain" / "ethereum" / "abi"
SHIM = CONTRACTS / "scripts" / "solc.js"
SETTINGS: dict[str, Any] = {
    "evmVersion": "london",  # Clique ends there
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "optimizer": {"enabled": True, "runs": 200},
    "viaIR": True,  # the Catalog fits a chain's limit on code only so
}
_OUTPUTS = [
    "abi",
    "evm.bytecode.object",
    "evm.deployedBytecode.object",
    "evm.deployedBytecode.immutableReferences",
]


def find_compiler() -> Path:
    """Path of the first compiler of the pinned version."""
    if "SOLC" in os.environ:
        return Path(os.environ["SOLC"])
    try:
        return Path(get_executable(VERSION))
    except SolcNotInstalled:
        if (CONTRACTS / "node_modules" / "solc").is_dir():
            return SHIM
    solcx.install_solc(VERSION)
    return Path(get_executable(VERSION))


def read_sources() -> dict[str, str]:
    """Every source by its path in the contracts room."""
    paths = sorted((CONTRACTS / "src").rglob("*.sol"))
    return {p.relative_to(CONTRACTS).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def build() -> dict[str, dict[str, Any]]:
    """Compile all sources; artifacts by contract name."""
    solc = find_compiler()
    version = get_solc_version(solc, with_commit_hash=True)
    if version.base_version != VERSION:
        sys.exit(f"{solc.name} is solc {version.base_version}; the contracts are pinned to {VERSION}")
    texts = read_sources()
    task = {
        "language": "Solidity",
        "sources": {path: {"content": text} for path, text in texts.items()},
        "settings": {**SETTINGS, "outputSelection": {"*": {"*": _OUTPUTS}}},
    }
    try:
        output = solcx.compile_standard(task, solc_binary=solc)
    except SolcError as error:
        sys.exit(str(error.message))
    if output.get("errors"):
        sys.exit("\n".join(e["formattedMessage"] for e in output["errors"]))
    common = {
        # the commit, without the platform that this compiler was built for
        "compiler": VERSION + "+commit." + str(version.local).split(".")[1],
        "settings": SETTINGS,
        "sources": {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()},
    }
    return {name: {**common, **_describe_code(output["contracts"][f"src/{name}.sol"][name])} for name in NAMES}


def _describe_code(contract: dict[str, Any]) -> dict[str, Any]:
    deployed = contract["evm"]["deployedBytecode"]
    places = [(r["start"], r["length"]) for refs in deployed["immutableReferences"].values() for r in refs]
    return {
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + deployed["object"],
        "immutables": sorted(places),
    }


def render_artifact(artifact: dict[str, Any]) -> str:
    """An artifact as committed."""
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write or check the artifacts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if an artifact is stale")
    check = parser.parse_args().check
    artifacts = build()
    problems: list[str] = []
    for name, artifact in artifacts.items():
        problems += list_faults(name, *(bytes.fromhex(artifact[f][2:]) for f in ("bytecode", "deployedBytecode")))
        path, text = ARTIFACTS / f"{name}.json", render_artifact(artifact)
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{name}.json is not what contracts/src compiles to: run contracts/scripts/compile.py")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
