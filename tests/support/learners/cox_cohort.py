"""The patients of tests/golden/r/cox_more.R at their sites, their studies, and protocols that know who a row is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.learners.survival_study import SITES, VARIABLES, Columns, read_age, read_columns
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.cox.cox import cox
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data

MORE: dict[str, dict[str, Any]] = {
    "age": {"type": "number", "range": [0, 120], "unit": "years"},
    "weight": {"type": "number", "range": [0.1, 10]},
    "dose": {"type": "number", "range": [-1, 1]},
    "start": {"type": "number", "range": [0, 100], "unit": "months"},
    "treated": {"type": "binary"},
}
Patients = NDArray[np.int64]
# Of each row the columns, its site's place, and its patient.
Cohort = tuple[Columns, NDArray[np.int64], Patients]


def common_study(count: int = 3, width: float = 2, horizon: float = 36, floor: int = 0, **options: Any) -> Study:
    """A completed study of one baseline hazard; `options` are the learner's, or formula, patient and ledger."""
    grid = {"width": width, "horizon": horizon, "unit": "months"}
    return model_study(count, floor, baseline="common", time_grid=grid, **options)


def model_study(count: int = 3, floor: int = 0, **options: Any) -> Study:
    """A completed Cox study whose sums begin at once; a study for a gate has opening="counts"."""
    formula, patient = options.pop("formula", "died ~ age + arm + stage"), options.pop("patient", "")
    learner = {"name": "cox", "time": "months", "event": "died", "opening": "none", **options}
    plain = {"name": "hazards", "sites": list(SITES[:count]), "formula": formula, "variables": {**VARIABLES, **MORE}}
    plain |= {"disclosure": {"cell": floor, "rows": 1}, "patient": patient}
    return complete_study(Study.model_validate({**plain, "learner": learner}))


def read_cohort(sites: int = 3, clusters: bool = False) -> Cohort:
    """All patients, in turn over the sites; with clusters three in turn of one site are one."""
    columns, number = read_columns(), np.arange(900)
    columns |= {"age": read_age(), "weight": 0.5 + (number % 5) / 4, "dose": (number % 4) / 4}
    columns |= {"start": np.zeros(900), "treated": np.zeros(900)}
    place = number % sites
    return columns, place, place + sites * (number // sites // 3) if clusters else number


def split_rows(cohort: Cohort) -> Cohort:
    """Half of the patients as two rows: treated from two fifths of their time on."""
    columns, place, patient = cohort
    later = patient % 2 == 1
    first = {name: values[later].copy() for name, values in columns.items()}
    last = {name: values.copy() for name, values in columns.items()}
    last["treated"][later] = 1
    last["start"][later] = last["months"][later] * 0.4
    first["months"], first["died"] = first["months"] * 0.4, np.zeros(int(later.sum()))
    joined = {name: np.concatenate([last[name], first[name]]) for name in columns}
    return joined, np.concatenate([place, place[later]]), np.concatenate([patient, patient[later]])


def share_rows(cohort: Cohort, sites: Sequence[str]) -> dict[str, Data]:
    """Each site's rows."""
    columns, place, _ = cohort
    return {s: ArrayCodes({k: v[place == at] for k, v in columns.items()}) for at, s in enumerate(sites)}


class PatientProtocol(MemoryProtocol):
    """A protocol whose sites know the patient of each row."""

    def __init__(self, study: Study, cohort: Cohort) -> None:
        _, place, patient = cohort
        self._patients = {s: [str(k) for k in patient[place == at]] for at, s in enumerate(study.sites)}
        super().__init__(cox, study, share_rows(cohort, study.sites))

    def site(self, name: str, rows: Data) -> Site:
        return replace(super().site(name, rows), read_patients=lambda: self._patients[name])


def play_cohort(study: Study, cohort: Cohort | None = None) -> tuple[Fit, PatientProtocol]:
    """The fit that all sites end with, and what was posted."""
    table = PatientProtocol(study, cohort or read_cohort(len(study.sites)))
    results = table.play()
    assert len({repr(fit.details) + repr(fit.estimates.tobytes()) for fit in results.values()}) == 1
    fit = results[study.sites[0]]
    assert isinstance(fit, Fit)
    return fit, table
