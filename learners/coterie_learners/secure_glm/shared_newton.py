"""Logistic regression on shared rows by Newton's method with hidden coefficients; only the result is opened.

Step 0 is exact: with coefficients of zero all probabilities are 1/2, so V0 = (X'X / 4)^-1 serves. Each later step
inverts X'WX by Newton and Schulz from V0. Because weights are at most 1/4, the eigenvalues of V0 X'WX lie in (0, 1]:
the inverse converges, and at every depth the step runs from that of the fixed curvature (Bohning and Lindsay 1988),
which never overshoots, to Newton's.

Stop: the decrement l = g'Vg bounds the squared length of every coefficient's step in standard errors. The fit has
settled once l < 1e-4 and l fell to a tenth: near a maximum l is squared by each step, under separation it falls by 1/e.
Every `check_every` steps this one bit is opened. After a yes follows one more evaluation and step.

All sums over rows are divided by 2^q, at least the number of rows, so that numbers stay in the field. Opened are, in
this order: the bits whether columns are independent, whether the fit has settled, whether the last inverse is one;
then coefficients, variances and deviance, each rounded on shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import Collinear, NotConverged
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import read_limbs
from coterie_learners.secure.moments import INPUT, POINT
from coterie_learners.secure_glm.shared_frame import (
    CARRIED,
    INVERTED,
    RAW,
    STANDARD,
    SharedFrame,
    build_frame,
    carry_matrix,
    invert_matrix,
    is_inverse,
    start_inverse,
)
from coterie_learners.secure_glm.shared_link import RESPONSE, SharedResponse, evaluate_link
from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements, constant_elements
from coterie_learners.shares.shamir3 import ThreePartyShamir

# Bits of the field: the largest numbers, X'WX by rows of 2^22 and the inverses, fill it with their masks.
FIELD_BITS = 176
# Binary digits behind the point: of coefficients in half-widths, of scores there and on the standard scale, of l.
SLOPE_DIGITS, SCORE, CARRIED_SCORE, DECREMENT = 40, 54, 38, 50
# Digits of opened coefficients (in half-widths), variances and half deviances.
COEFFICIENT, VARIANCE, DEVIANCE = 24, 20, 15
# Newton and Schulz's steps: for X'X / 4 (condition below 2^20), for each evaluation, for the last one.
_FIRST, _DEPTHS, _LAST = 24, (4, 6, 8, 12), 16
SMALL, FALL = 1e-4, 10
# Digits of ridge penalties; the largest that one row's share of a penalty may be.
PENALTY, MOST_PENALTY = 44, 16.0
# Rows whose products with weights are sent in one message.
PART = 8192


@dataclass(frozen=True)
class SharedRows:
    """Shares of rows: x (n, p) with INPUT digits and the intercept first, y (n,) 0 or 1, offset (n,) as x or None."""

    x: Elements
    y: Elements
    offset: Elements | None = None


@dataclass(frozen=True)
class GlmTarget:
    """What to fit and to open, beside the model.

    `ridge` (p,): weights on half the squared coefficients in half-widths. `intercept` (p,): the row that gives the
    intercept in the variables' own units from coefficients in half-widths. `iterations`: evaluations at most.
    """

    ridge: Array
    intercept: Array
    iterations: int
    check_every: int
    covariance: bool = False
    events: bool = False


@dataclass(frozen=True)
class GlmOutcome:
    """What is opened: the intercept in own units and slopes in half-widths, with their variances or covariance (p, p).

    `iterations`: evaluations of the likelihood, in steps of `check_every`, before the last one.
    """

    n: int
    coefficients: Array
    variances: Array
    covariance: Array | None
    deviance: float
    events: int | None
    iterations: int


@dataclass(frozen=True)
class _Step:
    """Shares at one evaluation: information and inverse (STANDARD), step (STANDARD), l (DECREMENT, divided by 2^q)."""

    information: Elements
    inverse: Elements
    move: Elements
    decrement: Elements
    response: SharedResponse


def fit_shared_glm(trio: ThreePartyShamir, rows: SharedRows, target: GlmTarget) -> GlmOutcome:
    """Fit and open; Collinear or NotConverged (at every party alike) before anything but bits is opened."""
    fit = _Fit(trio, rows, target)
    beta, previous = fit.begin()
    settled = constant_elements(0, (1,))
    for t in range(1, target.iterations + 1):
        step = fit.evaluate(beta, _DEPTHS[min(t, len(_DEPTHS)) - 1])
        beta = (beta + step.move) % trio.field.p
        settled = fit.note_settled(settled, step.decrement, previous)
        if t % target.check_every == 0 and int(trio.open(settled, exact=True)[0]) == 1:
            return fit.open_result(beta, t)
        previous = step.decrement
    message = (
        f"The fit has not settled after {target.iterations} evaluations. Either a column, or a combination of them"
    )
    cause = "separates the patients with the outcome from the others (separation), or the fit is merely slow"
    raise NotConverged("CO-N142", f"{message}, {cause}. Nothing was opened. Take a ridge, or leave rare levels out.")


class _Fit:
    """One fit: the rows with what does not change between evaluations."""

    def __init__(self, trio: ThreePartyShamir, rows: SharedRows, target: GlmTarget) -> None:
        self.trio, self.rows, self.target = trio, rows, target
        self.p = trio.field.p
        # Rows as bytes, a third of their size as limbs.
        self.packed, self.row_bytes = trio.field.pack(rows.x), rows.x.shape[1] * trio.field.width
        columns = rows.x.shape[1]
        gram = trio.field.multiply_packed(self.packed, self.packed, columns, columns)
        self.frame: SharedFrame = build_frame(trio, rows.x, gram, target.ridge)
        # X'X / 4: two digits more.
        quarter = self._shrink(gram, 2 * INPUT + 2)
        self.fixed = carry_matrix(trio, self.frame, self._penalise(quarter))
        self.first = invert_matrix(trio, self.fixed, start_inverse(self.frame), _FIRST)
        if not is_inverse(trio, self.first, self.fixed):
            message = "A column is constant over all patients, or a combination of other columns"
            raise Collinear("CO-N244", f"{message}. Nothing else was opened. Leave a term out, or take a ridge.")

    def begin(self) -> tuple[Elements, Elements]:
        """Coefficients on the standard scale after step 0, and its l. With an offset they begin at zero."""
        p = self.frame.p
        if self.rows.offset is not None:
            return constant_elements(0, (p,)), constant_elements(1 << DECREMENT + 8, (1,))
        half = constant_elements(1 << RESPONSE - 1, self.rows.y.shape)
        score = self._score(half, constant_elements(0, (p,)))
        move, decrement = self._move(self.first, score)
        return move, decrement

    def evaluate(self, beta: Elements, depth: int, *, last: bool = False) -> _Step:
        """Score, information and step at coefficients (p,) on the standard scale."""
        slopes = self._to_slopes(beta)
        eta = self.rows.x @ slopes
        if self.rows.offset is not None:
            eta = eta + (self.rows.offset << SLOPE_DIGITS)
        response = evaluate_link(self.trio, eta % self.p, INPUT + SLOPE_DIGITS, self.rows.y if last else None)
        score = self._score(response.mean, slopes)
        information = carry_matrix(self.trio, self.frame, self._penalise(self._information(response.weight)))
        inverse = invert_matrix(self.trio, information, self.first, depth)
        return _Step(information, inverse, *self._move(inverse, score), response)

    def note_settled(self, settled: Elements, decrement: Elements, previous: Elements) -> Elements:
        """Shares (1,) of one bit: whether l is small and fell to a tenth, now or in an earlier step."""
        limit = max(1, round(SMALL * 2 ** (DECREMENT - self.frame.digits)))
        both = np.concatenate([decrement - limit, FALL * decrement - previous])
        small, fell = negative_shares(self.trio, both, DECREMENT + 20)
        now = self.trio.reshare(np.array([small * fell % self.p], dtype=object))
        return self.trio.reshare((settled + now - settled * now) % self.p)

    def open_result(self, beta: Elements, iterations: int) -> GlmOutcome:
        """One more evaluation and step, then everything that everybody learns."""
        trio, n = self.trio, len(self.rows.y)
        step = self.evaluate(beta, _LAST, last=True)
        if not is_inverse(trio, step.inverse, step.information):
            message = "The information at the result cannot be inverted with the field's digits"
            raise NotConverged("CO-N142", f"{message}: columns are nearly collinear. Nothing was opened.")
        carry = self._own_carry()
        ends = carry @ ((beta + step.move) % self.p)
        rounded = trio.truncate(ends % self.p, POINT + STANDARD - COEFFICIENT, POINT + STANDARD + CARRIED + 12)
        coefficients = trio.field.decode(trio.open(rounded, exact=True), COEFFICIENT)
        whole = self._open_covariance(carry, step.inverse)
        assert step.response.deviance is not None
        half = trio.truncate(step.response.deviance, 2 * RESPONSE - DEVIANCE, 2 * RESPONSE + self.frame.digits + 12)
        deviance = 2.0 * float(trio.field.decode(trio.open(half, exact=True), DEVIANCE)[0])
        events = None
        if self.target.events:
            events = int(trio.open(self.rows.y.sum(keepdims=True) % self.p, exact=True)[0])
        variances = whole if whole.ndim == 1 else np.diagonal(whole).copy()
        covariance = None if whole.ndim == 1 else whole
        return GlmOutcome(n, coefficients, variances, covariance, deviance, events, iterations)

    def _own_carry(self) -> Elements:
        """T with its first row replaced by that of the intercept in the variables' own units."""
        row = self.trio.field.encode(self.target.intercept, POINT) @ self.frame.carry
        carry = self.frame.carry.copy()
        carry[0] = self.trio.truncate(row % self.p, POINT, 2 * POINT + CARRIED + 14)
        return carry

    def _open_covariance(self, carry: Elements, inverse: Elements) -> Array:
        """The diagonal (p,) of T V T' / 2^q, or all of it (p, p) if the study shows it."""
        trio, p = self.trio, self.frame.p
        half = trio.truncate(
            carry @ inverse % self.p, POINT + STANDARD - COEFFICIENT, POINT + STANDARD + CARRIED + INVERTED
        )
        bits = COEFFICIENT + POINT + 2 * CARRIED + INVERTED + 2
        whole = self.target.covariance
        product = (half @ carry.T)[np.triu_indices(p)] if whole else (half * carry).sum(axis=1)
        rounded = trio.truncate(product % self.p, COEFFICIENT + POINT - VARIANCE, bits)
        opened = np.ldexp(trio.field.decode(trio.open(rounded, exact=True), VARIANCE), -self.frame.digits)
        if not whole:
            return opened
        out = np.zeros((p, p))
        out[np.triu_indices(p)] = opened
        return out + np.triu(out, 1).T

    def _to_slopes(self, beta: Elements) -> Elements:
        """Coefficients in half-widths with SLOPE_DIGITS."""
        raw = self.frame.carry @ beta % self.p
        return self.trio.truncate(raw, POINT + STANDARD - SLOPE_DIGITS, POINT + STANDARD + CARRIED + 12)

    def _score(self, mean: Elements, slopes: Elements) -> Elements:
        """The score on the standard scale (CARRIED_SCORE digits), less the penalty's part."""
        residual = (self.rows.y << RESPONSE) - mean
        digits = INPUT + RESPONSE + self.frame.digits
        raw = self.trio.truncate(self.rows.x.T @ residual % self.p, digits - SCORE, digits + 3)
        if np.any(self.target.ridge):
            weights = np.array([round(v * 2**PENALTY) for v in self._shares_of_ridge()], dtype=object)
            whole = SLOPE_DIGITS + PENALTY
            raw = raw - self.trio.truncate(slopes * weights % self.p, whole - SCORE, whole + 20)
        carried = self.frame.carry.T @ raw % self.p
        return self.trio.truncate(carried, SCORE + POINT - CARRIED_SCORE, SCORE + POINT + CARRIED + 10)

    def _information(self, weight: Elements) -> Elements:
        """X'WX (p, p) in half-widths with RAW digits; products are dealt again in parts, all sent at once."""
        total, part_bytes = constant_elements(0, (self.frame.p, self.frame.p)), PART * self.row_bytes
        for at, part in enumerate(self.trio.reshare_parts(self._weigh_rows(weight))):
            x = self.packed[at * part_bytes : (at + 1) * part_bytes]
            total = total + self.trio.field.multiply_packed(x, self.trio.limbs.write(part), self.frame.p, self.frame.p)
        return self._shrink(total, 2 * INPUT + RESPONSE)

    def _weigh_rows(self, weight: Elements) -> Iterator[Array]:
        limbs, weights = self.trio.limbs, self.trio.field.to_limbs(weight)
        for at in range(0, len(weight), PART):
            x = read_limbs(self.packed[at * self.row_bytes : (at + PART) * self.row_bytes], limbs.width)
            yield limbs.multiply(x, np.repeat(weights[:, at : at + PART], self.frame.p, axis=1))

    def _shrink(self, gram: Elements, digits: int) -> Elements:
        """A sum over rows (p, p) with `digits` digits, divided by 2^q, with RAW digits."""
        p, q = self.frame.p, self.frame.digits
        upper = gram[np.triu_indices(p)] % self.p
        if digits + q <= RAW:
            upper, digits = upper << RAW - digits, RAW
        small = self.trio.truncate(upper, digits + q - RAW, digits + q + 2)
        out = constant_elements(0, (p, p))
        rows, columns = np.triu_indices(p)
        out[rows, columns] = out[columns, rows] = small
        return out

    def _penalise(self, information: Elements) -> Elements:
        out = information.copy()
        places = np.arange(self.frame.p)
        out[places, places] += np.array([round(v * 2**RAW) for v in self._shares_of_ridge()], dtype=object)
        return out

    def _shares_of_ridge(self) -> list[float]:
        """The penalty's weights divided by 2^q."""
        return [float(weight) / 2**self.frame.digits for weight in self.target.ridge]

    def _move(self, inverse: Elements, score: Elements) -> tuple[Elements, Elements]:
        """V g with STANDARD digits, and l = g'Vg with DECREMENT digits."""
        digits = STANDARD + CARRIED_SCORE
        move = self.trio.truncate(inverse @ score % self.p, CARRIED_SCORE, digits + 16)
        product = (score * move).sum(keepdims=True) % self.p
        return move, self.trio.truncate(product, digits - DECREMENT, digits + 16)
