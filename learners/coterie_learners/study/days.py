"""Dates as numbers: days since 1970-01-01. Documents are read without numpy, and so it is not imported here."""

from __future__ import annotations

import datetime

_START = datetime.date(1970, 1, 1)


def read_day(text: str) -> float | None:
    """The days since 1970-01-01 of a date as YYYY-MM-DD; None for any other text."""
    try:
        return float((datetime.date.fromisoformat(text) - _START).days) if len(text) == 10 else None
    except ValueError:
        return None


def write_day(days: float) -> str:
    """The date as YYYY-MM-DD."""
    try:
        return (_START + datetime.timedelta(days=days)).isoformat()
    except (OverflowError, ValueError):
        return f"{days:.15g}"
