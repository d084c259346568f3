"""The study: everything that the sites agree on before any data is read, frozen and hashed.

A study is written as TOML by people and travels as canonical JSON; the SHA-256 of that JSON is its identity on the
ledger. Learner options and the learner's version are completed when the study is read, so that nothing that the
result depends on stays outside the hash.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from coterie_learners.errors import StudyError, reword_fault
from coterie_learners.study.days import read_day
from coterie_learners.study.toml_text import parse_toml

if TYPE_CHECKING:
    from coterie_learners.study.preparation.plan import Preparation

MAX_SITES = 253
MAX_MODELS = 100
MAX_DOCUMENT = 1 << 20

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
LearnerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
FormulaText = Annotated[str, Field(max_length=10_000, pattern=r"^[\x20-\x7e\t\r\n]*$")]
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
# Invisible characters, and those that reverse the text after them: two texts would look the same, or read differently.
INVISIBLE = r"\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
ExpressionText = Annotated[str, Field(max_length=2000, pattern=rf"^[^\x00-\x08\x0b-\x1f\x7f-\x9f{INVISIBLE}]*$")]
MAX_DERIVED = 200
# The variable that says whether a row is evaluated, if the study has a condition for that.
IN_EVALUATION = "in_evaluation"
DigestText = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
Text = Annotated[str, Field(max_length=200, pattern=rf"^[^\x00-\x1f\x7f-\x9f{INVISIBLE}]*$")]


# What an identifying column holds (`identifiers` says how each is compared); "code" where a list gives no kinds.
IdentifierKind = Literal["code", "number", "text", "name", "date", "date-dmy", "date-mdy", "check-digit"]
# The fraction of matches that may have other spellings, if kinds are declared and no bound is.
SPELLINGS = 0.05


class Frozen(BaseModel):
    """Base of all parts of a study: immutable, and refusing keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Variable(Frozen):
    """One declared column.

    number: a measurement inside `range` (unit as written). count: a whole number inside `range`. binary: 0 or 1.
    category: one of `levels`, the first being the reference; `missing` is the level that a missing value has, if any.
    date: a day inside `range`, as days since 1970-01-01; it serves conditions and derived variables only.
    """

    type: Literal["number", "count", "binary", "category", "date"]
    unit: Text = ""
    range: tuple[float, float] | None = None
    levels: tuple[Text, ...] = ()
    label: Text = ""
    missing: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _read_days(cls, plain: Any) -> Any:
        """The range of a date as days."""
        if (
            not isinstance(plain, dict)
            or plain.get("type") != "date"
            or not isinstance(plain.get("range"), list | tuple)
        ):
            return plain
        return {**plain, "range": [_days_of(value) for value in plain["range"]]}

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        numeric = self.type in ("number", "count", "date")
        if numeric and (self.range is None or not self.range[0] < self.range[1]):
            raise ValueError("a number or count needs range = [low, high] with low < high, and so does a date")
        if not numeric and self.range is not None:
            raise ValueError("only a number or count has a range, and a date")
        if self.type == "category" and (len(self.levels) < 2 or len(set(self.levels)) != len(self.levels)):
            raise ValueError("a category needs at least two different levels")
        if self.type != "category" and self.levels:
            raise ValueError("only a category has levels")
        if self.missing and self.missing not in self.levels:
            raise ValueError("`missing` is one of the levels of a category, which a missing value has")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest value that the study allows."""
        return self.range if self.range is not None else (0.0, 1.0)


def _days_of(value: Any) -> Any:
    """Days since 1970-01-01 of a date of TOML or a text; anything else as it is."""
    text = value.isoformat() if type(value) is datetime.date else value
    day = read_day(text) if isinstance(text, str) else None
    return value if day is None else day


class LearnerChoice(BaseModel):
    """Which learner in which version; all other keys are that learner's own options."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: LearnerName
    version: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The learner's own options."""
        return dict(self.model_extra or {})


class ModelChoice(BaseModel):
    """One of several models of a study; all other keys are options of the learner, in place of those of its section."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: ModelName
    formula: FormulaText

    @property
    def options(self) -> dict[str, Any]:
        """The learner's options that this model sets itself."""
        return dict(self.model_extra or {})


class RowRules(Frozen):
    """Rules for rows of a site that do not fit.

    missing: refuse the file, drop the row (counted), or keep it, for learners that count missing values. constant and
    collinear: whether one site's own rows may lack variation that the pooled rows have. shared_patients: whether the
    sites count, before the fit, how many patients each two of them have in common, and refuse any.
    """

    missing: Literal["refuse", "drop", "keep"] = "refuse"
    constant: Literal["refuse", "allow"] = "refuse"
    collinear: Literal["refuse", "allow"] = "refuse"
    minimum: Annotated[int, Field(ge=1)] = 5
    shared_patients: Literal["ignore", "count", "refuse"] = "ignore"

    def as_dict(self) -> dict[str, Any]:
        """The rules for JSON; keys that older studies do not have are absent unless they are set."""
        return self.model_dump(mode="json", exclude={"shared_patients"} if self.shared_patients == "ignore" else set())


class Floors(Frozen):
    """What no payload of a site may disclose; a site may set stricter floors.

    rows: the fewest rows behind a payload. cell: the smallest count of patients, above zero, that its readers may
    solve from it. events_per_parameter: the fewest events (or rows) of this site for each coefficient. rebuild: whether
    columns may come back row by row. sensitive: covariates that a group must not share a level of, all of it.
    """

    rows: Annotated[int, Field(ge=1)] = 5
    cell: Annotated[int, Field(ge=0)] = 5
    events_per_parameter: Annotated[float, Field(ge=0)] = 0.0
    rebuild: Literal["refuse", "allow"] = "refuse"
    sensitive: tuple[ColumnName, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The floors for JSON; keys that older studies do not have are absent unless they are set."""
        return self.model_dump(mode="json", exclude=set() if self.sensitive else {"sensitive"})

    def stricter(self, other: Floors) -> Floors:
        """The stricter of two in each."""
        return Floors(
            rows=max(self.rows, other.rows),
            cell=max(self.cell, other.cell),
            events_per_parameter=max(self.events_per_parameter, other.events_per_parameter),
            rebuild="refuse" if "refuse" in (self.rebuild, other.rebuild) else "allow",
            sensitive=tuple(sorted({*self.sensitive, *other.sensitive})),
        )


class LinkageRules(Frozen):
    """How patients may find each other where sites hold other columns of them.

    spellings: the largest share of matches that may rest on values that are spelled differently, beyond what the
    declared kind says (none given: 5 % with kinds, any share for a list without). doubled: refuse a file in which two
    rows carry one identifier, or drop all of these rows (counted); unidentified: the same for rows that lack an
    identifying value. most: the most patients that a site may bring.
    """

    spellings: Annotated[float, Field(ge=0, le=1)] | None = None
    doubled: Literal["refuse", "drop"] = "refuse"
    unidentified: Literal["refuse", "drop"] = "refuse"
    most: Annotated[int, Field(ge=1, le=1 << 26)] = 200_000


class CohortRules(Frozen):
    """The patients of a study.

    name: each site keeps the study's patients under this name, and later studies of the name use exactly these
    patients, though the files grow. complete: rows that lack one of these columns are no part of it, whatever the
    formula reads. where: conditions that rows (then patients) fulfil, one after the other; order: the column by which a
    patient's visits follow each other.
    """

    name: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$")] = ""
    complete: tuple[ColumnName, ...] = ()
    where: Annotated[tuple[ExpressionText, ...], Field(max_length=20)] = ()
    order: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""

    @field_validator("where", mode="before")
    @classmethod
    def _list_conditions(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def as_dict(self) -> dict[str, Any]:
        """The rules for JSON; keys that older studies do not have are absent unless they are set."""
        unset = {name for name in ("where", "order") if not getattr(self, name)}
        return self.model_dump(mode="json", exclude=unset)


class EvaluationRules(Frozen):
    """How a model is evaluated, from counts of patients on a grid of its scores.

    held_out: the share of the patients whose rows do not enter the fit and serve the evaluation; a hash under `seed`
    (empty: the cohort's name, or the study's) chooses them. on and where: instead, "other rows", those that fulfil the
    condition; the others are those of the fit. grid: so many bins of the score. On the scale "spread" each
    has about as many patients of the rarer outcome; else they have equal width, of the predicted probability, or of its
    logit from -8 to 8. by: the columns whose levels are evaluated apart. per_site: whether each site's part is shown
    too.
    """

    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    grid: Annotated[int, Field(ge=2, le=1000)] = 200
    scale: Literal["spread", "probability", "logit"] = "spread"
    by: tuple[ColumnName, ...] = ()
    per_site: bool = False
    seed: Text = ""
    on: Literal["", "other rows"] = ""
    where: ExpressionText = ""

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if len(set(self.by)) != len(self.by):
            raise ValueError("`evaluate.by` names a column twice")
        if bool(self.on) != bool(self.where.strip()):
            raise ValueError(
                '`on = "other rows"` needs `where`, the condition that these rows fulfil, and goes with it'
            )
        if self.on and (self.held_out or self.seed):
            raise ValueError("rows are held out by chance (`held_out`, `seed`), or by a condition (`on`, `where`)")
        return self

    @property
    def apart(self) -> bool:
        """Whether the fit leaves out the rows of the evaluation."""
        return bool(self.held_out or self.where)

    def as_dict(self) -> dict[str, Any]:
        """The rules for JSON; keys that older studies do not have are absent unless they are set."""
        return self.model_dump(mode="json", exclude=set() if self.on else {"on", "where"})


class Registration(Frozen):
    """The registration of a study before it began: protocol, ethics approval and data permit.

    analysis_plan and ethics_letter: SHA-256 of these files, in hexadecimal digits. permit_expires: the last day
    (YYYY-MM-DD, UTC) on which a site may use its rows. amends: hash of the study that this one replaces, and why.
    """

    title: Text = ""
    objectives: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    primary_outcome: Text = ""
    analysis_plan: DigestText = ""
    ethics_approval: Text = ""
    ethics_letter: DigestText = ""
    data_permit: Text = ""
    permit_expires: Text = ""
    registration_number: Text = ""
    amends: DigestText = ""
    amendment_reason: Text = ""

    @field_validator("permit_expires", mode="before")
    @classmethod
    def _read_expiry(cls, value: Any) -> Any:
        return value.isoformat() if type(value) is datetime.date else value

    @model_validator(mode="after")
    def _check_registration(self) -> Self:
        if self.permit_expires and read_day(self.permit_expires) is None:
            raise ValueError(f"`permit_expires` is no day: {self.permit_expires!a}; write it as YYYY-MM-DD")
        if bool(self.amends) != bool(self.amendment_reason):
            raise ValueError("`amends` and `amendment_reason` go together: both for an amended study, or neither")
        return self

    @property
    def last_day(self) -> float | None:
        """The permit's last day, in days since 1970-01-01; None without one."""
        return read_day(self.permit_expires) if self.permit_expires else None


class LedgerRules(Frozen):
    """Rules that the contract enforces: seconds per step, and a silent site's fate; and how payloads are packed."""

    step_seconds: Annotated[int, Field(ge=60, le=30 * 86400)] = 3600
    silent_site: Literal["wait", "exclude", "abort"] = "wait"
    compression: Literal["zstd", "deflate"] = "zstd"


class Schedule(Frozen):
    """Step kinds of the three phases, as the contract walks them: "each", "server" or "only:<site>".

    The loop ends at the server post that says so, or after `max_rounds`.
    """

    opening: tuple[str, ...] = ()
    loop: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    max_rounds: Annotated[int, Field(ge=1, le=65535)] = 1


class Study(Frozen):
    """The protocol of one federated analysis.

    Sites hold the same variables of different patients (rows split), or, with `columns`, other variables of the same
    patients: then `columns` names each site's variables (none for a helper without data), and `identifier` the columns
    of every site's file by which patients find each other: a list of names, or names with what each column holds.
    `derive`: variables that each site computes from its columns; their declarations stand among `variables` once the
    study is read. If rows are split, `helpers` names the sites without data, which only compute, and `patient` the
    column that identifies patients; it never leaves a site. Without it rows are taken for patients.
    """

    format: Literal[1] = 1
    name: Name
    title: Text = ""
    sites: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SITES)]
    helpers: tuple[Name, ...] = ()
    models: Annotated[tuple[ModelChoice, ...], Field(max_length=MAX_MODELS)] = ()
    formula: FormulaText = Field(None, validate_default=True)
    variables: dict[ColumnName, Variable]
    derive: Annotated[dict[ColumnName, ExpressionText], Field(max_length=MAX_DERIVED)] = {}
    columns: dict[Name, tuple[ColumnName, ...]] = {}
    identifier: tuple[ColumnName, ...] | dict[ColumnName, IdentifierKind] = ()
    learner: LearnerChoice
    rows: RowRules = RowRules()
    linkage: LinkageRules = LinkageRules()
    ledger: LedgerRules = LedgerRules()
    disclosure: Floors = Floors()
    patient: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""
    cohort: CohortRules = CohortRules()
    evaluate: EvaluationRules = EvaluationRules()
    registration: Registration = Registration()

    @model_validator(mode="after")
    def _check_sites(self) -> Self:
        if len(set(self.sites)) != len(self.sites):
            raise ValueError(f"sites are named twice: {sorted(s for s in self.sites if self.sites.count(s) > 1)}")
        return self

    @field_validator("formula", mode="before")
    @classmethod
    def _check_formula(cls, formula: Any, info: ValidationInfo) -> Any:
        """The formula, which only a study of several models lacks: then it is empty."""
        several = bool(info.data.get("models"))
        if (several and formula) or (not several and formula is None):
            raise ValueError("a study has a `formula`, or [[models]] with a formula each, and not both")
        return "" if several else formula

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models are named twice: {sorted(name for name in set(names) if names.count(name) > 1)}")
        if self.models and self.columns:
            raise ValueError("[[models]] are for rows split over sites; where columns are split, a study has one model")
        return self

    @model_validator(mode="after")
    def _check_helpers(self) -> Self:
        if self.helpers and (self.columns or not set(self.helpers) < set(self.sites)):
            raise ValueError(
                "`helpers` names some of the sites where rows are split; where columns are, a helper has an empty list"
            )
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if bool(self.columns) != bool(self.identifier):
            raise ValueError("`columns` and `identifier` go together: both for columns split over sites, or neither")
        if self.columns and set(self.columns) != set(self.sites):
            raise ValueError(f"`columns` lists {sorted(self.columns)}, but the sites are {sorted(self.sites)}")
        assigned = [name for names in self.columns.values() for name in names]
        twice = sorted(name for name, count in Counter(assigned).items() if count > 1)
        if twice:
            raise ValueError(f"`columns` gives {twice} to more than one site")
        wrong = sorted(set(assigned) - set(self.variables)) + sorted(set(assigned) & set(self.identifier))
        if wrong:
            raise ValueError(f"`columns` names {wrong}, which are not declared variables, or identify patients")
        return self

    @model_validator(mode="after")
    def _declare_derived(self) -> Self:
        if not self.derivations and not self.cohort.where and not self.cohort.order:
            return self
        if self.columns:
            raise ValueError("[derive], `cohort.where` and `evaluate.where` are for rows split over sites")
        if self.evaluate.where and IN_EVALUATION in self.derive:
            raise ValueError(f"[derive] has {IN_EVALUATION!r}, which `evaluate.where` derives. Take another name")
        if self.patient and self.patient in self.derive:
            raise ValueError("`patient` is a column of the file, and no derived variable")
        from coterie_learners.study.preparation.plan import declare_derived  # it reads declarations

        self.variables.update(declare_derived(self))
        return self

    @model_validator(mode="after")
    def _check_evaluation(self) -> Self:
        for name in self.evaluate.by:
            declared = self.variables.get(name)
            if declared is None or declared.type not in ("binary", "category"):
                raise ValueError(f"`evaluate.by` names {name!r}, which is no declared binary variable or category")
        return self

    @model_validator(mode="after")
    def _patients_are_named_once(self) -> Self:
        if self.patient and (self.columns or self.patient in self.variables):
            raise ValueError("`patient` cannot be a variable, and cannot be used together with `identifier`")
        if self.rows.shared_patients != "ignore" and not self.patient:
            raise ValueError("`rows.shared_patients` counts patients, so that `patient` must name their column")
        if self.rows.shared_patients != "ignore" and self.ledger.silent_site == "exclude":
            raise ValueError("`rows.shared_patients` needs every site's list, so that no site can be excluded")
        if self.rows.shared_patients != "ignore" and self.cohort.where:
            raise ValueError(
                "`rows.shared_patients` has no place beside `cohort.where`: a site that lists a patient of another one "
                "would learn whether the condition is true there. Filter the file of each site before the study"
            )
        undeclared = sorted(set(self.cohort.complete) - set(self.variables) - set(self.derive))
        if undeclared:
            raise ValueError(f"`cohort.complete` names {undeclared}, which are not declared variables")
        return self

    @cached_property
    def preparation(self) -> Preparation | None:
        """The preparation of a site's rows before the model reads them; None if the rows are taken as they are."""
        from coterie_learners.study.preparation.plan import plan_preparation  # it reads declarations

        return plan_preparation(self)

    @cached_property
    def by_model(self) -> Mapping[str, Study]:
        """Each of several models as the study of it alone, on the same sites and variables; empty for one model."""
        # All parts are checked already, and a document may have many.
        parts = {name: getattr(self, name) for name in Study.model_fields} | {"models": ()}
        section = self.learner.model_dump()
        return {
            model.name: Study.model_construct(
                **(parts | {"formula": model.formula, "learner": LearnerChoice(**(section | model.options))})
            )
            for model in self.models
        }

    @property
    def derivations(self) -> Mapping[str, str]:
        """The expression of each derived variable, that of the evaluation's rows among them."""
        return self.derive | ({IN_EVALUATION: self.evaluate.where} if self.evaluate.where else {})

    @property
    def split(self) -> Literal["rows", "columns"]:
        """Whether sites hold other patients or other variables."""
        return "columns" if self.columns else "rows"

    @property
    def owners(self) -> tuple[str, ...]:
        """The sites that hold data, in the study's order."""
        return tuple(s for s in self.sites if (self.columns[s] if self.columns else s not in self.helpers))

    @property
    def identifying(self) -> dict[str, IdentifierKind]:
        """The identifying columns with what each holds, in an order that all sites share."""
        if isinstance(self.identifier, dict):
            return {name: self.identifier[name] for name in sorted(self.identifier)}
        return dict.fromkeys(self.identifier, "code")

    @property
    def most_spellings(self) -> float:
        """The largest share of matches that may rest on other spellings."""
        if self.linkage.spellings is not None:
            return self.linkage.spellings
        return SPELLINGS if isinstance(self.identifier, dict) else 1.0

    @classmethod
    def from_toml(cls, text: str, where: str = "study") -> Self:
        """Read a study as people write it; StudyError names the key and the value that are wrong."""
        try:
            return cls.model_validate(parse_toml(text))
        except ValidationError as error:
            raise StudyError("CO-S102", f"{where} is not a study: {_explain(error)}") from None
        except ValueError as error:
            raise StudyError(
                "CO-S101", f"{where} is not TOML: {error}. Correct the file; put a text into quotation marks."
            ) from None

    @classmethod
    def from_json(cls, document: bytes, where: str = "study") -> Self:
        """Read a study from its canonical JSON; any other spelling of the same study is refused."""
        try:
            study = cls.model_validate_json(document) if len(document) <= MAX_DOCUMENT else None
        except ValidationError as error:
            raise StudyError("CO-S102", f"{where} is not a study: {_explain(error)}") from None
        if study is None or study.document != document:
            raise StudyError(
                "CO-S103",
                f"{where} is not the canonical form of a study, so its hash would differ. "
                "Use the document that `coterie study propose` wrote.",
            )
        return study

    @cached_property
    def document(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        # Keys with their former fixed values are absent, so that older studies keep their hashes.
        older = set() if self.columns else {"columns", "identifier"}
        older |= {"disclosure"} if self.disclosure == Floors() else set()
        older |= {"linkage"} if self.linkage == LinkageRules() else set()
        older |= {"cohort"} if self.cohort == CohortRules() else set()
        older |= {"evaluate"} if self.evaluate == EvaluationRules() else set()
        older |= {"registration"} if self.registration == Registration() else set()
        older |= set() if self.patient else {"patient"}
        older |= {"formula"} if self.models else {"models"}
        older |= set() if self.derive else {"derive"}
        older |= set() if self.helpers else {"helpers"}
        plain = self.model_dump(mode="json", exclude=older)
        plain["rows"] = self.rows.as_dict()
        for variable in plain["variables"].values():
            if not variable["missing"]:
                del variable["missing"]
        if "cohort" in plain:
            plain["cohort"] = self.cohort.as_dict()
        if "evaluate" in plain:
            plain["evaluate"] = self.evaluate.as_dict()
        if "disclosure" in plain:
            plain["disclosure"] = self.disclosure.as_dict()
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical JSON: the study's identity on the ledger and, as a raw CID, in the store."""
        return hashlib.sha256(self.document).digest()


def _explain(error: ValidationError) -> str:
    parts = [
        f"{_escape('.'.join(map(str, e['loc']))) or 'study'}: {_reword_error(e['type'], e['loc'], e['msg'])}"
        for e in error.errors()
    ]
    return "; ".join(parts[:5]) + (f"; and {len(parts) - 5} more" if len(parts) > 5 else "") + "."


def _escape(text: str) -> str:
    """A text of a hostile file as a message may show it: what nobody sees, or what steers a reader, is spelled out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _reword_error(kind: str, place: tuple[int | str, ...], message: str) -> str:
    """A fault in plain words. A variable's name and text have words of their own: such a column has to be renamed."""
    if kind == "string_pattern_mismatch" and INVISIBLE in message:
        return "a text has no control characters, and none that nobody sees or that turn the reading direction round"
    if (kind, place) == ("string_pattern_mismatch", ("formula",)):
        return "a formula has letters a to z, digits, signs and plain spaces only"
    if kind == "string_pattern_mismatch" and place[:1] in (("name",), ("sites",), ("helpers",)):
        return "it takes lower-case letters, digits and dashes, no dash first, and 31 characters at most"
    if (kind, place[:1], place[-1:]) != ("string_pattern_mismatch", ("variables",), ("[key]",)):
        return reword_fault(kind, str(place[-1]) if place else "", message)
    return "a variable's name has letters a to z, digits and _, and no digit first; rename the column in every file"
