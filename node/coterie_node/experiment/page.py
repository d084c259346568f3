"""The files that an experiment leaves: JSON, CSV, Parquet, Markdown, box plots, and a page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coterie_node.data.arrow import arrow_csv, pq
from coterie_node.errors import ConfigError
from coterie_node.experiment.box_plots import draw_box_plots
from coterie_node.experiment.results import Experiment, list_usable
from coterie_node.experiment.tables import (
    AREA_HEAD,
    SECONDS_HEAD,
    TEST_HEAD,
    describe_setting,
    list_areas,
    list_seconds,
    list_tests,
    make_trial_table,
    print_report,
)

BOXES = (
    "On rows that no fit has seen. A box goes from the first to the third quartile, its line is the median, and each "
    "point is a trial. Whiskers end at the last trial within 1.5 lengths of the box."
)
TESTS = "Pairs of areas over the trials that both models have; p (Holm) is adjusted for all pairs."
SECONDS = "A whole fit, divided by its rounds."
AREA_AXIS, SECONDS_AXIS = "area under the ROC curve", "seconds an iteration"


def draw_figures(experiment: Experiment) -> Mapping[str, str]:
    """The SVG pictures by file name."""
    figures = {"auc.svg": draw_box_plots({n: list_usable(a) for n, a in experiment.areas.items()}, AREA_AXIS)}
    if experiment.seconds:
        figures["seconds.svg"] = draw_box_plots(experiment.seconds, SECONDS_AXIS)
    return figures


def render_experiment(experiment: Experiment) -> str:
    """The HTML page; everything that is not ours is escaped."""
    figures = draw_figures(experiment)
    parts: list[dict[str, Any]] = [
        _part("Area under the ROC curve", figures["auc.svg"], AREA_HEAD, list_areas(experiment)) | {"words": BOXES},
        _part("Wilcoxon's signed-rank tests, two-sided", "", TEST_HEAD, list_tests(experiment), 2) | {"words": TESTS},
    ]
    if experiment.seconds:
        part = _part("Seconds an iteration", figures["seconds.svg"], SECONDS_HEAD, list_seconds(experiment))
        parts.append(part | {"words": SECONDS})
    environment = Environment(
        loader=PackageLoader("coterie_node.experiment"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("experiment.html.j2").render(
        title=experiment.plan.title or experiment.plan.name,
        setting=describe_setting(experiment),
        formula=experiment.plan.formula,
        parts=parts,
        version=version("coterie"),
        key=experiment.plan.key[:16],
    )


def _part(
    heading: str, figure: str, head: tuple[str, ...], lines: list[tuple[str, ...]], names: int = 1
) -> dict[str, Any]:
    """One section; the first `names` columns of its table are names, the others figures."""
    return {"heading": heading, "figure": figure, "head": head, "lines": lines, "names": names}


def write_experiment(experiment: Experiment, folder: Path) -> None:
    """Write every file; ConfigError (CO-F205) if the folder cannot be written."""
    texts = {
        "experiment.json": json.dumps(experiment.as_dict(), indent=2) + "\n",
        "report.md": print_report(experiment),
        "report.html": render_experiment(experiment),
        **draw_figures(experiment),
    }
    table = make_trial_table(experiment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        arrow_csv.write_csv(table, folder / "trials.csv")
        pq.write_table(table, folder / "trials.parquet")
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror or error}. Check the disk and the rights."
        raise ConfigError("CO-F205", message) from None
