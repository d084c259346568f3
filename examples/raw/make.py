"""Simulated patients of three hospitals, in files as hospitals have them: `python examples/raw/make.py` writes them.

The files differ in spelling, units, separators, decimal signs, codes for missing values, dates and codes. The same
script writes the same bytes; nothing that it writes is kept in the repository.
"""

from __future__ import annotations

import csv
import datetime
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

START = datetime.date(2021, 1, 1)
NOTES = ("transferred from another hospital", "", "patient declined follow-up imaging", "family informed by telephone")


@dataclass(frozen=True)
class Patient:
    """One simulated patient; None is missing."""

    number: int
    admission: datetime.date
    stay: int
    age: float
    male: bool
    nihss: int | None
    creatinine: float | None
    diabetes: bool
    note: str
    died: bool


def draw_patients(seed: int, n: int) -> list[Patient]:
    """Patients with a stroke; death depends on age, severity, creatinine and diabetes."""
    rng = np.random.default_rng(seed)
    age = np.clip(rng.normal(71.0, 12.0, n), 19.0, 99.0)
    nihss = np.clip(np.round(rng.gamma(1.6, 5.0, n)), 0, 42).astype(int)
    creatinine = np.clip(rng.lognormal(0.0, 0.35, n), 0.3, 9.0)
    male, diabetes = rng.random(n) < 0.54, rng.random(n) < 0.27
    eta = -2.0 + 0.045 * (age - 71) + 0.11 * (nihss - 8) + 0.5 * (creatinine - 1) + 0.35 * diabetes
    died = rng.random(n) < 1.0 / (1.0 + np.exp(-eta))
    days, stay = rng.integers(0, 900, n), 1 + rng.poisson(9.0, n)
    lacks = rng.random((n, 2)) < 0.03
    notes = rng.integers(0, len(NOTES), n)
    return [
        Patient(
            number=seed * 10_000 + int(k),
            admission=START + datetime.timedelta(days=int(days[k])),
            stay=int(stay[k]),
            age=round(float(age[k]), 1),
            male=bool(male[k]),
            nihss=None if lacks[k, 0] else int(nihss[k]),
            creatinine=None if lacks[k, 1] else round(float(creatinine[k]), 2),
            diabetes=bool(diabetes[k]),
            note=NOTES[notes[k]] + (f", case {k}" if NOTES[notes[k]] else ""),
            died=bool(died[k]),
        )
        for k in range(n)
    ]


def leave(patient: Patient) -> datetime.date:
    """The day of discharge."""
    return patient.admission + datetime.timedelta(days=patient.stay)


def write_north(p: Patient) -> list[str]:
    """German, decimal commas, years, mg/dL; -99 and `unbekannt` for missing."""
    return [
        f"N{p.number}",
        "Haus Nord",
        f"{p.admission:%d.%m.%Y}",
        f"{leave(p):%d.%m.%Y}",
        f"{p.age:.1f}".replace(".", ","),
        "m" if p.male else "w",
        "-99" if p.nihss is None else str(p.nihss),
        "unbekannt" if p.creatinine is None else f"{p.creatinine:.2f}".replace(".", ","),
        "ja" if p.diabetes else "nein",
        p.note,
        "ja" if p.died else "nein",
    ]


def write_south(p: Patient) -> list[str]:
    """English, µmol/L; NA and a point for missing; the sex in two columns that say the same."""
    sex = "Male" if p.male else "Female"
    return [
        str(p.number),
        f"{p.admission:%Y-%m-%d}",
        f"{leave(p):%Y-%m-%d}",
        f"{p.age:.1f}",
        sex,
        sex,
        "." if p.nihss is None else str(p.nihss),
        "NA" if p.creatinine is None else f"{p.creatinine * 88.42:.0f}",
        "YES" if p.diabetes else "no",
        p.note,
        "Yes" if p.died else "No",
    ]


def write_west(p: Patient) -> list[str]:
    """Tabs, age in months, codes 1 and 2, 0 and 1; 99 for missing."""
    return [
        f"W-{p.number}",
        f"{p.admission:%Y%m%d}",
        f"{leave(p):%Y%m%d}",
        f"{p.age * 12:.0f}",
        "1" if p.male else "2",
        "99" if p.nihss is None else str(p.nihss),
        "-99" if p.creatinine is None else f"{p.creatinine:.2f}",
        "1" if p.diabetes else "0",
        p.note,
        "1" if p.died else "0",
    ]


@dataclass(frozen=True)
class Hospital:
    """How one hospital writes its file."""

    seed: int
    n: int
    separator: str
    encoding: str
    header: str
    write: Callable[[Patient], list[str]]


HOSPITALS = {
    "north": Hospital(
        *(1, 620, ";", "cp1252"),
        "PatNr|Klinik|Aufnahme|Entlassung|Alter (Jahre)|Geschlecht|NIHSS|Kreatinin (mg/dl)|Diabetes|"
        "Bemerkung für Ärzte|Verstorben",
        write_north,
    ),
    "south": Hospital(
        *(2, 540, ",", "utf-8-sig"),
        "patient_id|admission_date|discharge_date|age_years|sex|sex_copy|nihss_score|creatinine_umol_l|diabetes|"
        "notes|died",
        write_south,
    ),
    "west": Hospital(
        *(3, 700, "\t", "utf-8"),
        "MRN|ADM_DT|DIS_DT|AGE_MONTHS|GENDER|NIHSS|CREAT_MG_DL|DIABETES|COMMENT|EXITUS",
        write_west,
    ),
}


def write_files(folder: Path) -> list[Path]:
    """Write every hospital's file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, hospital in HOSPITALS.items():
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding=hospital.encoding) as file:
            writer = csv.writer(file, delimiter=hospital.separator, lineterminator="\r\n")
            writer.writerow(hospital.header.split("|"))
            writer.writerows(hospital.write(patient) for patient in draw_patients(hospital.seed, hospital.n))
        paths.append(path)
    return paths


if __name__ == "__main__":
    print("\n".join(map(str, write_files(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent))))
