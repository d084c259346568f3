"""Variables that a formula derives from declared ones by a function: log(x), I(x/10), cut(x, ...), ns(x, ...).

Each is a variable like a declared one, with a range or levels that follow from the study alone: all that is known of
the data is in the declared constants. What judges columns judges derived ones by their values, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Variable
from coterie_learners.study.expressions import ARITHMETIC, COMPARISONS, Interval, bound, evaluate, list_names
from coterie_learners.study.rows import Codes
from coterie_learners.study.splines import BSpline, NaturalSpline, OrthogonalPolynomial, RestrictedSpline
from coterie_learners.study.syntax import Bracket, Call, Chain, Constant, Node, Quoted, Symbol, write_node

MAX_KNOTS = 50
# Bounds of a basis: its values at so many places of each piece, and this share of their width beyond them.
PLACES, BASIS_MARGIN = 257, 0.02
# Digits with which R's cut names its levels, and the most that it takes to tell them apart.
FEWEST_DIGITS, MOST_LABEL_DIGITS = 3, 12

# The levels of a comparison.
LOGICAL = ("FALSE", "TRUE")

# Functions of other programs that are not among these, and what to write instead.
ALTERNATIVES = {
    "scale": "write I((x - 50) / 10) with declared constants",
    "factor": "declare the variable as a category",
    "as.factor": "declare the variable as a category",
    "C": "declare the levels in the order wanted; the first is the reference",
    "strata": "name `strata` in the learner section (cox)",
    "cluster": 'use robust = "patient"',
    "s": "write ns(x, knots = c(...)) or rcs(x, c(...))",
    "te": "write a product of ns(...) terms",
    "ifelse": "write I(x > 65)",
    "pspline": "write ns(x, knots = c(...))",
    "Surv": "name `time` and the event in the learner section (cox)",
    "pmax": "write rcs or bs with a knot, degree = 1",
    "round": "declare the variable as it should be",
}


class Transform(Protocol):
    """From variables' values to a derived variable's."""

    def __call__(self, codes: Codes) -> Array:
        """The values (m,), NaN where one is missing."""


@dataclass(frozen=True)
class Derived:
    """One derived variable: its name, the declared variables behind it, and what it is."""

    name: str
    sources: tuple[str, ...]
    variable: Variable
    transform: Transform


class Basis(Protocol):
    """Several columns of one number."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """The points at which the pieces meet."""

    def evaluate(self, x: Array) -> Array:
        """The columns (m, k) at x (m,)."""


def derive(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    """The variables that a function makes; StudyError for one that is unknown, or that not all values have."""
    unknown = [name for name in list_variables(call) if name not in variables]
    if unknown:
        raise StudyError(
            "CO-S202",
            f"The formula names {unknown[0]!r}, which the study does not declare. Add [variables.{unknown[0]}].",
        )
    if call.function in ARITHMETIC:
        return (_derive_number(call, variables),)
    if call.function not in _MAKERS:
        known = ", ".join((*ARITHMETIC, *_MAKERS))
        advice = ALTERNATIVES.get(call.function, "Map the column at each site, or use one of these")
        raise StudyError("CO-S201", f"{call.function} is no function of a formula; there are {known}. {advice}.")
    return _MAKERS[call.function](call, variables)


def list_switches(node: Node) -> Iterator[tuple[tuple[str, ...], Transform]]:
    """The points at which a function's arithmetic changes: its comparisons, and the zeros within `abs` and `sqrt`.

    For each the variables behind it, and the part (m,) in which a row lies.
    """
    for part in _list_parts(node):
        if isinstance(part, Chain) and part.parts[-1][0] in COMPARISONS:
            yield tuple(dict.fromkeys(list_names(part))), partial(evaluate, part)
        elif isinstance(part, Call) and part.function in ("abs", "sqrt"):
            inner = part.arguments[0][1]
            yield tuple(dict.fromkeys(list_names(inner))), partial(_find_sign, inner)


def _list_parts(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Bracket):
        yield from _list_parts(node.inner)
    elif isinstance(node, Call):
        for _, value in node.arguments:
            yield from _list_parts(value)
    elif isinstance(node, Chain):
        for _, part in node.parts:
            yield from _list_parts(part)


def _find_sign(node: Node, codes: Codes) -> Array:
    return np.asarray(np.sign(evaluate(node, codes)))


def list_variables(call: Call) -> list[str]:
    """The variables behind a function, without the words of its own arguments."""
    if call.function in ARITHMETIC:
        return list(dict.fromkeys(list_names(call)))
    first = call.arguments[0][1] if call.arguments else Constant(0.0)
    return list(dict.fromkeys(list_names(first)))


def _derive_number(call: Call, variables: Mapping[str, Variable]) -> Derived:
    low, high = bound(call, variables)
    name, sources = write_node(call), tuple(list_variables(call))
    if not sources or not low < high:
        raise _error(call, "is the same for all declared values")
    if _is_comparison(call):  # as R codes a logical variable
        return Derived(name, sources, Variable(type="category", levels=LOGICAL), lambda codes: evaluate(call, codes))
    variable = Variable(type="number", range=(low, high))
    return Derived(name, sources, variable, lambda codes: evaluate(call, codes))


def _is_comparison(node: Node) -> bool:
    if isinstance(node, Bracket):
        return _is_comparison(node.inner)
    if isinstance(node, Call):
        return node.function == "I" and _is_comparison(node.arguments[0][1])
    return isinstance(node, Chain) and node.parts[-1][0] in COMPARISONS


def _derive_cut(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    """R's cut: intervals of a number as the levels of a category."""
    given = _read_arguments(call, ("x", "breaks", "labels", "include.lowest", "right", "dig.lab"))
    breaks = _read_numbers(call, given.get("breaks"))
    low, high = bound(given["x"], variables)
    right, closed = _read_flag(call, given.get("right"), True), _read_flag(call, given.get("include.lowest"), False)
    if len(breaks) < 3 or any(a >= b for a, b in itertools.pairwise(breaks)):
        raise _error(call, "needs three or more breaks in rising order")
    if not (breaks[0] < low or (breaks[0] == low and (closed or not right))):
        raise _error(call, f"leaves values from {low:.6g} out: begin with -Inf")
    if not (high < breaks[-1] or (high == breaks[-1] and (closed or right))):
        raise _error(call, f"leaves values up to {high:.6g} out: end with Inf")
    digits = int(_read_number(call, given.get("dig.lab"), FEWEST_DIGITS))
    labels = _read_texts(call, given.get("labels")) or label_intervals(breaks, right, closed, digits)
    if len(labels) != len(breaks) - 1:
        raise _error(call, f"has {len(labels)} labels for {len(breaks) - 1} intervals")
    cuts, expression = np.array(breaks), given["x"]

    def place(codes: Codes) -> Array:
        x = evaluate(expression, codes)
        at = np.searchsorted(cuts, x, side="left" if right else "right") - 1
        return np.where(np.isnan(x), np.nan, np.clip(at, 0, len(cuts) - 2).astype(np.float64))

    return (Derived(write_node(call), tuple(list_variables(call)), _make_category(call, labels), place),)


def label_intervals(breaks: Sequence[float], right: bool, closed: bool, digits: int = FEWEST_DIGITS) -> tuple[str, ...]:
    """The names that R's cut gives its intervals: as few digits as tell the breaks apart."""
    texts: list[str] = []
    for count in range(digits, max(MOST_LABEL_DIGITS, digits) + 1):
        texts = [_write_break(value, count) for value in breaks]
        if len(set(texts)) == len(texts):
            break
    opening, ending = ("(", "]") if right else ("[", ")")
    out = [f"{opening}{a},{b}{ending}" for a, b in itertools.pairwise(texts)]
    if closed and right:
        out[0] = "[" + out[0][1:]
    elif closed:
        out[-1] = out[-1][:-1] + "]"
    return tuple(out)


def _write_break(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else (" Inf" if value > 0.0 else "-Inf")  # R pads the one


def _make_category(call: Call, levels: Sequence[str]) -> Variable:
    try:
        return Variable(type="category", levels=tuple(levels))
    except ValidationError:
        raise _error(call, "has no levels that are different texts") from None


def _derive_relevel(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    """A category with another reference."""
    given = _read_arguments(call, ("x", "ref"))
    source, ref = given["x"], given.get("ref")
    if not isinstance(source, Symbol) or not isinstance(ref, Quoted):
        raise _error(call, 'is written relevel(variable, ref = "level")')
    levels = variables[source.name].levels
    if ref.text not in levels:
        raise _error(call, f"names a level that {source.name} has not: it has {', '.join(levels) or 'none'}")
    ordered = (ref.text, *(level for level in levels if level != ref.text))
    table = np.array([ordered.index(level) for level in levels], dtype=np.float64)
    name = source.name

    def reorder(codes: Codes) -> Array:
        column = np.asarray(codes[name], dtype=np.float64)
        missing = np.isnan(column)
        return np.where(missing, np.nan, table[np.where(missing, 0.0, column).astype(np.intp)])

    return (Derived(write_node(call), (name,), _make_category(call, ordered), reorder),)


def _derive_bs(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    given = _read_arguments(call, ("x", "df", "knots", "degree", "intercept", "Boundary.knots"))
    degree = _read_number(call, given.get("degree"), 3.0)
    if not degree.is_integer() or not 1 <= degree <= 10:
        raise _error(call, "has no whole degree from 1 to 10")
    knots, boundary = _read_knots(call, given, variables)
    low, high = bound(given["x"], variables)
    if low < boundary[0] or high > boundary[1]:
        raise _error(call, "has declared values beyond its boundary knots: use ns, which is linear there")
    return _derive_basis(call, given["x"], BSpline(knots, boundary, int(degree)), variables)


def _derive_ns(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    given = _read_arguments(call, ("x", "df", "knots", "intercept", "Boundary.knots"))
    knots, boundary = _read_knots(call, given, variables)
    return _derive_basis(call, given["x"], NaturalSpline(knots, boundary), variables)


def _read_knots(
    call: Call, given: Mapping[str, Node], variables: Mapping[str, Variable]
) -> tuple[tuple[float, ...], Interval]:
    """The inner knots, and those at the boundary: the ends of the declared range unless they are given."""
    if "df" in given:
        raise _error(call, "would take its knots from the data (df): declare them, knots = c(...)")
    if _read_flag(call, given.get("intercept"), False):
        raise _error(call, "has an intercept of its own: leave `intercept` out")
    knots = _read_numbers(call, given.get("knots"))
    ends = _read_numbers(call, given.get("Boundary.knots")) or bound(given["x"], variables)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise _error(call, "has no two boundary knots in rising order")
    if not knots or len(knots) > MAX_KNOTS or sorted(set(knots)) != list(knots):
        raise _error(call, f"needs one to {MAX_KNOTS} knots in rising order, knots = c(...)")
    if not ends[0] < knots[0] or not knots[-1] < ends[1]:
        raise _error(call, f"has knots that do not lie between {ends[0]:.6g} and {ends[1]:.6g}")
    return knots, (ends[0], ends[1])


def _derive_rcs(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    given = _read_arguments(call, ("x", "parms", "knots"))
    value = given.get("knots", given.get("parms"))
    if isinstance(value, Constant):
        raise _error(call, "would take its knots from the data: declare them, rcs(x, c(...))")
    knots = _read_numbers(call, value)
    if not 3 <= len(knots) <= MAX_KNOTS or sorted(set(knots)) != list(knots):
        raise _error(call, f"needs 3 to {MAX_KNOTS} knots in rising order, rcs(x, c(...))")
    return _derive_basis(call, given["x"], RestrictedSpline(knots), variables)


def _derive_poly(call: Call, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    given = _read_arguments(call, ("x", "degree", "coefs", "raw"))
    degree, coefs = _read_number(call, given.get("degree"), 1.0), given.get("coefs")
    if not isinstance(coefs, Call) or coefs.function != "list":
        how = 'give raw = TRUE, or coefs = list(alpha = c(...), norm2 = c(...)), as R\'s attr(poly(x, k), "coefs")'
        raise _error(call, f"would be made orthogonal by the data: {how}")
    lists = dict(coefs.arguments)
    alpha, norm2 = (_read_numbers(call, lists.get(name)) for name in ("alpha", "norm2"))
    if not alpha or len(alpha) != degree or len(norm2) != degree + 2 or min(norm2) <= 0.0 or degree > MAX_KNOTS:
        raise _error(call, "needs as many numbers in alpha as its degree, and two more in norm2, all above 0")
    return _derive_basis(call, given["x"], OrthogonalPolynomial(alpha, norm2), variables)


def _derive_basis(call: Call, x: Node, basis: Basis, variables: Mapping[str, Variable]) -> tuple[Derived, ...]:
    """One derived number for each column of a basis."""
    ranges = _bound_basis(call, basis, bound(x, variables))
    name, sources = write_node(call), tuple(list_variables(call))

    def take(k: int) -> Transform:
        return lambda codes: _evaluate_basis(basis, evaluate(x, codes))[:, k]

    return tuple(
        Derived(f"{name}{k + 1}", sources, Variable(type="number", range=ends), take(k))
        for k, ends in enumerate(ranges)
    )


def _evaluate_basis(basis: Basis, x: Array) -> Array:
    missing = np.isnan(x)
    if not missing.any():
        return basis.evaluate(x)
    out = basis.evaluate(np.where(missing, 0.5, x))
    out[missing] = np.nan
    return out


def _bound_basis(call: Call, basis: Basis, ends: Interval) -> list[Interval]:
    """Least and largest value of each column between two values of x, with a margin."""
    inner = [value for value in basis.breaks if ends[0] < value < ends[1]]
    edges = [ends[0], *sorted(inner), ends[1]]
    steps = np.arange(PLACES) / (PLACES - 1)
    places = np.concatenate([a + (b - a) * steps for a, b in itertools.pairwise(edges)])
    values = basis.evaluate(places)
    low, high = values.min(axis=0), values.max(axis=0)
    if not np.all(np.isfinite(low)) or not np.all(np.isfinite(high)) or np.any(low >= high):
        raise _error(call, "has a column that is the same, or beyond all numbers, for all declared values")
    margin = BASIS_MARGIN * (high - low)
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def _read_arguments(call: Call, names: Sequence[str]) -> dict[str, Node]:
    """The arguments by name; those without one take the names that are left, in their order."""
    given = {name: value for name, value in call.arguments if name}
    wrong = [name for name in given if name not in names]
    left = [name for name in names if name not in given]
    plain = [value for name, value in call.arguments if not name]
    if wrong or len(given) + len(plain) < len(call.arguments) or len(plain) > len(left):
        raise _error(call, f"has no argument {wrong[0]!r}" if wrong else "has an argument twice, or too many")
    given |= dict(zip(left, plain, strict=False))
    if "x" not in given:
        raise _error(call, "names no variable")
    return given


def _read_numbers(call: Call, node: Node | None) -> tuple[float, ...]:
    """A number or c(...) of numbers; nothing where there is none."""
    if node is None:
        return ()
    if isinstance(node, Call) and node.function == "c" and not any(name for name, _ in node.arguments):
        return tuple(_read_number(call, value) for _, value in node.arguments)
    return (_read_number(call, node),)


def _read_number(call: Call, node: Node | None, default: float = math.nan) -> float:
    if node is None:
        return default
    if isinstance(node, Chain) and [sign for sign, _ in node.parts] == ["-"]:
        return -_read_number(call, node.parts[0][1])
    if isinstance(node, Symbol) and node.name == "Inf":
        return math.inf
    if isinstance(node, Constant) and math.isfinite(node.value):
        return node.value
    raise _error(call, f"takes declared numbers, and {write_node(node)} is not one")


def _read_texts(call: Call, node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    values = [value for _, value in node.arguments] if isinstance(node, Call) and node.function == "c" else [node]
    if not all(isinstance(value, Quoted) for value in values):
        raise _error(call, 'takes labels = c("a", "b")')
    return tuple(value.text for value in values if isinstance(value, Quoted))


def _read_flag(call: Call, node: Node | None, default: bool) -> bool:
    if node is None:
        return default
    if isinstance(node, Symbol) and node.name in ("TRUE", "FALSE", "T", "F"):
        return node.name.startswith("T")
    raise _error(call, f"takes TRUE or FALSE, and {write_node(node)} is neither")


def _error(call: Call, message: str) -> StudyError:
    return StudyError("CO-S213", f"{write_node(call)} {message}.")


_MAKERS: Mapping[str, Callable[[Call, Mapping[str, Variable]], tuple[Derived, ...]]] = {
    "cut": _derive_cut,
    "relevel": _derive_relevel,
    "bs": _derive_bs,
    "ns": _derive_ns,
    "rcs": _derive_rcs,
    "poly": _derive_poly,
}
