"""What a notebook shows of results, plots, studies and replays; tables of other libraries; nothing is unescaped."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import statsmodels.api as sm
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from support.node.houses import SITES, study_file, write_rows

import coterie

BAD = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> coterie.Result:
    folder = tmp_path_factory.mktemp("notebook")
    for seed, name in enumerate(SITES):
        write_rows(folder / f"{name}.csv", seed)
    return coterie.simulate(coterie.Study.load(study_file(folder)), {name: folder / f"{name}.csv" for name in SITES})


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same model by statsmodels on all rows together."""
    folder = tmp_path_factory.mktemp("pooled")
    tables = []
    for seed, name in enumerate(SITES):
        write_rows(folder / f"{name}.csv", seed)
        tables.append(np.genfromtxt(folder / f"{name}.csv", delimiter=",", names=True))
    rows = np.concatenate(tables)
    design = sm.add_constant(np.column_stack([rows["age"], rows["male"]]))
    return sm.GLM(rows["died"], design, family=sm.families.Binomial()).fit(tol=1e-13)


def test_data_frames_have_the_numbers_of_the_csv(result: coterie.Result) -> None:
    rows = list(csv.DictReader(io.StringIO(result.csv())))
    pandas, polars = result.to_pandas(), result.to_polars()
    assert list(pandas.columns) == polars.columns == list(rows[0])
    for name in ("estimate", "std.error", "p.value", "conf.low", "conf.high"):
        wanted = [float(row[name]) for row in rows]
        assert pandas[name].tolist() == polars[name].to_list() == wanted


def test_the_covariance_gives_the_standard_errors(result: coterie.Result) -> None:
    np.testing.assert_allclose(np.sqrt(np.diag(result.vcov)), result.bse, rtol=1e-14)
    without = replace(result, fit=replace(result.fit, covariance=None))
    assert np.isnan(without.vcov).all()


def test_covariance_limits_and_table_are_those_of_statsmodels_on_the_pooled_rows(
    result: coterie.Result, pooled: Any
) -> None:
    """Logistic regression by another library on all rows together."""
    np.testing.assert_allclose(result.params, pooled.params, rtol=1e-7)
    np.testing.assert_allclose(result.vcov, pooled.cov_params(), rtol=1e-6)
    for alpha in (0.05, 0.2):
        np.testing.assert_allclose(result.conf_int(alpha), pooled.conf_int(alpha), rtol=1e-6)
    frame = result.to_pandas().set_index("term")
    assert list(frame.index) == list(result.fit.terms)
    np.testing.assert_allclose(frame["statistic"], pooled.tvalues, rtol=1e-6)
    np.testing.assert_allclose(frame["p.value"], pooled.pvalues, rtol=1e-5)
    np.testing.assert_allclose(frame[["conf.low", "conf.high"]], pooled.conf_int(), rtol=1e-6)
    polars = result.to_polars()
    assert polars["term"].to_list() == list(frame.index)
    assert polars.select("estimate", "std.error").rows() == [
        (row["estimate"], row["std.error"]) for _, row in frame.iterrows()
    ]


def test_latex_has_the_numbers_of_statsmodels(result: coterie.Result, pooled: Any) -> None:
    """Each line of the table: a term with its estimate and standard error as they are printed."""
    body = result.summary().as_latex().split(r"\hline")[2]
    lines = [[cell.strip() for cell in line.split("&")] for line in body.split(r"\\") if line.strip()]
    for line, estimate, error in zip(lines, pooled.params, pooled.bse, strict=True):
        assert float(line[1].strip("$")) == pytest.approx(estimate, rel=1e-5), line
        assert float(line[2].strip("$")) == pytest.approx(error, rel=1e-5), line


def read_cells(text: str) -> list[list[str]]:
    """The cells of the first table of what a notebook shows, line by line."""
    table = ElementTree.fromstring(text[text.index("<table") : text.index("</table>") + len("</table>")])
    return [["".join(cell.itertext()) for cell in line if cell.tag in ("td", "th")] for line in table.iter("tr")]


def test_a_notebook_shows_the_numbers_of_the_result(result: coterie.Result, pooled: Any) -> None:
    _, *lines = read_cells(result._repr_html_())
    for line, term, estimate, error in zip(lines, result.fit.terms, pooled.params, pooled.bse, strict=True):
        assert line[0] == term
        assert (float(line[1]), float(line[2])) == pytest.approx((estimate, error), rel=1e-5)


def test_a_notebook_shows_the_values_of_a_replay_and_of_a_study(result: coterie.Result, tmp_path: Path) -> None:
    assert result.replay is not None
    shown = dict(read_cells(result.replay._repr_html_())[1:])
    words = {name: str(value) for name, value in result.replay.as_dict().items() if value != ""}
    steps = result.replay.recomputed["server_steps"]
    assert shown == words | {"recomputed": f"server_steps = {steps}, of = {steps}"}
    assert shown["verdict"] == "PASS"
    study = coterie.Study.load(study_file(tmp_path))
    facts = dict(read_cells(study._repr_html_())[1:])
    assert (facts["hash"], facts["sites"]) == (study.hash.hex(), "north, south, west")
    assert (facts["formula"], facts["learner"]) == ("died ~ age + male", "glore")


def test_matplotlib_draws_the_estimates_and_their_limits(result: coterie.Result) -> None:
    own: Any = Figure().subplots()
    assert result.figure(own) is own
    for axes in (own, result.figure()):
        marks = axes.lines[1]
        np.testing.assert_array_equal(marks.get_xdata(), result.params)
        (bars,) = axes.collections
        assert isinstance(bars, LineCollection)
        limits = [segment[:, 0] for segment in bars.get_segments()]
        np.testing.assert_allclose(limits, result.conf_int(), rtol=1e-14)
        assert [label.get_text() for label in axes.get_yticklabels()] == list(result.fit.terms)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_the_marks_of_a_forest_stand_at_the_estimates(result: coterie.Result) -> None:
    """One linear scale takes every estimate and both of its limits to where they are drawn."""
    root = ElementTree.fromstring(result.plot().svg)
    name = "{http://www.w3.org/2000/svg}"
    marks = [float(mark.attrib["x"]) + float(mark.attrib["width"]) / 2 for mark in root.findall(f"{name}rect")]
    bars = [
        (float(line.attrib["x1"]), float(line.attrib["x2"]))
        for line in root.findall(f"{name}line")
        if line.attrib["y1"] == line.attrib["y2"]
    ][: len(marks)]
    drawn = np.array([(mark, *bar) for mark, bar in zip(marks, bars, strict=True)]).ravel()
    wanted = np.column_stack([result.params, result.conf_int()]).ravel()
    slope, offset = np.polyfit(wanted, drawn, 1)
    assert slope > 0
    np.testing.assert_allclose(drawn, slope * wanted + offset, atol=0.11)


def test_a_picture_of_points_has_the_forest_of_the_svg(result: coterie.Result, tmp_path: Path) -> None:
    """The extra `plot` draws the same picture as PNG: dark at the middle of each mark, as wide and high as the SVG."""
    image = pytest.importorskip("PIL.Image")
    plot = result.plot()
    root = ElementTree.fromstring(plot.svg)
    with image.open(plot.save(tmp_path / "forest.png")) as picture:
        scale = picture.width / float(root.attrib["viewBox"].split()[2])
        assert picture.height == pytest.approx(scale * float(root.attrib["viewBox"].split()[3]), abs=1)
        for mark in root.findall("{http://www.w3.org/2000/svg}rect"):
            x, y, width, height = (float(mark.attrib[key]) for key in ("x", "y", "width", "height"))
            dot = picture.convert("L").getpixel((int(scale * (x + width / 2)), int(scale * (y + height / 2))))
            assert dot < 160


def test_a_summary_is_a_text_that_writes_its_table(result: coterie.Result) -> None:
    summary = result.summary()
    assert summary == result.text()
    assert summary.as_latex() == result.table("latex")
    assert summary.as_latex().startswith(r"\begin{tabular}")
    assert (summary.as_csv(), summary.as_markdown()) == (result.table("csv"), result.table("markdown"))
    assert summary.as_html() == result.table("html")


def test_what_a_notebook_shows_escapes_every_word(result: coterie.Result) -> None:
    assert result.replay is not None
    fit = replace(result.fit, terms=(BAD, *result.fit.terms[1:]), notes=(BAD,))
    bad = replace(result, study=BAD, fit=fit, notes=(BAD,), warnings=(BAD,), replay=replace(result.replay, outcome=BAD))
    assert bad.replay is not None
    shown = (bad._repr_html_(), bad.summary()._repr_html_(), bad.replay._repr_html_(), bad.plot()._repr_html_())
    for text in shown:
        assert "<img" not in text
        assert "&lt;img" in text


def test_a_study_is_shown_with_its_formula(tmp_path: Path) -> None:
    text = coterie.Study.load(study_file(tmp_path))._repr_html_()
    assert "died ~ age + male" in text
    assert "Study cohort" in text


def test_a_plot_is_one_svg_with_a_mark_for_each_coefficient(result: coterie.Result, tmp_path: Path) -> None:
    plot = result.plot()
    root = ElementTree.fromstring(plot._repr_svg_())
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == len(result.fit.terms)
    assert plot.save(tmp_path / "forest.svg").read_text().strip() == plot.svg
    with pytest.raises(coterie.NodeError) as error:
        plot.save(tmp_path / "forest.svg")
    assert error.value.code == "CO-F206"
    assert "href" not in plot.svg
