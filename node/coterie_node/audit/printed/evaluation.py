"""The evaluation of a model as its readers know it: discrimination, accuracy and calibration of each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie_node.audit.printed.printed_table import PrintedTable

_NOTHING = "NA"
_HEAD = ("", "n", "events", "AUC [95 % CI]", "off by at most", "Brier", "O/E", "in the large (SE)", "slope (SE)")


def print_evaluation(evaluation: Mapping[str, Any]) -> PrintedTable:
    """A line for each group of patients of a result's details."""
    return PrintedTable(_HEAD, tuple(_print_group(group) for group in evaluation["groups"]))


def find_evaluation(details: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The evaluation of a result, if it has one in which something was counted."""
    evaluation = details.get("evaluation")
    return evaluation if evaluation is not None and evaluation["groups"] else None


def _print_group(group: Mapping[str, Any]) -> tuple[str, ...]:
    area, brier = group["auc"], group.get("brier")
    expected = group.get("predicted")
    return (
        group["name"],
        str(group["n"]),
        str(group["events"]),
        _NOTHING if area is None else f"{area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]",
        _NOTHING if area is None else f"{area['within']:.2g}",
        _NOTHING if brier is None else f"{brier:.4f}",
        _NOTHING if not expected else f"{group['observed'] / expected:.3f}",
        _show_pair(group.get("in_the_large")),
        _show_pair(group.get("slope")),
    )


def _show_pair(pair: Mapping[str, float] | None) -> str:
    return _NOTHING if pair is None else f"{pair['estimate']:.3f} ({pair['std_error']:.3f})"


def print_ranges(group: Mapping[str, Any]) -> PrintedTable:
    """The calibration table of a group: mean score and observed share by range of the score."""
    head = ("score", "n", "events", "predicted", "observed")
    lines = (
        (
            f"{part['low']:.3f} to {part['high']:.3f}",
            str(part["n"]),
            str(part["events"]),
            f"{part['predicted']:.3f}",
            f"{part['observed']:.3f}",
        )
        for part in group["ranges"]
    )
    return PrintedTable(head, tuple(lines))
