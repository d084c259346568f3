"""Sandwich standard errors from one more sum at the final coefficients: of rows, of patients with several, or of sites.

White, Econometrica 1980;48:817-838 (HC0); MacKinnon and White, J Econometrics 1985;29:305-325 (HC1 to HC3); Liang and
Zeger, Biometrika 1986;73:13-22 (clusters). With the information I and the rows' scores u_i = w_i r_i x_i the
covariance is I^-1 M I^-1. M is the sum of u_i u_i' over rows; HC2 and HC3 divide it by 1 - h_i and by its square, with
the leverage h_i = w_i v_i x_i' I^-1 x_i, which each site computes from the pooled information. By patient, M is the sum
of U U', U being the sum of a patient's u_i at this site; by site U is that of the whole site. As R's packages sandwich
and survey have them: HC1 times n / (n - p), patients and sites times G / (G - 1), sampling weights times n / (n - 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.errors import StudyError
from coterie_learners.glore.site_profile import find_profile, leverages
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.rounds import Model

Robust = Literal["HC0", "HC1", "HC2", "HC3", "patient", "site"]
# Rows that belong together.
CLUSTERS = ("patient", "site")
# The sum of U U' over fewer sites tells each of them the others' U; nor is such a variance worth anything.
FEWEST_SITES = 5
# By which power of 1 - h a row's squared residual is divided.
POWERS = {"HC0": 0, "HC1": 0, "HC2": 1, "HC3": 2}
# A row that its own outcome determines to this share would divide by nothing.
MOST_LEVERAGE = 1.0 - 1e-10


def meat_shapes(p: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a site's part: the upper triangle of M, and how many patients have rows."""
    return {"meat": (p * (p + 1) // 2,), "groups": ()}


def measure_meat(model: Model, rows: Rows, frame: Frame, end: Payload, kind: Robust) -> dict[str, Array]:
    """A site's part at the final coefficients. `end`: the last server post (beta, information)."""
    if model.profiled:
        return _measure_profile(model, rows, frame, end, kind)
    inverse = _invert(symmetric(end["information"], model.p))
    meat, by_group = np.zeros((model.p, model.p)), dict[int, Array]()

    def sum_block(block: Block) -> tuple[Array, list[tuple[int, Array]]]:
        here = model.weigh(frame.block(block))
        scores, times = score_rows(model, here, end["beta"], inverse, kind)
        if kind in CLUSTERS:
            return np.zeros_like(meat), list(_add_by_cluster(here, scores, kind))
        return (scores.T * times) @ scores, []

    for part, clusters in over_blocks(sum_block, rows):
        meat = meat + part
        for group, score in clusters:
            by_group[group] = by_group[group] + score if group in by_group else score
    if by_group:
        scores = np.array(list(by_group.values()))
        meat = scores.T @ scores
    return {"meat": meat[np.triu_indices(model.p)], "groups": np.asarray(float(len(by_group)))}


def _measure_profile(model: Model, rows: Rows, frame: Frame, end: Payload, kind: Robust) -> dict[str, Array]:
    """The same of slopes, with an intercept that the site keeps: scores of columns about their weighted means."""
    at = find_profile(model, rows, frame, end["beta"])
    scores = at.about(at.own * at.parts.weight) * (at.parts.residual * at.own)[:, None]
    # A row that stands for several patients has as many scores, each of them once.
    times = 1.0 / at.own if model.weighting == "frequency" and kind not in CLUSTERS else np.ones(len(at.own))
    leverage = leverages(at, _invert(symmetric(end["information"], model.p)[1:, 1:])) * times
    times = times / (1.0 - np.minimum(leverage, MOST_LEVERAGE)) ** POWERS.get(kind, 0)
    meat, groups = np.zeros((model.p, model.p)), 0
    if kind in CLUSTERS:
        sums = np.array([score for _, score in _add_by_cluster(at.block, scores, kind)])
        meat[1:, 1:], groups = sums.T @ sums, len(sums)
    else:
        meat[1:, 1:] = (scores.T * times) @ scores
    return {"meat": meat[np.triu_indices(model.p)], "groups": np.asarray(float(groups))}


def check_site_clusters(p: int, sites: int, excludes: bool) -> None:
    """StudyError (CO-S324) if a sandwich by site has no variance, or would disclose the others' scores to a site."""
    if sites < FEWEST_SITES or p >= sites:
        message = f'robust = "site" has {sites} sites for {p} coefficients'
        need = f"it takes {FEWEST_SITES} sites or more, and more sites than coefficients"
        raise StudyError("CO-S324", f'{message}; {need}. Leave terms out, or choose "HC3" or "patient".')
    if excludes:
        message = 'robust = "site" with a site that may be excluded would show the scores of the others'
        raise StudyError("CO-S324", f'{message}. Set silent_site = "wait" or "abort".')


def _invert(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def score_rows(model: Model, block: Block, beta: Array, inverse: Array, kind: Robust) -> tuple[Array, Array]:
    """Each row's score (m, p), and how many times its square stands in M (m,)."""
    eta = block.x @ beta if block.offset is None else block.x @ beta + block.offset
    parts = model.family.parts(eta, block.y)
    weight = np.ones(len(block)) if block.weight is None else block.weight
    # A row that stands for several patients has as many scores; one that weighs more has a larger score.
    own, times = (weight, np.ones(len(block))) if model.weighs or kind in CLUSTERS else (np.ones(len(block)), weight)
    if POWERS.get(kind, 0):
        leverage = own * parts.weight * np.sum((block.x @ inverse) * block.x, axis=1)
        times = times / (1.0 - np.minimum(leverage, MOST_LEVERAGE)) ** POWERS[kind]
    return block.x * (parts.residual * own)[:, None], times


def _add_by_cluster(block: Block, scores: Array, kind: Robust) -> Iterator[tuple[int, Array]]:
    """The sum of the scores of each patient, or of this site, by number."""
    if kind == "site":
        yield 0, scores.sum(axis=0)
        return
    if block.group is None:
        raise StudyError(
            "CO-S324",
            'robust = "patient" needs the column that identifies patients. Name it: patient = "column".',
        )
    groups, place = np.unique(block.group, return_inverse=True)
    sums = np.zeros((len(groups), scores.shape[1]))
    np.add.at(sums, place.ravel(), scores)
    yield from zip(groups.tolist(), sums, strict=True)


def root_of_sandwich(model: Model, end: Mapping[str, Any], kind: Robust) -> Array:
    """A root R (p, p) of the covariance R R' in the frame, from the last server post with the pooled M."""
    root = np.asarray(end["root"])
    bread = linalg.matmul(root, root.T)
    whole = linalg.matmul(linalg.matmul(bread, symmetric(np.asarray(end["meat"]), model.p)), bread)
    return np.asarray(linalg.root_of(0.5 * (whole + whole.T)) * np.sqrt(correct_few(model, end, kind)))


def correct_few(model: Model, end: Mapping[str, Any], kind: Robust) -> float:
    """The factor for few rows, patients or sites."""
    n, groups = float(end["n"]), float(end["groups"])
    if kind in CLUSTERS:
        return groups / (groups - 1.0) if groups > 1.0 else 1.0
    if model.weighting == "sampling":
        return n / (n - 1.0)
    parameters = model.p - 1.0 + float(end["sites"]) if model.profiled else float(model.p)
    return n / (n - parameters) if kind == "HC1" else 1.0
