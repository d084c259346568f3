"""What a site should know before it approves an evaluation: its patients may have been evaluated before.

The gate compares the counts of two evaluations when the later one has made its model, in the middle of a study
(`known_ranges`). Whether they differ by few patients is not known earlier; that they may is.
"""

from __future__ import annotations

from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.privacy.storage import LogStorage
from coterie_node.release.known_ranges import MOST_EVALUATIONS, list_evaluations


def warn_of_evaluations(study: Study, storage: LogStorage) -> str:
    """A warning of earlier evaluations of the same outcome by other studies; empty without one."""
    if not (study.evaluate.held_out or study.learner.name == "validate") or study.disclosure.cell <= 1:
        return ""
    outcome = Design(study).formula.outcome
    own = study.hash.hex()
    names = sorted({name for name, digest in list_evaluations(storage, outcome) if digest != own})
    if not names:
        return ""
    other = "hold other patients out (another evaluate.seed), or " if study.evaluate.held_out else ""
    more = f" Beyond {MOST_EVALUATIONS} of the same patients it asks you." if len(names) >= MOST_EVALUATIONS else ""
    return (
        f"Patients of this site were evaluated on {outcome} before, by {', '.join(names)}. If this evaluation counts "
        f"the same patients in ranges that differ by fewer than {study.disclosure.cell}, the gate stops the study when "
        f"its model is there (CO-R301); another model often does, where a site has some hundred patients.{more} "
        f"Before you approve: {other}count coarsely (evaluate.grid = 2)."
    )
