"""A definition as one SELECT, built of SQLAlchemy's expressions: names are quoted and values written by the dialect.

The one function that dialects have in no common form is the number of days between two dates; it is compiled for each.
"""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement, FunctionElement

from coterie_node.data.omop.definition import (
    CHARLSON_WEIGHTS,
    GRAVER,
    ConceptSet,
    Covariate,
    Entry,
    OmopRows,
    Outcome,
    Window,
)

Expression = ColumnElement[Any]
# Table, and the columns of its concept and its first date: OMOP CDM 5.4.
DOMAINS = {
    "condition": ("condition_occurrence", "condition_concept_id", "condition_start_date"),
    "drug": ("drug_exposure", "drug_concept_id", "drug_exposure_start_date"),
    "procedure": ("procedure_occurrence", "procedure_concept_id", "procedure_date"),
    "measurement": ("measurement", "measurement_concept_id", "measurement_date"),
    "observation": ("observation", "observation_concept_id", "observation_date"),
    "visit": ("visit_occurrence", "visit_concept_id", "visit_start_date"),
    "death": ("death", "cause_concept_id", "death_date"),
}


class DaysBetween(FunctionElement[int]):
    """Days from the second date to the first."""

    type = sa.Integer()
    name = "days_between"
    inherit_cache = True


@compiles(DaysBetween)
def _write_days(element: DaysBetween, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({later} - {earlier})"


@compiles(DaysBetween, "mysql", "mariadb")
def _write_days_mariadb(element: DaysBetween, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    return f"DATEDIFF({later}, {earlier})"


@compiles(DaysBetween, "mssql")
def _write_days_mssql(element: DaysBetween, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    return f"DATEDIFF(day, {earlier}, {later})"


@compiles(DaysBetween, "sqlite")
def _write_days_sqlite(element: DaysBetween, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST(julianday({later}) - julianday({earlier}) AS INTEGER)"


def compile_statement(rows: OmopRows, dialect: sa.Dialect) -> str:
    """The query's text for a database of this dialect, its values in it."""
    statement = build_statement(rows)
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def build_statement(rows: OmopRows) -> sa.Select[Any]:
    """One row for each patient who enters, in the order of their numbers."""
    members = _Builder(rows).build_members()
    builder = _Builder(rows, members)
    columns = [members.c.person_id, members.c.index_date]
    columns += [builder.write_covariate(covariate).label(name) for name, covariate in rows.covariates.items()]
    statement = sa.select(*columns).order_by(members.c.person_id)
    if rows.outcome is None:
        return statement
    outcome, at_risk = rows.outcome, members.c.days_at_risk
    happens = members.c.event_day.is_not(None)
    event = sa.case((happens, 1), else_=0).label(outcome.event)
    time = sa.case((happens, members.c.event_day), else_=at_risk).label(outcome.time)
    return statement.add_columns(event, time).where(at_risk >= outcome.days[0])


class _Builder:
    """The parts of the statement; `members` are the patients who enter, once they are built."""

    def __init__(self, rows: OmopRows, members: sa.CTE | None = None) -> None:
        self._rows = rows
        self._members = members

    def build_members(self) -> sa.CTE:
        """Patients with index date, what `person` says of them, and the event where an outcome is declared."""
        entry, person = self._rows.entry, self._open("person", "person_id", "year_of_birth", "gender_concept_id")
        entries, period = self._find_entries(entry).cte("entries"), self._open_periods()
        columns = (entries.c.person_id, entries.c.index_date, person.c.year_of_birth, person.c.gender_concept_id)
        followed = DaysBetween(period.c.observation_period_end_date, entries.c.index_date)
        joined = entries.join(person, person.c.person_id == entries.c.person_id).join(
            period, period.c.person_id == entries.c.person_id
        )
        statement = sa.select(*columns, followed.label("days_followed")).select_from(joined)
        entered = statement.where(*self._conditions(entry, entries.c.index_date, period)).cte("entered")
        if self._rows.outcome is None:
            return entered
        return self._add_outcome(entered, self._rows.outcome)

    def write_covariate(self, covariate: Covariate) -> Expression:
        """The covariate's value for a member."""
        members = self._require_members()
        age = sa.cast(sa.extract("year", members.c.index_date), sa.Integer) - members.c.year_of_birth
        if covariate.kind == "age":
            return age
        if covariate.kind == "age_group":
            return _write_groups(age, covariate.breaks)
        if covariate.kind == "sex":
            return sa.case(covariate.levels, value=members.c.gender_concept_id, else_=None)
        if covariate.kind == "charlson":
            return self._write_charlson(covariate)
        if covariate.take != "any":
            return self._write_measurement(covariate)
        return sa.case((self._exists(covariate.kind, covariate.concepts, covariate.days), 1), else_=0)

    def _find_entries(self, entry: Entry) -> sa.Select[Any]:
        """The index date of each patient."""
        if entry.cohort is not None:
            names = ("cohort_definition_id", "subject_id", "cohort_start_date")
            table = sa.table("cohort", *map(sa.column, names), schema=self._rows.results or None)
            first = sa.func.min(table.c.cohort_start_date).label("index_date")
            statement = sa.select(table.c.subject_id.label("person_id"), first)
            return statement.where(table.c.cohort_definition_id == entry.cohort).group_by(table.c.subject_id)
        records = self._open_domain(entry.domain)
        first = sa.func.min(records.c.day).label("index_date")
        statement = sa.select(records.c.person_id, first).where(self._is_in(records.c.concept, entry.concepts))
        if not entry.first:
            period = self._open_periods()
            covered = (period.c.person_id == records.c.person_id, *self._conditions(entry, records.c.day, period))
            statement = statement.where(sa.exists(sa.select(sa.literal(1)).where(*covered).select_from(period)))
        return statement.group_by(records.c.person_id)

    def _conditions(self, entry: Entry, day: Expression, period: sa.Subquery) -> list[Expression]:
        """What an index date must meet: observed for so long before, and within the bounds."""
        conditions: list[Expression] = [
            DaysBetween(day, period.c.observation_period_start_date) >= entry.washout,
            DaysBetween(period.c.observation_period_end_date, day) >= 0,
        ]
        conditions += [] if entry.since is None else [day >= _write_day(entry.since)]
        conditions += [] if entry.until is None else [day <= _write_day(entry.until)]
        return conditions

    def _add_outcome(self, entered: sa.CTE, outcome: Outcome) -> sa.CTE:
        """The day of the event, if it comes in the time at risk, and the last day at risk."""
        records, (start, end) = self._open_domain(outcome.kind), outcome.days
        day = DaysBetween(records.c.day, entered.c.index_date)
        is_outcome = [records.c.person_id == entered.c.person_id]
        is_outcome += [self._is_in(records.c.concept, outcome.concepts)] if outcome.concepts else []
        within = [day >= start, day <= end, day <= entered.c.days_followed]
        found = sa.select(sa.func.min(day)).select_from(records).where(*is_outcome, *within)
        event_day = found.correlate(entered).scalar_subquery().label("event_day")
        at_risk = sa.case((entered.c.days_followed < end, entered.c.days_followed), else_=end).label("days_at_risk")
        statement = sa.select(*entered.c, event_day, at_risk)
        if outcome.drop_prior or outcome.kind == "death":
            prior = sa.select(sa.literal(1)).select_from(records).where(*is_outcome, day < start)
            statement = statement.where(~sa.exists(prior.correlate(entered)))
        return statement.cte("members")

    def _write_measurement(self, covariate: Covariate) -> Expression:
        """One of the values measured in the window; the later record's where several have the same day."""
        records = self._open_domain("measurement", "measurement_id", "value_as_number", "unit_concept_id")
        value, members = records.c.value_as_number, self._require_members()
        conditions = [*self._match(records, covariate.concepts, covariate.days), value.is_not(None)]
        conditions += [] if covariate.unit is None else [records.c.unit_concept_id == covariate.unit]
        if covariate.take in ("smallest", "largest"):
            extreme = sa.func.min(value) if covariate.take == "smallest" else sa.func.max(value)
            return sa.select(extreme).select_from(records).where(*conditions).correlate(members).scalar_subquery()
        order = (records.c.day, records.c.measurement_id)
        ordered = [column.desc() if covariate.take == "last" else column.asc() for column in order]
        statement = sa.select(value).select_from(records).where(*conditions).order_by(*ordered).limit(1)
        return statement.correlate(members).scalar_subquery()

    def _write_charlson(self, covariate: Covariate) -> Expression:
        """The sum of the weights of the conditions that there are; a graver form counts instead of the lighter one."""
        total: Expression = sa.literal(0)
        for name, concepts in sorted(covariate.groups.items()):
            there = self._exists("condition", concepts, covariate.days)
            graver = covariate.groups.get(GRAVER.get(name, ""))
            if graver is not None:
                there = sa.and_(there, ~self._exists("condition", graver, covariate.days))
            total = total + sa.case((there, CHARLSON_WEIGHTS[name]), else_=0)
        return total

    def _exists(self, domain: str, concepts: str, days: Window) -> Expression:
        """Whether a member has such a record in the window."""
        records = self._open_domain(domain)
        statement = sa.select(sa.literal(1)).select_from(records).where(*self._match(records, concepts, days))
        return sa.exists(statement.correlate(self._require_members()))

    def _match(self, records: sa.Subquery, concepts: str, days: Window) -> list[Expression]:
        members = self._require_members()
        day = DaysBetween(records.c.day, members.c.index_date)
        same = records.c.person_id == members.c.person_id
        return [same, self._is_in(records.c.concept, concepts), day >= days[0], day <= days[1]]

    def _is_in(self, column: Expression, name: str) -> Expression:
        """Whether a concept is in the set of this name."""
        concepts: ConceptSet = self._rows.concepts[name]
        test = self._is_under(column, concepts.include, concepts.descendants)
        if not concepts.exclude:
            return test
        return sa.and_(test, ~self._is_under(column, concepts.exclude, concepts.descendants))

    def _is_under(self, column: Expression, concepts: tuple[int, ...], descendants: bool) -> Expression:
        listed = column.in_(sorted(set(concepts)))
        if not descendants:
            return listed
        table = self._open("concept_ancestor", "ancestor_concept_id", "descendant_concept_id")
        below = sa.select(table.c.descendant_concept_id).where(table.c.ancestor_concept_id.in_(sorted(set(concepts))))
        return sa.or_(listed, column.in_(below))

    def _open(self, name: str, *columns: str) -> sa.Subquery:
        """A table of the CDM under a name of its own."""
        table = sa.table(name, *map(sa.column, columns), schema=self._rows.cdm or None)
        return sa.select(*table.c).subquery()

    def _open_periods(self) -> sa.Subquery:
        names = ("observation_period_start_date", "observation_period_end_date")
        return self._open("observation_period", "person_id", *names)

    def _open_domain(self, domain: str, *more: str) -> sa.Subquery:
        """Records of a domain: whose, of which concept, and on which day."""
        name, concept, day = DOMAINS[domain]
        table = sa.table(name, *map(sa.column, ("person_id", concept, day, *more)), schema=self._rows.cdm or None)
        columns = [table.c.person_id, table.c[concept].label("concept"), table.c[day].label("day")]
        return sa.select(*columns, *(table.c[column] for column in more)).subquery()

    def _require_members(self) -> sa.CTE:
        assert self._members is not None
        return self._members


def _write_day(day: datetime.date) -> Expression:
    return sa.cast(sa.literal(day.isoformat(), sa.String()), sa.Date)


def _write_groups(age: Expression, breaks: tuple[int, ...]) -> Expression:
    """Age groups such as `0-17`, `18-44` and `80+`."""
    ends = [*breaks]
    starts = [0, *breaks]
    closed = [(age < end, f"{start}-{end - 1}") for start, end in zip(starts, ends, strict=False)]
    return sa.case(*closed, else_=f"{starts[-1]}+")
