"""The links that a family may have beside its own ones: each is one module of this package, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from coterie_learners.sums.links.link import Link


@cache
def all_links() -> dict[str, Link]:
    """Every link by name, in the order of the modules' names."""
    modules = (importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__))
    classes = (c for module in modules for c in vars(module).values() if isinstance(c, type) and issubclass(c, Link))
    return {c.name: c() for c in classes if hasattr(c, "name")}
