"""The page of a result that daemons computed from rows: its numbers are those of the JSON, its plots have words."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.node.houses import SITES
from support.node.pages import PageHouse, send_form

HEAD = """
name = "{name}"
sites = ["north", "south", "west"]
formula = "{formula}"
{learner}
[ledger]
step_seconds = 600
[disclosure]
cell = 1
rows = 1
[variables.died]
type = "binary"
[variables.male]
type = "binary"
[variables.age]
type = "number"
range = [-5, 5]
[variables.months]
type = "number"
range = [0, 100]
unit = "months"
[variables.arm]
type = "category"
levels = ["a", "b"]
"""
STUDIES = {
    "cox": ("died ~ age + male", '[learner]\nname = "cox"\ntime = "months"\nevent = "died"'),
    "linear": ("months ~ age + male", '[learner]\nname = "glore"\nfamily = "gaussian"\naggregation = "plain"'),
    "curves": (
        "died ~ 1",
        '[learner]\nname = "survival_curves"\ntime = "months"\nevent = "died"\ngroup = "arm"\n'
        'time_grid = {width = 5, horizon = 60, unit = "months"}',
    ),
    "table": (
        "arm ~ age + male",
        '[learner]\nname = "table_one"\nquantiles = {age = {width = 0.5, low = -5, high = 5}}',
    ),
    "held-out": (
        "died ~ age + male",
        '[learner]\nname = "glore"\n[evaluate]\nheld_out = 0.25\nscale = "probability"\ngrid = 100',
    ),
}


def write_rows(path: Path, seed: int, n: int = 400) -> None:
    rng = np.random.default_rng(seed)
    age, male = rng.normal(size=n).clip(-4, 4), rng.integers(0, 2, n)
    months = np.ceil(rng.exponential(30 * np.exp(-0.4 * age))).clip(1, 90)
    died = rng.random(n) < 1 / (1 + np.exp(-(0.8 * age - 0.3 * male)))
    lines = [
        f"{int(d)},{a!r},{m},{t:g},{'ab'[k % 2]}"
        for k, (d, a, m, t) in enumerate(zip(died, age.tolist(), male.tolist(), months.tolist(), strict=True))
    ]
    path.write_text("died,age,male,months,arm\n" + "\n".join(lines) + "\n")


class ResultHouse:
    """A page over studies that three daemons run when a test opens them; `numbers` are the studies' numbers by name."""

    def __init__(self, root: Path) -> None:
        self.house, self.root = PageHouse(root / "nodes"), root / "nodes"
        self.numbers: dict[str, int] = {}
        for seed, site in enumerate(SITES):
            write_rows(root / "nodes" / site / "data.csv", seed)

    def run(self, name: str) -> int:
        """The number of a study, which runs first unless it has run."""
        if name not in self.numbers:
            formula, learner = STUDIES[name]
            path = self.root / f"{name}.toml"
            path.write_text(HEAD.format(name=name, formula=formula, learner=learner))
            study = self.house.network.propose(path, "south")
            self.house.network.settle()
            self.house.network.approve(study, "north", "west")
            self.house.network.settle()
            self.numbers[name] = self.house.reader.ledger.studies()[-1]
        return self.numbers[name]

    def replay(self, name: str) -> dict[str, Any]:
        """Run the replay of a study from its page; the report that the page offers as JSON."""
        client, place = self.house.browser("ada"), f"/studies/{self.run(name)}"
        assert send_form(client, f"{place}/result", f"{place}/replay").status_code == 303
        deadline = time.monotonic() + 60.0
        while (job := self.house.services.jobs.find(f"replay {self.numbers[name]}")) is None or job.runs:
            assert time.monotonic() < deadline, "the replay has not ended in a minute"
            time.sleep(0.02)
        report: dict[str, Any] = client.get(f"{place}/report/json").json()
        return report

    def open(self, name: str) -> tuple[str, dict[str, Any]]:
        """The page of a result, without character references, and its JSON."""
        client: TestClient = self.house.browser("ada")
        place = f"/studies/{self.run(name)}/result"
        document: dict[str, Any] = client.get(f"{place}/json").json()
        return html.unescape(client.get(place).text), document


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultHouse]:
    results = ResultHouse(tmp_path_factory.mktemp("results"))
    with results.house:
        yield results


def read_cells(page: str) -> list[list[str]]:
    """The rows of all tables, as texts."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells]


def read_plots(page: str) -> list[str]:
    return re.findall(r"<svg(?![^>]*icon)[^>]*>.*?</svg>", page, re.DOTALL)


def check_plot(plot: str) -> list[str]:
    """Each plot has a role, words for who does not see it, and labels; the labels."""
    head = plot.partition(">")[0]
    assert 'role="img"' in head
    assert re.search(r'aria-label="[^"]{8,}"', head) or re.search(r"<title>[^<]{8,}</title>", plot)
    labels = [re.sub(r"<[^>]+>", "", text) for text in re.findall(r"<text[^>]*>(.*?)</text>", plot, re.DOTALL)]
    assert len(labels) >= 5
    assert all("nan" not in label.lower() for label in labels)
    assert "style=" not in plot  # the policy of the page takes no inline style
    return labels


def has(page: str, *numbers: str) -> bool:
    """Whether one row of a table on the page has these numbers."""
    return any(set(numbers) <= set(row) for row in read_cells(page))


def test_hazard_ratios_stand_as_in_the_json(results: ResultHouse) -> None:
    page, document = results.open("cox")
    assert [term["term"] for term in document["terms"]] == ["age", "male"]
    for term in document["terms"]:
        interval = f"[{np.exp(term['ci_low']):.4g}, {np.exp(term['ci_high']):.4g}]"
        assert has(page, term["term"], f"{term['estimate']:.6f}", f"{term['std_error']:.6f}", interval), term
    assert f"{document['n']} rows, {document['events']} events" in page
    (forest,) = read_plots(page)
    labels = check_plot(forest)
    assert {"age", "male", "HR with 95 % interval, logarithmic"} <= set(labels)


def fit_alone(root: Path, site: str) -> tuple[list[float], list[float]]:
    """Least squares over one site's rows: coefficients of age and male, and (X'X)^-1's part of their variances."""
    rows = np.genfromtxt(root / site / "data.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    design = np.column_stack([np.ones(len(rows)), rows["age"], rows["male"]])
    estimates = np.linalg.lstsq(design, rows["months"], rcond=None)[0]
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    return estimates[1:].tolist(), spread[1:].tolist()


def test_the_forest_has_each_site_s_own_interval_once_a_replay_has_read_the_sums(results: ResultHouse) -> None:
    """A site's own estimate of a linear model is least squares over its rows, under the joint model's variance."""
    page, document = results.open("linear")
    assert "squares: each site's own estimate" not in page
    report = results.replay("linear")
    page, _ = results.open("linear")
    (forest,) = read_plots(page)
    labels = check_plot(forest)
    assert [label for label in labels if label in (*SITES, "age", "male")] == ["age", *SITES, "male", *SITES]
    assert "squares: each site's own estimate, one step from the joint one" in page
    terms = [term["term"] for term in report["screen"]["terms"]]
    for screened in report["screen"]["sites"]:
        estimates, spread = fit_alone(results.root, screened["site"])
        for k, name in enumerate(("age", "male")):
            estimate, error = (screened[key][terms.index(name)] for key in ("estimates", "std_errors"))
            assert estimate == pytest.approx(estimates[k], rel=1e-9)
            assert error == pytest.approx(spread[k] * np.sqrt(document["dispersion"]), rel=1e-6)
            limits = [estimate - 1.959964 * error, estimate + 1.959964 * error]
            assert f"{screened['site']}: {estimate:.3g} [{limits[0]:.3g}, {limits[1]:.3g}]</title>" in forest


@pytest.mark.long
def test_survival_curves_have_axes_and_the_patients_at_risk(results: ResultHouse) -> None:
    page, document = results.open("curves")
    groups = document["details"]["survival"]["groups"]
    *_, drawing = read_plots(page)
    labels = check_plot(drawing)
    assert {"Time (months)", "Survival", "At risk", "arm[a]", "arm[b]"} <= set(labels)
    tables = " ".join(text for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL) if "at risk" in text)
    aside = page.partition("<aside>")[2]
    assert [name for name in re.findall(r"<pre.*?</pre>", aside, re.DOTALL) if "at risk" in name]
    assert "SURVIVAL CURVES, Kaplan-Meier" in page
    for group in groups:
        assert f"{group['survival'][0]:.4g}" in tables
        assert all(f"{count:g}" in labels for count in group["at_risk"]), group["group"]


@pytest.mark.long
def test_a_table_of_characteristics_stands_as_in_the_json(results: ResultHouse) -> None:
    page, document = results.open("table")
    rows = read_cells(page)
    assert ["n", str(document["n"]), "600", "600", ""] in rows
    male = next(row for row in rows if row[0].startswith("male"))
    count, share = re.fullmatch(r"(\d+) \(([\d.]+)\)", male[1]).groups()  # type: ignore[union-attr]
    assert f"{100 * int(count) / document['n']:.1f}" == share
    assert read_plots(page) == []


@pytest.mark.long
def test_an_evaluation_s_plots_and_numbers_are_those_of_the_json(results: ResultHouse) -> None:
    page, document = results.open("held-out")
    (group, *_) = document["details"]["evaluation"]["groups"]
    auc = f"{group['auc']['value']:.3f}"
    assert any(row[0] == "all" and row[1] == str(group["n"]) and row[3].startswith(auc) for row in read_cells(page))
    forest, roc, calibration, benefit = read_plots(page)
    assert {"age", "male"} <= set(check_plot(forest))
    for plot, words, *axes in (
        (roc, f"ROC curve, AUC {auc}: sensitivity by 1 - specificity", "sensitivity", "1 - specificity"),
        (calibration, "Calibration: observed share by predicted", "observed share", "predicted"),
        (benefit, "Net benefit; dotted: treat all: net benefit by threshold", "net benefit", "threshold"),
    ):
        assert f'aria-label="{words}"' in plot
        assert set(axes) <= set(check_plot(plot))
    ranges = [row for row in read_cells(page) if len(row) == 5 and " to " in row[0]]
    assert sum(int(row[1]) for row in ranges) == group["n"]
    assert sum(int(row[2]) for row in ranges) == group["events"]


def test_the_files_have_the_table_of_the_page(results: ResultHouse) -> None:
    client, number = results.house.browser("ada"), results.run("cox")
    page, document = results.open("cox")
    estimates = [f"{term['estimate']:.6f}" for term in document["terms"]]
    for name in ("markdown", "latex"):
        text = client.get(f"/studies/{number}/result/{name}").text
        assert all(estimate in text for estimate in estimates), text
    assert all(estimate in page for estimate in estimates)
