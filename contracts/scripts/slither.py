"""Run Slither over the contracts and hold every finding against its answer in SLITHER.md; an unanswered one fails.

Slither is a program of its own (`make slither` installs it beside the project). It gets our compiler's output through
a stand-in for native solc, because npm's solc.js is what every machine has.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import compile as compiling
import solcx

_ANSWERS = compiling.CONTRACTS / "SLITHER.md"
_OUTPUTS = [
    *("abi", "devdoc", "userdoc", "evm.bytecode.object", "evm.bytecode.sourceMap"),
    *("evm.deployedBytecode.object", "evm.deployedBytecode.sourceMap", "evm.methodIdentifiers"),
]
STAND_IN = """#!/bin/sh
case "$*" in
*--version*) echo "Version: {version}+commit.00000000.Linux.g++" ;;
*) cat "{output}" ;;
esac
"""


def combine_sources() -> dict[str, Any]:
    """Our sources in the form of `solc --combined-json`."""
    task = {
        "language": "Solidity",
        "sources": {path: {"content": text} for path, text in compiling.read_sources().items()},
        "settings": {**compiling.SETTINGS, "outputSelection": {"*": {"*": _OUTPUTS, "": ["ast"]}}},
    }
    output = solcx.compile_standard(task, solc_binary=compiling.find_compiler())
    contracts = {
        f"{path}:{name}": _describe_contract(k)
        for path, contracts in output["contracts"].items()
        for name, k in contracts.items()
    }
    ordered = sorted(output["sources"], key=lambda path: int(output["sources"][path]["id"]))
    asts = {path: {"AST": output["sources"][path]["ast"]} for path in ordered}
    return {"contracts": contracts, "sources": asts, "sourceList": ordered, "version": compiling.VERSION}


def _describe_contract(artifact: dict[str, Any]) -> dict[str, Any]:
    evm = artifact["evm"]
    return {
        "abi": artifact["abi"],
        "bin": evm["bytecode"]["object"],
        "bin-runtime": evm["deployedBytecode"]["object"],
        "srcmap": evm["bytecode"]["sourceMap"],
        "srcmap-runtime": evm["deployedBytecode"]["sourceMap"],
        "hashes": evm["methodIdentifiers"],
        "devdoc": artifact["devdoc"],
        "userdoc": artifact["userdoc"],
    }


def list_findings(slither: str) -> list[str]:
    """Each finding as `detector: function`, without line numbers."""
    with tempfile.TemporaryDirectory() as scratch:
        output, stand_in, report = (Path(scratch) / name for name in ("combined.json", "solc", "report.json"))
        output.write_text(json.dumps(combine_sources()))
        stand_in.write_text(STAND_IN.format(version=compiling.VERSION, output=output))
        stand_in.chmod(0o700)
        command = [slither, "src/Catalog.sol", "--solc", str(stand_in), "--compile-force-framework", "solc"]
        subprocess.run(
            [*command, "--json", str(report)], cwd=compiling.CONTRACTS, check=False, capture_output=True, timeout=300
        )
        report_json = json.loads(report.read_text())
    if not report_json["success"]:
        sys.exit(f"Slither did not finish: {report_json['error']}")
    return sorted({_name_finding(finding) for finding in report_json["results"].get("detectors", [])})


def _name_finding(finding: dict[str, Any]) -> str:
    first = re.match(r"(?:Reentrancy in |Function )?(\w+\.\w+)", finding["description"])
    return f"{finding['check']}: {first.group(1) if first else finding['description'][:60]}"


def main() -> None:
    """Compare the findings with the answers, both ways."""
    finding_names = list_findings(sys.argv[1])
    answered = re.findall(r"^### `(.+)`$", _ANSWERS.read_text(), re.M)
    print("\n".join(f"{name}{'' if name in answered else '   <- not answered'}" for name in finding_names))
    missing, gone = set(finding_names) - set(answered), set(answered) - set(finding_names)
    if missing or gone:
        sys.exit(
            f"without an answer in SLITHER.md: {sorted(missing)}; answered, but not found any more: {sorted(gone)}"
        )


if __name__ == "__main__":
    main()
