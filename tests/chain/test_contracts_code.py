"""The committed artifacts: they are of these sources, they fit a London chain, and they are what a chain then holds."""

from __future__ import annotations

from hashlib import sha256

import pytest
from chain.contracts import Contracts
from chain.scripts import CONTRACTS, script
from chain.twins import Twins

from coterie_chain.abi import NAMES, errors, load
from coterie_chain.errors import ADVICE

evm = script("evm")


@pytest.mark.parametrize("name", NAMES)
def test_the_artifacts_are_of_the_sources_beside_them(name: str) -> None:
    sources = {p.relative_to(CONTRACTS).as_posix(): p for p in (CONTRACTS / "src").rglob("*.sol")}
    texts = {path: p.read_text(encoding="utf-8") for path, p in sources.items()}
    assert load(name).sources == {path: sha256(text.encode()).hexdigest() for path, text in texts.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_code_fits_a_london_chain(name: str) -> None:
    artifact = load(name)
    assert list(evm.faults(name, artifact.bytecode, artifact.deployed)) == []


def test_newer_opcodes_and_large_code_are_found_but_pushed_data_is_no_code() -> None:
    assert evm.newer_opcodes(bytes.fromhex("5f5e615f5e5c")) == {"PUSH0": 1, "MCOPY": 1, "TLOAD": 1}
    assert len(list(evm.faults("Large", b"", bytes(evm.SIZE_LIMIT)))) == 1


def test_every_error_has_its_own_selector() -> None:
    found = errors()
    assert len(found) == len({name for name, _ in found.values()}) == 35
    assert found["0xe7ec536e"] == ("BadState", ("uint8",))


def test_advice_is_given_on_errors_that_exist() -> None:
    assert set(ADVICE) <= {name for name, _ in errors().values()}


@pytest.mark.anvil
def test_a_chain_holds_the_artifacts_code(net: Twins) -> None:
    contracts = net.contracts
    assert contracts.code(contracts.address) == load("Catalog").deployed
    for site, address in contracts.models.items():
        code = contracts.code(address)
        assert load("Model").matches(code)
        filled = {code[start : start + length] for start, length in load("Model").immutables}
        assert filled == {site.to_bytes(32, "big"), bytes.fromhex(contracts.address[2:]).rjust(32, b"\0")}


@pytest.mark.anvil
def test_other_code_does_not_match(net: Twins) -> None:
    contracts: Contracts = net.contracts
    code = bytearray(contracts.code(contracts.models[1]))
    code[-1] ^= 1
    assert not load("Model").matches(bytes(code))
    assert not load("Model").matches(b"")
