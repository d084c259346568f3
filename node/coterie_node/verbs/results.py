"""The result of a study that a node has written, with the ledger's facts about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coterie_chain.ledger.protocol import Record, StudyView
from coterie_learners.core.fit import Fit
from coterie_learners.study.document import Study
from coterie_learners.study.model_card import make_model_card
from coterie_node.audit.result import Cost, Result, numbers, soundness_of
from coterie_node.audit.sources import find_study_number
from coterie_node.data.cohort.flow import Flow
from coterie_node.run.endings import find_end, list_losses
from coterie_node.run.recorded_steps import list_contributors
from coterie_node.run.study_files import study_on_ledger
from coterie_node.site.folder import SiteFolder
from coterie_node.verbs.stored_results import read_stored_result
from coterie_node.verbs.studies import describe_aftermath


@dataclass(frozen=True)
class StudyOutcome:
    """A fit with its study, the sites whose rows it has, what went wrong on the way, and this site's own warnings.

    `superseded` says what replaces the result; empty if nothing does. `records` and `payload_bytes` are the ledger's.
    """

    view: StudyView
    study: Study
    name: str
    fit: Fit
    contributors: tuple[str, ...]
    lost: tuple[str, ...]
    superseded: str
    flow: Flow | None
    row_warnings: tuple[str, ...]
    records: int
    payload_bytes: int

    def as_dict(self, level: float) -> dict[str, Any]:
        """The JSON keys of `coterie study result --json`."""
        warnings = (*self.fit.warnings, *self.row_warnings)
        summary = {"study": self.name, **numbers(self.fit, self.contributors, level), "details": dict(self.fit.details)}
        summary |= {"notes": [*self.fit.notes, *self.row_warnings], "soundness": soundness_of(warnings)}
        summary |= {} if self.flow is None else {"flow": self.flow.as_dict()}
        summary |= {"superseded": self.superseded, "lost": list(self.lost), "model": make_model_card(self.study)}
        return summary

    def as_result(self) -> Result:
        """The same as Python has it; nobody measured gas and seconds here, and no replay has run."""
        cost = Cost(self.records, self.payload_bytes, None, {})
        notes = tuple(line for line in (self.superseded, *self.lost) if line)
        card = make_model_card(self.study)
        return Result(self.name, self.contributors, self.fit, cost, None, card, notes=notes, warnings=self.row_warnings)


def read_outcome(folder: SiteFolder, which: str) -> StudyOutcome:
    """The result of a study that this site's node has written; ConfigError (CO-F332) without one."""
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
        superseded = describe_aftermath(folder, ledger, view).get("superseded", "")
        entries, end = list(ledger.history(view.id)), find_end(ledger, view.id)
        study = study_on_ledger(view, folder.open_archive())
    name, fit, warnings = read_stored_result(folder, view, "" if end is None else f" {end.describe('it')}")
    sizes = [entry.post.size for entry in entries if isinstance(entry, Record)]
    return StudyOutcome(
        view=view,
        study=study,
        name=name,
        fit=fit,
        contributors=list_contributors(view, entries),
        lost=tuple(loss.sentence for loss in list_losses(entries)),
        superseded=superseded,
        flow=folder.read_flow(view.id, view.terms.hash),
        row_warnings=warnings,
        records=len(sizes),
        payload_bytes=sum(sizes),
    )
