"""The Arrow library, which the extra `site` brings; every module that reads rows takes it from here.

It weighs 171 MB and is slow to import. Each of its modules is imported when something in it is used first. Without the
extra that is a ConfigError (CO-F231). So audits, the founding of a network and the reading of results need no Arrow.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coterie_node.data.tables.packages import import_extra

__all__ = ["ROWS_EXTRA", "arrow_csv", "find_arrow_version", "pa", "pc", "pq"]

ROWS_EXTRA = "site"


class _LateModule(ModuleType):
    """A module that is imported when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what libraries ask of any module; without the extra it is no error of a command
            raise AttributeError(name)
        module = import_extra(self.__name__, ROWS_EXTRA, "Reading or writing rows")
        # The next time each name is found here, as fast as in the module itself.
        names = dict(vars(module))  # at once: another thread may import a part of the module
        self.__dict__.update({key: value for key, value in names.items() if not key.startswith("__")})
        return getattr(module, name)


if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as arrow_csv
    import pyarrow.parquet as pq
else:
    pa, pc = _LateModule("pyarrow"), _LateModule("pyarrow.compute")
    arrow_csv, pq = _LateModule("pyarrow.csv"), _LateModule("pyarrow.parquet")


def find_arrow_version() -> str:
    """Version of the installed Arrow; "none" without the extra."""
    try:
        return version("pyarrow")
    except PackageNotFoundError:
        return "none"
