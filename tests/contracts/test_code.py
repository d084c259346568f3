"""The committed artifacts: they are of these sources, they fit a London chain, and they are what a chain then holds."""

from __future__ import annotations

from hashlib import sha256

import pytest
from support.chain.contracts import DeployedContracts
from support.chain.scripts import CONTRACTS, load_script
from support.chain.twins import ContractAndRules

from coterie_chain.errors import _ADVICE
from coterie_chain.ethereum.abi import CONTRACT_NAMES, load_artifact, load_errors

evm = load_script("evm")


@pytest.mark.parametrize("name", CONTRACT_NAMES)
def test_the_artifacts_are_of_the_sources_beside_them(name: str) -> None:
    sources = {p.relative_to(CONTRACTS).as_posix(): p for p in (CONTRACTS / "src").rglob("*.sol")}
    texts = {path: p.read_text(encoding="utf-8") for path, p in sources.items()}
    assert load_artifact(name).sources == {path: sha256(text.encode()).hexdigest() for path, text in texts.items()}


@pytest.mark.parametrize("name", CONTRACT_NAMES)
def test_the_code_fits_a_london_chain(name: str) -> None:
    artifact = load_artifact(name)
    assert list(evm.list_faults(name, artifact.bytecode, artifact.deployed)) == []


def test_newer_opcodes_and_large_code_are_found_but_pushed_data_is_no_code() -> None:
    assert evm.count_newer_opcodes(bytes.fromhex("5f5e615f5e5c")) == {"PUSH0": 1, "MCOPY": 1, "TLOAD": 1}
    assert len(list(evm.list_faults("Large", b"", bytes(evm.SIZE_LIMIT)))) == 1


def test_every_error_has_its_own_selector() -> None:
    errors_by_selector = load_errors()
    assert len(errors_by_selector) == len({name for name, _ in errors_by_selector.values()}) == 35
    assert errors_by_selector["0xe7ec536e"] == ("BadState", ("uint8",))


def test_advice_is_given_on_errors_that_exist() -> None:
    assert set(_ADVICE) <= {name for name, _ in load_errors().values()}


@pytest.mark.anvil
def test_a_chain_holds_the_artifacts_code(net: ContractAndRules) -> None:
    contracts = net.contracts
    assert contracts.code(contracts.address) == load_artifact("Catalog").deployed
    for site, address in contracts.models.items():
        code = contracts.code(address)
        assert load_artifact("Model").matches(code)
        filled = {code[start : start + length] for start, length in load_artifact("Model").immutables}
        assert filled == {site.to_bytes(32, "big"), bytes.fromhex(contracts.address[2:]).rjust(32, b"\0")}


@pytest.mark.anvil
def test_other_code_does_not_match(net: ContractAndRules) -> None:
    contracts: DeployedContracts = net.contracts
    code = bytearray(contracts.code(contracts.models[1]))
    code[-1] ^= 1
    assert not load_artifact("Model").matches(bytes(code))
    assert not load_artifact("Model").matches(b"")
