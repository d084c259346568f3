"""The experiment's rows: read once, checked as a site's rows are, and kept as the variables' values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.study.document import Study
from coterie_learners.study.rows import Codes
from coterie_node.data.arrow import arrow_csv, pa
from coterie_node.data.load import load_site
from coterie_node.data.patients.site_rows import WithRaw
from coterie_node.errors import ConfigError
from coterie_node.experiment.plan import ALL_ROWS, ExperimentPlan

RowNumbers = NDArray[np.intp]


@dataclass(frozen=True)
class Cohort:
    """Complete rows: values by variable (n,), the number of each row's file (n,), what was dropped, and a digest."""

    codes: Codes
    files: NDArray[np.int64]
    dropped: int
    digest: str

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.files)

    def take(self, at: RowNumbers) -> Codes:
        """The values of these rows."""
        return {name: values[at] for name, values in self.codes.items()}


def load_experiment_rows(plan: ExperimentPlan, folder: Path) -> Cohort:
    """All rows of the experiment's files; paths are relative to `folder`. DataError for values that a study refuses."""
    with TemporaryDirectory() as scratch:
        named = plan.data if isinstance(plan.data, Mapping) else {ALL_ROWS: plan.data}
        paths = [locate_data(text, folder, Path(scratch)) for text in named.values()]
        parts = [_load_file(path, plan.base) for path in paths]
    codes = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    files = np.repeat(np.arange(len(parts)), [len(next(iter(part.values()))) for part, _ in parts])
    digest = hashlib.sha256(files.tobytes())
    for name in sorted(codes):
        digest.update(name.encode() + b"\0" + np.asarray(codes[name], dtype=np.float64).tobytes())
    return Cohort(codes, files, sum(dropped for _, dropped in parts), digest.hexdigest())


def locate_data(text: str, folder: Path, scratch: Path) -> Path:
    """The file that `data` names; a public data set is written to `scratch`."""
    if text in PUBLIC:
        return PUBLIC[text](scratch)
    path = folder / text
    if not path.is_file():
        known = ", ".join(PUBLIC)
        raise ConfigError(
            "CO-F361", f"`data` names {text!r}, and {path} is no file. Name a CSV or Parquet file, or one of {known}."
        )
    return path


def _load_file(path: Path, study: Study) -> tuple[dict[str, NDArray[Any]], int]:
    loaded = load_site(path, study, ALL_ROWS)
    if loaded is None or not isinstance(loaded.rows, WithRaw):
        raise ConfigError("CO-F361", f"{path} does not fit in memory. Give the experiment fewer rows.")
    return dict(loaded.rows.read_raw().values), loaded.dropped


def _write_nhefs(folder: Path) -> Path:
    """NHEFS, the cohort of the demos."""
    from coterie_node.demo.cases import nhefs

    return nhefs.write_frame(nhefs.load_cohort(), folder / "nhefs.csv")


def _write_breast_cancer(folder: Path) -> Path:
    """Wolberg's breast cancer data as scikit-learn brings them; the outcome `benign`, names with underscores."""
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        message = "The breast cancer data come with scikit-learn. Run `pip install coterie[experiment]`."
        raise ConfigError("CO-F363", message) from None
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    table = pa.table({"benign": data.target, **dict(zip(names, data.data.T, strict=True))})
    arrow_csv.write_csv(table, folder / "breast_cancer.csv")
    return folder / "breast_cancer.csv"


PUBLIC = {"nhefs": _write_nhefs, "breast-cancer": _write_breast_cancer}
