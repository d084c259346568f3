"""Shared by the tests of data."""

from support.node.sql_fixtures import mariadb, password, postgres

__all__ = ["mariadb", "password", "postgres"]
