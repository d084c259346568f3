"""The files behind the rows of a test's sites."""

from __future__ import annotations

from pathlib import Path

from coterie_node.data.installed_source import RowsAddress


def file_of(address: RowsAddress) -> Path:
    """The file that an address names; AssertionError if the rows come from an installed source."""
    assert isinstance(address, Path)
    return address
