"""A vote about who makes blocks goes to this site's own chain node until the chain has it so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.node.founded_sites import make_founder

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.programs.ipc import Question
from coterie_node.errors import ConfigError
from coterie_node.network.founding import make_keys
from coterie_node.network.membership.sealer_votes import FOLDER, SealerVotes, record_sealer_vote

OTHER = "0x" + "ab" * 20


class CliqueNode:
    """What a sealing Geth answers about its votes, addresses in lower case; `blocks` are the sealers by number."""

    def __init__(self, *signers: str) -> None:
        self.blocks, self.proposals, self.is_up = [frozenset(signers)] * 10, dict[str, bool](), True
        self.calls: list[str] = []

    def seal(self, count: int, *signers: str) -> None:
        """Make blocks, in and after which these seal."""
        self.blocks += [frozenset(signers)] * count

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """The answers in order."""
        if not self.is_up:
            raise LedgerUnreachable("CO-C301", "away")
        return [self.answer(method, *params) for method, params in questions]

    def answer(self, method: str, *params: Any) -> Any:
        """One answer."""
        self.calls.append(method)
        if method == "clique_propose":
            self.proposals[params[0].lower()] = params[1]
        elif method == "clique_discard":
            del self.proposals[params[0]]
        elif method == "clique_getSigners":
            return sorted(self.blocks[int(params[0], 16)])
        return {"eth_blockNumber": hex(len(self.blocks) - 1), "clique_proposals": dict(self.proposals)}.get(method)


def test_a_vote_is_cast_again_after_the_node_forgot_it_and_taken_out_once_it_passed(tmp_path: Path) -> None:
    card, node = make_founder(tmp_path / "east", "east"), CliqueNode(OTHER)
    passed: list[str] = []
    votes = SealerVotes(tmp_path, node.ask, lambda vote: passed.append(vote.site))
    record_sealer_vote(tmp_path, card, seals=True)
    assert votes.step() == 1
    node.proposals.clear()  # Geth was started again
    assert votes.step() == 1
    assert node.proposals == {card.sealer.lower(): True}
    assert votes.step() == 1
    assert node.calls.count("clique_propose") == 2
    node.seal(3, OTHER, card.sealer.lower())
    assert (votes.step(), passed, node.proposals) == (0, ["east"], {})


def test_a_vote_that_passed_in_a_block_that_is_replaced_goes_on(tmp_path: Path) -> None:
    """It was taken out at once: with the others' votes, which the same branch had, the sealer then sealed for ever."""
    card = make_founder(tmp_path / "east", "east")
    others = ["0x" + f"{k:02x}" * 20 for k in range(1, 4)]
    node = CliqueNode(*others, card.sealer.lower())
    votes = SealerVotes(tmp_path, node.ask)
    record_sealer_vote(tmp_path, card, seals=False)
    votes.step()
    node.seal(2, *others)
    assert votes.step() == 1
    del node.blocks[-2:]  # the other branch, without the votes
    node.seal(2, *others, card.sealer.lower())
    assert votes.step() == 1
    assert node.proposals == {card.sealer.lower(): False}
    node.seal(3, *others)
    assert (votes.step(), node.proposals) == (0, {})


def test_a_sealer_is_voted_out_and_a_changed_mind_replaces_the_vote(tmp_path: Path) -> None:
    card = make_founder(tmp_path / "east", "east")
    node = CliqueNode(OTHER, card.sealer.lower())
    votes = SealerVotes(tmp_path, node.ask)
    record_sealer_vote(tmp_path, card, seals=False)
    votes.step()
    assert node.proposals == {card.sealer.lower(): False}
    record_sealer_vote(tmp_path, card, seals=True)
    assert (votes.step(), node.proposals) == (0, {})


def test_a_node_that_is_away_or_a_file_of_another_kind_ends_nothing(tmp_path: Path) -> None:
    card, node = make_founder(tmp_path / "east", "east"), CliqueNode(OTHER)
    votes = SealerVotes(tmp_path, node.ask)
    assert (votes.step(), node.calls) == (0, [])
    record_sealer_vote(tmp_path, card, seals=True)
    (tmp_path / FOLDER / "a.json").write_text('{"site": "east", "sealer": "no", "seals": true}')
    node.is_up = False
    assert votes.step() == 1


def test_another_chain_s_validators_are_not_voted_for_here(tmp_path: Path) -> None:
    card = make_keys(tmp_path / "north", "north", "10.0.0.1", "10.0.0.1", chain="qbft", scrypt=1 << 12)
    with pytest.raises(ConfigError) as refused:
        record_sealer_vote(tmp_path, card, seals=True)
    assert refused.value.code == "CO-F305"
