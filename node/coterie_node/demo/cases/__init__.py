"""The demos, by learner: one module each with a `CASE`."""

from __future__ import annotations

from importlib import import_module

from coterie_node.demo.cases.case import Case
from coterie_node.errors import ConfigError

LEARNERS = ("glore", "vertigo", "valoris", "cola", "secure_cola", "secure_lasso")


def find_case(learner: str) -> Case:
    """The demo of a learner; ConfigError lists those there are."""
    if learner not in LEARNERS:
        raise ConfigError("CO-F305", f"The demo has no learner {learner!r}. Name one of {', '.join(LEARNERS)}.")
    case: Case = import_module(f"coterie_node.demo.cases.{learner}").CASE
    return case
