"""The demos, by learner: each is one module with a `CASE`, and has the learner's name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from coterie_learners.core.registry import list_learners
from coterie_node.demo.cases.case import Case
from coterie_node.errors import ConfigError


def list_cases() -> list[str]:
    """The installed learners that have a demo."""
    modules = {module.name for module in iter_modules(__path__)}
    return [name for name in list_learners() if name in modules]


def find_case(learner: str) -> Case:
    """The demo of a learner; ConfigError lists those there are."""
    if learner not in list_cases():
        raise ConfigError("CO-F305", f"The demo has no learner {learner!r}. Name one of {', '.join(list_cases())}.")
    case: Case = import_module(f"coterie_node.demo.cases.{learner}").CASE
    return case
