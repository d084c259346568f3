"""The families that there are: each is one module of this package, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from coterie_learners.errors import StudyError
from coterie_learners.sums.family import Family

# What other programs call these families.
OTHER_FAMILIES = {
    "normal": "gaussian",
    "linear": "gaussian",
    "logistic": "binomial",
    "bernoulli": "binomial",
    "binary": "binomial",
    "negbin": "negative_binomial",
    "nb": "negative_binomial",
    "neg_binomial": "negative_binomial",
    "inverse.gaussian": "inverse_gaussian",
}


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
        raise StudyError("CO-S303", _explain_choice(name, link, families))
    return families[name](link)


def _explain_choice(name: str, link: str | None, families: Mapping[str, type[Family]]) -> str:
    """What there is in place of a family or a link that there is not, by the name that people use elsewhere."""
    known = name.lower()
    near = [n for n in families if n in (known, OTHER_FAMILIES.get(known))]
    if name in families:
        written = (link or "").lower()
        wish = f" Write {written!r}." if written in families[name].links else ""
        return f"The family {name!r} has no link {link!r}; its links are {', '.join(families[name].links)}.{wish}"
    wish = f" Write {near[0]!r}." if near else ""
    return f"There is no family {name!r} here; there are {', '.join(families)}.{wish}"
