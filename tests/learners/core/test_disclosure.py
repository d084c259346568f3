"""What payloads disclose: the gate's analysis compared with tables counted from the rows, and with an attacker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from support.learners import cohorts
from support.learners.cohorts import Array, Codes

from coterie_learners.core.disclosure import Exposure, GateVerdict, Ruling, judge_exposure, list_cell_kinds
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.glore.glore import GlorePlan, compute_local_sums, expose_stats, next_model, share_stats
from coterie_learners.glore.glore_disclosure import disclose_rounds
from coterie_learners.study.design import Design
from coterie_learners.study.document import Floors, Study
from coterie_learners.study.rows import Block, Rows, join_blocks
from coterie_learners.sums import newton

Mask = NDArray[np.bool_]

LEVELS = ("I", "II", "III")
BINARY = "died ~ male + smoker + stage"
SMOKER = {"smoker": {"type": "binary"}}


def draw(n: int, seed: int = 3) -> Codes:
    codes = cohorts.draw(n, seed)
    return {**codes, "smoker": (np.random.default_rng(seed + 1).random(n) < 0.3).astype(float)}


def plain(formula: str, **options: str) -> Study:
    return cohorts.study(formula, 2, SMOKER, aggregation="plain", **options)


def first_round(study: Study, codes: Codes) -> tuple[Exposure, Payload]:
    plan, rows = GlorePlan.of(study), cohorts.rows(study, codes)
    site = Site(study, "north", rows, parties=study.sites)
    sums = compute_local_sums(plan, site, newton.begin(plan.rules))
    return expose_stats(plan, (None,), site, sums), sums


def groups(codes: Codes, product: bool = False) -> Iterator[tuple[str, list[tuple[str, Mask]]]]:
    """Every variable with its named groups, counted by hand from the rows."""
    for name in ("male", "smoker"):
        yield name, [(f"{name}={v}", codes[name] == v) for v in (0, 1)]
    yield "stage", [(f"stage[{level}]", codes["stage"] == k) for k, level in enumerate(LEVELS)]
    if product:
        both = (codes["male"] * codes["smoker"]) == 1
        yield "male:smoker", [("male:smoker=0", ~both), ("male:smoker=1", both)]


def count_cells(codes: Codes, product: bool = False) -> dict[str, int]:
    out: dict[str, int] = {}
    listed = list(groups(codes, product))
    for _, one in listed:
        out |= {name: int(np.sum(mask)) for name, mask in one}
    for (_, one), (_, other) in itertools.combinations(listed, 2):
        out |= {f"{a} & {b}": int(np.sum(m & k)) for a, m in one for b, k in other}
    for v in (1, 0):
        y = codes["died"] == v
        out[f"died={v}"] = int(y.sum())
        out |= {f"{a} & died={v}": int(np.sum(m & y)) for _, one in listed for a, m in one}
    return out


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
@pytest.mark.parametrize(
    "formula", [BINARY, BINARY + " - 1", "died ~ male*smoker + stage", "died ~ stage + age + male + smoker"]
)
def test_the_first_plain_round_gives_every_two_way_table(link: str, formula: str) -> None:
    codes = draw(137)
    solved_cells, _ = first_round(plain(formula, link=link), codes)
    product = "male*smoker" in formula
    want = count_cells(codes, product)
    named = {frozenset(name.split(" & ")): count for name, count in solved_cells.cells.items() if "pattern" not in name}
    assert named == {frozenset(name.split(" & ")): count for name, count in want.items()}
    assert (solved_cells.rows, solved_cells.events) == (137, int(codes["died"].sum()))


def test_numbers_alone_give_no_table() -> None:
    solved_cells, _ = first_round(plain("died ~ age + crp"), draw(90))
    assert {name for name in solved_cells.cells if "died" not in name} == set()


def test_counts_as_outcome_give_tables_of_the_covariates_only() -> None:
    codes = draw(137)
    solved_cells, _ = first_round(plain("visits ~ male + smoker + stage", family="poisson"), codes)
    want = {name: count for name, count in count_cells(codes).items() if "died" not in name}
    assert {frozenset(n.split(" & ")): c for n, c in solved_cells.cells.items() if "pattern" not in n} == {
        frozenset(n.split(" & ")): c for n, c in want.items()
    }


def rounds_of(study: Study, rows: dict[str, Rows], rounds: int) -> tuple[list[Payload], list[dict[str, Payload]]]:
    """The server's posts that the first looks and rounds follow, and what the sites post then."""
    plan = GlorePlan.of(study)
    models = [newton.begin(plan.rules)]
    posts: list[dict[str, Payload]] = []
    for _ in range(rounds):
        posts.append(
            {name: compute_local_sums(plan, Site(study, name, part), models[-1]) for name, part in rows.items()}
        )
        models.append(next_model(plan, models[-1], posts[-1]))
    return models[:-1], posts


def attack_posts(study: Study, models: list[Payload], posts: list[Payload], patterns: Array) -> Array:
    """A reader's least squares for patients by pattern, from the posts of all rounds and the list of patterns."""
    plan, upper = GlorePlan.of(study), np.triu_indices(patterns.shape[1])
    equations, known_values = [np.ones(len(patterns))[None, :]], [np.array([float(posts[0]["n"])])]
    for model, post in zip(models, posts, strict=True):
        x, weight = plan.frame(model).block(Block(patterns, np.zeros(len(patterns)))).x, np.ones(len(patterns))
        if newton.kind_of(model) != "look":
            weight = plan.family.parts(x @ model["beta"], np.zeros(len(patterns))).weight
        equations.append((x[:, upper[0]] * x[:, upper[1]]).T * weight)
        known_values.append(np.asarray(post["information"]))
    solved_cells: Array = np.linalg.lstsq(np.vstack(equations), np.concatenate(known_values), rcond=1e-11)[0]
    return solved_cells


def test_later_plain_rounds_give_single_patterns_away_as_an_attacker_finds() -> None:
    codes = draw(160)
    study = plain(BINARY)
    rows = cohorts.split(study, codes)
    mine = rows["north"]
    patterns, counts = np.unique(join_blocks(mine).x, axis=0, return_counts=True)
    models, posts = rounds_of(study, rows, 3)
    views = tuple(GlorePlan.of(study).view(model) for model in models)
    solved_cells = expose_stats(GlorePlan.of(study), views, Site(study, "north", mine), posts[-1]["north"])
    solved = {n: c for n, c in solved_cells.cells.items() if n.startswith("pattern") and "died" not in n}
    assert sorted(solved.values()) == sorted(counts.tolist())
    np.testing.assert_allclose(attack_posts(study, models, [p["north"] for p in posts], patterns), counts, atol=1e-4)


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_more_patterns_than_equations_are_not_called_solved(link: str) -> None:
    study = plain("died ~ age + crp + male", link=link)
    rows = cohorts.split(study, draw(400))
    models, posts = rounds_of(study, rows, 3)
    views = tuple(GlorePlan.of(study).view(model) for model in models)
    solved_cells = expose_stats(GlorePlan.of(study), views, Site(study, "north", rows["north"]), posts[-1]["north"])
    assert solved_cells.cells == {}


def test_the_observed_information_gives_events_by_pattern_away_sooner() -> None:
    """It weighs rows with and without the event differently: as many equations more on the events."""
    codes = draw(160)
    solved = {}
    for link in ("logit", "probit"):
        study = plain(BINARY, link=link)
        rows = cohorts.split(study, codes)
        models, posts = rounds_of(study, rows, 2)
        views = tuple(GlorePlan.of(study).view(model) for model in models)
        solved_cells = expose_stats(GlorePlan.of(study), views, Site(study, "north", rows["north"]), posts[-1]["north"])
        solved[link] = {name for name in solved_cells.cells if "pattern" in name and "died" in name}
    assert solved["logit"] < solved["probit"]


def test_masked_sums_reveal_no_count_of_this_site() -> None:
    study = cohorts.study(BINARY, 3, SMOKER)
    rows = cohorts.rows(study, draw(90))
    shared = {name: bytes([k]) * 32 for k, name in enumerate(study.sites)}
    site = Site(study, "north", rows, b"s" * 32, shared, parties=study.sites)
    plan = GlorePlan.of(study)
    solved_cells = expose_stats(plan, (None,), site, share_stats(site, plan, "stats/0", newton.begin(plan.rules)))
    assert (solved_cells.sums_only, solved_cells.parties, dict(solved_cells.cells)) == (True, 3, {})
    assert solved_cells.events == int(join_blocks(rows).y.sum())
    assert judge_exposure(solved_cells, Floors(), "stats/0").ruling is Ruling.SUMS_ONLY


@pytest.mark.parametrize("formula", ["died ~ age + male", BINARY, "died ~ male*smoker + stage"])
def test_the_kinds_of_cells_of_a_study_hold_those_of_every_payload(formula: str) -> None:
    """What is said of a study before it runs, and in its bundle, has a name for each cell that the gate finds."""
    solved, _ = first_round(plain(formula), draw(160))
    step = disclose_rounds(plain(formula), masked=False, opens="none").find_step("stats/0")
    assert step is not None
    assert set(solved.kinds.values()) <= set(step.cells)
    assert {solved.kinds[name] for name in solved.cells} == set(solved.kinds.values())
    assert "died" in step.cells


def test_an_offset_hides_no_table_and_many_pairs_are_one_phrase() -> None:
    names = [f"v{k}" for k in range(40)]
    wide = cohorts.study(f"died ~ {' + '.join(names)}", variables={name: {"type": "binary"} for name in names})
    assert "each pair of these" in list_cell_kinds(Design(wide))
    assert len(list_cell_kinds(Design(wide))) < 100
    offset = cohorts.study("died ~ male").model_copy(update={"formula": "died ~ male + offset(crp)"})
    assert list_cell_kinds(Design(offset)) == list_cell_kinds(Design(cohorts.study("died ~ male")))


# Judgement


def verdict(floors: Floors | None = None, **changed: object) -> GateVerdict:
    cells = {"sex[f] & died=1": 3, "sex[f]": 40, "sex[m] & died=1": 0}
    kinds = {"sex[f] & died=1": "sex by died", "sex[f]": "sex", "sex[m] & died=1": "sex by died"}
    fields = {"what": "Sums", "rows": 100, "events": 20, "parameters": 4, "cells": cells, "kinds": kinds} | changed
    return judge_exposure(Exposure(**fields), floors or Floors(), "stats/0")  # type: ignore[arg-type]


def test_a_small_cell_is_refused_by_its_kind_and_without_its_count() -> None:
    solved_cells = verdict()
    assert solved_cells.refused
    assert "counts below 5 patients can be solved from it, of sex by died." in solved_cells.sentence
    assert solved_cells.secret == {"sex[f] & died=1": 3}
    assert "3" not in solved_cells.sentence.replace("three", "")
    assert "secret" not in str(solved_cells.as_dict())


def test_an_empty_cell_and_a_floor_of_nothing_pass() -> None:
    assert verdict(Floors(cell=3)).ruling is Ruling.PASSED
    assert verdict(Floors(cell=0)).ruling is Ruling.PASSED


@pytest.mark.parametrize(
    ("floors", "changed", "word"),
    [
        (Floors(rows=101), {}, "fewer than 101 rows"),
        (Floors(cell=0, events_per_parameter=6), {}, "fewer than 6 events here for each of 4"),
        (Floors(cell=0, events_per_parameter=6), {"events": 95}, "fewer than 6 events"),
        (Floors(cell=0), {"rebuilt": ("sex[f]", "old")}, "rebuild sex[f], old row by row"),
        (Floors(rows=101), {"sums_only": True}, "fewer than 101 rows"),
    ],
)
def test_every_floor_refuses(floors: Floors, changed: dict[str, object], word: str) -> None:
    solved_cells = verdict(floors, **changed)
    assert solved_cells.refused
    assert word in solved_cells.sentence


def test_rebuilding_may_be_agreed_on() -> None:
    assert verdict(Floors(cell=0, rebuild="allow"), rebuilt=("sex[f]",)).ruling is Ruling.PASSED


def test_the_stricter_floor_of_two_holds_in_each() -> None:
    one, other = Floors(rows=10, cell=3, rebuild="allow"), Floors(rows=2, cell=11, events_per_parameter=5)
    both = Floors(rows=10, cell=11, events_per_parameter=5, rebuild="refuse")
    assert one.stricter(other) == other.stricter(one) == both


def test_the_digest_names_the_ruling_and_changes_with_what_was_decided() -> None:
    passed, refused = verdict(Floors(cell=0)), verdict()
    assert (passed.digest[0], refused.digest[0], len(passed.digest)) == (1, 9, 32)
    assert passed.digest == verdict(Floors(cell=0)).digest
    assert passed.digest != verdict(Floors(cell=1)).digest


def test_floors_are_part_of_the_study_only_where_they_differ_from_the_default() -> None:
    study = plain(BINARY)
    other = Study.model_validate({**study.model_dump(), "disclosure": {"cell": 11}})
    assert b"disclosure" not in study.document
    assert b'"disclosure":{"cell":11' in other.document
    assert Study.from_json(other.document).disclosure.cell == 11
