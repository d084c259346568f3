"""What two counts of the same patients, by other ranges, show together: sums over fewer patients than the floor or not.

Each count gives the outcomes' sum in each of its ranges. What follows of both are sums and differences of these: of
some ranges of the one less some of the other, over the patients who are in just one of the two unions. In the graph
whose points are the ranges of both, and whose edges are the patients by the two ranges that each is in, these are the
patients whose edge leaves a set of points. So no such sum is from fewer patients than the least cut of a connected part
of the graph (Stoer and Wagner, J ACM 1997;44:585-591, doi:10.1145/263867.263872).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coterie_learners.evaluate.score_grid import BinPlaces
from coterie_learners.numeric.array import Array


def cross_ranges(first: BinPlaces, second: BinPlaces) -> Array:
    """Patients (v, v) by range in one count (n,) and in another one (n,); -1 where a patient is in only one of them.

    The ranges of both are points, and one more point is for the patients outside of a count.
    """
    size, other = int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1
    outside = size + other
    left = np.where(first < 0, outside, first)
    right = np.where(second < 0, outside, size + second)
    table = np.zeros((outside + 1, outside + 1))
    np.add.at(table, (left, right), 1.0)
    weights = table + table.T
    np.fill_diagonal(weights, 0.0)
    return weights


def find_least_cut(weights: Array) -> float:
    """The least weight of a cut through a connected part of a graph (v, v); infinity if there is none."""
    parts = _find_parts(weights > 0)
    return min((_cut_connected(weights[np.ix_(part, part)]) for part in parts if len(part) > 1), default=math.inf)


def _find_parts(joined: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """The connected parts, each as indices."""
    rest, parts = np.ones(len(joined), dtype=bool), []
    while rest.any():
        inside = np.zeros(len(joined), dtype=bool)
        inside[np.argmax(rest)] = True
        while (grown := inside | joined[inside].any(axis=0)).sum() > inside.sum():
            inside = grown
        parts.append(np.flatnonzero(inside))
        rest &= ~inside
    return parts


def _cut_connected(weights: Array) -> float:
    """The least cut: in each phase the point that is added last, by the most weight, gives a cut, and joins another."""
    graph, least = weights.copy(), math.inf
    while len(graph) > 1:
        before, last, cut = _order_points(graph)
        least = min(least, cut)
        graph[before] += graph[last]
        graph[:, before] += graph[:, last]
        graph[before, before] = 0.0
        kept = np.arange(len(graph)) != last
        graph = graph[np.ix_(kept, kept)]
    return least


def _order_points(graph: Array) -> tuple[int, int, float]:
    """The last two points of a phase, and the weight of the last one's edges."""
    reach, added = graph[0].copy(), np.zeros(len(graph), dtype=bool)
    added[0], before, last = True, 0, 0
    cut = 0.0
    for _ in range(len(graph) - 1):
        before, last = last, int(np.argmax(np.where(added, -1.0, reach)))
        cut = float(reach[last])
        added[last] = True
        reach += graph[last]
    return before, last, cut
