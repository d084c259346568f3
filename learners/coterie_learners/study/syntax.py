"""The syntax of formulas: R's, as far as a model needs it; parsed within bounds, never evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from coterie_learners.errors import StudyError

# Brackets and powers within each other.
MAX_DEPTH = 40
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"""
    r"""|(?P<text>"[^"\\]*"|'[^'\\]*')|(?P<sign><=|>=|==|[-+*/:^(),=<>.~]))"""
)


@dataclass(frozen=True)
class Constant:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Symbol:
    """A variable; "." is all declared ones that have no other role."""

    name: str


@dataclass(frozen=True)
class Quoted:
    """A text in quotation marks."""

    text: str


@dataclass(frozen=True)
class Bracket:
    """What stands in brackets."""

    inner: Node


@dataclass(frozen=True)
class Call:
    """A function with its arguments, each with its name or ""."""

    function: str
    arguments: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Chain:
    """Parts that are joined by signs of one rank, from the left; the first part's sign is "-" or none."""

    parts: tuple[tuple[str, Node], ...]


Part = TypeVar("Part")
Node: TypeAlias = Constant | Symbol | Quoted | Bracket | Call | Chain


def parse_syntax(text: str, whole: str) -> Node:
    """The tree of a text that is part of the formula `whole`; StudyError (CO-S201) names what is not understood."""
    return _Parser(list(_split(text, whole)), whole).read()


def syntax_error(whole: str, message: str) -> StudyError:
    """The error for a formula that is not understood."""
    return StudyError("CO-S201", f"In the formula {whole!r}, {message}. Write it as docs/study.md shows.")


def write_node(node: Node) -> str:
    """The text of a tree, always the same for the same tree."""
    if isinstance(node, Constant):
        return f"{node.value:.15g}"
    if isinstance(node, Symbol):
        return node.name
    if isinstance(node, Quoted):
        return f'"{node.text}"'
    if isinstance(node, Bracket):
        return f"({write_node(node.inner)})"
    if isinstance(node, Call):
        arguments = (f"{name} = {write_node(value)}" if name else write_node(value) for name, value in node.arguments)
        return f"{node.function}({', '.join(arguments)})"
    return "".join(_write_part(k, sign, part) for k, (sign, part) in enumerate(node.parts))


def _write_part(k: int, sign: str, part: Node) -> str:
    if not k:
        return ("-" if sign == "-" else "") + write_node(part)
    return (f" {sign} " if sign in ("+", "-", ">", "<", ">=", "<=", "==") else sign) + write_node(part)


def _split(text: str, whole: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or not match.lastgroup:
            raise syntax_error(whole, f"{text[at : at + 20].strip()!r} is not understood")
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()


class _Parser:
    """Reads tokens by rank: comparisons, sums, products, interactions, powers, and single parts."""

    RANKS = (("<", ">", "<=", ">=", "=="), ("+", "-"), ("*", "/"), (":",))

    def __init__(self, tokens: list[tuple[str, str]], whole: str) -> None:
        self._tokens = tokens
        self._whole = whole
        self._at = 0
        self._depth = 0
        self._calls = 0

    def read(self) -> Node:
        if not self._tokens:
            raise syntax_error(self._whole, "nothing follows, and it takes `+` between terms")
        node = self._rank(0)
        if self._at < len(self._tokens):
            raise syntax_error(self._whole, f"{self._tokens[self._at][1]!r} is not understood where it stands")
        return node

    def _next(self) -> str:
        """The next token if it is a sign; "" otherwise."""
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "sign":
            return self._tokens[self._at][1]
        return ""

    def _rank(self, rank: int) -> Node:
        if rank == len(self.RANKS):
            return self._power()
        sign = ""
        if rank == 1 and self._next() in ("+", "-"):
            sign = self._take()
        parts = [(sign, self._rank(rank + 1))]
        while self._next() in self.RANKS[rank]:
            sign = self._take()
            if rank == 1 and self._next() in ("+", "-"):  # a + -b
                second = self._take()
                sign = "-" if sign != second else "+"
                if self._next() in ("+", "-"):
                    raise syntax_error(self._whole, "it takes `+` between terms, and no more than one sign before one")
            parts.append((sign, self._rank(rank + 1)))
        return parts[0][1] if len(parts) == 1 and parts[0][0] in ("", "+") else Chain(tuple(parts))

    def _power(self) -> Node:
        base = self._single()
        if self._next() != "^":
            return base
        self._take()
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind != "number" or not token.isdigit():
            raise syntax_error(self._whole, f"{write_node(base) + '^'!r} is followed by no whole number")
        self._at += 1
        if self._next() == "^":
            raise syntax_error(self._whole, "a power has one exponent")
        return Chain((("", base), ("^", Constant(float(token)))))

    def _single(self) -> Node:
        if self._at >= len(self._tokens):
            raise syntax_error(self._whole, "it ends where a variable is missing")
        kind, token = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            return Constant(float(token))
        if kind == "text":
            return Quoted(token[1:-1])
        if kind == "name":
            return self._call(token) if self._next() == "(" else Symbol(token)
        if token == ".":
            return Symbol(".")
        if token == "(":
            node = self._enter(lambda: self._rank(0))
            self._expect(")")
            return Bracket(node)
        if token == "-" and self._calls and self._at < len(self._tokens):  # a * -b, in arithmetic
            return Bracket(Chain((("-", self._enter(self._power)),)))
        raise syntax_error(self._whole, f"a variable is missing before {token!r}; it takes `+` between terms")

    def _call(self, function: str) -> Call:
        self._take()
        self._calls += 1
        arguments: list[tuple[str, Node]] = []
        while self._next() != ")":
            arguments.append(self._enter(self._argument))
            if self._next() != ",":
                break
            self._take()
        self._expect(")")
        self._calls -= 1
        return Call(function, tuple(arguments))

    def _argument(self) -> tuple[str, Node]:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        following = self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else ("", "")
        if kind == "name" and following == ("sign", "="):
            self._at += 2
            return token, self._rank(0)
        return "", self._rank(0)

    def _enter(self, read: Callable[[], Part]) -> Part:
        """What stands within brackets, of which there may be so many within each other."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise syntax_error(self._whole, "brackets are nested too deeply")
        out = read()
        self._depth -= 1
        return out

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise syntax_error(self._whole, f"{sign!r} is missing")
        self._at += 1
