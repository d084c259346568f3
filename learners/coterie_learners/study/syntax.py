"""The syntax of formulas and of expressions; parsed within bounds, never evaluated as code.

Formulas have R's syntax, as far as a model needs it. Expressions (conditions on rows, derived variables) have the same
arithmetic and functions, and besides dates, `!=`, `and`, `or`, `not`, `x in ("a", "b")` and `x is missing`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar

from coterie_learners.errors import StudyError

# Brackets and powers within each other.
MAX_DEPTH = 40
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"""
    r"""|(?P<text>"[^"\\]*"|'[^'\\]*')|(?P<sign><=|>=|==|[-+*/:^(),=<>.~]))"""
)
_EXPRESSION_TOKEN = re.compile(
    r"""\s*(?:(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9]))"""
    r"""|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<text>"[^"\\]*"|'[^'\\]*')|(?P<sign><=|>=|==|!=|[-+*/^(),=<>]))"""
)
# What is said of `(1 | ward)`.
_RANDOM_EFFECTS = (
    ": there are no random effects; take the variable as a category, site_intercepts = true, or sandwich errors by "
    'patient or site (robust = "patient", "site")'
)
# Words of an expression that are no names of variables.
WORDS = ("and", "or", "not", "in", "is", "missing")


class Token(NamedTuple):
    """A piece of text: what it is, and at which character it begins, counted from 0."""

    kind: str
    text: str
    at: int


# What makes an error of a message, and the character that it is about.
MakeError: TypeAlias = Callable[[str, int], StudyError]


@dataclass(frozen=True)
class Constant:
    """A constant."""

    value: float
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Symbol:
    """A variable; "." is all declared ones that have no other role."""

    name: str
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Quoted:
    """A text in quotation marks."""

    text: str
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Bracket:
    """What stands in brackets."""

    inner: Node
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Call:
    """A function with its arguments, each with its name or ""."""

    function: str
    arguments: tuple[tuple[str, Node], ...]
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Chain:
    """Parts that are joined by signs of one rank, from the left; the first part's sign is "-" or none."""

    parts: tuple[tuple[str, Node], ...]
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Day:
    """A date of an expression, as YYYY-MM-DD."""

    text: str
    at: int = field(default=0, compare=False, repr=False)


Part = TypeVar("Part")
Node: TypeAlias = Constant | Symbol | Quoted | Day | Bracket | Call | Chain


def parse_syntax(text: str, whole: str) -> Node:
    """The tree of a text that is part of the formula `whole`; StudyError (CO-S201) names what is not understood."""

    def explain(message: str, _: int) -> StudyError:
        return syntax_error(whole, message)

    return _Parser(list(_split(text, _TOKEN, explain)), explain).read()


def parse_expression(text: str, explain: MakeError) -> Node:
    """The tree of an expression; what `explain` makes of a message is raised where it is not understood."""
    return _ExpressionParser(list(_split(text, _EXPRESSION_TOKEN, explain)), explain).read()


def syntax_error(whole: str, message: str) -> StudyError:
    """The error for a formula that is not understood."""
    return StudyError("CO-S201", f"In the formula {whole!r}, {message}. Write it as docs/study.md shows.")


def write_node(node: Node) -> str:
    """The text of a tree, always the same for the same tree."""
    if isinstance(node, Constant):
        return f"{node.value:.15g}"
    if isinstance(node, Symbol):
        return node.name
    if isinstance(node, Day):
        return node.text
    if isinstance(node, Quoted):
        return f'"{node.text}"'
    if isinstance(node, Bracket):
        return f"({write_node(node.inner)})"
    if isinstance(node, Call):
        arguments = (f"{name} = {write_node(value)}" if name else write_node(value) for name, value in node.arguments)
        return f"{node.function}({', '.join(arguments)})"
    return "".join(_write_part(k, sign, part) for k, (sign, part) in enumerate(node.parts))


_SPACED = ("+", "-", ">", "<", ">=", "<=", "==", "!=", "and", "or")


def _write_part(k: int, sign: str, part: Node) -> str:
    if not k:
        return ("-" if sign == "-" else "") + write_node(part)
    return (f" {sign} " if sign in _SPACED else sign) + write_node(part)


def _split(text: str, pattern: re.Pattern[str], explain: MakeError) -> Iterator[Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = pattern.match(text, at)
        if match is None or not match.lastgroup:
            rest = text[at:]
            wish = _RANDOM_EFFECTS if rest.lstrip().startswith("|") else ""
            raise explain(f"{rest[:20].strip()!r} is not understood{wish}", at + len(rest) - len(rest.lstrip()))
        yield Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        at = match.end()


class _Parser:
    """Reads tokens by rank: comparisons, sums, products, interactions, powers, and single parts."""

    RANKS: tuple[tuple[str, ...], ...] = (("<", ">", "<=", ">=", "=="), ("+", "-"), ("*", "/"), (":",))
    SUMS = 1
    # What may be an argument's name.
    NAMES: tuple[str, ...] = ("name",)

    def __init__(self, tokens: list[Token], explain: MakeError) -> None:
        self._tokens = tokens
        self._explain = explain
        self._at = 0
        self._depth = 0
        self._calls = 0

    def read(self) -> Node:
        if not self._tokens:
            raise self._explain("nothing follows, and it takes `+` between terms", 0)
        node = self._rank(0)
        if self._at < len(self._tokens):
            raise self._explain(f"{self._peek().text!r} is not understood where it stands", self._place)
        return node

    def _peek(self, further: int = 0) -> Token:
        """The next token, or one further on; an empty one behind the last."""
        at = self._at + further
        if at < len(self._tokens):
            return self._tokens[at]
        return Token("", "", self._tokens[-1].at + len(self._tokens[-1].text) if self._tokens else 0)

    @property
    def _place(self) -> int:
        """The character at which the next token begins."""
        return self._peek().at

    def _next(self) -> str:
        """The next token if it is a sign; "" otherwise."""
        return self._peek().text if self._peek().kind == "sign" else ""

    def _rank(self, rank: int) -> Node:
        if rank == len(self.RANKS):
            return self._power()
        sign, place = "", self._place
        if rank == self.SUMS and self._next() in ("+", "-"):
            sign = self._take()
        parts = [(sign, self._rank(rank + 1))]
        while self._next() in self.RANKS[rank]:
            sign = self._take()
            if rank == self.SUMS and self._next() in ("+", "-"):  # a + -b
                second = self._take()
                sign = "-" if sign != second else "+"
                if self._next() in ("+", "-"):
                    message = "it takes `+` between terms, and no more than one sign before one"
                    raise self._explain(message, self._place)
            parts.append((sign, self._rank(rank + 1)))
        return parts[0][1] if len(parts) == 1 and parts[0][0] in ("", "+") else Chain(tuple(parts), place)

    def _power(self) -> Node:
        place, base = self._place, self._single()
        if self._next() != "^":
            return base
        self._take()
        token = self._peek()
        if token.kind != "number" or not token.text.isdigit():
            raise self._explain(f"{write_node(base) + '^'!r} is followed by no whole number", self._place)
        self._at += 1
        if self._next() == "^":
            raise self._explain("a power has one exponent", self._place)
        return Chain((("", base), ("^", Constant(float(token.text), token.at))), place)

    def _single(self) -> Node:
        if self._at >= len(self._tokens):
            raise self._explain("it ends where a variable is missing", self._place)
        kind, token, place = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            return Constant(float(token), place)
        if kind == "text":
            return Quoted(token[1:-1], place)
        if kind == "date":
            return Day(token, place)
        if kind == "name":
            return self._call(token, place) if self._next() == "(" else Symbol(token, place)
        if token == ".":
            return Symbol(".", place)
        if token == "(":
            node = self._enter(lambda: self._rank(0))
            self._expect(")")
            return Bracket(node, place)
        if token == "-" and self._calls and self._at < len(self._tokens):  # a * -b, in arithmetic
            return Bracket(Chain((("-", self._enter(self._power)),), place), place)
        raise self._explain(f"a variable is missing before {token!r}; it takes `+` between terms", place)

    def _call(self, function: str, place: int) -> Call:
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
        return Call(function, tuple(arguments), place)

    def _argument(self) -> tuple[str, Node]:
        kind, name, _ = self._peek()
        if kind in self.NAMES and self._peek(1)[:2] == ("sign", "="):
            self._at += 2
            return name, self._rank(0)
        return "", self._rank(0)

    def _enter(self, read: Callable[[], Part]) -> Part:
        """The expression within brackets; at most MAX_DEPTH brackets may be nested."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._explain("brackets are nested too deeply", self._place)
        out = read()
        self._depth -= 1
        return out

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1].text

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise self._explain(f"{sign!r} is missing", self._place)
        self._at += 1


class _ExpressionParser(_Parser):
    """Reads expressions: `or`, `and`, `not` and tests of a value stand above comparisons."""

    RANKS = (("or",), ("and",), ("not",), ("<", ">", "<=", ">=", "==", "!="), ("+", "-"), ("*", "/"))
    SUMS = 4
    NAMES = ("name", "text", "number")
    TESTS = 2

    def __init__(self, tokens: list[Token], explain: MakeError) -> None:
        super().__init__(tokens, explain)
        self._calls = 1  # all of it is arithmetic

    def read(self) -> Node:
        if not self._tokens:
            raise self._explain("nothing is written", 0)
        return super().read()

    def _next(self) -> str:
        """The next token if it is a sign or a word of the language; "" otherwise."""
        kind, text, _ = self._peek()
        return text if kind == "sign" or (kind == "name" and text in WORDS) else ""

    def _rank(self, rank: int) -> Node:
        if rank != self.TESTS:
            return super()._rank(rank)
        if self._next() == "not":
            place = self._place
            self._take()
            return Call("not", (("", self._enter(lambda: self._rank(self.TESTS))),), place)
        return self._test(self._rank(rank + 1))

    def _test(self, node: Node) -> Node:
        """`x in ("a", "b")`, `x not in (...)`, `x is missing`, `x is not missing`; else the node."""
        place, negated = self._place, False
        if self._next() == "is":
            self._take()
            if self._next() == "not":
                negated = bool(self._take())
            self._expect("missing")
            call = Call("missing", (("", node),), place)
        elif self._next() == "in" or (self._next() == "not" and self._peek(1).text == "in"):
            negated = self._take() == "not" and bool(self._take())
            if self._next() != "(":
                raise self._explain('`in` is followed by a list, such as ("a", "b")', self._place)
            call = Call("in", (("", node), *self._call("in", place).arguments), place)
        else:
            return node
        return Call("not", (("", call),), place) if negated else call

    def _single(self) -> Node:
        if self._next() in WORDS:
            raise self._explain(f"a variable is missing before {self._next()!r}", self._place)
        return super()._single()
