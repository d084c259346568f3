"""Words by which columns, units and levels of several hospitals are recognised as the same: a list, no more."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_UNIT = re.compile(r"^(?P<name>.*?)\s*[\(\[](?P<unit>[^\)\]]{1,20})[\)\]]\s*$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class UnitConversion:
    """From one unit to another: value * factor / divisor."""

    factor: float
    divisor: float


@cache
def load_vocabulary() -> Mapping[str, Any]:
    """The words, by what they are for."""
    return tomllib.loads((files(__package__) / "vocabulary.toml").read_text(encoding="utf-8"))


def split_words(text: str) -> tuple[str, ...]:
    """The words of a column's name in lower case, without accents: `AlterJahre` and `alter_jahre` are the same two."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", _CAMEL.sub(" ", text)) if not unicodedata.combining(c))
    return tuple(re.findall(r"[a-z0-9µμ%]+", bare.lower()))


def split_unit(header: str) -> tuple[str, str]:
    """A column's name without its unit, and the unit as units are written here; "" where the name has none."""
    match = _UNIT.match(header)
    if match is not None:
        return match["name"], find_unit(match["unit"]) or match["unit"].strip()
    words = split_words(header)
    for length in (2, 1):
        last = " ".join(words[-length:])
        # A single letter at the end of a name is hardly ever a unit.
        unit = find_unit(last) if len(words) > length and len(last) > 1 else ""
        if unit:
            return " ".join(words[:-length]), unit
    return header, ""


def find_unit(text: str) -> str:
    """The unit that a text writes; "" for none that is known."""
    plain = " ".join(text.split())
    folded = plain.casefold()
    for unit, spellings in load_vocabulary()["units"].items():
        if folded == unit.casefold() or folded in spellings or folded == " ".join(split_words(unit)):
            return str(unit)
    return ""


def name_variable(header: str) -> str:
    """The name of the variable that a column seems to hold: a known one, or its own made fit for a study."""
    name, _ = split_unit(header)
    words = split_words(name)
    joined = " ".join(words)
    for variable, spellings in load_vocabulary()["columns"].items():
        known = {" ".join(split_words(spelling)) for spelling in (variable, *spellings)}
        if joined in known or "".join(words) in {spelling.replace(" ", "") for spelling in known}:
            return str(variable)
    own = re.sub(r"[^a-z0-9_]", "", "_".join(words))[:60]
    return own if re.match(r"[a-z_]", own) else f"x_{own}"


def name_level(text: str) -> str:
    """The level that a word seems to mean: a known one, or the word itself."""
    folded = text.strip().casefold()
    for level, spellings in load_vocabulary()["levels"].items():
        if folded == level or folded in spellings:
            return str(level)
    return text.strip()


def knows_level(text: str) -> bool:
    """Whether the list has the word, as a level or as a spelling of one."""
    folded = text.strip().casefold()
    return any(folded == level or folded in spellings for level, spellings in load_vocabulary()["levels"].items())


def find_conversion(variable: str, unit: str, wanted: str) -> UnitConversion | None:
    """How a variable's unit becomes another; None if that is not known."""
    for row in load_vocabulary()["conversions"]:
        if row.get("only") and variable not in row["only"]:
            continue
        factor, divisor = float(row.get("factor", 1.0)), float(row.get("divisor", 1.0))
        if (row["from"], row["to"]) == (unit, wanted):
            return UnitConversion(factor, divisor)
        if (row["to"], row["from"]) == (unit, wanted):
            return UnitConversion(divisor, factor)
    return None


def list_known_ratios(variable: str) -> list[tuple[str, str, float, bool]]:
    """Known conversions of a variable: from, to, how many `to` one `from` is, whether it is of this one alone."""
    rows = load_vocabulary()["conversions"]
    fit = [row for row in rows if not row.get("only") or variable in row["only"]]
    ratios = [row.get("factor", 1.0) / row.get("divisor", 1.0) for row in fit]
    return [(row["from"], row["to"], ratio, "only" in row) for row, ratio in zip(fit, ratios, strict=True)]


def looks_like_identifier(header: str) -> bool:
    """Whether a column's name is that of something that identifies a person."""
    words = split_words(header)
    known = set(load_vocabulary()["identifiers"]["words"])
    return bool(known & {*words, "".join(words)})
