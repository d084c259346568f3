"""The "equals pooled" certificate: before any data are read, the study runs on synthetic data of its own shape.

The same sites in the same order, the same variables, formula, learner, options and schedule; rows drawn from the
declared ranges and levels with a fixed seed. The result is compared with Newton's method on all synthetic rows at once,
written down here without any of the learner's code, with each family's score from the textbook. The largest difference
is stored beside the study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from coterie_learners.core.fit import merge_fits
from coterie_learners.core.registry import find_learner, list_learners
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Floors, Study
from coterie_learners.study.rows import Block
from coterie_learners.sums.families import choose_family
from coterie_node.data.synthetic import simulate_cohort
from coterie_node.errors import ConfigError
from coterie_node.run.simulate import simulate

# Options that the pooled fit here does not cover; learners and families say so of themselves.
_UNCERTIFIED_OPTIONS = ("firth", "robust", "site_intercepts", "weights")
_SEED = 20240
ROWS_PER_COEFFICIENT = 30
FEWEST_ROWS = 200
ROUNDS = 100
REST = 1e-14


@dataclass(frozen=True)
class Certificate:
    """How far a study's federated fit is from the pooled one on synthetic data of its shape.

    `max_abs_estimate` and `max_abs_std_error` are in the variables' own units, `max_in_std_errors` is the largest
    difference of an estimate in units of its standard error.
    """

    study: str
    learner: str
    sites: tuple[str, ...]
    rows: int
    seed: int
    rounds: int
    max_abs_estimate: float
    max_abs_std_error: float
    max_in_std_errors: float
    coterie: str

    @property
    def sentence(self) -> str:
        """The certificate for people."""
        return (
            f"On {self.rows} synthetic rows at {len(self.sites)} sites, with this study's formula, options and "
            f"schedule, the federated fit and the pooled one differ by at most {self.max_in_std_errors:.1e} standard "
            f"errors (coefficients {self.max_abs_estimate:.1e}, standard errors {self.max_abs_std_error:.1e})."
        )

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {**asdict(self), "sites": list(self.sites), "sentence": self.sentence}


def certify(study: Study, rows: int | None = None, seed: int = _SEED) -> Certificate:
    """Run a study on synthetic data, `rows` at each site, and compare it with the pooled fit.

    Small cells stay in synthetic rows: their loss depends on the real ones. ConfigError (CO-F312) where no pooled fit
    is known. Raises what a fit raises.
    """
    if not certifiable(study):
        message = f"No pooled fit is known for {study.learner.name} with these options"
        raise ConfigError(
            "CO-F312", f"{message}. There are certificates for {', '.join(filter(_equals_pooled, list_learners()))}."
        )
    design = Design(study)
    size = rows or max(FEWEST_ROWS, ROWS_PER_COEFFICIENT * len(design.columns))
    cohort = simulate_cohort(study, size, np.random.default_rng(seed))
    full_study = Study.model_validate({**study.model_dump(), "disclosure": Floors(cell=0).model_dump()})
    _, runners, _ = simulate(full_study, cohort.sites)
    fit = merge_fits({name: runner.machine.result for name, runner in runners.items()}, design.names)
    place = [design.names.index(term) for term in fit.terms]
    estimates, errors = (values[place] for values in fit_pooled_rows(study, design, cohort.rows))
    return Certificate(
        study=study.hash.hex(),
        learner=f"{study.learner.name} {study.learner.version}",
        sites=study.sites,
        rows=sum(len(block) for block in cohort.rows),
        seed=seed,
        rounds=fit.rounds,
        max_abs_estimate=_largest(fit.estimates - estimates),
        max_abs_std_error=_largest(fit.std_errors - errors),
        max_in_std_errors=_largest((fit.estimates - estimates) / errors),
        coterie=version("coterie"),
    )


def certifiable(study: Study) -> bool:
    """Whether a pooled fit of this study is known."""
    options = study.learner.options
    if (
        study.models
        or not _equals_pooled(study.learner.name)
        or any(options.get(name) for name in _UNCERTIFIED_OPTIONS)
    ):
        return False
    # If columns are split, a ridge is on columns that are standardised by the common patients, and these are not drawn
    # here.
    if study.columns and options.get("ridge", 0.0):
        return False
    family = choose_family(options.get("family", "binomial"), options.get("link"))
    # Only these come to rest from any start.
    return bool(family.has_pooled_fit and options.get("standard_errors", True))


def _equals_pooled(learner: str) -> bool:
    return learner in list_learners() and find_learner(learner).profile.equals_pooled


def save_certificate(certificate: Certificate, path: Path) -> None:
    """Write a certificate as JSON."""
    try:
        path.write_text(json.dumps(certificate.as_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "CO-F205",
            f"The certificate {path} cannot be written: {error.strerror or error}."
            " Check the free space and the rights of the folder.",
        ) from None


# The pooled fit


def fit_pooled_rows(study: Study, design: Design, blocks: Sequence[Block]) -> tuple[Array, Array]:
    """Estimates and standard errors (p,) in the variables' own units, by Newton's method on all rows at once.

    On orthogonal columns that span the same space, from a QR factorisation.
    """
    raw, y = np.concatenate([b.x for b in blocks]), np.concatenate([b.y for b in blocks])
    offset = np.concatenate([np.zeros(len(b)) if b.offset is None else b.offset for b in blocks])
    x, back = _orthogonal(raw, design.formula.intercept)
    penalty = back.T @ np.diag(_penalty(study, design)) @ back
    options = study.learner.options
    family = choose_family(options.get("family", "binomial"), options.get("link"))
    beta = np.zeros(x.shape[1])
    if family.link == "log" and design.formula.intercept:
        beta = x.T @ np.full(len(y), np.log(y.mean() / np.exp(offset).mean()))
    elif family.bounded and design.formula.intercept:
        beta = x.T @ np.full(len(y), family.start(float(y.mean())))
    for _ in range(ROUNDS):
        score, weight = family.score_by_definition(x @ beta + offset, y)
        information = (x.T * weight) @ x
        inverse = np.linalg.inv(information + penalty)
        step = inverse @ (x.T @ score - penalty @ beta)
        beta = beta + step
        if float(step @ (information + penalty) @ step) < REST**2 * len(y):
            break
    score, weight = family.score_by_definition(x @ beta + offset, y)
    # Pearson's residuals; those of a linear model are the residuals themselves.
    rest = float(np.sum(score * score / weight)) / (len(y) - len(beta))
    dispersion = 1.0 if family.dispersion == "known" else rest
    root = back @ inverse @ np.linalg.cholesky(information)
    return back @ beta, np.sqrt(dispersion * np.sum(root * root, axis=1))


def _orthogonal(raw: Array, intercept: bool) -> tuple[Array, Array]:
    """Orthogonal columns (n, p), and the matrix that carries their coefficients to the raw ones."""
    centre = np.where(np.arange(raw.shape[1]) > 0, raw.mean(axis=0), 0.0) if intercept else np.zeros(raw.shape[1])
    x, triangle = np.linalg.qr(raw - centre)
    back = np.linalg.inv(triangle)
    if intercept:
        back[0] -= centre @ back
    return x, back


def _penalty(study: Study, design: Design) -> Array:
    options: Mapping[str, Any] = study.learner.options
    weights = np.full(len(design.columns), float(options.get("ridge", 0.0)))
    if design.formula.intercept and not options.get("penalise_intercept", False):
        weights[0] = 0.0
    return weights


def _largest(values: Array) -> float:
    return float(np.max(np.abs(values)))
