"""recode(x, "old" = "new", 3 = "new", else = "other"): a category of the levels or numbers of another variable."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.study.preparation.kinds import Space, Typed, ValueType
from coterie_learners.study.syntax import Call, MakeError, Node, Quoted, write_node


class TypesNodes(Protocol):
    """What checks an argument."""

    @property
    def explain(self) -> MakeError:
        """What makes an error."""

    def type(self, node: Node) -> Typed:
        """An argument with its kind."""


def type_recode(scope: TypesNodes, node: Call) -> Typed:
    """The category; its levels come in the order in which they are written."""
    if not node.arguments or node.arguments[0][0]:
        raise scope.explain('recode is written recode(x, "old" = "new", else = "other")', node.at)
    first = node.arguments[0][1]
    typed = scope.type(first)
    pairs, other = _read_pairs(scope, node)
    levels = tuple(dict.fromkeys([*pairs.values(), *([other] if other is not None else [])]))
    old, new = _list_codes(scope, node, typed.kind, pairs, levels)
    if other is None:
        _check_covers(scope, node, typed.kind, old)
    if len(levels) < 2:
        raise scope.explain("recode gives one level only", node.at)
    rest = np.nan if other is None else float(levels.index(other))

    def compute(space: Space) -> Array:
        x = typed.compute(space)
        out = np.full(np.shape(x), rest)
        for value, code in zip(old, new, strict=True):
            out = np.where(x == value, code, out)
        return np.where(np.isnan(x), np.nan, out)

    return Typed(ValueType("category", typed.kind.unit, levels=levels), typed.sources, compute)


def _read_pairs(scope: TypesNodes, node: Call) -> tuple[dict[str, str], str | None]:
    """The new level of each old one, as it is written, and that of all others."""
    pairs: dict[str, str] = {}
    other: str | None = None
    for name, value in node.arguments[1:]:
        if not isinstance(value, Quoted) or not name:
            raise scope.explain('recode takes pairs "old" = "new", and else = "other"', value.at)
        if name == "else":
            other = value.text
        elif name in pairs:
            raise scope.explain(f"recode has {name} twice", value.at)
        else:
            pairs[name] = value.text
    return pairs, other


def _list_codes(
    scope: TypesNodes, node: Call, kind: ValueType, pairs: dict[str, str], levels: tuple[str, ...]
) -> tuple[list[float], list[float]]:
    """The old values as numbers or level numbers, and the new level numbers."""
    old: list[float] = []
    for name in pairs:
        text = name[1:-1] if name[0] in "\"'" else None
        if kind.form == "category" and text in kind.levels:
            old.append(float(kind.levels.index(text)))
        elif kind.numeric and text is None and name[0] in ".0123456789":
            old.append(float(name))
        else:
            known = ", ".join(map(repr, kind.levels[:12])) if kind.levels else "numbers without quotation marks"
            raise scope.explain(f"{name} is no value of {write_node(node.arguments[0][1])}: {known}", node.at)
    return old, [float(levels.index(level)) for level in pairs.values()]


def _check_covers(scope: TypesNodes, node: Call, kind: ValueType, old: list[float]) -> None:
    """StudyError if a value has no new level."""
    whole = range(len(kind.levels)) if kind.form == "category" else range(2) if kind.form == "truth" else None
    if whole is None:
        raise scope.explain('recode of a number needs else = "other"', node.at)
    lacking = [k for k in whole if float(k) not in old]
    if lacking:
        word = repr(kind.levels[lacking[0]]) if kind.levels else str(lacking[0])
        raise scope.explain(f'recode leaves {word} out: add it, or else = "other"', node.at)
