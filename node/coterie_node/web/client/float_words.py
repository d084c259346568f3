"""Floats that JSON has no numbers for: a fit may hold NaN and infinities, and loses no digit and no NaN on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_PREFIX = "float:"


def write_floats(value: Any) -> Any:
    """A value with words in the place of NaN and infinities, at any depth."""
    if isinstance(value, Mapping):
        return {str(name): write_floats(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [write_floats(item) for item in value]
    return f"{_PREFIX}{value}" if isinstance(value, float) and not math.isfinite(value) else value


def read_floats(value: Any) -> Any:
    """The inverse."""
    if isinstance(value, Mapping):
        return {name: read_floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [read_floats(item) for item in value]
    if isinstance(value, str) and value in (f"{_PREFIX}nan", f"{_PREFIX}inf", f"{_PREFIX}-inf"):
        return float(value.removeprefix(_PREFIX))
    return value
