"""The result of an evaluation, as JSON has it: the measures of each group of patients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from coterie_learners.core.fit import LEVEL
from coterie_learners.errors import pluralise
from coterie_learners.evaluate.calibration import describe_calibration
from coterie_learners.evaluate.discrimination import list_net_benefit, list_ranges, list_roc, measure_area
from coterie_learners.evaluate.evaluation_plan import ShownRanges
from coterie_learners.numeric.array import Array

# Ranges of a calibration table.
MOST_RANGES = 10


def describe_evaluation(shown: ShownRanges, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation from the last server post; no groups where nothing could be counted."""
    plan = shown.plan
    pairs = zip(shown.split(payload["counts"]), shown.split(payload["scores"]), strict=True)
    groups = [
        _describe_group(shown, payload, k, np.asarray(counts), np.asarray(scores))
        for k, (counts, scores) in enumerate(pairs)
    ]
    rules = plan.study.evaluate
    return {
        "held_out": rules.held_out or None,
        **({"where": rules.where.strip()} if rules.where else {}),
        "grid": rules.grid,
        "scale": rules.scale,
        "floor": plan.floor,
        "level": LEVEL,
        "groups": groups,
        "not_shown": list(shown.hidden),
    }


def _describe_group(
    shown: ShownRanges, payload: Mapping[str, Any], k: int, counts: Array, scores: Array
) -> dict[str, Any]:
    grid, cuts = shown.plan.grid, shown.list_cuts()[k]
    thresholds = [grid.thresholds[at] for at in cuts]
    n, events = float(counts.sum()), float(counts[:, 1].sum())
    area = measure_area(counts)
    base = {"name": shown.names[k], "n": int(n), "events": int(events), "bins": len(cuts) - 1}
    base |= {"auc": None if area is None else area.as_dict()}
    if not n:
        return base
    state, sums = np.asarray(payload["state"])[k], np.asarray(payload["calibration"])[k]
    return {
        **base,
        **_describe_brier(float(np.asarray(payload["squares"])[k]), n, events),
        "predicted": math.fsum(scores.tolist()) / n,
        "observed": events / n,
        **describe_calibration(state, sums, float(np.asarray(payload["length"])[k])),
        "ranges": list_ranges(counts, scores, thresholds, MOST_RANGES),
        "roc": list_roc(counts, thresholds),
        "net_benefit": list_net_benefit(counts, thresholds),
    }


def _describe_brier(squares: float, n: float, events: float) -> dict[str, float | None]:
    """The Brier score, and by how much it is better than that of the observed share for everybody."""
    share = events / n
    null = share * (1.0 - share)
    return {"brier": squares / n, "brier_scaled": 1.0 - squares / n / null if null > 0.0 else None}


def write_notes(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """The measures of all patients in sentences, and what is not shown."""
    if not evaluation["groups"]:
        return (f"Evaluation: not evaluated, as a count of a site would be from 1 to {evaluation['floor'] - 1}.",)
    notes = (f"Evaluation: {sentence}" for sentence in _describe_overall(evaluation["groups"][0]))
    why = "not shown, as few patients of a site would follow from it"
    return (*notes, *(f"Evaluation by {name}: {why}." for name in evaluation["not_shown"]))


def _describe_overall(group: Mapping[str, Any]) -> Iterator[str]:
    yield f"{pluralise(group['n'], 'patient')}, {group['events']} with the outcome."
    area = group["auc"]
    if area is not None:
        yield (
            f"AUC {area['value']:.4f}, 95 % limits {area['low']:.4f} to {area['high']:.4f} (DeLong), on a grid of "
            f"{group['bins']} ranges, by which it is off by at most {area['within']:.2g}."
        )
    slope, large = group.get("slope"), group.get("in_the_large")
    calibration = [] if slope is None else [f"calibration slope {slope['estimate']:.3f} (SE {slope['std_error']:.3f})"]
    calibration += [] if large is None else [f"in the large {large['estimate']:.3f} (SE {large['std_error']:.3f})"]
    yield "; ".join([f"Brier score {group['brier']:.4f}", *calibration]) + "."


def list_measures(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each number that does not depend on the grid, by a name of its own."""
    for group in evaluation["groups"]:
        name = group["name"]
        yield f"n: {name}", float(group["n"])
        yield f"events: {name}", float(group["events"])
        for key in ("brier", "predicted", "observed"):
            if key in group:
                yield f"{key}: {name}", group[key]
        for key in ("in_the_large", "intercept", "slope"):
            if group.get(key) is not None:
                yield f"calibration {key.replace('_', ' ')}: {name}", group[key]["estimate"]
