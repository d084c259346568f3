"""The outcome of one check of a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coterie_node.errors import CoterieError


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it is well (None: nothing to judge), what was found, and the remedy."""

    check: str
    well: bool | None
    found: str
    cure: str = ""


def run_check(check: str, look: Callable[[], CheckResult]) -> CheckResult:
    """The outcome of a check; an error of ours or of the system is a failure with its sentence as the remedy."""
    try:
        return look()
    except (*CoterieError, OSError) as error:
        code = getattr(error, "code", "")
        return CheckResult(check, False, code or "failed", f"{code}: {error}".lstrip(": "))
