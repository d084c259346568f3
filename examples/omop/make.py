"""Three simulated OMOP CDM 5.4 databases: `python examples/omop/make.py` writes north.duckdb and others beside it.

The tables and columns are those of the CDM that a cohort needs. The concept numbers are synthetic and belong to no
vocabulary. The same seed gives the same rows; nothing that the script writes is kept in the repository.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Row = tuple[object, ...]
COLUMNS: dict[str, str] = {
    "person": "person_id INTEGER, gender_concept_id INTEGER, year_of_birth INTEGER",
    "observation_period": "observation_period_id INTEGER, person_id INTEGER, observation_period_start_date DATE, "
    "observation_period_end_date DATE",
    "condition_occurrence": "condition_occurrence_id INTEGER, person_id INTEGER, condition_concept_id INTEGER, "
    "condition_start_date DATE",
    "drug_exposure": "drug_exposure_id INTEGER, person_id INTEGER, drug_concept_id INTEGER, "
    "drug_exposure_start_date DATE",
    "procedure_occurrence": "procedure_occurrence_id INTEGER, person_id INTEGER, procedure_concept_id INTEGER, "
    "procedure_date DATE",
    "measurement": "measurement_id INTEGER, person_id INTEGER, measurement_concept_id INTEGER, measurement_date DATE, "
    "value_as_number NUMERIC(10, 2), unit_concept_id INTEGER",
    "death": "person_id INTEGER, death_date DATE, cause_concept_id INTEGER",
    "concept_ancestor": "ancestor_concept_id INTEGER, descendant_concept_id INTEGER, "
    "min_levels_of_separation INTEGER, max_levels_of_separation INTEGER",
    "cohort": "cohort_definition_id INTEGER, subject_id INTEGER, cohort_start_date DATE, cohort_end_date DATE",
}
# Synthetic concepts: a stroke with two kinds, diabetes, heart attack, tumours, a drug, a procedure, creatinine.
STROKE, ISCHAEMIC, BLEEDING = 9_000_001, 9_000_002, 9_000_003
DIABETES, INFARCTION, TUMOUR, METASTASIS = 9_000_010, 9_000_020, 9_000_030, 9_000_031
STATIN, STATIN_TABLET, LYSIS, CREATININE = 9_000_040, 9_000_041, 9_000_050, 9_000_060
UNIT, OTHER_UNIT, MALE, FEMALE = 9_000_070, 9_000_071, 8507, 8532
ANCESTORS = [(STROKE, STROKE), (STROKE, ISCHAEMIC), (STROKE, BLEEDING), (STATIN, STATIN_TABLET), (STATIN, STATIN)]
SITES = ("north", "south", "west")
START = datetime.date(2015, 1, 1)


@dataclass
class Tables:
    """The rows of every table."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def add(self, table: str, *values: object, number: bool = True) -> None:
        """One more row, with a number of its own in front."""
        rows = self.rows[table]
        rows.append((len(rows) + 1, *values) if number else values)


def make_tables(n: int = 300, seed: int = 5) -> Tables:
    """Patients, most with a stroke; death depends on age."""
    rng, tables = np.random.default_rng(seed), Tables()
    for ancestor, descendant in ANCESTORS:
        tables.add("concept_ancestor", ancestor, descendant, 0, 1, number=False)
    for person in range(1, n + 1):
        _add_person(tables, person, rng)
    return tables


def _add_person(tables: Tables, person: int, rng: np.random.Generator) -> None:
    born, male = int(rng.integers(1930, 2000)), bool(rng.random() < 0.5)
    tables.add("person", person, MALE if male else FEMALE, born, number=False)
    start = START + datetime.timedelta(int(rng.integers(0, 400)))
    length = int(rng.integers(400, 2200))
    end = start + datetime.timedelta(length)
    tables.add("observation_period", person, start, end)
    strokes = sorted(int(day) for day in rng.integers(0, length, int(rng.integers(0, 4))))
    for day in strokes:
        kind = int(rng.choice([STROKE, ISCHAEMIC, BLEEDING]))
        tables.add("condition_occurrence", person, kind, start + datetime.timedelta(day))
    index = strokes[0] if strokes else length // 2
    _add_history(tables, person, start, index, rng)
    if strokes:
        entry = start + datetime.timedelta(index)
        tables.add("cohort", 7, person, entry, end, number=False)
    if rng.random() < 0.1 + 0.5 * (2018 - born > 65):
        last = index + int(rng.integers(0, 500))
        tables.add("death", person, start + datetime.timedelta(last), None, number=False)


def _add_history(tables: Tables, person: int, start: datetime.date, index: int, rng: np.random.Generator) -> None:
    """Records around the index date, some on its day and some after it."""
    for concept in (DIABETES, INFARCTION, TUMOUR, METASTASIS):
        if rng.random() < 0.3:
            day = index + int(rng.integers(-600, 60))
            tables.add("condition_occurrence", person, concept, start + datetime.timedelta(day))
    if rng.random() < 0.4:
        drug, day = int(rng.choice([STATIN, STATIN_TABLET])), index + int(rng.integers(-500, 10))
        tables.add("drug_exposure", person, drug, start + datetime.timedelta(day))
    if rng.random() < 0.4:
        tables.add("procedure_occurrence", person, LYSIS, start + datetime.timedelta(index + int(rng.integers(-3, 2))))
    for _ in range(int(rng.integers(0, 4))):
        value = None if rng.random() < 0.1 else round(float(rng.uniform(40, 300)), 2)
        unit = UNIT if rng.random() < 0.8 else OTHER_UNIT
        day = index + int(rng.integers(-40, 5))
        tables.add("measurement", person, CREATININE, start + datetime.timedelta(day), value, unit)


def write_script(tables: Tables, schema: str) -> str:
    """The statements that make the tables and fill them."""
    parts = [f"CREATE SCHEMA {schema};"]
    for name, columns in COLUMNS.items():
        parts.append(f"CREATE TABLE {schema}.{name} ({columns});")
        lines = [f"({', '.join(map(_write, row))})" for row in tables.rows[name]]
        parts.append(f"INSERT INTO {schema}.{name} VALUES {', '.join(lines)};")
    return "\n".join(parts)


def _write(value: object) -> str:
    if value is None:
        return "NULL"
    return f"'{value.isoformat()}'" if isinstance(value, datetime.date) else str(value)


def main() -> None:
    """Write the hospitals' databases, in the place of older ones, and the mappings of the second and third."""
    import duckdb

    folder = Path(__file__).parent
    text = (folder / "north.mapping.toml").read_text(encoding="utf-8")
    for seed, site in enumerate(SITES, 5):
        path = folder / f"{site}.duckdb"
        path.unlink(missing_ok=True)
        with duckdb.connect(str(path)) as base:
            base.execute(write_script(make_tables(2500, seed), "cdm"))
        (folder / f"{site}.mapping.toml").write_text(text.replace("north.duckdb", path.name), encoding="utf-8")
    print("Next, from the repository: coterie simulate examples/omop/study.toml", end=" ")
    print(*(f"--data {site}=examples/omop/{site}.mapping.toml" for site in SITES))


if __name__ == "__main__":
    main()
