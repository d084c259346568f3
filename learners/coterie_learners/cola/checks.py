"""Whether any rows could have a posted table: patterns in order, counts that are counts, outcomes that fit them."""

from __future__ import annotations

import numpy as np

from coterie_learners.cola.plan import TablePlan
from coterie_learners.core.payload import Payload, Schema
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array

# No sums of real rows come near this; beyond it arithmetic would overflow.
_MAX_SUM = 1e100
# Sums of fractions may be off by rounding.
_ROUNDING = 1e-9
# Sums of so many rows are still whole in a float.
MOST_ROWS = 2.0**52


def form_of(plan: TablePlan) -> Schema:
    """The form of one site's table, with its check."""
    return Schema(plan.fields, check=lambda table: check_table(plan, table))


def check_table(plan: TablePlan, table: Payload) -> None:
    """ProtocolError if no rows could have this table."""
    keys = table["keys"]
    if len(keys) and not (np.all(np.diff(keys) > 0) and keys[0] >= 0 and keys[-1] < plan.grid.size):
        raise ProtocolError("CO-P511", "The pattern numbers do not ascend within the study's grid.")
    uneven = [name for name in plan.per_pattern if np.shape(table[name])[-1] != len(keys)]
    if uneven:
        raise ProtocolError("CO-P512", f"The table has {len(keys)} patterns, but not as many {', '.join(uneven)}.")
    largest = max(float(np.max(np.abs(np.asarray(v, float)), initial=0.0)) for v in table.values())
    if not largest < _MAX_SUM:
        raise ProtocolError("CO-P505", f"A sum of {largest:.3g} cannot come from rows.")
    u = np.asarray(table["exposure" if plan.tally.exposure else "n"], dtype=np.float64)
    least = 0.0 if plan.tally.exposure else 1.0
    rows = int(table.get("rows", 1))
    if np.any(u < least) or (plan.tally.exposure and (np.any(u <= 0) or rows < len(keys))):
        raise ProtocolError("CO-P503", "A pattern that is listed has no rows.")
    if u.sum() > MOST_ROWS or rows > MOST_ROWS:
        raise ProtocolError("CO-P503", f"{max(u.sum(), rows):.3g} cannot be a number of rows.")
    if np.any(np.asarray(table.get("suppressed", 0)) < 0):
        raise ProtocolError("CO-P503", "A negative number of rows was left out.")
    _check_outcomes(plan, table, u)


def _check_outcomes(plan: TablePlan, table: Payload, u: Array) -> None:
    outcome = np.atleast_1d(table["outcome"])
    family = plan.family
    if family.whole and (np.any(outcome < 0) or np.any(outcome != np.rint(outcome))):
        raise ProtocolError("CO-P504", f"{outcome.min():.6g} events cannot come from rows.")
    if family.binary and plan.drops and outcome.sum() > u.sum():
        raise ProtocolError("CO-P504", f"{outcome.sum():.6g} events cannot come from {u.sum():.6g} rows.")
    if "s" in table:
        _check_sums(plan, table, u)
    elif family.binary and plan.drops:
        raw = plan.grid.raw(plan.design, table["keys"])
        low, high = u @ np.minimum(raw, 0.0), u @ np.maximum(raw, 0.0)
        slack = _ROUNDING * (1.0 + np.maximum(-low, high))
        if np.any(table["cross"] < low - slack) or np.any(table["cross"] > high + slack):
            raise ProtocolError("CO-P513", "X'y does not fit the patterns and their rows.")


def _check_sums(plan: TablePlan, table: Payload, u: Array) -> None:
    s = np.atleast_2d(table["s"])
    if plan.family.whole and (np.any(s < 0) or np.any(s != np.rint(s))):
        raise ProtocolError("CO-P504", "A pattern has a number of events that rows cannot have.")
    if plan.family.binary and np.any(s.sum(axis=0) > u):
        raise ProtocolError("CO-P504", "A pattern has more events than rows.")
    if not np.allclose(s.sum(axis=1), np.atleast_1d(table["outcome"]), rtol=_ROUNDING, atol=_ROUNDING):
        raise ProtocolError("CO-P513", "The patterns' outcomes do not add up to the outcome's sum.")
    if "q" in table and np.any(table["q"] < 0):
        raise ProtocolError("CO-P513", "A sum of squares is negative.")
