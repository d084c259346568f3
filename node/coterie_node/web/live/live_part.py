"""A live part in pieces: a viewer who has seen it before gets only what changed.

A part is HTML. A piece of it is one element with an id, and stands between the marks `<!--piece ID-->` and
`<!--/piece-->`; no piece is inside of another. What a peer writes is escaped, so that it never makes a mark.

    part as it was, part as it is --> the part as it is, with `<template data-keep="FIRST LAST">` for pieces that stand
                                      there already, one after the other, as they are

A list of a thousand studies of which one has changed is then a few hundred bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_PIECE = re.compile(r"<!--piece ([A-Za-z0-9_-]+)-->(.*?)<!--/piece-->", re.DOTALL)


@dataclass(frozen=True)
class _Text:
    """What stands before a piece, and the piece: its id and its HTML. At the end of a part there is none."""

    before: str
    name: str = ""
    html: str = ""


@dataclass(frozen=True, eq=False)
class LivePart:
    """One rendering of a part; `version` is that of what it shows."""

    html: str
    version: tuple[int, ...] = ()
    _texts: tuple[_Text, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        texts = tuple(_split(self.html))
        object.__setattr__(self, "_texts", texts)
        object.__setattr__(self, "html", "".join(text.before + text.html for text in texts))

    def write_changes(self, old: LivePart | None) -> str:
        """What makes this part of an older one, in HTML; empty if it is the same, the whole part if there is none."""
        if old is None:
            return self.html
        if old is self or old.html == self.html:
            return ""
        before = {text.name: at for at, text in enumerate(old._texts) if text.name}
        return "".join(_write(self._texts, old._texts, before))


def _split(html: str) -> Iterator[_Text]:
    at = 0
    for match in _PIECE.finditer(html):
        yield _Text(html[at : match.start()], match[1], match[2])
        at = match.end()
    yield _Text(html[at:])


def _write(new: tuple[_Text, ...], old: tuple[_Text, ...], before: Mapping[str, int]) -> Iterator[str]:
    """The texts of a part, with one template for each run of pieces that stand in the old part in this order."""
    at = 0
    while at < len(new):
        yield new[at].before
        end, place = at, before.get(new[at].name, len(old))
        while end < len(new) and place < len(old) and _is_kept(new[end], old[place], end > at):
            end, place = end + 1, place + 1
        if end > at:
            yield f'<template data-keep="{new[at].name} {new[end - 1].name}"></template>'
        else:
            yield new[at].html
        at = max(end, at + 1)


def _is_kept(new: _Text, old: _Text, inside: bool) -> bool:
    """Whether a piece is the same; inside of a run nothing but space may stand before it."""
    if not new.name or (new.name, new.html) != (old.name, old.html):
        return False
    return not inside or (new.before == old.before and not new.before.strip())
