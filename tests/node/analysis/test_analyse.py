"""A whole analysis of files: what was read, used and left out at each site, in the text and in JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse

TOML = """
name = "counted"
sites = ["north", "south", "east"]
formula = "died ~ age + male"
[learner]
name = "glore"
[rows]
missing = "drop"
[variables.died]
type = "binary"
[variables.age]
type = "number"
range = [-5, 5]
[variables.male]
type = "binary"
"""


def write(path: Path, seed: int, without: tuple[str, ...] = ()) -> Path:
    rng = np.random.default_rng(seed)
    age = rng.normal(size=60).clip(-4, 4).round(2)
    died = rng.random(60) < 1 / (1 + np.exp(-age))
    lines = [f"{int(d)},{a},{k % 2}" for k, (d, a) in enumerate(zip(died.tolist(), age.tolist(), strict=True))]
    path.write_text("\n".join(["died,age,male", *lines, *without]) + "\n")
    return path


def test_rows_left_out_are_counted_by_site_and_variable(tmp_path: Path) -> None:
    lacking = ("1,NA,0", "0,,NA", "1,0.5,")
    files = {
        "north": write(tmp_path / "north.csv", 1, lacking),
        "south": write(tmp_path / "south.csv", 2),
        "east": write(tmp_path / "east.csv", 3),
    }
    result = analyse(complete_study(Study.from_toml(TOML)), files)
    assert result.fit.n == 180
    plain = result.as_dict()["rows"]
    assert list(plain) == ["north", "south", "east"]
    counts = {key: plain["north"][key] for key in ("read", "used", "dropped", "missing")}
    assert counts == {"read": 63, "used": 60, "dropped": 3, "missing": {"died": 0, "age": 2, "male": 2}}
    assert sum(site["events"] for site in plain.values()) == result.fit.events
    lines = result.text().splitlines()
    assert any(line.endswith("3 dropped for missing values (a row may lack several: age 2, male 2).") for line in lines)
    assert any(line.startswith("south: 60 rows") and line.endswith("0 dropped for missing values.") for line in lines)


def test_one_file_at_two_sites_is_refused(tmp_path: Path) -> None:
    """Standard errors would shrink by the square root of two, and a replay would pass."""
    study = complete_study(Study.from_toml(TOML))
    path = write(tmp_path / "all.csv", 1)
    with pytest.raises(DataError, match="north and south are the same") as caught:
        analyse(study, dict.fromkeys(study.sites, path))
    assert caught.value.code == "CO-D124"
