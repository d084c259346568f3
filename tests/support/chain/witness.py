"""What a reader of the logs alone can hold the contracts to, knowing nothing of their state or their rules' code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from support.chain.anvil import ANVIL_CHAIN_ID
from support.chain.contracts import Log

from coterie_chain.ledger.protocol import Post
from coterie_chain.ledger.record_chain import compute_genesis_head, compute_next_head, format_cid
from coterie_chain.ledger.study_state import EACH


@dataclass
class OpenStep:
    """How far a study has come."""

    parties: set[int]
    basis: bytes
    position: int = 0
    attempt: int = 0
    kind: int = 0
    posted: set[int] = field(default_factory=set)
    first: int = 0  # attempt with which a step begins
    start: bytes = b""  # basis when the step began, and when the one before it did
    before: bytes = b""

    def is_complete(self) -> bool:
        return self.posted == self.parties if self.kind == EACH else len(self.posted) == 1


class LogChecker:
    """Reads logs in order and fails at the first that breaks the protocol."""

    def __init__(self, catalog: str) -> None:
        self._catalog = catalog
        self._keys: dict[int, str] = {}
        self._sites: dict[str, int] = {}
        self._studies: dict[int, OpenStep] = {}
        self._slots: set[tuple[int, int, int, int]] = set()
        self.heads: dict[int, tuple[int, bytes]] = {}

    def read(self, logs: Iterable[Log]) -> None:
        for log in logs:
            follow = getattr(self, f"_on_{log.name}", None)
            if follow is not None:
                follow(log, log.args)

    def _on_SiteAdmitted(self, log: Log, args: dict[str, Any]) -> None:
        site = args["site"]
        self._keys[site], self._sites[args["model"]] = args["key"], site
        self.heads[site] = 1, compute_genesis_head(self._catalog, ANVIL_CHAIN_ID, site)

    def _on_KeyChanged(self, log: Log, args: dict[str, Any]) -> None:
        self._keys[args["site"]] = args["key"]

    def _on_SiteRevoked(self, log: Log, args: dict[str, Any]) -> None:
        del self._keys[args["site"]]

    def _on_StudyProposed(self, log: Log, args: dict[str, Any]) -> None:
        hash_, order = args["terms"][:2]
        self._studies[args["study"]] = OpenStep(set(order), hash_, start=hash_, before=hash_)

    def _on_ServerSkipped(self, log: Log, args: dict[str, Any]) -> None:
        self._restart_step(args)

    def _on_SiteExcluded(self, log: Log, args: dict[str, Any]) -> None:
        self._reopen(args)
        self._studies[args["study"]].parties.discard(args["site"])

    def _on_StepReopened(self, log: Log, args: dict[str, Any]) -> None:
        self._reopen(args)

    def _on_SiteLeft(self, log: Log, args: dict[str, Any]) -> None:
        self._restart_step(args)
        self._studies[args["study"]].parties.discard(args["by"])

    def _reopen(self, args: dict[str, Any]) -> None:
        """The study begins its open step again, or goes back to the last one that is over."""
        step = self._studies[args["study"]]
        is_over = args["position"] == step.position and step.is_complete()
        if not is_over and args["position"] != step.position - 1:
            self._restart_step(args)
            return
        highest = max(step.attempt, args["attempt"], step.first)
        step.position, step.attempt, step.first = args["position"], highest + 1, highest + 1
        step.basis = step.start = step.start if is_over else step.before
        step.posted.clear()

    def _restart_step(self, args: dict[str, Any]) -> None:
        step = self._studies[args["study"]]
        if args["position"] == step.position + 1:
            self._advance(step)
        assert (args["position"], args["attempt"]) == (step.position, step.attempt)
        step.attempt += 1
        step.posted.clear()

    def _advance(self, step: OpenStep) -> None:
        assert step.is_complete(), f"step {step.position} was left with {step.posted} of {step.parties}"
        step.position, step.attempt, step.posted = step.position + 1, step.first, set()
        step.before, step.start = step.start, step.basis

    def _on_Recorded(self, log: Log, args: dict[str, Any]) -> None:
        site = self._sites[log.emitter]
        assert log.sender == self._keys.get(site), f"{log.sender} wrote a record of site {site}"
        self._extend(site, log)
        step = self._studies[args["study"]]
        if args["position"] == step.position + 1:
            self._advance(step)
        post = _post(args["post"])
        slot = (post.study, post.position, post.attempt, site)
        assert slot not in self._slots, f"a second record at {slot}"
        self._slots.add(slot)
        assert (post.position, post.attempt, post.basis) == (step.position, step.attempt, step.basis)
        assert site in step.parties, f"site {site} is no party of study {post.study}"
        step.kind = args["kind"]
        step.posted.add(site)
        if step.kind != EACH:
            step.basis = post.sha256

    def _extend(self, site: int, log: Log) -> None:
        args = log.args
        seq, head = self.heads[site]
        assert args["seq"] == seq
        assert args["head"] == compute_next_head(head, seq, args["kind"], args["round"], _post(args["post"]))
        self.heads[site] = seq + 1, args["head"]


def _post(values: tuple[Any, ...]) -> Post:
    study, position, attempt, codec, size, converged, cid, sha, basis, verdict = values
    return Post(study, position, attempt, format_cid(codec, cid), sha, size, converged, basis, verdict)
