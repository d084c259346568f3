"""Columns on a grid come back from a factor by lattice reduction, in both modes, and the gate refuses them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from support.learners import lattice, vertical
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.disclosure import Ruling, judge_exposure
from coterie_learners.core.masked_sum import unmask_short
from coterie_learners.study.document import Floors, Study
from coterie_learners.vertical.column_grid import lies_on_grid
from coterie_learners.vertical.site_columns import SiteColumns
from coterie_learners.vertical.valoris import valoris
from coterie_learners.vertical.vertigo import vertigo

N = 300
# Scores and measurements as a hospital writes them, and one column with all digits of a float at each site.
COLUMNS_BY_SITE = {"north": ("died",), "south": ("b_ecog", "b_nyha", "b_age", "b_crp"), "east": ("c_sbp", "c_egfr")}


@cache
def cohort() -> Codes:
    """Correlated: an ECOG score, a NYHA class, whole years, two measurements to 0.1, and one with all digits."""
    rng = np.random.default_rng(4)
    severity = rng.normal(size=N)
    return {
        "b_ecog": np.clip(np.round(1.2 + severity + 0.6 * rng.normal(size=N)), 0, 4),
        "b_nyha": np.clip(np.round(2.2 + 0.8 * severity + 0.6 * rng.normal(size=N)), 1, 4),
        "b_age": np.clip(np.round(60 + 8 * severity + 10 * rng.normal(size=N)), 18.0, 95.0),
        "b_crp": rng.normal(size=N) + severity,
        "c_sbp": np.round(130 + 5 * severity + 14 * rng.normal(size=N), 1),
        "c_egfr": np.round(80 - 10 * severity + 12 * rng.normal(size=N), 1),
        "died": (rng.random(N) < 1 / (1 + np.exp(1 - severity))).astype(float),
    }


def study(learner: str, **options: Any) -> Study:
    plain = vertical.study(COLUMNS_BY_SITE, learner, **options).model_dump()
    for variable in plain["variables"].values():
        if variable["type"] == "number":
            variable["range"] = (-300.0, 300.0)
    return Study.model_validate(plain)


def play(of: Study) -> MemoryProtocol:
    script = valoris if of.learner.name == "valoris" else vertigo
    table = MemoryProtocol(script, of, vertical.split(of, cohort()))
    table.play()
    return table


def order_of(table: MemoryProtocol, of: Study) -> Array:
    """The patients' numbers in the common order, which every site has."""
    part = part_of(table, of, "south")
    names = [part.site.columns.identifiers[k][0] for k in part.order]
    return np.array([int(name.split()[1]) for name in names])


def part_of(table: MemoryProtocol, of: Study, name: str) -> SiteColumns:
    """A site's part, as its own machine computes it at the alignment's end."""
    from coterie_learners.core.protocol import Machine, Script, Site
    from coterie_learners.vertical.alignment import align
    from coterie_learners.vertical.valoris import plan_valoris
    from coterie_learners.vertical.vertigo import plan_vertigo

    split = (plan_valoris if of.learner.name == "valoris" else plan_vertigo)(of).split

    def script(site: Site) -> Script:
        return SiteColumns(split, site, (yield from align(site)))

    machine = Machine(script, table.machines[name].site)
    for topic in table.topics:
        if machine.awaits is not None:
            machine.advance(table.posts(topic))
    part = machine.result
    assert isinstance(part, SiteColumns)
    return part


def comes_back(short: Array, truth: Array, most: int) -> bool:
    """Whether the true column, but for origin and direction, is a sum of the reduced ones with small coefficients."""
    return any(lattice.same_column(column, truth) for column in lattice.combine(short, most))


def test_scores_come_back_from_a_factor_in_every_row() -> None:
    of = study("valoris")
    table = play(of)
    order = order_of(table, of)
    short = lattice.find_scores(np.asarray(table.posts("factor/south")["south"]["factor"]))
    assert len(short) == 3  # the lattice of the three columns on a grid; the fourth is in no such lattice
    assert any(lattice.same_column(column, cohort()["b_nyha"][order]) for column in short)
    for name, most in (("b_ecog", 1), ("b_age", 8)):
        assert comes_back(short, cohort()[name][order], most)


def test_scores_of_both_sites_come_back_from_the_aggregated_sum() -> None:
    of = study("valoris", mode="aggregated")
    table = play(of)
    order = order_of(table, of)
    posts = [table.posts(f"factor/{site}")[site]["masked"] for site in ("south", "east")]
    short = lattice.find_scores(unmask_short(posts)[:-1])
    assert len(short) == 5
    assert comes_back(short[:3], cohort()["b_ecog"][order], 1)
    assert comes_back(short[:3], cohort()["b_nyha"][order], 1)
    span = np.linalg.lstsq(short.T, cohort()["c_sbp"][order] * 10 - np.mean(cohort()["c_sbp"]) * 10, rcond=None)
    assert np.max(np.abs(span[0] - np.round(span[0]))) < 1e-6


def test_continuous_columns_give_a_lattice_nothing() -> None:
    factor = np.random.default_rng(1).normal(size=(N, 6))
    assert len(lattice.find_scores(factor - factor.mean(axis=0))) == 0


@pytest.mark.parametrize(
    ("learner", "options"), [("valoris", {}), ("valoris", {"mode": "aggregated"}), ("vertigo", {})]
)
@pytest.mark.parametrize("site", ["south", "east"])
def test_every_site_refuses_its_columns_on_a_grid_in_both_modes(
    learner: str, options: dict[str, str], site: str
) -> None:
    of = study(learner, **options)
    table = play(of)
    part = part_of(table, of, site)
    aggregated = options.get("mode") == "aggregated"
    exposure = (part.reveals_masked if aggregated else part.reveals_factor)(part.site, {})
    assert exposure.gridded == tuple(name for name in COLUMNS_BY_SITE[site] if name != "b_crp")
    assert exposure.sums_only is aggregated
    verdict = judge_exposure(exposure, Floors(), "factor")
    assert verdict.ruling is Ruling.REFUSED
    assert f"rebuild {', '.join(exposure.gridded)} row by row, whose values lie on a grid" in verdict.sentence
    assert "computes on shares" in verdict.sentence
    assert not judge_exposure(exposure, Floors(rebuild="allow"), "factor").refused


def test_a_binary_column_is_refused_in_the_aggregated_mode_as_well() -> None:
    holders = {"north": ("died",), "south": ("b1", "q1"), "east": ("c1", "r1")}
    of = vertical.study(holders, "valoris", mode="aggregated")
    table = MemoryProtocol(valoris, of, vertical.split(of, vertical.draw(200, columns_by_site=holders)))
    table.play()
    for site, name in (("south", "q1"), ("east", "r1")):
        part = part_of(table, of, site)
        exposure = part.reveals_masked(part.site, {})
        assert (exposure.rebuilt, exposure.gridded) == ((name,), ())
        assert "rebuild " + name in judge_exposure(exposure, Floors(), "factor").sentence


# What lies on a grid


RNG = np.random.default_rng(0)
WHOLE = RNG.integers(18, 91, N).astype(float)
GRIDS = {
    "whole years": WHOLE,
    "standardised": (WHOLE - WHOLE.mean()) / WHOLE.std(),
    "pressure to 0.1": np.round(RNG.normal(130, 15, N), 1),
    "mg as mmol": np.round(RNG.normal(100, 20, N), 1) / 18.0182,
    "days as years": RNG.integers(0, 40_000, N) / 365.25,
    "thirds of a million steps": RNG.integers(0, 600_000, N) / 7,
    "a dozen digits": np.round(RNG.normal(1, 0.1, N), 11),
    "logarithm of whole years": np.log(WHOLE),
    "logarithm of whole days": np.log(RNG.permutation(40_000)[:N] + 1.0),
    "root of whole days": np.sqrt(RNG.permutation(40_000)[:N] + 1.0),
    "decimal logarithm of a titre": np.log10(np.round(RNG.lognormal(3, 1, N), 2) + 0.01),
    "one over seconds to 0.01": 1 / np.round(RNG.uniform(1, 400, N), 2),
    "a tenth filled in": np.where(RNG.random(N) < 0.1, RNG.normal(130, 15, N), np.round(RNG.normal(130, 15, N), 2)),
    "mmol, a tenth filled in": np.where(
        RNG.random(N) < 0.1, 5.5 + RNG.normal(size=N), RNG.integers(0, 9000, N) / 1801.82
    ),
    "constant": np.full(N, 0.3),
    "zero": np.zeros(N),
}


@pytest.mark.parametrize("name", GRIDS)
def test_values_in_steps_lie_on_a_grid_whatever_the_unit(name: str) -> None:
    assert lies_on_grid(GRIDS[name])


@pytest.mark.parametrize("n", [5, 20, 50, 300, 5000])
def test_values_with_all_digits_of_a_float_lie_on_none(n: int) -> None:
    for seed in range(20):
        assert not lies_on_grid(np.random.default_rng(seed).normal(60, 20, n))


def test_a_column_that_was_scaled_by_its_declared_range_keeps_its_grid() -> None:
    centre, scale = 150.0, 350.0
    noise = 2 * np.finfo(float).eps * (centre + scale)
    for values, expected in ((GRIDS["pressure to 0.1"], True), (RNG.normal(130, 15, N), False)):
        assert lies_on_grid((values - centre) / scale * scale + centre, noise) is expected
