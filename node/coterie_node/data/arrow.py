"""The Arrow library, which the extra `site` brings; every module that reads rows takes it from here.

It weighs 171 MB and is slow to import. Each of its modules is imported when something in it is used first. Without the
extra that is a ConfigError (CO-F231). So audits, the founding of a network and the reading of results need no Arrow.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
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


class _LateFunctions(_LateModule):
    """Arrow's compute functions. The few that every file needs are called by name, without `pyarrow.compute`.

    That module makes a wrapper of each of some 280 functions while it is imported, which takes longer than a small
    file. The functions are the same; another one, or an Arrow without its core under this name, brings the module in.
    """

    def __getattr__(self, name: str) -> Any:
        make = _DIRECT.get(name)
        try:
            core = import_module("pyarrow._compute") if make else None
        except ImportError:
            core = None
        if make is None or core is None:
            return super().__getattr__(name)
        self.__dict__[name] = function = make(core)
        return function


def _make_cast(core: Any) -> Callable[..., Any]:
    def cast(values: Any, target: Any, safe: bool = True) -> Any:
        options = core.CastOptions.safe(target) if safe else core.CastOptions.unsafe(target)
        return core.call_function("cast", [values], options)

    return cast


def _make_lookup(name: str) -> Callable[[Any], Callable[..., Any]]:
    def make(core: Any) -> Callable[..., Any]:
        return lambda values, value_set: core.call_function(name, [values], core.SetLookupOptions(value_set=value_set))

    return make


def _make_plain(name: str) -> Callable[[Any], Callable[..., Any]]:
    return lambda core: lambda *values: core.call_function(name, list(values))


_DIRECT: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "cast": _make_cast,
    "is_in": _make_lookup("is_in"),
    "index_in": _make_lookup("index_in"),
    "is_null": _make_plain("is_null"),
    "or_": _make_plain("or"),
    "if_else": _make_plain("if_else"),
}

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as arrow_csv
    import pyarrow.parquet as pq
else:
    pa, pc = _LateModule("pyarrow"), _LateFunctions("pyarrow.compute")
    arrow_csv, pq = _LateModule("pyarrow.csv"), _LateModule("pyarrow.parquet")


def find_arrow_version() -> str:
    """Version of the installed Arrow; "none" without the extra."""
    try:
        return version("pyarrow")
    except PackageNotFoundError:
        return "none"
