"""The families that there are: each is one module of this package, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from coterie_learners.errors import StudyError
from coterie_learners.sums.family import Family


@cache
def all_families() -> dict[str, type[Family]]:
    """Every family by name, in the order of the modules' names."""
    modules = (importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__))
    classes = (c for module in modules for c in vars(module).values() if isinstance(c, type) and issubclass(c, Family))
    return {c.name: c for c in classes if hasattr(c, "name")}


def choose_family(name: str, link: str | None, by_rows: bool = False, tabled: bool = False) -> Family:
    """The family by name and link (None: its canonical link); StudyError lists what there is.

    `by_rows`: one that can be summed row by row; `tabled`: one that can be fitted on a table.
    """
    families = {n: c for n, c in all_families().items() if (c.by_rows or not by_rows) and (c.tabled or not tabled)}
    if name not in families or (link is not None and link not in families[name].links):
        listed = ", ".join(f"{n}/{k}" for n, c in families.items() for k in c.links)
        raise StudyError("CO-S303", f"There is no family {name!r} with link {link or ''!r}. There are: {listed}.")
    return families[name](link)
