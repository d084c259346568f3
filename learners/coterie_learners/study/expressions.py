"""Arithmetic on columns: constants and variables with + - * / ^, comparisons and a few functions.

Values are double precision, in the order in which the formula is written, with our own logarithm and exponential: the
same bits on every machine. Bounds are those of interval arithmetic on the declared ranges (Moore 1966).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.elementary import exp_of_array, log1p, log_of_array
from coterie_learners.study.document import Variable
from coterie_learners.study.rows import Codes
from coterie_learners.study.syntax import Bracket, Call, Chain, Constant, Node, Symbol, write_node

Interval = tuple[float, float]
COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")
_LN2, _LN10 = 0.6931471805599453, 2.302585092994046
MAX_EXPONENT = 99

_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "log": log_of_array,
    "log2": lambda x: log_of_array(x) / _LN2,
    "log10": lambda x: log_of_array(x) / _LN10,
    "log1p": log1p,
    "sqrt": lambda x: np.asarray(np.sqrt(x)),
    "exp": exp_of_array,
    "abs": lambda x: np.asarray(np.abs(x)),
}
ARITHMETIC = (*_FUNCTIONS, "I")
# The least value at which each function exists, and whether it exists at this value itself.
_DOMAINS = {
    "log": (0.0, False),
    "log2": (0.0, False),
    "log10": (0.0, False),
    "log1p": (-1.0, False),
    "sqrt": (0.0, True),
}


def list_names(node: Node) -> Iterator[str]:
    """The variables of an expression, in their order, perhaps more than once."""
    if isinstance(node, Symbol):
        yield node.name
    elif isinstance(node, Bracket):
        yield from list_names(node.inner)
    elif isinstance(node, Call):
        for _, value in node.arguments:
            yield from list_names(value)
    elif isinstance(node, Chain):
        for _, part in node.parts:
            yield from list_names(part)


def evaluate(node: Node, codes: Codes) -> Array:
    """An expression's values (m,); NaN where a value is missing."""
    if isinstance(node, Constant):
        return np.array(node.value)
    if isinstance(node, Symbol):
        return np.asarray(codes[node.name], dtype=np.float64)
    if isinstance(node, Bracket):
        return evaluate(node.inner, codes)
    if isinstance(node, Call):
        return apply_function(node.function, evaluate(node.arguments[0][1], codes))
    assert isinstance(node, Chain)
    (sign, first), *rest = node.parts
    out = evaluate(first, codes)
    out = -out if sign == "-" else out
    for sign, part in rest:
        out = combine(sign, out, evaluate(part, codes))
    return out


def combine(sign: str, left: Array, right: Array) -> Array:
    """Two operands under an operator (m,); NaN where one is missing."""
    if sign == "^":
        out = left
        for _ in range(int(right) - 1):  # not np.power, whose last bit depends on the processor
            out = out * left
        return out
    if sign in COMPARISONS:
        answer = {
            "<": np.less,
            ">": np.greater,
            "<=": np.less_equal,
            ">=": np.greater_equal,
            "==": np.equal,
            "!=": np.not_equal,
        }[sign]
        missing = np.isnan(left) | np.isnan(right)
        return np.where(missing, np.nan, answer(left, right).astype(np.float64))
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    return left * right if sign == "*" else left / right


def bound(node: Node, variables: Mapping[str, Variable]) -> Interval:
    """Least and largest value that an expression may have; StudyError (CO-S213) where it has none for some values."""
    if isinstance(node, Constant):
        return node.value, node.value
    if isinstance(node, Symbol):
        return _bound_name(node.name, variables)
    if isinstance(node, Bracket):
        return bound(node.inner, variables)
    if isinstance(node, Call):
        return _bound_call(node, variables)
    if not isinstance(node, Chain):
        raise _error(node, "is no number")
    (sign, first), *rest = node.parts
    low, high = bound(first, variables)
    low, high = (-high, -low) if sign == "-" else (low, high)
    for sign, part in rest:
        low, high = combine_bounds(node, sign, (low, high), bound(part, variables))
    if not math.isfinite(low) or not math.isfinite(high):
        raise _error(node, "is beyond all numbers at an end of the declared ranges")
    return low, high


def _bound_name(name: str, variables: Mapping[str, Variable]) -> Interval:
    if variables[name].type == "category":
        message = f"{name} is a category; only numbers, counts and binary variables are computed with"
        raise StudyError("CO-S205", f"{message}. Use its levels.")
    return variables[name].bounds


def _bound_call(node: Call, variables: Mapping[str, Variable]) -> Interval:
    if node.function not in ARITHMETIC or len(node.arguments) != 1 or node.arguments[0][0]:
        raise _error(node, f"is none of {', '.join(ARITHMETIC)} with one argument")
    return bound_function(node, bound(node.arguments[0][1], variables))


def apply_function(function: str, values: Array) -> Array:
    """One of ARITHMETIC at values (m,)."""
    return values if function == "I" else _FUNCTIONS[function](values)


def bound_function(node: Call, ends: Interval) -> Interval:
    """Least and largest value of one of ARITHMETIC over an interval; StudyError (CO-S213) where it has none."""
    low, high = ends
    if node.function == "I":
        return low, high
    if node.function in _DOMAINS:
        start, includes = _DOMAINS[node.function]
        if low < start or (low == start and not includes):
            remedy = "use log1p" if node.function == "log" and low == 0.0 else "declare a narrower range"
            raise _error(node, f"does not exist for all declared values, which begin at {low:.6g}: {remedy}")
    if node.function == "abs":
        return (0.0 if low < 0.0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))
    if node.function == "exp" and high > 700.0:
        raise _error(node, f"is beyond all numbers at {high:.6g}: divide by a constant first")
    values = _FUNCTIONS[node.function](np.array([low, high]))
    return float(values[0]), float(values[1])


def combine_bounds(node: Node, sign: str, left: Interval, right: Interval) -> Interval:
    """Least and largest value of two operands under an operator; StudyError (CO-S213) where it has none for some."""
    if sign in COMPARISONS:
        return 0.0, 1.0
    if sign == "+":
        return left[0] + right[0], left[1] + right[1]
    if sign == "-":
        return left[0] - right[1], left[1] - right[0]
    if sign == "^":
        return _bound_power(node, left, right)
    if sign == "/":
        if right[0] <= 0.0 <= right[1]:
            raise _error(node, "divides by something that may be 0: declare a range that leaves 0 out")
        right = (1.0 / right[1], 1.0 / right[0])
    if sign == ":":
        raise _error(node, "has `:` within a function: write `*`")
    corners = [a * b for a, b in itertools.product(left, right)]
    return min(corners), max(corners)


def _bound_power(node: Node, base: Interval, exponent: Interval) -> Interval:
    power = exponent[0]
    if not power.is_integer() or not 1 <= power <= MAX_EXPONENT:
        raise _error(node, f"has no whole exponent from 1 to {MAX_EXPONENT}")
    ends = [math.prod([end] * int(power)) for end in base]  # ** would raise where this gives inf
    straddles = power % 2 == 0 and base[0] < 0 < base[1]
    return (0.0 if straddles else min(ends)), max(ends)


def _error(node: Node, message: str) -> StudyError:
    return StudyError("CO-S213", f"{write_node(node)} {message}.")
