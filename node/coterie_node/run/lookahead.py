"""What a site works out ahead of the ledger: the next server's post, which anybody can compute from the posts so far.

If blocks take time, a site that waited for each server's record would lose one block in each round. It computes the
server's post itself, feeds its machine with it, and sends its own next record behind it, so that one block takes both.
The ledger decides: the record names the post that it builds on, so that the contract refuses it if the server posts
something else. Nothing of a prediction is read as the server's word until the ledger confirms it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coterie_chain.ledger.protocol import OpenStep, Post, Record, StudyView
from coterie_learners.core.protocol import Step


@dataclass(frozen=True)
class PredictedPost:
    """The post of a server that this site computed itself and builds on before it is on the ledger.

    `open` is the step as it was open then. `followed`: whether this site has sent what comes next.
    """

    step: Step
    open: OpenStep
    server: str
    post: Post
    figures: Mapping[str, float]
    followed: bool = False

    def agrees_with(self, records: tuple[Record, ...]) -> bool:
        """Whether the step's records hold the very post of the very server."""
        return [(r.site, _read_content(r.post)) for r in records] == [(self.server, _read_content(self.post))]

    def is_pending(self, view: StudyView) -> bool:
        """Whether the step still waits for its server.

        Another attempt has another server. A step that is not open and has no records was taken back.
        """
        slot = (self.open.position, self.open.attempt)
        return view.open is not None and (view.open.position, view.open.attempt) == slot


def _read_content(post: Post) -> tuple[str, bytes, int, bool]:
    return post.cid, post.sha256, post.size, post.converged
