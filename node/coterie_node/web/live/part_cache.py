"""Live parts as they were last rendered, and what changed in them, so that a hundred viewers cost what one does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from coterie_node.web.live.live_part import LivePart

# Parts that are kept, changes that are kept, and parts that are rendered at a time.
MOST_RENDERED, MOST_CHANGES, MOST_AT_ONCE = 200, 200, 2


class PartCache:
    """Rendered parts by name, roles and version; each is rendered once, in a thread."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[str, frozenset[str]], tuple[tuple[int, ...], Future[LivePart]]] = OrderedDict()
        self._changes: OrderedDict[tuple[LivePart | None, LivePart], str] = OrderedDict()
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="part")
        self._lock = Lock()

    def start(
        self, name: str, roles: frozenset[str], version: tuple[int, ...], make: Callable[[], str]
    ) -> Future[LivePart]:
        """A part of this version, rendered if no viewer with these roles has asked for it yet."""
        with self._lock:
            kept = self._parts.get((name, roles))
            if kept is None or kept[0] != version or (kept[1].done() and kept[1].exception() is not None):
                kept = version, self._pool.submit(lambda: LivePart(make(), version))
                self._parts[name, roles] = kept
                while len(self._parts) > MOST_RENDERED:
                    self._parts.popitem(last=False)
            return kept[1]

    def write_event(self, old: LivePart | None, new: LivePart) -> str:
        """What makes a part of an older one, as it is sent; it is written once for all who have that one."""
        with self._lock:
            known = self._changes.get((old, new))
            if known is None:
                known = self._changes[old, new] = _encode(new.write_changes(old))
                while len(self._changes) > MOST_CHANGES:
                    self._changes.popitem(last=False)
            return known


def _encode(html: str) -> str:
    """An event of a stream; empty for nothing."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: part\n{lines}\n" if html else ""
