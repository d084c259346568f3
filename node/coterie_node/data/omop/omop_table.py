"""The rows of an OMOP definition as a table: its query, run as every query is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coterie_learners.errors import DataError
from coterie_node.data.mapping.document import DatabaseAccess, OmopSource, SqlQuery
from coterie_node.data.omop.definition import OmopRows
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.sql_table import QueryTable, open_query

DIALECTS = {
    "postgresql": ("sqlalchemy.dialects.postgresql", "dialect"),
    "mariadb": ("sqlalchemy.dialects.mysql.mariadb", "MariaDBDialect"),
    "duckdb": ("duckdb_engine", "Dialect"),
    "sqlite": ("sqlalchemy.dialects.sqlite", "dialect"),
    "mssql": ("sqlalchemy.dialects.mssql", "dialect"),
    "oracle": ("sqlalchemy.dialects.oracle", "dialect"),
}


def write_query(rows: OmopRows, kind: str) -> str:
    """The query's text for a kind of database; DataError for another kind, ConfigError (CO-F231) without SQLAlchemy."""
    if kind not in DIALECTS:
        raise DataError("CO-D174", f"The database is of the kind {kind}, which is not one of {', '.join(DIALECTS)}.")
    import_extra("sqlalchemy", "sql", "An OMOP definition")
    from coterie_node.data.omop.statement import compile_statement  # with SQLAlchemy, which only databases need

    module, name = DIALECTS[kind]
    return compile_statement(rows, getattr(import_extra(module, "sql", "An OMOP definition"), name)())


def open_omop(source: OmopSource, folder: Path, site: str) -> QueryTable:
    """The definition's columns; DataError if the database refuses the query."""
    access = {name: getattr(source, name) for name in DatabaseAccess.model_fields}
    table = open_query(SqlQuery(**access, query=write_query(source, source.kind)), folder, site)
    return replace(table, declared=(("omop", source.digest),))
