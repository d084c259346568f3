"""What measurements on three sites share: a study of each number, its rows, and the decisions of all sites."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coterie_learners.study.document import Study
from coterie_node.run.study_files import load_study
from coterie_node.site.decisions import DecisionFolder, make_decision
from coterie_node.site.folder import SiteFolder

SITES = ("north", "south", "west")
STUDY = """
name = "{name}"
sites = ["north", "south", "west"]
formula = "died ~ age + male"
{rows}
[learner]
name = "glore"
[variables.died]
type = "binary"
[variables.male]
type = "binary"
[variables.age]
type = "number"
range = [-5, 5]
"""


def write_rows(path: Path, seed: int, count: int) -> None:
    """The first rows of a site; more of them begin with the same."""
    rng = np.random.default_rng(seed)
    lines = []
    for k in range(count):
        age, male, chance = float(np.clip(rng.normal(), -4, 4)), int(rng.integers(0, 2)), rng.random()
        lines.append(f"p{k},{int(chance < 1 / (1 + np.exp(-0.5 * age + 0.3 * male)))},{age!r},{male}")
    path.write_text("patient,died,age,male\n" + "\n".join(lines) + "\n")


def make_study(root: Path, name: str, *, identified: bool = False) -> Study:
    """The study of a name, hence with a hash of its own."""
    path = root / "study.toml"
    rows = 'patient = "patient"' if identified else ""
    path.write_text(STUDY.format(name=name, rows=rows))
    return load_study(path)


def decide(homes: Mapping[str, SiteFolder], study: Study) -> None:
    """Propose a study at the first site and approve it at the others."""
    for site, home in homes.items():
        folder = DecisionFolder(home.root / "decisions")
        folder.save_document(study.hash, study.document)
        folder.record(make_decision(study.hash, "propose" if site == SITES[0] else "approve"))
