"""TOML from outside, read within bounds: size, digits of a number, parts of a dotted key, depth."""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_TOML = 1 << 20
MAX_KEY_PARTS = 16
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
# tomllib takes time that grows with the square of a dotted key's length, and no bound of its own.
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_KEY_PARTS}}}")
# Brackets that follow one another: a level each, whatever stands between them.
_DEEP = re.compile(r"(?:[\[{]\s*){64}")


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; ValueError for other text, and for text beyond the bounds."""
    if len(text) > MAX_TOML:
        raise ValueError(f"it has {len(text)} characters; the limit is {MAX_TOML}")
    if _LONG_KEY.search(text):
        raise ValueError(f"it has a key of more than {MAX_KEY_PARTS} parts")
    if _DEEP.search(text):
        raise ValueError("it is nested too deeply")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:  # Python's bound on the digits of a whole number
        raise ValueError("it has a number of thousands of digits") from None
