"""What a demo of a learner is: its sites, its study, its files, and the pooled fit to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie_node.analysis.pooled import Reference


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder begins with.

    `study_text` gives the study file; `write_sites` writes the files of the sites that hold data to
    FOLDER/SITE/data.csv and returns their paths. `notes` are sentences under the result.
    """

    study_text: Callable[[Sequence[str]], str]
    write_sites: Callable[[Path, Sequence[str]], Mapping[str, Path]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One demo.

    `site_names` gives the names of so many sites (ConfigError if the case cannot be split so); `study_text` the study
    file; `write_sites` writes the files of the sites that hold data to FOLDER/SITE/data.csv and returns their paths;
    `pooled` fits the pooled data with an independent library; `notes` are sentences under the result. `sites`: how many
    sites by default.
    """

    site_names: Callable[[int], tuple[str, ...]]
    study_text: Callable[[Sequence[str]], str]
    write_sites: Callable[[Path, Sequence[str]], Mapping[str, Path]]
    pooled: Callable[[], Reference]
    notes: tuple[str, ...] = ()
    sites: int = 3

    @property
    def files(self) -> RunFiles:
        """What its run begins with."""
        return RunFiles(self.study_text, self.write_sites, self.notes)
