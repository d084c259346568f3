"""The light client: it follows honest sealers and their votes, and refuses everything else."""

from __future__ import annotations

import random

import pytest
import rlp
from support.chain.sealers import (
    CliqueSimulator,
    QbftSimulator,
    Sealer,
    accept_headers,
    encode_qbft_extra,
    replace_fields,
)

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.headers import Header
from coterie_chain.ethereum.rlp_bounds import Item, encode_rlp
from coterie_chain.ethereum.seals import ISTANBUL, detect_sealing

ADA, BEA, CAL, DOT, EVE = (Sealer(name) for name in ("ada", "bea", "cal", "dot", "eve"))


def format_signers(*sealers: Sealer) -> tuple[str, ...]:
    return tuple(sorted("0x" + s.address.hex() for s in sealers))


def expect_refused_header(headers: list[Header], word: str) -> None:
    """The last header is refused, those before are not."""
    accept_headers(headers[:-1])
    with pytest.raises(LedgerMismatch, match=word) as caught:
        accept_headers(headers)
    assert caught.value.code in ("CO-C350", "CO-C351", "CO-C353")
    assert f"lock {len(headers) - 1}" in str(caught.value)


@pytest.fixture
def clique() -> CliqueSimulator:
    chain = CliqueSimulator((ADA, BEA, CAL))
    for _ in range(4):
        chain.seal()
    return chain


# Clique


def test_a_chain_sealed_in_turn_is_accepted(clique: CliqueSimulator) -> None:
    client = accept_headers(clique.headers)
    assert (client.kind, client.sealed, client.signers) == ("clique", 4, format_signers(ADA, BEA, CAL))


def test_a_signer_out_of_turn_is_accepted_with_its_difficulty(clique: CliqueSimulator) -> None:
    """Signers sit out floor(N/2) blocks; of the other two, either may seal."""
    late = clique.allowed[(len(clique.headers) + 1) % 3]
    clique.seal(late)
    assert accept_headers(clique.headers).sealed == 5


def test_a_stranger_s_seal_is_refused(clique: CliqueSimulator) -> None:
    clique.seal(EVE)
    expect_refused_header(clique.headers, f"0x{EVE.address.hex()} sealed it, and is not one of the 3 signers")


def test_a_signer_that_has_just_sealed_is_refused(clique: CliqueSimulator) -> None:
    before = clique.allowed[(len(clique.headers) - 1) % 3]
    clique.seal(before)
    expect_refused_header(clique.headers, "and one of the 1 blocks before it")


def test_with_five_signers_the_two_last_ones_have_to_wait() -> None:
    chain = CliqueSimulator((ADA, BEA, CAL, DOT, EVE))
    chain.seal()
    chain.seal()
    chain.seal(chain.allowed[1])
    expect_refused_header(chain.headers, "one of the 2 blocks before it")


@pytest.mark.parametrize("difficulty", [b"\1", b"\3", b""])
def test_a_difficulty_that_is_not_the_turn_s_is_refused(clique: CliqueSimulator, difficulty: bytes) -> None:
    clique.seal(difficulty=difficulty)
    expect_refused_header(clique.headers, "difficulty")


def test_a_header_changed_after_it_was_sealed_is_refused(clique: CliqueSimulator) -> None:
    clique.headers[-1] = replace_fields(clique.headers[-1], gasUsed=b"\7")
    expect_refused_header(clique.headers, "sealed it, and is not one of the 3 signers")


def test_a_seal_that_no_key_can_make_is_refused(clique: CliqueSimulator) -> None:
    last = clique.headers[-1]
    clique.headers[-1] = replace_fields(last, extraData=last["extraData"][:-65] + b"\xff" * 65)
    expect_refused_header(clique.headers, "signature that no key can have made")


@pytest.mark.parametrize("field", ["extraData", "mixHash", "nonce"])
def test_a_header_that_has_not_the_form_of_clique_is_refused(clique: CliqueSimulator, field: str) -> None:
    value = {"extraData": bytes(10), "mixHash": b"\1" * 32, "nonce": b"\1" * 8}[field]
    clique.seal(None, None, **{field: value})
    if field == "extraData":
        clique.headers[-1] = replace_fields(clique.headers[-1], extraData=value)
    expect_refused_header(clique.headers, "form of Clique|its nonce is no vote")


def test_two_votes_of_three_admit_a_signer(clique: CliqueSimulator) -> None:
    clique.seal(vote=(DOT, True))
    assert accept_headers(clique.headers).signers == format_signers(ADA, BEA, CAL)
    clique.seal(vote=(DOT, True))
    assert accept_headers(clique.headers).signers == format_signers(ADA, BEA, CAL, DOT)
    clique.allowed = sorted((ADA, BEA, CAL, DOT), key=lambda s: s.address)
    clique.seal(DOT)
    assert accept_headers(clique.headers).sealed == 7


def test_one_vote_twice_admits_nobody(clique: CliqueSimulator) -> None:
    voter = clique.choose_sealer()
    clique.seal(vote=(DOT, True))
    clique.seal()
    clique.seal()
    assert clique.choose_sealer() == voter
    clique.seal(vote=(DOT, True))
    assert accept_headers(clique.headers).signers == format_signers(ADA, BEA, CAL)


def test_a_vote_taken_back_does_not_count(clique: CliqueSimulator) -> None:
    clique.seal(vote=(DOT, True))
    clique.seal()
    clique.seal()
    clique.seal(vote=(DOT, False))
    clique.seal(vote=(DOT, True))
    assert accept_headers(clique.headers).signers == format_signers(ADA, BEA, CAL)


def test_two_votes_of_three_drop_a_signer_and_its_seals_end(clique: CliqueSimulator) -> None:
    dropped = clique.allowed[(len(clique.headers) + 2) % 3]
    rest = [s for s in clique.allowed if s != dropped]
    clique.seal(vote=(dropped, False))
    clique.seal(vote=(dropped, False))
    assert accept_headers(clique.headers).signers == format_signers(*rest)
    clique.seal(dropped)
    expect_refused_header(clique.headers, "and is not one of the 2 signers")


def test_a_dropped_signer_s_own_votes_are_forgotten(clique: CliqueSimulator) -> None:
    voter, second, third = (clique.allowed[(len(clique.headers) + k) % 3] for k in range(3))
    clique.seal(voter, vote=(DOT, True))
    clique.seal(second, vote=(voter, False))
    clique.seal(third, vote=(voter, False))
    clique.allowed = sorted((second, third), key=lambda s: s.address)
    clique.seal(second, vote=(DOT, True))
    assert accept_headers(clique.headers).signers == format_signers(second, third)


def test_an_epoch_begins_with_the_signers_and_no_votes(clique: CliqueSimulator) -> None:
    clique.seal(vote=(DOT, True))
    listed = bytes(32) + b"".join(s.address for s in clique.allowed)
    clique.seal(extraData=listed)
    clique.seal(vote=(DOT, True))
    client = accept_headers(clique.headers)
    assert client.signers == format_signers(ADA, BEA, CAL)


def test_an_epoch_with_other_signers_is_refused(clique: CliqueSimulator) -> None:
    clique.seal(extraData=bytes(32) + b"".join(sorted(s.address for s in (ADA, BEA, EVE))))
    expect_refused_header(clique.headers, "begins an epoch with other signers")


def test_a_chain_may_be_joined_at_an_epoch(clique: CliqueSimulator) -> None:
    clique.seal(extraData=bytes(32) + b"".join(s.address for s in clique.allowed))
    clique.seal()
    clique.seal()
    assert accept_headers(clique.headers[-3:]).sealed == 2


# QBFT


@pytest.fixture
def qbft() -> QbftSimulator:
    chain = QbftSimulator((ADA, BEA, CAL, DOT))
    for _ in range(3):
        chain.seal()
    return chain


def test_a_chain_sealed_by_all_validators_is_accepted(qbft: QbftSimulator) -> None:
    client = accept_headers(qbft.headers)
    assert (client.kind, client.sealed, client.signers) == ("qbft", 3, format_signers(ADA, BEA, CAL, DOT))


def test_two_thirds_are_enough_and_fewer_are_not(qbft: QbftSimulator) -> None:
    qbft.seal(by=qbft.validators[:3])
    assert accept_headers(qbft.headers).sealed == 4
    qbft.seal(by=qbft.validators[:2])
    expect_refused_header(qbft.headers, "2 of 4 validators sealed it, and 3 must")


def test_a_seal_counts_once(qbft: QbftSimulator) -> None:
    qbft.seal(by=[ADA, ADA, BEA])
    expect_refused_header(qbft.headers, "2 of 4 validators")


def test_a_stranger_s_committed_seal_is_refused(qbft: QbftSimulator) -> None:
    qbft.seal(by=[*qbft.validators, EVE])
    expect_refused_header(qbft.headers, f"0x{EVE.address.hex()} sealed it")


def test_a_stranger_s_proposal_is_refused(qbft: QbftSimulator) -> None:
    qbft.seal(proposer=EVE)
    expect_refused_header(qbft.headers, "its proposer is no validator")


def test_the_hash_leaves_out_seals_and_round(qbft: QbftSimulator) -> None:
    last = qbft.headers[-1]
    other = replace_fields(last, extraData=encode_qbft_extra(qbft.validators, None, 3, [b"\1" * 65]))
    assert qbft.sealing.hash(other) == qbft.sealing.hash(last) != last.digest()


def test_a_later_round_is_signed_with_its_number(qbft: QbftSimulator) -> None:
    qbft.seal(round_=300)
    assert accept_headers(qbft.headers).sealed == 4
    seals = [v.sign(b"\1" * 32) for v in qbft.validators]
    qbft.headers[-1] = replace_fields(qbft.headers[-1], extraData=encode_qbft_extra(qbft.validators, None, 301, seals))
    expect_refused_header(qbft.headers, "and is not one of the 4 validators")


def test_votes_of_more_than_half_admit_a_validator(qbft: QbftSimulator) -> None:
    for proposer in qbft.validators[:3]:
        qbft.seal(proposer=proposer, vote=(EVE, True))
    qbft.validators = sorted((*qbft.validators, EVE), key=lambda v: v.address)
    qbft.seal()
    assert accept_headers(qbft.headers).signers == format_signers(ADA, BEA, CAL, DOT, EVE)


def test_a_validator_added_without_votes_is_refused(qbft: QbftSimulator) -> None:
    for proposer in (ADA, BEA):
        qbft.seal(proposer=proposer, vote=(EVE, True))
    qbft.validators = sorted((*qbft.validators, EVE), key=lambda v: v.address)
    qbft.seal()
    expect_refused_header(qbft.headers, f"adds 0x{EVE.address.hex()} by 2 votes of 4 validators")


def test_votes_drop_a_validator(qbft: QbftSimulator) -> None:
    for proposer in (ADA, BEA, CAL):
        qbft.seal(proposer=proposer, vote=(DOT, False))
    qbft.validators = [v for v in qbft.validators if v != DOT]
    qbft.seal()
    assert accept_headers(qbft.headers).signers == format_signers(ADA, BEA, CAL)
    qbft.seal(by=[ADA, DOT, BEA])
    expect_refused_header(qbft.headers, f"0x{DOT.address.hex()} sealed it")


def test_validators_exchanged_at_once_are_refused(qbft: QbftSimulator) -> None:
    qbft.validators = [EVE]
    qbft.seal()
    expect_refused_header(qbft.headers, "by 0 votes")


@pytest.mark.parametrize("extra", [b"", b"\xc0", b"\xc5\x80\x80\x80\x80\x80", encode_rlp([b"", [], [], b"", []])])
def test_extra_data_that_is_not_qbft_s_is_refused(qbft: QbftSimulator, extra: bytes) -> None:
    qbft.seal()
    qbft.headers[-1] = replace_fields(qbft.headers[-1], extraData=extra)
    expect_refused_header(qbft.headers, "cannot be read")


# Neither


def test_a_chain_without_seals_is_reported_as_such() -> None:
    chain = CliqueSimulator(())
    client = detect_sealing(replace_fields(chain.headers[0], extraData=b""))
    assert (client.kind, client.signers, client.sealed) == ("none", (), 0)


def test_ibft_is_not_taken_for_qbft() -> None:
    chain = QbftSimulator((ADA,))
    ibft = encode_rlp([bytes(32), [ADA.address], b"", bytes(4), []])
    with pytest.raises(LedgerMismatch, match="IBFT is not supported"):
        detect_sealing(replace_fields(chain.headers[0], extraData=ibft, mixHash=ISTANBUL))


# Bytes from outside


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80",
        b"\xc0",
        b"\xc1" * 3000,
        encode_rlp([b""] * 15),
        encode_rlp([b""] * 30),
        b"\xff" * 40,
        b"\xf8\x01\x00",
    ],
)
def test_bytes_that_are_no_header_are_refused(raw: bytes) -> None:
    with pytest.raises(LedgerMismatch, match="cannot be read"):
        Header.decode(raw)


def test_a_header_comes_back_from_its_bytes(qbft: QbftSimulator) -> None:
    assert [Header.decode(h.raw) for h in qbft.headers] == qbft.headers


@pytest.mark.parametrize(("name", "value"), [("number", b"\0\1"), ("timestamp", b"\xff" * 9), ("stateRoot", b"\1")])
def test_fields_of_a_wrong_form_are_refused(qbft: QbftSimulator, name: str, value: bytes) -> None:
    with pytest.raises(LedgerMismatch, match="cannot be read"):
        Header.decode(replace_fields(qbft.headers[-1], **{name: value}).raw)


# RLP


def draw_item(rnd: random.Random, depth: int) -> Item:
    if depth == 0 or rnd.random() < 0.6:
        return rnd.randbytes(rnd.choice([0, 1, 2, 54, 55, 56, 57, 255, 256, 70_000]))
    return [draw_item(rnd, depth - 1) for _ in range(rnd.choice([0, 1, 3, 60]))]


def test_what_is_encoded_here_is_the_library_s_rlp() -> None:
    rnd = random.Random(1)
    items: list[Item] = [*(bytes([k]) for k in range(256)), *(draw_item(rnd, 3) for _ in range(100))]
    assert all(encode_rlp(item) == rlp.encode(item) for item in items)
