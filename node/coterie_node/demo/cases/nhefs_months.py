"""NHEFS as months to death, from January 1983 to the end of 1992: the cohort of the demos on times to an event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.demo.cases import nhefs

HORIZON = 120
MONTHS = """\
[variables.months]
type = "number"
unit = "months"
range = [0, 120]

"""


def load_months() -> Any:
    """The cohort with months to death, or to the end of 1992."""
    frame = nhefs.load_cohort("yrdth", "modth")
    months = (frame.pop("yrdth").fillna(0) - 83) * 12 + frame.pop("modth").fillna(0)
    frame["months"] = np.where(frame["death"] == 1, months, HORIZON)
    return frame


def write_months(folder: Path, sites: Sequence[str], columns: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site with these columns; returns their paths by site."""
    frame = load_months()[list(columns)]
    shares = nhefs.split(len(frame), sites)
    return {name: nhefs.write_frame(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}
