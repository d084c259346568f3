"""The rows of an OMOP definition computed with pandas from the tables alone, apart from the product's SQL."""

from __future__ import annotations

from typing import Any

import pandas as pd

WEIGHTS = {"mi": 1, "diabetes": 1, "tumour": 2, "metastasis": 6}


class Twin:
    """A definition like that of examples/omop/north.mapping.toml, by loops over patients."""

    def __init__(self, tables: dict[str, pd.DataFrame], concepts: dict[str, set[int]]) -> None:
        self.tables = tables
        self.concepts = concepts
        self.by_person = {
            name: dict(iter(rows.groupby("person_id"))) for name, rows in tables.items() if "person_id" in rows
        }

    def compute(self, first: bool, washout: int, since: str, until: str, at_risk: tuple[int, int]) -> pd.DataFrame:
        """One row for each patient who enters."""
        rows = []
        for person in self.tables["person"].sort_values("person_id").to_dict("records"):
            entry = self._enter(person["person_id"], first, washout, pd.Timestamp(since), pd.Timestamp(until))
            if entry is not None:
                row = self._describe(person, entry[0]) | self._follow(person["person_id"], *entry, at_risk)
                rows += [row] if row.pop("in") else []
        return pd.DataFrame(rows)

    def _enter(self, person: int, first: bool, washout: int, since: Any, until: Any) -> tuple[Any, Any] | None:
        periods = self._of("observation_period", person)
        strokes = self._of("condition_occurrence", person)
        days = sorted(strokes[strokes.condition_concept_id.isin(self.concepts["stroke"])].condition_start_date)
        for day in days[:1] if first else days:
            start, end = periods.observation_period_start_date, periods.observation_period_end_date
            covering = periods[(start + pd.Timedelta(days=washout) <= day) & (day <= end)]
            if len(covering) and since <= day <= until:
                return day, covering.observation_period_end_date.iloc[0]
        return None

    def _describe(self, person: dict[str, Any], index: Any) -> dict[str, Any]:
        age = index.year - person["year_of_birth"]
        group = next((f"{low}-{high - 1}" for low, high in ((0, 45), (45, 65), (65, 80)) if low <= age < high), "80+")
        number = person["person_id"]
        return {
            "person_id": number,
            "age": age,
            "age_group": group,
            "sex": {8507: "male", 8532: "female"}[person["gender_concept_id"]],
            "diabetes": self._has("condition_occurrence", "condition", number, index, "diabetes", -365, 0),
            "statin": self._has("drug_exposure", "drug", number, index, "statin", -365, -1),
            "lysis": self._has("procedure_occurrence", "procedure", number, index, "lysis", -1, 0),
            "creatinine": self._measure(number, index),
            "charlson": self._score(number, index),
        }

    def _follow(self, person: int, index: Any, end: Any, at_risk: tuple[int, int]) -> dict[str, Any]:
        last = min((end - index).days, at_risk[1])
        deaths = [(day - index).days for day in self._of("death", person).death_date]
        events = [day for day in deaths if at_risk[0] <= day <= last]
        inside = last >= at_risk[0] and not any(day < at_risk[0] for day in deaths)
        return {"event": int(bool(events)), "time": min(events, default=last), "in": inside}

    def _score(self, person: int, index: Any) -> int:
        window = ("condition_occurrence", "condition", person, index)
        there = {name: self._has(*window, name, -3650, -1) for name in WEIGHTS}
        there["tumour"] = there["tumour"] and not there["metastasis"]
        return sum(WEIGHTS[name] for name, yes in there.items() if yes)

    def _measure(self, person: int, index: Any) -> float | None:
        rows = self._of("measurement", person).dropna(subset=["value_as_number"])
        rows = rows[rows.measurement_concept_id.isin(self.concepts["creatinine"]) & (rows.unit_concept_id == 9_000_070)]
        days = (rows.measurement_date - index).dt.days
        rows = rows[(days >= -30) & (days <= 0)].sort_values(["measurement_date", "measurement_id"])
        return float(rows.value_as_number.iloc[-1]) if len(rows) else None

    def _has(self, table: str, domain: str, person: int, index: Any, name: str, low: int, high: int) -> int:
        rows = self._of(table, person)
        date = {"condition": "condition_start_date", "drug": "drug_exposure_start_date"}.get(domain, "procedure_date")
        rows = rows[rows[f"{domain}_concept_id"].isin(self.concepts[name])]
        days = (rows[date] - index).dt.days
        return int(((days >= low) & (days <= high)).any())

    def _of(self, table: str, person: int) -> pd.DataFrame:
        none = self.tables[table].iloc[:0]
        return self.by_person[table].get(person, none)
