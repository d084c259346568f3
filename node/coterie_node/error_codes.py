"""Error codes: each has one cause and one remedy. The data are in codes.toml; docs/errors.md is written from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from coterie_node.errors import ConfigError

_CODE = re.compile(r"(?:CO-)?([A-Z]\d{3})")


@dataclass(frozen=True)
class ErrorCode:
    """One code, such as CO-F342, with the section that it belongs to."""

    code: str
    section: str
    cause: str
    remedy: str


@cache
def load_codes() -> Mapping[str, ErrorCode]:
    """Every code of the product, in the order of the sections."""
    data = tomllib.loads((files("coterie_node") / "codes.toml").read_text(encoding="utf-8"))
    codes: dict[str, ErrorCode] = {}
    for section in data.values():
        for key, entry in section.items():
            if key in ("title", "remedy"):
                continue
            cause, remedy = (entry, section["remedy"]) if isinstance(entry, str) else entry
            codes[f"CO-{key}"] = ErrorCode(f"CO-{key}", section["title"], cause, remedy)
    return codes


def explain_code(text: str) -> ErrorCode:
    """The code that a person typed, with or without `CO-`; ConfigError CO-F315 if there is none of that name."""
    match = _CODE.fullmatch(text.strip().upper())
    code = load_codes().get(f"CO-{match.group(1)}") if match else None
    if code is None:
        raise ConfigError(
            "CO-F315", f"There is no error code {text!r}. A code has the form CO-F342; see docs/errors.md."
        )
    return code


def render_page() -> str:
    """The tables of docs/errors.md, one for each section."""
    lines: list[str] = []
    section = ""
    for code in load_codes().values():
        if code.section != section:
            section = code.section
            lines += ["", f"## {section}", "", "| code | cause | remedy |", "|---|---|---|"]
        lines.append(f"| {code.code} | {code.cause} | {code.remedy} |")
    return "\n".join(lines) + "\n"
