"""What a site sums over its rows in a round, and which rows could have such sums.

A fit takes looks and rounds. A look sums the moments of columns and outcome in a frame (X'X, X'y, y'y), whatever the
family; a round the score, the information and the deviance of the family at coefficients. A link that is not canonical
has its observed information summed beside the expected one: steps by it settle in a few rounds where Fisher's take
dozens, and standard errors come from the expected one, as in R.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.parallel import lend_scratch
from coterie_learners.study.design import Design
from coterie_learners.study.elsewhere import over_blocks_in_parallel
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.family import Family
from coterie_learners.sums.frame import Frame, Layout

Kind = Literal["look", "first", "round"]
# What a study's weights are: none, those of R's glm, numbers of patients of a row, or the inverse of chances to be
# sampled.
Weighting = Literal["", "prior", "frequency", "sampling"]
# No sums of real rows come near this; beyond it arithmetic would overflow.
HUGE = 1e100
# A deviance may be negative by rounding, by so much for each row.
NOTHING = 1e-6
# What is summed of a fit beside its score and information.
FIT = ("pearson", "at_an_end")

Sums = Payload


@dataclass(frozen=True)
class Model:
    """Family, columns and kind of sum of a study.

    `linear`: the outcome is measured, so that it has a centre and a scale too. `weighting`: what the weights are.
    `profiled`: each site has an intercept that it keeps, so the first coefficient is no intercept. `firth`: Firth's
    score.
    """

    family: Family
    layout: Layout
    weighting: Weighting = ""
    profiled: bool = False
    firth: bool = False

    @classmethod
    def of(
        cls, design: Design, family: Family, weighting: Weighting = "", profiled: bool = False, firth: bool = False
    ) -> Model:
        """The model of a design and a family."""
        return cls(family, Layout.of(design, family.linear, family.unit), weighting, profiled, firth)

    @property
    def common_intercept(self) -> bool:
        """Whether all sites have one intercept."""
        return self.layout.design.formula.intercept and not self.profiled

    @property
    def weighs(self) -> bool:
        """Whether the likelihood has weights that are no numbers of rows."""
        return self.weighting in ("prior", "sampling")

    @property
    def counts(self) -> tuple[str, ...]:
        """Names of the sums that a fit repeats to its end."""
        return ("n", "outcome", "saturated", *(("weight",) if self.weighs else ()))

    @property
    def linear(self) -> bool:
        """Whether the outcome is centred and scaled."""
        return self.layout.linear

    @property
    def p(self) -> int:
        """Number of coefficients."""
        return self.layout.p

    def shapes(self, kind: Kind) -> dict[str, tuple[int, ...]]:
        """Shapes of the sums of a look, of the first round and of a later one."""
        if kind not in self._shapes:
            self._shapes[kind] = self._list_shapes(kind)
        return dict(self._shapes[kind])

    @cached_property
    def _shapes(self) -> dict[Kind, dict[str, tuple[int, ...]]]:
        """Those that have been asked for."""
        return {}

    def _list_shapes(self, kind: Kind) -> dict[str, tuple[int, ...]]:
        matrix = (self.p * (self.p + 1) // 2,)
        out: dict[str, tuple[int, ...]] = {"score": (self.p,), "information": matrix, "deviance": ()}
        out |= {"n": (), "outcome": ()} | ({"weight": ()} if self.weighs else {})
        if kind == "look":
            return out | ({"offset": ()} if self.has_offset else {})
        out |= {"saturated": ()} | ({} if self.family.canonical else {"curvature": matrix})
        out |= {"shape": (2,)} if self.family.shaped else {}
        if not self.common_intercept or (kind == "round" and not self.runs_null):
            return out
        return out | {"null": (3,) if self.runs_null else (2,)}

    @property
    def runs_null(self) -> bool:
        """Whether the model with an intercept alone is fitted beside the other, round by round.

        Without an offset its mean is that of the outcome.
        """
        moves = self.family.shaped or (self.has_offset and not self.family.closed_null)
        return self.common_intercept and moves

    @property
    def has_offset(self) -> bool:
        """Whether linear predictors have an offset; a linear model takes it from the outcome."""
        return self.layout.design.formula.offset is not None and not self.linear

    def form(self, kind: Kind) -> Schema:
        """Form of one site's sums in the clear."""
        fields = {name: Field("<f8", shape) for name, shape in self.shapes(kind).items()}
        return Schema(fields, check=lambda sums: self.check(kind, sums))

    def check(self, kind: Kind, sums: Payload) -> None:
        """ProtocolError if no rows could have these sums."""
        largest = float(np.max(np.abs(np.concatenate([np.ravel(value) for value in sums.values()])), initial=0.0))
        if largest > HUGE:
            raise ProtocolError("CO-P505", f"A sum of {largest:.3g} cannot come from rows.")
        n, outcome = float(sums["n"]), float(sums["outcome"])
        for name in ("information", *(("curvature",) if "curvature" in sums and self.family.concave else ())):
            if not _is_semidefinite(linalg.symmetric(sums[name], self.p)):
                raise ProtocolError("CO-P501", "The information matrix is not positive semi-definite.")
        if float(sums["deviance"]) < -NOTHING * abs(n):
            raise ProtocolError("CO-P502", f"The deviance {float(sums['deviance']):.6g} is negative.")
        if n < 1 or n != round(n):
            raise ProtocolError("CO-P503", f"{n:.6g} cannot be a number of rows.")
        weight = float(sums["weight"]) if self.weighs else n
        if not weight > 0.0:
            raise ProtocolError("CO-P503", f"{weight:.6g} cannot be the weight of rows.")
        if self.family.whole and not self.weighs:
            self.family.check_total(n, outcome)
        if self.common_intercept:
            self._check_intercept(kind, sums, weight, outcome)

    def _check_intercept(self, kind: Kind, sums: Payload, n: float, outcome: float) -> None:
        weight, score = float(sums["information"][0]), float(sums["score"][0])
        if kind != "look" and not self.firth:
            self.family.check_intercept(n, outcome, weight, score)
        elif kind != "look":
            return
        elif not abs(weight - n) <= 1e-9 * n:
            raise ProtocolError("CO-P508", f"{n:.0f} rows cannot carry an information of {weight:.6g}.")
        elif abs(score - outcome) > 1e-6 * max(n, abs(outcome)):  # both add up the outcome
            raise ProtocolError("CO-P508", f"A score of {score:.6g} contradicts an outcome of {outcome:.6g}.")

    # At a site

    def look(self, rows: Rows, frame: Frame) -> dict[str, Array]:
        """Moments of this site's rows in a frame."""
        return self._add_up(rows, self.shapes("look"), lambda block: self._moments(self._frame(block, frame)))

    def round(
        self, kind: Kind, rows: Rows, frame: Frame, beta: Array, null: float, fits: bool = False
    ) -> dict[str, Array]:
        """Sums of this site's rows at beta (p,); in the first round also those of an intercept of `null` alone.

        `fits`: also the results of `measure_fit` on the rows.
        """

        def measure(block: Block) -> dict[str, Array | float]:
            return self._block_sums(kind, self._frame(block, frame), beta, null, fits)

        return self._add_up(rows, self.shapes(kind) | (dict.fromkeys(FIT, ()) if fits else {}), measure)

    def measure_fit(self, block: Block, mean: Array) -> dict[str, Array | float]:
        """Pearson's chi-squared of rows in a frame with these means (m,), and 1 where a mean is at an end, else 0."""
        own = 1.0 if block.weight is None else block.weight
        pearson = float(np.sum(own * (block.y - mean) ** 2 / self.family.variance(mean)))
        return {"pearson": pearson, "at_an_end": float(self.family.at_an_end(mean))}

    def _frame(self, block: Block, frame: Frame) -> Block:
        """Weighed rows in a frame, which the next block overwrites."""
        return self.weigh(frame.block(block, lend_scratch("frame", block.x.shape)))

    def at_state(self, state: Mapping[str, Any]) -> Model:
        """The model with the family's parameters as a server posted them."""
        return replace(self, family=self.family.at_state(state)) if self.family.shaped else self

    def weigh(self, block: Block) -> Block:
        """The rows with the weights that their likelihood has."""
        if block.prior is None or not self.weighting:
            return block
        return replace(block, weight=block.prior if block.weight is None else block.weight * block.prior)

    def count(self, block: Block) -> dict[str, Array | float]:
        """Number of weighed rows, and their weight where that is another number."""
        weight = sum_rows(np.ones(len(block)), block)
        return {"n": float(len(block)), "weight": weight} if self.weighs else {"n": weight}

    def _add_up(
        self, rows: Rows, shapes: Mapping[str, tuple[int, ...]], measure: Callable[[Block], Mapping[str, Array | float]]
    ) -> dict[str, Array]:
        sums = {name: np.zeros(shape) for name, shape in shapes.items() if name not in ("information", "curvature")}
        square = {name: np.zeros((self.p, self.p)) for name in shapes if name in ("information", "curvature")}
        for part in over_blocks_in_parallel(measure, rows):
            for name, value in part.items():
                kept = square if name in square else sums
                kept[name] = kept[name] + value
        upper = {name: matrix[linalg.upper_triangle(self.p)] for name, matrix in square.items()}
        return {name: np.asarray((sums | upper)[name], dtype=np.float64) for name in shapes}

    def _moments(self, block: Block) -> dict[str, Array | float]:
        y, weight = block.y, block.weight
        weighted = y if weight is None else y * weight
        out: dict[str, Array | float] = {
            "score": block.x.T @ weighted,
            "information": compute_gram(block.x, weight),
        }
        # Squares are needed of a measured outcome alone: those of counts would only overflow.
        out |= {
            "deviance": float(weighted @ y) if self.linear else 0.0,
            "outcome": float(weighted.sum()),
            **self.count(block),
        }
        if self.has_offset and block.offset is not None:
            out["offset"] = sum_rows(block.offset, block)
        return out

    def _block_sums(self, kind: Kind, block: Block, beta: Array, null: float, fits: bool) -> dict[str, Array | float]:
        eta = block.x @ beta if block.offset is None else block.x @ beta + block.offset
        parts = self.family.parts(eta, block.y)
        own = 1.0 if block.weight is None else block.weight
        out: dict[str, Array | float] = {"score": block.x.T @ (parts.residual * own)}
        out |= {"information": compute_gram(block.x, parts.weight * own), **self.count(block)}
        out |= {"deviance": sum_rows(parts.deviance, block), "outcome": sum_rows(block.y, block)}
        out |= {"saturated": sum_rows(self.family.compute_saturated(block.y), block)}
        if self.weighs and block.prior is not None:
            out["saturated"] = out["saturated"] + float(self.family.weight_terms(block.prior).sum())
        if not self.family.canonical:
            weights = parts.curvature * own
            # A row's curvature may be negative: it has no root.
            out["curvature"] = (
                compute_gram(block.x, weights) if self.family.concave else (block.x.T * weights) @ block.x
            )
        if self.family.shaped:
            out["shape"] = np.array([sum_rows(v, block) for v in self.family.shape_parts(block.y, parts.mean)])
        if "null" in self.shapes(kind):
            out["null"] = self._null(block, null)
        return out | (self.measure_fit(block, parts.mean) if fits else {})

    def _null(self, block: Block, null: float) -> Array:
        eta = np.full(len(block), null) if block.offset is None else null + block.offset
        parts = self.family.parts(eta, block.y)
        second = (parts.residual, parts.curvature) if self.runs_null else (parts.mean,)
        return np.array([sum_rows(part, block) for part in (parts.deviance, *second)])


def sum_rows(values: Array, block: Block) -> float:
    """Sum over rows, each as often as it stands for."""
    return float(values.sum()) if block.weight is None else float(values @ block.weight)


def _is_semidefinite(matrix: Array) -> bool:
    """Whether no eigenvalue is below -1e-8 times the largest, except for rounding.

    A factor of the matrix with a little on its diagonal proves it; where there is none the spectrum decides.
    """
    little = 1e-8 * float(np.max(np.diag(matrix), initial=0.0))
    try:
        np.linalg.cholesky(matrix + little * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        spectrum = np.linalg.eigvalsh(matrix)
        return bool(spectrum[0] >= -1e-8 * max(float(spectrum[-1]), 1e-8))
    return True


def compute_gram(x: Array, weight: Array | None) -> Array:
    """x' diag(weight) x (p, p)."""
    if weight is None:
        return np.asarray(x.T @ x)
    weighted = np.multiply(x, np.sqrt(weight)[:, None], out=lend_scratch("gram", x.shape))
    return np.asarray(weighted.T @ weighted)
