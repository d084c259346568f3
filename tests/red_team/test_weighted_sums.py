"""Attacks through weights, sandwiches and intercepts of sites: what GLORE's newer messages would show of patients.

Each fails when what stops it is taken out; the honest studies beside them pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import Withheld
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.errors import ReleaseRefused
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate

Columns = dict[str, NDArray[Any]]
N = 400
VARIABLES = {
    "death": 'type = "binary"',
    "age": 'type = "number"\nrange = [18, 110]',
    "sex": 'type = "binary"',
    "smoker": 'type = "binary"',
    "hiv": 'type = "binary"',
    "visits": 'type = "count"\nrange = [0, 60]',
    "w": 'type = "number"\nrange = [0.000001, 1000]',
}
PLAIN, MASKED = {"aggregation": "plain"}, {"aggregation": "masked"}


def draw(seed: int, n: int = N) -> Columns:
    rng = np.random.default_rng(seed)
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "age": np.round(rng.uniform(30, 90, n), 1),
        "sex": rng.integers(0, 2, n),
        "smoker": rng.integers(0, 2, n),
        "hiv": (rng.random(n) < 0.3).astype(int),
        "death": (rng.random(n) < 0.3).astype(int),
        "visits": rng.negative_binomial(1.5, 0.3, n),
        "w": np.round(rng.uniform(0.5, 2.0, n), 3),
    }


def run(folder: Path, data: dict[str, Columns], formula: str, patient: str = "", **options: Any) -> None:
    """Run a study under its release gates; raises what stops it."""
    keys = "\n".join(f"{name} = {str(value).lower() if value is True else value!r}" for name, value in options.items())
    declared = "\n".join(f"[variables.{name}]\n{kind}" for name, kind in VARIABLES.items())
    rest = f'patient = "{patient}"' if patient else ""
    text = f'name = "probe"\nsites = {list(data)}\nformula = "{formula}"\n{rest}\n[learner]\nname = "glore"\n{keys}\n'
    study = complete_study(Study.from_toml(f"{text}\n{declared}\n"))
    rows = {}
    for site, columns in data.items():
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (folder / f"{site}.csv").write_text("\n".join(lines) + "\n")
        loaded = load_site(folder / f"{site}.csv", study, site)
        assert loaded is not None
        rows[site] = loaded.rows
    simulate(study, rows, gates={site: Gate(study) for site in study.sites})


@pytest.fixture
def data() -> dict[str, Columns]:
    return {site: draw(k) for k, site in enumerate("abc")}


def make_rare(columns: Columns, count: int) -> None:
    columns["hiv"] = (np.arange(len(columns["hiv"])) < count).astype(int)


HONEST: list[dict[str, Any]] = [
    {"weights": "w"},
    {"weights": "w", "weight_kind": "sampling"},
    {"robust": "HC3"},
    {"site_intercepts": True},
    {"firth": True},
]


@pytest.mark.parametrize("options", HONEST, ids=str)
def test_honest_studies_pass_under_masks(tmp_path: Path, data: dict[str, Columns], options: dict[str, Any]) -> None:
    run(tmp_path, data, "death ~ age + sex + hiv", **MASKED, **options)


@pytest.mark.parametrize("options", HONEST, ids=str)
def test_honest_studies_pass_in_the_clear(tmp_path: Path, data: dict[str, Columns], options: dict[str, Any]) -> None:
    run(tmp_path, data, "death ~ age + sex + hiv", **PLAIN, **options)


@pytest.mark.parametrize("weight", [1.0, 50.0], ids=["no weight", "a weight of fifty"])
def test_weights_do_not_make_two_patients_a_hundred(tmp_path: Path, data: dict[str, Columns], weight: float) -> None:
    """The weighted table of a level counts weights: fifty for each patient would lift it over every floor."""
    make_rare(data["a"], 2)
    for columns in data.values():
        columns["w"] = np.full(N, weight)
    with pytest.raises(ReleaseRefused, match="keeps 'stats/0' back") as caught:
        run(tmp_path, data, "death ~ age + hiv", weights="w", **PLAIN)
    assert "hiv" in str(caught.value)


@pytest.mark.parametrize("aggregation", [PLAIN, MASKED], ids=["plain", "masked"])
@pytest.mark.parametrize("kind", ["prior", "sampling"])
def test_a_weight_that_leaves_one_patient_in_every_sum(
    tmp_path: Path, data: dict[str, Columns], kind: str, aggregation: dict[str, Any]
) -> None:
    """All others weigh a millionth: X'WX is that patient's row, at one site and in the pool."""
    for columns in data.values():
        columns["w"] = np.linspace(0.000001, 0.00001, N)
    data["a"]["w"][17] = 1000.0
    with pytest.raises(ReleaseRefused, match="nearly all of a sum of w"):
        run(tmp_path, data, "death ~ age + sex", weights="w", weight_kind=kind, **aggregation)


def test_a_weight_that_leaves_one_patient_in_a_level(tmp_path: Path, data: dict[str, Columns]) -> None:
    """Of those with HIV one weighs a million times what the others do, and is no tenth of all weights."""
    columns = data["a"]
    columns["w"] = np.where(columns["hiv"] == 1, 0.000001, 1.0) * np.linspace(1.0, 2.0, N)
    columns["w"][np.flatnonzero(columns["hiv"] == 1)[0]] = 1.0
    # The values are judged in the order level, pattern, dominance; the first that objects is named.
    with pytest.raises(ReleaseRefused, match=r"of hiv by w|nearly all of a sum of w times hiv"):
        run(tmp_path, data, "death ~ age + hiv", weights="w", **PLAIN)


def cells(site: int) -> Columns:
    """Eight patterns of fifty patients; in one of them two died, in each other one twenty."""
    columns = draw(site)
    pattern = np.arange(N) % 8
    columns |= {"sex": pattern % 2, "smoker": pattern // 2 % 2, "hiv": pattern // 4}
    columns["death"] = (np.arange(N) // 8 < np.where(pattern == 5, 2, 20 + pattern)).astype(int)
    return columns


def test_the_middle_of_a_sandwich_counts_the_deaths_of_each_pattern(tmp_path: Path) -> None:
    """X'y says four sums of them; squared residuals say seven more: the two deaths of one pattern are solved."""
    data = {site: cells(k) for k, site in enumerate("ab")}
    formula = "death ~ sex + smoker + hiv"
    run(tmp_path, data, formula, **PLAIN)
    with pytest.raises(ReleaseRefused, match=r"keeps 'agreement/\d+' back.*single patterns"):
        run(tmp_path, data, formula, robust="HC0", **PLAIN)


def test_sums_about_a_site_s_own_means_count_its_levels_all_the_same(tmp_path: Path, data: dict[str, Columns]) -> None:
    """n p (1 - p) and n give p: a level with two patients is as open as with a common intercept."""
    make_rare(data["a"], 2)
    with pytest.raises(ReleaseRefused, match="keeps 'stats/0' back"):
        run(tmp_path, data, "death ~ age + hiv", site_intercepts=True, **PLAIN)


def test_patients_with_several_rows_are_counted_as_patients(tmp_path: Path, data: dict[str, Columns]) -> None:
    """Six rows of a level are three patients of two: below the floor of five, though no row is lacking."""
    for columns in data.values():
        columns["pseudonym"][1::2] = columns["pseudonym"][::2]
    run(tmp_path, data, "death ~ age + hiv", patient="pseudonym", robust="patient", **MASKED)
    for columns in data.values():
        make_rare(columns, 2)
    with pytest.raises(Withheld, match="hiv has fewer than 5 patients"):
        run(tmp_path, data, "death ~ age + hiv", patient="pseudonym", robust="patient", **MASKED)


def test_patients_with_several_rows_stay_out_of_plain_sums(tmp_path: Path, data: dict[str, Columns]) -> None:
    for columns in data.values():
        columns["pseudonym"][1::2] = columns["pseudonym"][::2]
    with pytest.raises(ReleaseRefused, match="repeated patients"):
        run(tmp_path, data, "death ~ age + hiv", patient="pseudonym", robust="patient", **PLAIN)


def test_sums_for_the_shape_of_counts_show_how_many_have_each_count(tmp_path: Path, data: dict[str, Columns]) -> None:
    """Digamma sums at one theta after another are as many equations on how many have each count; two have 37."""
    for columns in data.values():
        columns["visits"] = np.where(np.arange(N) < 2, 37, np.arange(N) // 20)
    formula = "visits ~ age + sex"
    run(tmp_path, data, formula, family="quasipoisson", opening="counts", **MASKED)
    run(tmp_path, data, formula, family="negative_binomial", max_rounds=60, **MASKED)
    with pytest.raises(ReleaseRefused, match="keeps 'stats/1' back"):
        run(tmp_path, data, formula, family="negative_binomial", max_rounds=60, **PLAIN)
