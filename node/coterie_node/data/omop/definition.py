"""What a site takes from its OMOP CDM 5.4 database: who is in, since when, with which covariates and which outcome.

Days count from the index date, which is day 0. A window [-365, 0] is the year before the index date, with it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coterie_learners.study.document import ColumnName, Frozen, Text

Schema = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62})?$")]
ConceptId = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
Day = Annotated[int, Field(ge=-36_600, le=36_600)]
Window = tuple[Day, Day]
LevelWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ +-]{0,39}$")]
Domain = Literal["condition", "drug", "procedure", "measurement", "observation", "visit"]
MAX_CONCEPTS = 10_000

# Charlson et al., J Chron Dis 40 (1987) 373, table 3.
CHARLSON_WEIGHTS = {
    "myocardial_infarction": 1,
    "congestive_heart_failure": 1,
    "peripheral_vascular_disease": 1,
    "cerebrovascular_disease": 1,
    "dementia": 1,
    "chronic_pulmonary_disease": 1,
    "connective_tissue_disease": 1,
    "ulcer_disease": 1,
    "mild_liver_disease": 1,
    "diabetes": 1,
    "hemiplegia": 2,
    "renal_disease": 2,
    "diabetes_with_damage": 2,
    "any_tumor": 2,
    "severe_liver_disease": 3,
    "metastatic_tumor": 6,
    "aids": 6,
}
# The graver form counts instead of the lighter one.
GRAVER = {
    "mild_liver_disease": "severe_liver_disease",
    "diabetes": "diabetes_with_damage",
    "any_tumor": "metastatic_tumor",
}


class ConceptSet(Frozen):
    """Standard concepts of the vocabulary, with their descendants unless declared otherwise, without some."""

    include: Annotated[tuple[ConceptId, ...], Field(min_length=1, max_length=MAX_CONCEPTS)]
    exclude: Annotated[tuple[ConceptId, ...], Field(max_length=MAX_CONCEPTS)] = ()
    descendants: bool = True


class Entry(Frozen):
    """The patients who enter, and when: from a cohort table, or by the first record of a concept set.

    first: the index date is the patient's first record ever, which must meet the conditions; otherwise it is the first
    record that meets them. washout: days under observation that come before. since, until: bounds of the index date.
    """

    cohort: Annotated[int, Field(ge=0)] | None = None
    domain: Domain = "condition"
    concepts: Text = ""
    first: bool = True
    washout: Annotated[int, Field(ge=0, le=36_600)] = 365
    since: datetime.date | None = None
    until: datetime.date | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.cohort is None) == (not self.concepts):
            raise ValueError("an entry has the number of a `cohort`, or the name of `concepts`: one of them")
        return self


class Covariate(Frozen):
    """One column: what is known of a patient on the index date or in a window of days before it.

    breaks: lower ends of the age groups after the first. levels: the words for the sex concepts, all others are
    missing. take: which of several measured values counts; unit: the concept of the unit that it must have. groups: the
    concept set of each of the Charlson index' conditions.
    """

    kind: Literal[Domain, "age", "age_group", "sex", "charlson"]
    concepts: Text = ""
    days: Window = (-365, 0)
    breaks: Annotated[tuple[Annotated[int, Field(ge=1, le=120)], ...], Field(max_length=40)] = (18, 45, 65, 80)
    levels: dict[ConceptId, LevelWord] = Field(default_factory=lambda: {8507: "male", 8532: "female"})
    take: Literal["any", "last", "first", "smallest", "largest"] = "any"
    unit: ConceptId | None = None
    groups: dict[str, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if self.days[0] > self.days[1] or self.days[1] > 0:
            raise ValueError("`days` are two numbers, the earlier first, and none is after the index date (0)")
        if bool(self.concepts) == (self.kind in ("age", "age_group", "sex", "charlson")):
            raise ValueError("`concepts` go with records of a domain, and only with these")
        if list(self.breaks) != sorted(set(self.breaks)):
            raise ValueError("`breaks` rise")
        if self.take != "any" and self.kind != "measurement":
            raise ValueError("`take` goes with measurements")
        unknown = sorted(set(self.groups) - set(CHARLSON_WEIGHTS))
        if unknown or bool(self.groups) != (self.kind == "charlson"):
            raise ValueError(f"`groups` go with charlson, of {', '.join(CHARLSON_WEIGHTS)}; not {unknown}")
        return self


class Outcome(Frozen):
    """What happens in the time at risk: the columns `event` and `time`, in days since the index date.

    days: first and last day at risk. The time ends with the event, the end of observation or the last day. drop_prior:
    whether patients who had the outcome before the first day at risk are left out; the dead always are.
    """

    kind: Literal[Domain, "death"]
    concepts: Text = ""
    days: Window = (1, 365)
    drop_prior: bool = False
    event: ColumnName = "event"
    time: ColumnName = "time"

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if not 0 <= self.days[0] <= self.days[1]:
            raise ValueError("`days` are two numbers, the earlier first, and none is before the index date (0)")
        if bool(self.concepts) == (self.kind == "death"):
            raise ValueError("`concepts` go with records of a domain, and only with these")
        return self


class OmopRows(Frozen):
    """A whole definition. cdm: the schema of the CDM's tables; results: that of the cohort table."""

    cdm: Schema = ""
    results: Schema = ""
    concepts: dict[ColumnName, ConceptSet] = Field(default_factory=dict)
    entry: Entry
    covariates: dict[ColumnName, Covariate] = Field(default_factory=dict)
    outcome: Outcome | None = None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        unknown = sorted({name for name in self._list_sets() if name and name not in self.concepts})
        if unknown:
            raise ValueError(f"there is no concept set {', '.join(unknown)}")
        outcome = () if self.outcome is None else (self.outcome.event, self.outcome.time)
        names = [name.casefold() for name in ("person_id", "index_date", *self.covariates, *outcome)]
        if len(set(names)) != len(names):
            raise ValueError("two columns have the same name; person_id and index_date are there already")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the definition, in hexadecimal digits; the same for every database."""
        parts = set(OmopRows.model_fields) - {"cdm", "results"}
        plain = self.model_dump(mode="json", include=parts)
        return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def _list_sets(self) -> Iterator[str]:
        yield self.entry.concepts
        for covariate in self.covariates.values():
            yield covariate.concepts
            yield from covariate.groups.values()
        if self.outcome is not None:
            yield self.outcome.concepts
