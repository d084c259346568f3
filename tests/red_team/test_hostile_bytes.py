"""A signed record is good for one chain, one contract and one slot: replayed anywhere else it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest
import rlp
from eth_account import Account
from support.chain.anvil import ANVIL_CHAIN_ID, AnvilClient, RpcError
from support.chain.bench import (
    BENCH_FOUNDERS,
    GLORE_TERMS,
    STUDY_HASH,
    AnvilBench,
    Sites,
    catch_refusal,
    derive_account,
)

from coterie_chain.ethereum.calldata import load_codec
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.journal import MemoryJournal
from coterie_chain.ledger.protocol import Post
from coterie_chain.ledger.record_chain import flatten_post

pytestmark = pytest.mark.anvil


class MemberNetwork:
    """Three sites in a running study; what `ana` signs is kept."""

    def __init__(self, anvil: AnvilClient, hash: bytes = STUDY_HASH) -> None:
        self.bench = AnvilBench(anvil)
        self.journal = MemoryJournal()
        self.ana = EthereumLedger(self.bench.network, derive_account("ana"), self.journal)
        self.number = self.ana.propose(replace(GLORE_TERMS, hash=hash))
        for name in BENCH_FOUNDERS[1:]:
            self.bench.ledger(derive_account(name)).join(self.number, hash)

    def post(self) -> Post:
        """The post that ana's open step wants."""
        return Sites(self.bench).draft(self.number, "ana")

    def read_signed(self) -> str:
        """Ana's newest transaction."""
        (scope,) = {scope for scope, _ in self.journal._sent}
        return "0x" + self.journal.list_sent(scope)[-1][0].raw.hex()

    def close(self) -> None:
        self.ana.close()
        self.bench.close()


@pytest.fixture
def network(anvil: AnvilClient) -> Iterator[MemberNetwork]:
    member_network = MemberNetwork(anvil)
    yield member_network
    member_network.close()


def test_a_signed_record_is_bound_to_its_chain(network: MemberNetwork) -> None:
    """EIP-155: its id is under the signature, so Geth and Besu of another chain refuse it; Anvil does not look."""
    network.ana.record(network.post())
    *_, v, r, s = rlp.decode(bytes.fromhex(network.read_signed()[2:]))
    assert (int.from_bytes(v) - 35) // 2 == ANVIL_CHAIN_ID
    assert Account.recover_transaction(network.read_signed()) == derive_account("ana").address
    forged = [*rlp.decode(bytes.fromhex(network.read_signed()[2:]))[:6], int.to_bytes(20241 * 2 + 35, 2), r, s]
    assert Account.recover_transaction(rlp.encode(forged)) != derive_account("ana").address


def test_a_signed_record_is_worth_nothing_a_second_time(network: MemberNetwork, anvil: AnvilClient) -> None:
    network.ana.record(network.post())
    with pytest.raises(RpcError, match="nonce"):
        anvil.rpc("eth_sendRawTransaction", network.read_signed())


def test_a_record_of_one_network_is_refused_by_another_on_the_same_chain(
    network: MemberNetwork, anvil: AnvilClient
) -> None:
    """Its basis is the hash of another study; a Model of another Catalog takes nothing from it either."""
    other = MemberNetwork(anvil, sha256(b"another study").digest())
    post = network.post()
    assert catch_refusal(other.ana.record, post)[0] == "BasisMismatch"
    model = network.ana._reader.models[1]
    data = load_codec("Model").encode("record", flatten_post(post))
    stranger = derive_account("mallory").address
    with pytest.raises(RpcError, match="revert"):
        anvil.rpc("eth_call", {"from": stranger, "to": model, "data": data}, "latest")
    assert other.ana.heads()["ana"].genesis != network.ana.heads()["ana"].genesis
    other.close()


def test_a_key_that_has_no_seat_moves_nothing(network: MemberNetwork) -> None:
    mallory = network.bench.ledger(derive_account("mallory"))
    post = network.post()
    moves = [
        lambda: mallory.propose(GLORE_TERMS),
        lambda: mallory.join(network.number, STUDY_HASH),
        lambda: mallory.record(post),
        lambda: mallory.abort(network.number, 1),
        lambda: mallory.revoke("ana"),
    ]
    assert {catch_refusal(move)[0] for move in moves} <= {"NotSite", "NotOwner", "NotParticipant"}
    assert network.ana.view(network.number).joined == BENCH_FOUNDERS
