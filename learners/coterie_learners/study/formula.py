"""From the text of a formula to its terms, as R's `terms.formula` has them.

`a + b`, `a:b`, `a*b` (a + b + a:b), `a/b` (a + a:b), `(a + b)^2` (all products of at most two), `- term`, `.` (every
declared variable without another role), `0` or `-1` (no intercept), `offset(a)`. `a^2` is the power of a number. A
function of columns is one term part under its own text; `derived` says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from coterie_learners.errors import StudyError
from coterie_learners.study.syntax import (
    Bracket,
    Call,
    Chain,
    Constant,
    Node,
    Symbol,
    parse_syntax,
    syntax_error,
    write_node,
)

MAX_COLUMNS = 2000
MAX_FORMULA = 10_000
MAX_POWER = 99

FormulaTerm = tuple[tuple[str, int], ...]
# Terms by their parts, in the order in which the formula has them.
Terms = dict[frozenset[tuple[str, int]], FormulaTerm]


@dataclass(frozen=True)
class Formula:
    """A parsed formula: outcome, terms as tuples of (variable, power), intercept or not, offset variable or none.

    A part of a term may be a function of variables: its text takes the place of the variable, and `functions` has its
    syntax.
    """

    outcome: str
    terms: tuple[FormulaTerm, ...]
    intercept: bool
    offset: str | None
    functions: Mapping[str, Call] = field(default_factory=dict, hash=False)


@lru_cache(maxsize=512)
def parse_formula(text: str, declared: tuple[str, ...] = ()) -> Formula:
    """Parse `outcome ~ terms`; StudyError names the part that is not understood.

    `declared`: the variables that `.` means, with or without the outcome. Terms are counted before they are
    made: `a*b*c*...` of 30 variables means a thousand million of them.
    """
    if len(text) > MAX_FORMULA:
        raise StudyError(
            "CO-S201", f"The formula has {len(text)} characters; the limit is {MAX_FORMULA}. Use a shorter one."
        )
    left, tilde, right = text.partition("~")
    outcome = left.strip()
    if not tilde or not outcome.isascii() or not outcome.isidentifier():
        message = f"The formula {text!r} does not begin with `outcome ~`, the outcome being a declared variable"
        raise StudyError("CO-S201", f"{message}. {_advise_outcome(outcome)}.")
    if right.strip().endswith("+"):
        raise StudyError(
            "CO-S201", f"The formula {text!r} ends with `+`. Add the term that is missing, or delete the `+`."
        )
    return _Reader(text, outcome, declared).read(parse_syntax(right, text))


def _advise_outcome(outcome: str) -> str:
    """What stands in place of a function of the outcome."""
    if outcome.startswith("Surv("):
        return "Write the event alone (`death ~ age`), and name `time` and `event` in [learner] of cox"
    if outcome.startswith("cbind("):
        return 'A row has the outcome 0 or 1; in glore it may stand for many patients (weight_kind = "frequency")'
    return "For a function of the outcome use a link, or map the column"


def unite_formulas(formulas: Sequence[Formula]) -> Formula:
    """One formula whose columns hold those of several: their terms, and outcomes other than the first as terms.

    Offsets and weights are no columns of it.
    """
    first = formulas[0].outcome
    outcomes: list[FormulaTerm] = [((f.outcome, 1),) for f in formulas if f.outcome != first]
    terms = {frozenset(term): term for term in (*outcomes, *(term for f in formulas for term in f.terms))}
    functions = {name: call for f in formulas for name, call in f.functions.items()}
    return Formula(first, tuple(sorted(terms.values(), key=len)), True, None, functions)


class _Reader:
    """Makes terms of a formula's syntax."""

    def __init__(self, text: str, outcome: str, declared: Sequence[str]) -> None:
        self._text = text
        self._others = [name for name in declared if name != outcome]
        self._outcome = outcome
        self._intercept = True
        self._offset: str | None = None
        self._functions: dict[str, Call] = {}

    def read(self, node: Node) -> Formula:
        terms = self._sum(node, top=True)
        if not terms and not self._intercept:
            raise StudyError("CO-S201", f"The formula {self._text!r} has no terms. Add one after `~`.")
        used = {name for term in terms.values() for name, _ in term}
        functions = {name: call for name, call in self._functions.items() if name in used}
        ordered = tuple(sorted(terms.values(), key=len))
        return Formula(self._outcome, ordered, self._intercept, self._offset, functions)

    def _sum(self, node: Node, top: bool) -> Terms:
        """Terms of a sum; an intercept and an offset stand at the top alone."""
        is_sum = isinstance(node, Chain) and any(sign in ("+", "-") for sign, _ in node.parts)
        parts = node.parts if isinstance(node, Chain) and is_sum else (("", node),)
        out: Terms = {}
        count = 0
        for sign, part in parts:
            if top and self._takes_intercept(sign, part):
                continue
            terms = self._term(part, top and sign != "-")
            if sign == "-":
                self._remove(out, terms)
                continue
            for key, term in terms.items():
                out.setdefault(key, term)  # a:b and b:a are one term
            count += len(terms)
            self._check_count(count)
        return out

    def _takes_intercept(self, sign: str, part: Node) -> bool:
        if not isinstance(part, Constant):
            return False
        if part.value not in (0.0, 1.0):
            raise self._error(f"{write_node(part)!r} is no term; a constant is 0 or 1")
        self._intercept = (part.value == 1.0) != (sign == "-")
        return True

    def _remove(self, out: Terms, terms: Terms) -> None:
        for key, term in terms.items():
            if key not in out:
                name = ":".join(variable for variable, _ in term)
                raise self._error(f"it takes `+` between terms, and `-` for an earlier term: {name!r} is not one")
            del out[key]

    def _term(self, node: Node, top: bool = False) -> Terms:
        if isinstance(node, Symbol):
            return self._names(node)
        if isinstance(node, Bracket):
            return self._sum(node.inner, top=False)
        if isinstance(node, Call):
            return self._call(node, top)
        if not isinstance(node, Chain):
            raise self._error(f"{write_node(node)!r} is no term")
        sign = node.parts[-1][0]
        if sign == "^":
            return self._power(node.parts[0][1], node.parts[1][1])
        if sign in (":", "*", "/"):
            return self._chain(node)
        raise self._error(f"{write_node(node)!r} is no term; write I({write_node(node)})")

    def _chain(self, node: Chain) -> Terms:
        out = self._term(node.parts[0][1])
        for sign, part in node.parts[1:]:
            right = self._term(part)
            self._check_count(len(out) * len(right) + (len(out) + len(right) if sign == "*" else 0))
            if sign == "/":
                whole = _join(out.values())
                out = out | {frozenset(t): t for t in (_join([whole, term]) for term in right.values())}
            elif sign == "*":
                out = out | right | _cross(out, right)
            else:
                out = _cross(out, right)
        return out

    def _power(self, base: Node, exponent: Node) -> Terms:
        assert isinstance(exponent, Constant)
        power = int(min(exponent.value, 1e9))
        if isinstance(base, Symbol) and base.name != ".":
            if not 1 <= power <= MAX_POWER:
                raise self._error(f"{f'{base.name}^{power}'!r} is neither a variable nor a power of one from 1 to 99")
            term = ((base.name, power),)
            return {frozenset(term): term}
        if isinstance(base, Call):
            raise self._error(f"a power of a function is written I({write_node(base)}^{power})")
        if not 1 <= power <= MAX_POWER:
            raise self._error(f"{write_node(base)}^{power} has no exponent from 1 to 99")
        single = out = self._term(base)
        for _ in range(min(power, len(single)) - 1):
            self._check_count(len(out) * len(single))
            out = out | _cross(out, single)
        return out

    def _names(self, node: Symbol) -> Terms:
        if node.name != ".":
            return {frozenset([(node.name, 1)]): ((node.name, 1),)}
        if not self._others:
            raise self._error("'.' means all declared variables without another role, and there are none")
        return {frozenset([(name, 1)]): ((name, 1),) for name in self._others}

    def _call(self, node: Call, top: bool) -> Terms:
        if node.function == "offset":
            self._take_offset(node, top)
            return {}
        if node.function == "poly" and dict(node.arguments).get("raw") in (Symbol("TRUE"), Symbol("T")):
            return self._raw_powers(node)
        name = write_node(node)
        self._functions[name] = node
        return {frozenset([(name, 1)]): ((name, 1),)}

    def _raw_powers(self, node: Call) -> Terms:
        """poly(x, 3, raw = TRUE) is x + x^2 + x^3."""
        values = [value for name, value in node.arguments if name in ("", "x", "degree")]
        if len(values) != 2 or not isinstance(values[0], Symbol) or not isinstance(values[1], Constant):
            raise self._error(f"{write_node(node)!r} is written poly(variable, degree, raw = TRUE)")
        degree = values[1].value
        if not degree.is_integer() or not 1 <= degree <= MAX_POWER:
            raise self._error(f"{write_node(node)!r} has no whole degree from 1 to 99")
        terms = [((values[0].name, power),) for power in range(1, int(degree) + 1)]
        return {frozenset(term): term for term in terms}

    def _take_offset(self, node: Call, top: bool) -> None:
        (name, value), *more = node.arguments or (("", Constant(0.0)),)
        if not top or more or name or not isinstance(value, Symbol) or self._offset is not None:
            wish = ""
            if top and not more and not name and self._offset is None and not isinstance(value, Constant):
                derived = f"log_time = '{write_node(value)}'"
                wish = f". Derive the variable, {derived} under [derive], and write offset(log_time)"
            message = f"{write_node(node)!r} is written offset(variable), once, and no part of a product"
            raise self._error(f"{message}{wish}")
        self._offset = value.name

    def _check_count(self, count: int) -> None:
        if count > MAX_COLUMNS:
            message = f"The formula means more than {MAX_COLUMNS} terms (a*b*c means 7)"
            raise StudyError("CO-S203", f"{message}. Use a shorter formula, or `:` for single products.")

    def _error(self, message: str) -> StudyError:
        return syntax_error(self._text, message)


def _join(terms: Iterable[FormulaTerm]) -> FormulaTerm:
    """One term of all parts of several."""
    return tuple(dict.fromkeys(part for term in terms for part in term))


def _cross(left: Terms, right: Terms) -> Terms:
    out: Terms = {}
    for a in left.values():
        for b in right.values():
            term = _join((a, b))
            out.setdefault(frozenset(term), term)
    return out
