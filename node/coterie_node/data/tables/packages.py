"""Packages that only some tables need, imported when such a table is opened."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from coterie_node.errors import ConfigError


def import_extra(module: str, extra: str, what: str) -> ModuleType:
    """The module; ConfigError (CO-F231) names the extra of the package that brings it."""
    try:
        return import_module(module)
    except ImportError:
        message = f"{what} needs the package {module.partition('.')[0]}, which is not installed here"
        raise ConfigError("CO-F231", f"{message}. Run `pip install 'coterie[{extra}]'`.") from None
