"""What the page reads of posts in this site's store: the topic, and the single numbers of a server's post.

A post that is sealed to others, damaged or out of reach has neither; the page says nothing of it then, and judges
nothing. Judging is the replay's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from coterie_chain.errors import ChainError
from coterie_chain.keys.envelopes import is_sealed
from coterie_chain.ledger.protocol import Record
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core import payload as pay
from coterie_learners.errors import ProtocolError
from coterie_node.run.codec import fetch
from coterie_node.run.follower import read_figures

MOST_POSTS = 20_000
# The page does not read larger posts.
MAX_POST_BYTES = 1 << 22


@dataclass(frozen=True)
class PostWords:
    """The topic of a post, and its single numbers by name."""

    topic: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class PostReader:
    """Posts by their digest; each is read once."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._known: OrderedDict[bytes, PostWords] = OrderedDict()
        self._lock = Lock()

    def read(self, record: Record) -> PostWords:
        """What a record's post says."""
        with self._lock:
            known = self._known.get(record.post.sha256)
        if known is not None:
            return known
        words, is_final = self._decode(record)
        if is_final:
            with self._lock:
                self._known[record.post.sha256] = words
                while len(self._known) > MOST_POSTS:
                    self._known.popitem(last=False)
        return words

    def _decode(self, record: Record) -> tuple[PostWords, bool]:
        """What a post says, and whether it will say nothing else later."""
        if record.post.size > MAX_POST_BYTES:
            return PostWords(), True
        try:
            blob = fetch(record.post, self._blobs)
            if is_sealed(blob):
                return PostWords(), True
            stamp, payload = pay.decode(pay.unpack(blob))
        except ChainError:
            return PostWords(), False  # a store may have it later
        except ProtocolError:
            return PostWords(), True
        return PostWords(stamp.topic, read_figures(payload) if record.kind == "server" else {}), True
