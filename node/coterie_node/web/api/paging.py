"""Lists in parts: a cursor says where the next part begins."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from coterie_node.web.api.bodies import Page
from coterie_node.web.api.tokens import Refused

Limit = Annotated[int, Field(ge=1, le=500)]
Cursor = Annotated[str | None, Field(max_length=40)]
_FORM = re.compile(r"after:([0-9]{1,9})")


def make_page(items: Sequence[dict[str, Any]], limit: int, cursor: str | None) -> Page:
    """A part of a list that only grows at its end; Refused (CO-H117) for a cursor that this API did not give."""
    start = 0 if cursor is None else _read(cursor)
    end = start + limit
    return Page(items=list(items[start:end]), next=_write(end) if end < len(items) else None)


def _write(position: int) -> str:
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode().rstrip("=")


def _read(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except ValueError:
        text = ""
    match = _FORM.fullmatch(text)
    if match is None or _write(int(match[1])) != cursor:
        raise Refused("CO-H117", "This API did not give the cursor. Begin without one.", 422)
    return int(match[1])
