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

from chain.anvil import binary, running  # noqa: E402
from chain.contracts import Contracts  # noqa: E402
from chain.twins import Schedule, Twins, digest, key  # noqa: E402

from coterie_chain import motions  # noqa: E402
from coterie_chain.abi import load  # noqa: E402
from coterie_chain.ledger import Silence, State  # noqa: E402
from coterie_chain.study_state import EACH, SERVER  # noqa: E402

TABLE = ROOT / "contracts" / "GAS.md"
RECORD_LIMIT = 130_000
START = "1700000000"
JOINING = (digest("rows"), digest("approvals"), 1_002_003)
EVERYTHING: Schedule = ((3, EACH, SERVER), (EACH, SERVER), (SERVER, EACH))
HEADER = f"""# Gas

Written by `python contracts/scripts/gas.py` (Anvil, London rules); a record must cost at most {RECORD_LIMIT:,}.
A block of 30,000,000 gas holds more than 250 records.

| call | n | min | median | max |
|---|--:|--:|--:|--:|
"""


def measure() -> dict[str, list[int]]:
    """Gas of each accepted call by name."""
    program = binary()
    if program is None:
        sys.exit("Anvil is not installed: make setup")
    with running(program, "--timestamp", START) as anvil:
        net = Twins(anvil, ["ana", "bob", "cyd", "dan"])
        _membership(net)
        _studies(net)
        large = Twins(anvil, [f"site-{i}" for i in range(1, 21)])
        _study(large, tuple(range(1, 21)), EVERYTHING)
        return _named(net.contracts) | _named(large.contracts, " (20 sites)")


def _named(contracts: Contracts, note: str = "") -> dict[str, list[int]]:
    return {name if "deploy" in name else name + note: gas for name, gas in contracts.gas.items()}


def _membership(net: Twins) -> None:
    voters = [net.key_of(site) for site in (1, 2, 3)]
    for voter in voters:
        net.admit(voter, "eva", key("eva"), digest("sealing"), digest("peer"))
    for voter in voters:
        net.recover(voter, 5, key("new"), digest("sealing", "new"))
    net.offer(key("new"), key("newer"), digest("sealing", "newer"))
    net.accept(key("newer"), 5)
    for voter in voters:
        net.succeed(voter, net.contracts.models[1])
    net.revoke(voters[0], 5)
    net.withdraw(voters[0], motions.revocation(5))
    for voter in voters:
        net.revoke(voter, 5)


def _studies(net: Twins) -> None:
    _study(net, (1, 2, 3), ((), (EACH, SERVER), ()))
    _study(net, (4, 3, 2, 1), EVERYTHING)
    _troubled(net)


def _study(net: Twins, order: tuple[int, ...], schedule: Schedule) -> None:
    study = _start(net, order, schedule)
    while net.rules.studies[study].state == State.RUNNING:
        net.complete_step(study)


def _start(net: Twins, order: tuple[int, ...], schedule: Schedule) -> int:
    hash = digest("study", len(net.rules.studies))
    logs = net.propose(net.key_of(order[0]), hash, order, schedule, 3, 60, Silence.EXCLUDE, 2, JOINING)
    study: int = logs[0].args["study"]
    for site in order[1:]:
        net.join(net.key_of(site), study, hash, JOINING)
    return study


def _troubled(net: Twins) -> None:
    study = _start(net, (1, 2, 3, 4), ((), (EACH, SERVER), ()))
    net.wait(61)
    for voter in (1, 2):
        net.exclude(net.key_of(voter), study, 4)
    net.complete_step(study)
    net.wait(61)
    net.skip(net.key_of(3), study)
    net.complete_step(study)
    for voter in (1, 3):
        net.unavailable(net.key_of(voter), study, 1, 1, 2)
    net.complete_step(study)
    net.dispute(net.key_of(1), study, 1, 2, 3)
    for voter in (1, 2):
        net.resume(net.key_of(voter), study)
    net.pause(net.key_of(1), study)
    for voter in (1, 2):
        net.abort(net.key_of(voter), study)
    ended = _start(net, (1, 2, 3), ((), (SERVER,), ()))
    net.decline(net.key_of(2), *_propose(net, 3))
    net.abort(net.key_of(3), ended, 3)
    while net.rules.studies[ended].state == State.RUNNING:
        net.complete_step(ended)
    net.supersede(net.key_of(1), ended)
    net.attest(net.key_of(2), ended, digest("rows"))


def _propose(net: Twins, count: int) -> list[int]:
    logs = [net.propose(net.key_of(1), digest("proposal", k), (1, 2)) for k in range(count)]
    return [found[0].args["study"] for found in logs]


def render(gas: dict[str, list[int]]) -> str:
    """The table as committed."""
    sizes = (f"{name} {len(load(name).deployed):,}" for name in ("Catalog", "Model"))
    return HEADER + "\n".join(_rows(gas)) + f"\n\nDeployed bytes (the limit is 24,576): {', '.join(sizes)}.\n"


def _rows(gas: dict[str, list[int]]) -> Iterator[str]:
    for name, values in sorted(gas.items()):
        low, middle, high = min(values), round(statistics.median(values)), max(values)
        yield f"| {name} | {len(values)} | {low:,} | {middle:,} | {high:,} |"


def main() -> None:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the table is stale")
    check = parser.parse_args().check
    gas = measure()
    text = render(gas)
    if not check:
        TABLE.write_text(text, encoding="utf-8", newline="\n")
    elif not TABLE.exists() or TABLE.read_text(encoding="utf-8") != text:
        sys.exit("contracts/GAS.md is stale: run python contracts/scripts/gas.py")
    dearest = max(max(values) for name, values in gas.items() if name.startswith("record"))
    if dearest > RECORD_LIMIT:
        sys.exit(f"a record cost {dearest:,} gas, the limit is {RECORD_LIMIT:,}")


if __name__ == "__main__":
    main()
