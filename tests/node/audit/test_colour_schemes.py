"""Every page that the project writes follows the reader's colour scheme, and its text stands out in both."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from coterie_node.data.cohort.flow import Flow, FlowStep, draw_flow
from coterie_node.data.quality import page as data_check
from coterie_node.experiment.box_plots import draw_box_plots

# WCAG 2.2, success criterion 1.4.3, for text of any size.
LEAST_CONTRAST = 4.5
# Names of colours that are no text.
BEHIND = ("page", "note", "line")


def read_report() -> str:
    return (files("coterie_node.audit.report") / "templates" / "report.css").read_text()


def read_experiment() -> str:
    return (files("coterie_node.experiment") / "templates" / "experiment.html.j2").read_text()


def read_data_check() -> str:
    return Path(data_check.__file__).read_text()


def measure_light(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((measure_light(first), measure_light(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("read", [read_report, read_experiment, read_data_check])
def test_text_stands_out_on_a_light_page_and_on_a_dark_one(read: Callable[[], str]) -> None:
    text = read()
    light, dark = (dict(re.findall(r"--(\w+): ?(#\w+)", block)) for block in re.findall(r":root ?{([^}]*)}", text))
    assert text.index("prefers-color-scheme") > text.index(light["page"])
    assert light.keys() == dark.keys()
    assert measure_light(light["page"]) > 0.9
    assert measure_light(dark["page"]) < 0.02
    for colours in (light, dark):
        for name in set(colours) - set(BEHIND):
            assert contrast(colours[name], colours["page"]) >= LEAST_CONTRAST, name


def test_drawings_have_colours_for_a_dark_page_and_those_of_a_light_one_without_a_style_sheet() -> None:
    flow = Flow(100, (FlowStep("age >= 18", 20),), 80)
    for drawing in (draw_flow(flow, 5), draw_box_plots({"pooled": [0.7, 0.8, 0.75]}, "area")):
        assert "@media" in drawing
        assert "prefers-color-scheme" in drawing
    assert 'fill="#eef4ff"' in draw_flow(flow, 5)
