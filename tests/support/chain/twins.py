"""Catalog.sol and rules.py moved together: after each move both must have said the same and hold the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from support.chain.anvil import ANVIL_CHAIN_ID, AnvilClient
from support.chain.contracts import CATALOG, DeployedContracts, Founder, Log, encode_site_name

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.protocol import ZERO, Post, Silence, State
from coterie_chain.ledger.record_chain import compute_genesis_head, compute_next_head, flatten_post
from coterie_chain.ledger.rules import ZERO_ADDRESS, Moment, Rules, Seat
from coterie_chain.ledger.study_state import EACH, SERVER, Proposal, StudyState
from coterie_chain.store.cid import RAW, Cid

Schedule = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
GLORE_SCHEDULE: Schedule = ((), (EACH, SERVER), ())
NOTHING = (ZERO_ADDRESS, ZERO)
SIGNERS: dict[str, LocalAccount] = {}  # of the addresses that `derive_address` has made
JoiningTuple = tuple[bytes, bytes, int]
NO_JOINING: JoiningTuple = (ZERO, ZERO, 0)


def next_digest(*words: object) -> bytes:
    """A digest that differs from any other word's."""
    return sha256(repr(words).encode()).digest()


RECOMPUTED, REASON = next_digest("recomputed"), next_digest("reason")


@cache
def derive_address(name: str) -> str:
    """The address with which a test's site (or stranger) signs."""
    account: LocalAccount = Account.from_key(next_digest("key", name))
    SIGNERS[account.address.lower()] = account
    return account.address.lower()


def build_founder(name: str) -> Founder:
    """A site of that name."""
    return Founder(name, derive_address(name), next_digest("sealing", name), next_digest("peer", name))


def name_events(logs: Sequence[Log]) -> list[str]:
    """Names of the events, in order."""
    return [log.name for log in logs]


def catch_refusal(move: Callable[..., object], *args: object, **changes: object) -> tuple[object, ...]:
    """Name and arguments of the error with which a move is refused."""
    with pytest.raises(PostRejected) as caught:
        move(*args, **changes)
    return (caught.value.name, *caught.value.values)


class ContractAndRules:
    """One network twice. Callers are addresses; a refusal is the PostRejected on which both agree."""

    def __init__(self, anvil: AnvilClient, names: Sequence[str]) -> None:
        founders = [build_founder(name) for name in names]
        self.contracts = DeployedContracts(anvil, founders)
        self.rules = Rules((f.name, f.key, f.sealing, f.peer) for f in founders)
        self._heads: dict[int, tuple[int, bytes]] = {}
        self._agreed: dict[tuple[str, tuple[object, ...]], tuple[str, object]] = {}
        self.check()

    # The moves of both, in the order of rules.py

    def admit(self, by: str, name: str, address: str, sealing: bytes, peer: bytes) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.admit(by, name, address, sealing, peer, now),
            lambda: self.contracts.move(by, "admit", encode_site_name(name), address, sealing, peer),
        )

    def revoke(self, by: str, site: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.revoke(by, site, now),
            lambda: self.contracts.move(by, "revoke", site),
        )

    def recover(self, by: str, site: int, address: str, sealing: bytes) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.recover(by, site, address, sealing, now),
            lambda: self.contracts.move(by, "recover", site, address, sealing),
        )

    def offer(self, by: str, address: str, sealing: bytes) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.offer(by, address, sealing),
            lambda: self.contracts.move(by, "offer", address, sealing),
        )

    def accept(self, by: str, site: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.accept(by, site),
            lambda: self.contracts.move(by, "accept", site),
        )

    def vote_succession(self, by: str, address: str) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.vote_succession(by, address, now),
            lambda: self.contracts.move(by, "succeed", address),
        )

    def withdraw(self, by: str, motion: bytes) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.withdraw(by, motion, now),
            lambda: self.contracts.move(by, "withdraw", motion),
        )

    def propose(
        self,
        by: str,
        hash: bytes,
        order: tuple[int, ...],
        schedule: Schedule = GLORE_SCHEDULE,
        max_rounds: int = 3,
        timeout: int = 60,
        silence: int = Silence.WAIT,
        least: int = 1,
        joining: JoiningTuple = NO_JOINING,
    ) -> list[Log]:
        words = [bytes(w).ljust(32, b"\0") for w in schedule]
        terms = Proposal(hash, order, schedule, max_rounds, timeout, silence, least)
        return self._play_both(
            lambda now: self.rules.propose(by, terms, now),
            lambda: self.contracts.move(
                by, "propose", (hash, bytes(order), words, max_rounds, timeout, silence, least), joining
            ),
        )

    def join(self, by: str, study: int, hash: bytes, joining: JoiningTuple = NO_JOINING) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.join(by, study, hash, now),
            lambda: self.contracts.move(by, "join", study, hash, joining),
        )

    def decline(self, by: str, *studies: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.decline(by, studies),
            lambda: self.contracts.move(by, "decline", studies, 2),
        )

    def record(self, by: str, site: int, post: Post) -> list[Log]:
        def follow(now: Moment) -> None:
            kind, round_ = self.rules.post(by, site, post, now)
            seq, head = self.expect_chain(site)
            self._heads[site] = seq + 1, compute_next_head(head, seq, kind, round_, post)

        return self._play_both(follow, lambda: self.contracts.record(by, site, flatten_post(post)))

    def skip(self, by: str, study: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.skip(by, study, now),
            lambda: self.contracts.move(by, "skip", study),
        )

    def exclude(self, by: str, study: int, site: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.exclude(by, study, site, now),
            lambda: self.contracts.move(by, "exclude", study, site),
        )

    def unavailable(self, by: str, study: int, position: int, attempt: int, site: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.unavailable(by, study, position, attempt, site, now),
            lambda: self.contracts.move(by, "unavailable", study, position, attempt, site, 4),
        )

    def dispute(
        self, by: str, study: int, position: int, attempt: int = 0, site: int = 1, recomputed: bytes = RECOMPUTED
    ) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.dispute(by, study, position, attempt, site, recomputed, now),
            lambda: self.contracts.move(by, "dispute", study, position, attempt, site, recomputed),
        )

    def pause(self, by: str, study: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.pause(by, study, now),
            lambda: self.contracts.move(by, "pause", study, 7),
        )

    def resume(self, by: str, study: int) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.resume(by, study, now),
            lambda: self.contracts.move(by, "resume", study),
        )

    def abort(self, by: str, study: int, culprit: int = 0) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.abort(by, study, 9, culprit, now),
            lambda: self.contracts.move(by, "abort", study, 9, culprit),
        )

    def supersede(self, by: str, study: int, successor: int = 0, reason: bytes = REASON) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.supersede(by, study, successor, reason, now),
            lambda: self.contracts.move(by, "supersede", study, successor, reason),
        )

    def attest(self, by: str, study: int, snapshot: bytes) -> list[Log]:
        return self._play_both(
            lambda now: self.rules.attest(by, study, snapshot),
            lambda: self.contracts.move(by, "attest", study, snapshot, 1),
        )

    # What tests need besides

    def wait(self, seconds: int) -> None:
        """Let time pass before the next move."""
        self.contracts.wait(seconds)

    def mine(self, blocks: int) -> None:
        """Let blocks pass before the next move, a second each."""
        self.contracts.mine(blocks)

    def read_key(self, site: int) -> str:
        """The site's current key."""
        return self.rules.seats[site].key

    def expect_chain(self, site: int) -> tuple[int, bytes]:
        """`next` and `head` of the site's Model as they must be."""
        return self._heads.get(site, (1, compute_genesis_head(self.contracts.address, ANVIL_CHAIN_ID, site)))

    def draft(self, study: int, site: int, /, **changes: Any) -> Post:
        """The post that the open step wants from the site, but for the changes."""
        s = self.rules.studies[study]
        payload = next_digest("payload", study, s.position, s.attempt, site)
        wanted = Post(
            study=study,
            position=s.position,
            attempt=s.attempt,
            cid=str(Cid(1, RAW, next_digest("cid", payload))),
            sha256=payload,
            size=1234,
            converged=False,
            basis=s.basis,
            verdict=next_digest("verdict", site),
        )
        return replace(wanted, **changes)

    def post(self, study: int, site: int, /, **changes: Any) -> list[Log]:
        """Record a draft with the site's own key."""
        return self.record(self.read_key(site), site, self.draft(study, site, **changes))

    def complete_step(self, study: int, **changes: Any) -> None:
        """Let each site post that the open step waits for."""
        s = self.rules.studies[study]
        for site in s.posters():
            if site not in s.posted:
                self.post(study, site, **changes)

    def check(self) -> None:
        """Compare the whole state of both."""
        seats, studies = list(self.rules.seats.values()), self.rules.studies
        calls: list[tuple[str, tuple[object, ...]]] = [("siteCount", ()), ("studyCount", ()), ("successor", ())]
        calls += [c for s in seats for c in (("seat", (s.id,)), ("offered", (s.id,)), ("siteOf", (s.key,)))]
        calls += [c for i in studies for c in (("status", (i,)), ("terms", (i,)))]
        wanted: list[Any] = [len(seats), len(studies), self.rules.successor]
        wanted += [
            v for s in seats for v in (self._describe_seat(s), s.offered or NOTHING, self.rules.find_site(s.key))
        ]
        wanted += [v for s in studies.values() for v in (self._describe_status(s), _describe_terms(s))]
        for call, answer, want in zip(calls, self.contracts.read_answers(calls), wanted, strict=True):
            # decoding is what takes time; an answer that did not change need not be decoded again
            if self._agreed.get(call) != (answer, want):
                got = CATALOG.decode(call[0], answer)
                assert got == want, f"{call}: contract {got}, rules {want}"
                self._agreed[call] = answer, want

    def check_chains(self) -> None:
        """Compare every Model's hash chain."""
        for site in self.rules.seats:
            assert self.contracts.chain(site) == self.expect_chain(site), f"hash chain of site {site}"

    def _play_both(self, follow: Callable[[Moment], object], lead: Callable[[], list[Log]]) -> list[Log]:
        refusal = wanted = None
        logs: list[Log] = []
        try:
            logs = lead()
        except PostRejected as error:
            refusal = error
        try:
            follow(Moment(self.contracts.now, self.contracts.block))
        except PostRejected as error:
            wanted = error
        assert str(refusal) == str(wanted), f"contract: {refusal}; rules: {wanted}"
        self.check()
        if refusal is not None:
            raise refusal
        return logs

    def _describe_seat(self, s: Seat) -> tuple[bytes, str, bytes, bytes, str, bool, int]:
        return encode_site_name(s.name), s.key, s.sealing, s.peer, self.contracts.models[s.id], s.active, s.changed

    def _describe_status(self, s: StudyState) -> tuple[object, ...]:
        runs = s.state == State.RUNNING
        place = (int(s.state), s.position, s.attempt, s.round, s.phase, s.index, s.turn, s.deadline, s.done)
        sets = (_to_bitmap(s.active), _to_bitmap(self.rules.list_able(s)), _to_bitmap(s.joined), _to_bitmap(s.posted))
        now = (s.kind() if runs else 0, s.server() if runs else 0)
        return (*place, *sets, s.basis, *now, s.proposer, s.superseded)


def _describe_terms(s: StudyState) -> tuple[object, ...]:
    words = tuple(bytes(w).ljust(32, b"\0") for w in s.schedule)
    return s.hash, bytes(s.order), words, s.max_rounds, s.timeout, int(s.silence), s.least


def _to_bitmap(sites: set[int]) -> int:
    return sum(1 << site for site in sites)
