"""The mapping: a TOML file at the site that names its rows, how they are written, and what their codes mean.

The same mapping serves every study of the site: a study reads the columns that it needs. Its digest is in the snapshot
that the site commits to, so that a changed mapping is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from coterie_learners.errors import DataError, reword_fault
from coterie_learners.study.document import ColumnName, Frozen, Text
from coterie_learners.study.toml_text import MAX_TOML, parse_toml
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.data.files.csv_file import Dialect
from coterie_node.data.findings import printable
from coterie_node.data.mapping.dates import DateForm
from coterie_node.data.omop.definition import OmopRows

Encoding = Literal["utf-8", "utf-16", "cp1252", "latin-1", "iso-8859-15", "cp850", "mac-roman"]
Words = tuple[Text, ...]


class TableForm(Frozen):
    """How the file is written.

    decimal and thousands: the letters in its numbers. skip: lines before the header. header: names of the columns, of a
    file that has none. missing: words that mean missing in any column, besides those that always do.
    """

    separator: Annotated[str, Field(pattern=r"^[,;|\t]$")] = ","
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    encoding: Encoding = "utf-8"
    skip: Annotated[int, Field(ge=0, le=1000)] = 0
    header: Words = ()
    sheet: Text = ""
    missing: Words = ()
    keep_blanks: bool = False

    @model_validator(mode="after")
    def _check_letters(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same letter")
        return self

    @property
    def dialect(self) -> Dialect:
        """What a reader of text needs to know."""
        return Dialect(self.separator, self.encoding, self.skip, self.header)


class ColumnMapping(Frozen):
    """What one variable of the study is in the site's file.

    source: the column's name in the file. missing: words and numbers that mean missing. levels: the study's level
    of each of the file's. yes and no: what is 1 and 0, in any case of letters. unit: of the file's values, for people;
    the study's value is the file's times `factor`, divided by `divisor`, plus `offset`. date: how dates are written;
    with `since` the value is the number of days since that day, or since the date in another column of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    source: Annotated[Text, Field(alias="from")] = ""
    missing: Words = ()
    levels: dict[Text, Text] = Field(default_factory=dict)
    ignore_case: bool = False
    yes: Words = ()
    no: Words = ()
    unit: Text = ""
    factor: float = 1.0
    divisor: float = 1.0
    offset: float = 0.0
    date: DateForm | None = None
    since: Text = ""

    @field_validator("date", mode="before")
    @classmethod
    def _read_date_form(cls, value: object) -> object:
        return DateForm.parse(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if not self.factor or not self.divisor or not math.isfinite(self.factor / self.divisor):
            raise ValueError("factor and divisor are numbers other than 0")
        kinds = [bool(self.levels), bool(self.yes or self.no), self.converts, self.date is not None]
        if sum(kinds) > 1:
            raise ValueError("a column has levels, or yes and no, or a conversion, or a date: one of them")
        if bool(self.yes) != bool(self.no):
            raise ValueError("yes and no go together")
        if {word.casefold() for word in self.yes} & {word.casefold() for word in self.no}:
            raise ValueError("a word is both yes and no")
        if self.since and self.date is None:
            raise ValueError("`since` needs the form of the date")
        folded = {word.casefold() for word in self.levels}
        if self.ignore_case and len(folded) != len(self.levels):
            raise ValueError("two words of `levels` differ in case alone, and ignore_case is true")
        return self

    @property
    def converts(self) -> bool:
        """Whether the unit is changed."""
        return (self.factor, self.divisor, self.offset) != (1.0, 1.0, 0.0)


class DateRules(Frozen):
    """Dates of the file that no study reads, for `coterie data check`: their forms, and orders that they must keep."""

    forms: dict[Text, DateForm] = Field(default_factory=dict)
    order: tuple[Words, ...] = ()

    @field_validator("forms", mode="before")
    @classmethod
    def _read_forms(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: DateForm.parse(form) if isinstance(form, str) else form for name, form in value.items()}

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        unknown = sorted({name for names in self.order for name in names} - set(self.forms))
        if unknown:
            raise ValueError(f"`order` names {unknown}, whose form is not declared")
        return self


class DatabaseAccess(Frozen):
    """How to reach a database; it has no secret.

    database: a SQLAlchemy address without a password. password_file, password_variable: where the password is. seconds:
    how long the query may take.
    """

    database: Annotated[str, Field(max_length=1000, pattern=r"^[a-z][a-z0-9+]*:[\x21-\x7e]*$")]
    password_file: Text = ""
    password_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,99})?$")] = ""
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 600

    @property
    def kind(self) -> str:
        """The kind of database, such as postgresql."""
        return self.database.partition(":")[0].partition("+")[0]


class SqlQuery(DatabaseAccess):
    """A query on a database; its result is the site's rows."""

    query: Annotated[str, Field(min_length=1, max_length=1_000_000)]

    @property
    def statement(self) -> str:
        """The query's text as a server takes it, without a semicolon at its end."""
        return self.query.rstrip().rstrip(";")

    @property
    def digest(self) -> str:
        """SHA-256 of the query's text, in hexadecimal digits."""
        return hashlib.sha256(self.query.encode()).hexdigest()


class OmopSource(DatabaseAccess, OmopRows):
    """A definition of rows on an OMOP database."""


class RedcapForm(Frozen):
    """A raw export of REDCap. dictionary: the file of its data dictionary. event: the one to read."""

    dictionary: Annotated[Text, Field(min_length=1)]
    event: Text = ""


class DaskSource(Frozen):
    """Parts of rows on a Dask cluster that runs already.

    scheduler: its address. files: the parts' paths as the workers see them, with * and ?; their order is that of their
    names. seconds: the longest time without an answer before the cluster is given up. ca, certificate, key: PEM files
    beside the mapping, for an address that begins with tls.
    """

    scheduler: Annotated[str, Field(max_length=1000, pattern=r"^(tcp|tls|inproc)://[\x21-\x7e]+$")]
    files: Annotated[Text, Field(min_length=1)]
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    ca: Text = ""
    certificate: Text = ""
    key: Text = ""

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        secured = self.scheduler.startswith("tls:")
        if secured != bool(self.ca and self.certificate and self.key) or (not secured and (self.ca or self.key)):
            raise ValueError("`ca`, `certificate` and `key` go with an address that begins with tls://, all of them")
        return self


class SiteMapping(Frozen):
    """A whole mapping: a file beside it, a query, an OMOP definition or parts on a cluster; and its columns."""

    format: Literal[1] = 1
    file: Text = ""
    sql: SqlQuery | None = None
    omop: OmopSource | None = None
    redcap: RedcapForm | None = None
    dask: DaskSource | None = None
    table: TableForm = TableForm()
    columns: dict[ColumnName, ColumnMapping] = Field(default_factory=dict)
    dates: DateRules = DateRules()

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if sum((bool(self.file), *(part is not None for part in (self.sql, self.omop, self.dask)))) != 1:
            message = "a mapping names a `file`, or has a query in [sql], an [omop] definition, or parts in [dask]"
            raise ValueError(f"{message}: one of them")
        if self.redcap is not None and not self.file:
            raise ValueError("[redcap] needs the `file` of the export")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what the mapping does, in hexadecimal digits: the place of the file is no part of it."""
        place = {"file": True, "dask": True}
        plain = self.model_dump(mode="json", exclude_defaults=True, exclude=place, by_alias=True)
        return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def rule(self, name: str) -> ColumnMapping:
        """What a variable is in the file; a column of its own name where the mapping says nothing."""
        rule = self.columns.get(name, ColumnMapping())
        return rule if rule.source else rule.model_copy(update={"source": name})


def read_mapping(path: Path, site: str) -> SiteMapping:
    """Read a mapping; DataError (CO-D170) says which key is wrong."""
    try:
        return SiteMapping.model_validate(parse_toml(read_bounded_text(path, MAX_TOML)))
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        reason = reword_fault(first["type"], str(first["loc"][-1]) if first["loc"] else "", first["msg"])
        cause = f"is no mapping: {'.'.join(map(str, first['loc'])) or 'the file'}: {reason}"
    except ValueError as error:
        cause = f"is not TOML: {error}"
    message = printable(f"Site {site}: the mapping {path} {cause}")
    raise DataError("CO-D170", f"{message}. Correct it as docs/mapping.md shows.")
