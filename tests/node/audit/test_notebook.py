"""What a notebook shows of results, plots, studies and replays; tables of other libraries; nothing is unescaped."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.node.houses import SITES, study_file, write_rows

import coterie

BAD = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> coterie.Result:
    folder = tmp_path_factory.mktemp("notebook")
    for seed, name in enumerate(SITES):
        write_rows(folder / f"{name}.csv", seed)
    return coterie.simulate(coterie.Study.load(study_file(folder)), {name: folder / f"{name}.csv" for name in SITES})


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
