"""What masks and recomputation cost with 200, 1,000 and 10,000 sites, and who must collude to see one site's sums.

    python benchmarks/many_sites.py

Two parts, which nothing else needs. Masks: each site shares a mask with all others, or with k neighbours of a random
regular graph (Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020). One site's sums are seen by those who share all of its masks: the bound is hypergeometric, and the
simulation draws graphs and coalitions. Recomputation: the seconds are those that this machine takes for the parts,
multiplied up; the script says so.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SITES = (200, 1_000, 10_000)
# A fifth of the sites collude and a twentieth drop out; a failure anywhere is to be rarer than two to the minus 40.
COLLUDING, SILENT, SECURITY = 0.2, 0.05, 40
CELLS, CELL_BYTES = 110, 16
TRIALS = 200


def main() -> None:
    """Print the tables."""
    print("| sites | neighbours k | an honest neighbour is missing for some site, 2^- | simulated with k = 6 | bound |")
    print("|---|---|---|---|---|")
    for n in SITES:
        k = choose_neighbours(n)
        seen, few = simulate(n, 6), expected_exposed(n, 6)
        print(f"| {n:,} | {k} | {-bound_exposure(n, k):.0f} | {seen:.2g} sites a draw | {few:.2g} |", flush=True)
    print()
    mask, digest = measure_mask(), measure_post()
    print(f"one mask of {CELLS} cells: {mask * 1e6:.0f} us; reading and checking one post: {digest * 1e6:.0f} us")
    print("| sites | masks of a site, all pairs / k, s | posts read by all, s a round | by a committee of c | c |")
    print("|---|---|---|---|---|")
    for n in SITES:
        k, c = choose_neighbours(n), choose_committee(n)
        print(
            f"| {n:,} | {n * mask:.3f} / {k * mask:.4f} | {n * digest:.2f} at each site, {n * n * digest:,.0f} in all "
            f"| {c * n * digest:,.0f} in all | {c} |"
        )


def log2_hypergeometric(n: int, bad: int, k: int) -> float:
    """log2 of the chance that all of k sites drawn from n - 1 are among `bad` of them."""
    if k > bad:
        return -math.inf
    return sum(math.log2((bad - i) / (n - 1 - i)) for i in range(k))


def bound_exposure(n: int, k: int) -> float:
    """log2 of the chance that any honest site has only colluding or silent neighbours: a union bound over the sites."""
    bad = math.floor((COLLUDING + SILENT) * n)
    return math.log2(n) + log2_hypergeometric(n, bad, k)


def choose_neighbours(n: int) -> int:
    """The least even k for which the bound is below two to the minus SECURITY."""
    return next(k for k in range(2, n, 2) if bound_exposure(n, k) <= -SECURITY)


def choose_committee(n: int) -> int:
    """Members of a random committee of which more than half collude with a chance below two to the minus SECURITY."""
    bad = math.floor(COLLUDING * n)
    return next(c for c in range(3, n + 1, 2) if log2_majority(n, bad, c) <= -SECURITY)


def log2_majority(n: int, bad: int, c: int) -> float:
    """log2 of the chance that more than half of c sites drawn from n are among `bad`."""
    terms = [
        math.lgamma(bad + 1) - math.lgamma(j + 1) - math.lgamma(bad - j + 1)
        + math.lgamma(n - bad + 1) - math.lgamma(c - j + 1) - math.lgamma(n - bad - c + j + 1)
        - math.lgamma(n + 1) + math.lgamma(c + 1) + math.lgamma(n - c + 1)
        for j in range(c // 2 + 1, min(c, bad) + 1) if c - j <= n - bad
    ]  # fmt: skip
    if not terms:
        return -math.inf
    largest = max(terms)
    return (largest + math.log(sum(math.exp(term - largest) for term in terms))) / math.log(2)


def expected_exposed(n: int, k: int) -> float:
    """Honest sites whose k neighbours are all colluding or silent, expected in one draw."""
    bad = math.floor((COLLUDING + SILENT) * n)
    return float((n - bad) * 2 ** log2_hypergeometric(n, bad, k))


def simulate(n: int, k: int) -> float:
    """The same, counted: graphs and coalitions are drawn."""
    rng, count = np.random.default_rng(n), 0
    bad_count = math.floor((COLLUDING + SILENT) * n)
    for _ in range(TRIALS):
        bad = np.zeros(n, dtype=bool)
        bad[rng.choice(n, bad_count, replace=False)] = True
        exposed = ~bad
        for order in draw_rings(rng, n, k // 2):
            for shift in (1, -1):
                neighbours = np.empty(n, dtype=np.int64)
                neighbours[order] = np.roll(order, shift)
                exposed &= bad[neighbours]
        count += int(exposed.sum())
    return count / TRIALS


def draw_rings(rng: np.random.Generator, n: int, rings: int) -> Iterator[NDArray[np.int64]]:
    """Random rings over all sites: each gives a site two neighbours, and together they connect the graph."""
    for _ in range(rings):
        yield rng.permutation(n)


def measure_mask() -> float:
    """Seconds to expand one shared seed into a mask of a post, as masks are: SHA-256 in counter mode."""
    begun, repeats = time.process_time(), 200
    for number in range(repeats):
        blocks = [hashlib.sha256(number.to_bytes(32) + k.to_bytes(8)).digest() for k in range(CELLS * CELL_BYTES // 32)]
        np.frombuffer(b"".join(blocks), dtype=np.uint64).sum()
    return (time.process_time() - begun) / repeats


def measure_post() -> float:
    """Seconds to read and check one masked post: its digest, its form and its cells into a sum of Python's integers."""
    post, total = bytes(CELLS * CELL_BYTES), [0] * CELLS
    begun, repeats = time.process_time(), 500
    for _ in range(repeats):
        hashlib.sha256(post).digest()
        for at in range(CELLS):
            total[at] += int.from_bytes(post[CELL_BYTES * at : CELL_BYTES * (at + 1)])
    return (time.process_time() - begun) / repeats


if __name__ == "__main__":
    main()
