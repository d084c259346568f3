"""Live parts as they were last rendered, so that a hundred viewers cost what one does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

MOST_RENDERED = 200


class PartCache:
    """Rendered parts by name, roles and version."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[str, frozenset[str]], tuple[tuple[int, ...], str]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: str, roles: frozenset[str], version: tuple[int, ...], make: Callable[[], str]) -> str:
        """A part of this version, rendered if no viewer with these roles has asked for it yet."""
        with self._lock:
            kept = self._parts.get((name, roles))
        if kept is not None and kept[0] == version:
            return kept[1]
        with self._lock:
            kept = self._parts.get((name, roles))
            if kept is None or kept[0] != version:
                kept = version, make()
                self._parts[name, roles] = kept
                while len(self._parts) > MOST_RENDERED:
                    self._parts.popitem(last=False)
        return kept[1]
