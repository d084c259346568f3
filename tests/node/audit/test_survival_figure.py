"""Survival curves as SVG: steps, limits, and the numbers at risk that R's summary of survfit has at the same times."""

from __future__ import annotations

import itertools
import json
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from support.learners.survival_study import CAUSES, curve_study, play_curves, read_causes, split_sites
from typer.testing import CliRunner

from coterie_node.audit.report import raster
from coterie_node.audit.report.survival_figure import draw_survival, draw_survival_on, list_causes
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError

SVG = "{http://www.w3.org/2000/svg}"


@cache
def read_details() -> str:
    return json.dumps(play_curves(curve_study())[0].details["survival"])


@cache
def read_causes_of_death() -> str:
    study = curve_study(event="cause")
    return json.dumps(play_curves(study, split_sites(read_causes(), study.sites))[0].details["survival"])


def draw(details: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(draw_survival(details))


def test_each_group_has_a_curve_limits_and_a_row_of_the_risk_table() -> None:
    details = json.loads(read_details())
    picture = draw(details)
    assert len(picture.findall(f"{SVG}polyline")) == len(picture.findall(f"{SVG}polygon")) == 3
    words = [text.text for text in picture.findall(f"{SVG}text")]
    start = words.index("At risk")
    group = details["groups"][0]
    ends = [0, *(group["times"].index(t) for t in (6.0, 12.0, 18.0, 24.0, 30.0, 36.0))]
    assert words[start + 1 : start + 9] == ["arm[a]", *(f"{group['at_risk'][k]:.0f}" for k in ends)]
    assert "Time (months)" in words


def test_a_curve_goes_down_in_steps_to_its_last_survival() -> None:
    details = json.loads(read_details())
    line = draw(details).findall(f"{SVG}polyline")[0].get("points", "")
    points = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(points))
    lost = (points[-1][1] - points[0][1]) / 300.0
    assert 1.0 - lost == pytest.approx(details["groups"][0]["survival"][-1], abs=1e-3)


def test_curves_differ_in_colour_and_in_dashes() -> None:
    lines = draw(json.loads(read_details())).findall(f"{SVG}polyline")
    assert len({line.get("stroke") for line in lines}) == len({line.get("stroke-dasharray") for line in lines}) == 3


def test_a_name_in_a_result_stays_text() -> None:
    details = json.loads(read_details())
    details["groups"][0]["group"] = '<script>"&'
    picture = draw(details)
    assert not list(picture.iter(f"{SVG}script"))
    assert '<script>"&' in [text.text for text in picture.findall(f"{SVG}text")]


@pytest.mark.parametrize("key", ["times", "survival", "low", "at_risk", "censored"])
def test_curves_that_cannot_be_read_are_refused(key: str) -> None:
    details = json.loads(read_details())
    details["groups"][1][key].pop()
    with pytest.raises(ConfigError) as error:
        draw_survival(details)
    assert error.value.code == "CO-F367"


@pytest.mark.parametrize("grid", [{"width": 0, "horizon": 36}, {"width": 1e-9, "horizon": 36}, {"width": 2}])
def test_a_grid_that_is_none_is_refused(grid: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        draw_survival({**json.loads(read_details()), "grid": grid})


def test_the_command_writes_a_new_file(tmp_path: Path) -> None:
    result, out = tmp_path / "result.json", tmp_path / "curves.svg"
    result.write_text(json.dumps({"terms": [{"term": "x"}], "details": {"survival": json.loads(read_details())}}))
    command = ["study", "plot", str(result), "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    ElementTree.parse(out)
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0
    result.write_text(json.dumps({"terms": [{"term": "x"}]}))
    assert CliRunner().invoke(app, ["study", "plot", str(result)]).exit_code != 0


def test_matplotlib_draws_the_same_steps_and_limits() -> None:
    details = json.loads(read_details())
    axes: Any = Figure().subplots()
    draw_survival_on(axes, details)
    for group, line, band in zip(details["groups"], axes.lines, axes.collections, strict=True):
        assert list(line.get_xdata()) == [0.0, *group["times"]]
        assert list(line.get_ydata()) == [1.0, *group["survival"]]
        limits = {limit for limit in (*group["low"], *group["high"]) if limit is not None}
        assert limits <= set(band.get_paths()[0].vertices[:, 1].tolist())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [g["group"] for g in details["groups"]]


# Competing causes


def test_the_incidence_of_a_cause_rises_in_steps_to_its_last_value() -> None:
    details = json.loads(read_causes_of_death())
    picture = ElementTree.fromstring(draw_survival(details, "cancer"))
    points = [tuple(map(float, p.split(","))) for p in picture.findall(f"{SVG}polyline")[0].get("points", "").split()]
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0] - heights[-1]) / 300.0 == pytest.approx(
        details["causes"][0]["groups"][0]["incidence"][-1], abs=1e-3
    )
    words = [text.text for text in picture.findall(f"{SVG}text")]
    assert "Cumulative incidence: cancer" in words
    assert f"{details['groups'][0]['at_risk'][-1]:.0f}" in words


def test_a_figure_can_be_drawn_of_each_cause() -> None:
    assert list_causes(json.loads(read_causes_of_death())) == list(CAUSES)
    assert list_causes(json.loads(read_details())) == list_causes({"causes": 3}) == []


def write_result(folder: Path, details: str) -> str:
    path = folder / "result.json"
    path.write_text(json.dumps({"terms": [{"term": "x"}], "details": {"survival": json.loads(details)}}))
    return str(path)


def test_a_png_is_wide_enough_for_print_and_shows_each_curve(tmp_path: Path) -> None:
    out = tmp_path / "incidence.png"
    command = ["study", "plot", write_result(tmp_path, read_causes_of_death()), "--cause", "other", "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    content = out.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (2126, pytest.approx(2126 * 458 / 720, abs=1))


def test_without_a_known_font_a_png_is_refused_with_the_names_of_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "_FAMILIES", ("No Such Family",))
    raster._find_family.cache_clear()
    with pytest.raises(ConfigError) as caught:
        raster.rasterise("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'/>")
    raster._find_family.cache_clear()
    assert caught.value.code == "CO-F368"
    assert "No Such Family" in str(caught.value)


def test_without_its_package_a_png_is_refused_with_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    command = ["study", "plot", write_result(tmp_path, read_details()), "--out", str(tmp_path / "curves.png")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError)
    assert result.exception.code == "CO-F368"


@pytest.mark.parametrize("details", [read_details, read_causes_of_death])
def test_a_cause_that_the_result_does_not_have_is_refused(tmp_path: Path, details: Callable[[], str]) -> None:
    result = CliRunner().invoke(app, ["study", "plot", write_result(tmp_path, details()), "--cause", "stroke"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.code == "CO-F367"
