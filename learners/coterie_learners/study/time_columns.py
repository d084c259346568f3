"""The columns of a time to event, which a study's learner section names beside the formula."""

from __future__ import annotations

from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study

# The keys of the learner section that name a column, in the order in which these are read.
COLUMN_KEYS = ("time", "event", "entry", "group", "strata")


def list_time_columns(study: Study) -> tuple[str, ...]:
    """The columns that the learner section names; nothing where it names no `time`.

    StudyError for a name that the study does not declare.
    """
    options = study.learner.options
    if not isinstance(options.get("time"), str):
        return ()
    columns = {key: options[key] for key in COLUMN_KEYS if isinstance(options.get(key), str) and options[key]}
    for key, name in columns.items():
        if name not in study.variables:
            message = f"The learner section names {name!r} as `{key}`, which the study does not declare"
            raise StudyError("CO-S202", f"{message}. Add [variables.{name}].")
    return tuple(dict.fromkeys(columns.values()))
