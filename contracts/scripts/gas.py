"""Measure the gas of every call into contracts/GAS.md; `--check` measures and compares.

The scenario is fixed to the second and the byte, so that the table is the same on every machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "chain")]

from support.chain.anvil import find_binary, run_anvil  # noqa: E402
from support.chain.contracts import DeployedContracts  # noqa: E402
from support.chain.twins import ContractAndRules, Schedule, derive_address, next_digest  # noqa: E402

from coterie_chain.ethereum.abi import load_artifact  # noqa: E402
from coterie_chain.ledger import motions  # noqa: E402
from coterie_chain.ledger.protocol import Silence, State  # noqa: E402
from coterie_chain.ledger.study_state import EACH, SERVER  # noqa: E402

TABLE = ROOT / "contracts" / "GAS.md"
RECORD_LIMIT = 130_000
START = "1700000000"
JOINING = (next_digest("rows"), next_digest("approvals"), 1_002_003)
EVERYTHING: Schedule = ((3, EACH, SERVER), (EACH, SERVER), (SERVER, EACH))
HEADER = f"""# Gas

Written by `python contracts/scripts/gas.py` (Anvil, London rules); a record must cost at most {RECORD_LIMIT:,}.
A block of 30,000,000 gas holds more than 250 records.

| call | n | min | median | max |
|---|--:|--:|--:|--:|
"""


def measure() -> dict[str, list[int]]:
    """Gas of each accepted call by name."""
    program = find_binary()
    if program is None:
        sys.exit("Anvil is not installed: make setup")
    with run_anvil(program, "--timestamp", START) as anvil:
        net = ContractAndRules(anvil, ["ana", "bob", "cyd", "dan"])
        _measure_membership(net)
        _measure_studies(net)
        large = ContractAndRules(anvil, [f"site-{i}" for i in range(1, 21)])
        _measure_study(large, tuple(range(1, 21)), EVERYTHING)
        return _label_gas(net.contracts) | _label_gas(large.contracts, " (20 sites)")


def _label_gas(contracts: DeployedContracts, note: str = "") -> dict[str, list[int]]:
    return {name if "deploy" in name else name + note: gas for name, gas in contracts.gas.items()}


def _measure_membership(net: ContractAndRules) -> None:
    voters = [net.read_key(site) for site in (1, 2, 3)]
    for voter in voters:
        net.admit(voter, "eva", derive_address("eva"), next_digest("sealing"), next_digest("peer"))
    for voter in voters:
        net.recover(voter, 5, derive_address("new"), next_digest("sealing", "new"))
    net.offer(derive_address("new"), derive_address("newer"), next_digest("sealing", "newer"))
    net.accept(derive_address("newer"), 5)
    for voter in voters:
        net.vote_succession(voter, net.contracts.models[1])
    net.revoke(voters[0], 5)
    net.withdraw(voters[0], motions.hash_revocation(5))
    for voter in voters:
        net.revoke(voter, 5)


def _measure_studies(net: ContractAndRules) -> None:
    _measure_study(net, (1, 2, 3), ((), (EACH, SERVER), ()))
    _measure_study(net, (4, 3, 2, 1), EVERYTHING)
    _measure_troubled_study(net)


def _measure_study(net: ContractAndRules, order: tuple[int, ...], schedule: Schedule) -> None:
    study = _start_study(net, order, schedule)
    while net.rules.studies[study].state == State.RUNNING:
        net.complete_step(study)


def _start_study(net: ContractAndRules, order: tuple[int, ...], schedule: Schedule) -> int:
    hash = next_digest("study", len(net.rules.studies))
    logs = net.propose(net.read_key(order[0]), hash, order, schedule, 3, 60, Silence.EXCLUDE, 2, JOINING)
    study: int = logs[0].args["study"]
    for site in order[1:]:
        net.join(net.read_key(site), study, hash, JOINING)
    return study


def _measure_troubled_study(net: ContractAndRules) -> None:
    study = _start_study(net, (1, 2, 3, 4), ((), (EACH, SERVER), ()))
    net.wait(61)
    for voter in (1, 2):
        net.exclude(net.read_key(voter), study, 4)
    net.complete_step(study)
    net.wait(61)
    net.skip(net.read_key(3), study)
    net.complete_step(study)
    for voter in (1, 3):
        net.unavailable(net.read_key(voter), study, 1, 1, 2)
    net.complete_step(study)
    net.dispute(net.read_key(1), study, 1, 2, 3)
    for voter in (1, 2):
        net.resume(net.read_key(voter), study)
    net.pause(net.read_key(1), study)
    for voter in (1, 2):
        net.abort(net.read_key(voter), study)
    ended = _start_study(net, (1, 2, 3), ((), (SERVER,), ()))
    net.decline(net.read_key(2), *_propose(net, 3))
    net.abort(net.read_key(3), ended, 3)
    while net.rules.studies[ended].state == State.RUNNING:
        net.complete_step(ended)
    net.supersede(net.read_key(1), ended)
    net.attest(net.read_key(2), ended, next_digest("rows"))


def _propose(net: ContractAndRules, count: int) -> list[int]:
    logs = [net.propose(net.read_key(1), next_digest("proposal", k), (1, 2)) for k in range(count)]
    return [found[0].args["study"] for found in logs]


def render_table(gas: dict[str, list[int]]) -> str:
    """The table as committed."""
    sizes = (f"{name} {len(load_artifact(name).deployed):,}" for name in ("Catalog", "Model"))
    return HEADER + "\n".join(_render_rows(gas)) + f"\n\nDeployed bytes (the limit is 24,576): {', '.join(sizes)}.\n"


def _render_rows(gas: dict[str, list[int]]) -> Iterator[str]:
    for name, values in sorted(gas.items()):
        low, middle, high = min(values), round(statistics.median(values)), max(values)
        yield f"| {name} | {len(values)} | {low:,} | {middle:,} | {high:,} |"


def main() -> None:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the table is stale")
    check = parser.parse_args().check
    gas = measure()
    text = render_table(gas)
    if not check:
        TABLE.write_text(text, encoding="utf-8", newline="\n")
    elif not TABLE.exists() or TABLE.read_text(encoding="utf-8") != text:
        sys.exit("contracts/GAS.md is stale: run python contracts/scripts/gas.py")
    dearest = max(max(values) for name, values in gas.items() if name.startswith("record"))
    if dearest > RECORD_LIMIT:
        sys.exit(f"a record cost {dearest:,} gas, the limit is {RECORD_LIMIT:,}")


if __name__ == "__main__":
    main()
