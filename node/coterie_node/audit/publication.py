"""Compare a published result (JSON) with the model of a replay: the statement of the sites with the record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.study.model_card import make_model_card
from coterie_node.audit.replay import Replay, Verdict, failure
from coterie_node.audit.result import finite, numbers, soundness_of
from coterie_node.errors import AuditFailed, ConfigError

_MAX_RESULT_BYTES = 1 << 27
# Estimates have the same bits everywhere; p-values come from the C library, whose last digits differ.
CLOSE = 1e-9
# A file without these is not a result; other keys are newer than some results.
NEEDED = frozenset({"terms", "term", "estimate", "n", "models"})


def read_publication(path: Path) -> Mapping[str, Any]:
    """A result as `--json` prints it; ConfigError (CO-F206, CO-F331) for another file."""
    try:
        raw = path.read_bytes() if path.stat().st_size <= _MAX_RESULT_BYTES else b""
        published = from_json(raw)
    except OSError as error:
        raise ConfigError(
            "CO-F206", f"The result {path} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from None
    except ValueError:
        published = None
    if not isinstance(published, dict) or not (published.get("terms") or published.get("models")):
        raise ConfigError(
            "CO-F331",
            f"{path} is not a result with terms, as `--json` prints one. "
            "Write one with `coterie study result NUMBER --json > result.json`: the node's results/ has another form.",
        )
    return published


def read_published_model(path: Path, name: str | None = None) -> Mapping[str, Any]:
    """One model of a result file; of a result with one model that one. ConfigError as `pick_model` raises it."""
    return pick_model(read_publication(path), name, str(path))


def pick_model(published: Mapping[str, Any], name: str | None, where: str) -> Mapping[str, Any]:
    """One model of a published result; ConfigError (CO-F380) if it has none of this name, or several and none is named.

    The result's facts about the study (its name, its sites, its rows) are there as well.
    """
    models = published.get("models")
    if not isinstance(models, Mapping):
        if name is not None:
            raise ConfigError("CO-F380", f"{where} has one model and no names of any. Leave --model out.")
        return published
    if name not in models or not isinstance(models[name], Mapping):
        what = "has several models" if name is None else f"has no model {name!r:.40}"
        raise ConfigError("CO-F380", f"{where} {what}. Name one: --model {' or '.join(map(str, models))}.")
    card = published.get("model")
    cards = card.get("models") if isinstance(card, Mapping) else None
    own = {"model": cards[name]} if isinstance(cards, Mapping) and name in cards else {}
    whole = {key: value for key, value in published.items() if key not in ("models", "model", "notes", "soundness")}
    return {**whole, **models[name], **own, "study": f"{published.get('study', '')}/{name}"}


def check_publication(published: Mapping[str, Any], name: str, outcome: Replay) -> Verdict:
    """The replay's verdict, or FAIL (CO-A110) with the first number of a published result that is another one."""
    if not outcome.verdict.intact:
        return outcome.verdict
    try:
        _check(published, name, outcome)
    except AuditFailed as error:
        return replace(failure(error), steps=outcome.verdict.steps, unchecked=outcome.verdict.unchecked)
    return outcome.verdict


def _check(published: Mapping[str, Any], name: str, outcome: Replay) -> None:
    if outcome.study is None or not isinstance(outcome.fit, Fit):
        message = f"The replay gives no model, so {name} cannot be compared with one"
        raise AuditFailed("CO-A110", f"{message}. Name the study of this result, or ask a site for a grant.")
    details = {"details": dict(outcome.fit.details)}  # as far as an auditor has them
    model = {"model": make_model_card(outcome.study)}
    ours = numbers(outcome.fit, outcome.contributors, _find_level(published))
    wanted = finite({"study": outcome.study.name, **ours, **details, **model})
    _check_warnings(published.get("soundness"), wanted.pop("soundness")["warnings"], name)
    for where, theirs, ours in _find_differences(published, wanted):
        message = f"{name} says {theirs!r:.60} for {where}, and the replay arrives at {ours!r:.60}"
        raise AuditFailed("CO-A110", f"{message}. The published result is not the one on record.")


def _find_level(published: Mapping[str, Any]) -> float:
    """The confidence level of the published intervals; 0.95 where the result does not say."""
    level = published.get("level", LEVEL)
    return float(level) if isinstance(level, float) and 0.0 < level < 1.0 else LEVEL


def _check_warnings(published: Any, ours: Sequence[str], name: str) -> None:
    """AuditFailed for a result that leaves a warning out; it may have more: those of rows, which no replay has read."""
    if published is None:
        return
    listed = published.get("warnings") if isinstance(published, Mapping) else None
    texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    missing = [text for text in ours if text not in texts]
    if missing or published != soundness_of(texts):
        what = f"{name} leaves out the warning {missing[0]!r:.60}" if missing else f"{name} miscounts its warnings"
        raise AuditFailed("CO-A110", f"{what}. The published result is not the one on record.")


def _find_differences(theirs: Any, ours: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Places at which a published value is another one; a key that is missing counts only if it is needed."""
    if isinstance(ours, dict) and isinstance(theirs, Mapping):
        within = f" of {ours['term']}" if "term" in ours else ""
        for key in [key for key in ours if key in theirs or key in NEEDED]:
            yield from _find_differences(theirs.get(key), ours[key], f"{key}{within}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"the number of {where}", len(theirs), len(ours)
        for mine, other in zip(ours, theirs, strict=False):
            yield from _find_differences(other, mine, where)
    elif not _is_close(theirs, ours):
        yield where, theirs, ours


def _is_close(theirs: Any, ours: Any) -> bool:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (theirs, ours))
    return math.isclose(theirs, ours, rel_tol=CLOSE, abs_tol=1e-15) if numeric else bool(theirs == ours)
