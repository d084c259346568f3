"""Results that a site's node has written, and the patients that the ledger's document says they stand on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coterie_chain.ledger.protocol import State
from coterie_learners.errors import pluralise
from coterie_node.errors import ConfigError

if TYPE_CHECKING:
    from coterie_chain.ledger.protocol import StudyView
    from coterie_learners.core.fit import Fit
    from coterie_node.site.folder import SiteFolder


def read_stored_result(folder: SiteFolder, view: StudyView, ending: str = "") -> tuple[str, Fit, tuple[str, ...]]:
    """A study's name, its fit and warnings of this site's rows, as its node wrote them; ConfigError (CO-F332) if none.

    `ending` says how a study ended without a result.
    """
    from coterie_learners.core.fit import fit_from_json

    path = folder.results / f"{view.id}.json"
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        summary = {}
    if summary.get("hash") != view.terms.hash.hex() or summary["fit"] is None:
        cause = f"{folder.name} has no result of study {view.id}, which is {view.state.name.lower()}."
        raise ConfigError("CO-F332", f"{cause}{ending} {_when(folder, view)}")
    return str(summary["name"]), fit_from_json(summary["fit"]), tuple(map(str, summary.get("row_warnings", ())))


def _when(folder: SiteFolder, view: StudyView) -> str:
    """When the node writes a study's result: at its end, and at once final only on a chain without reorganisations."""
    if view.state != State.COMPLETED:
        return f"Its node writes one into {folder.results} when the study is complete."
    blocks = folder.config.chain.confirmations
    wait = f"{pluralise(blocks, 'block')} after the last record" if blocks else "soon after the last record"
    return f"Its node writes one into {folder.results} {wait}; look again then. `coterie doctor` says whether it runs."


def read_with_cohort(folder: SiteFolder, which: str) -> dict[str, Any]:
    """A result as `--json` prints it, by the study's number on the ledger or hash, with the cohort of its document."""
    from coterie_learners.study.model_card import make_model_card
    from coterie_node.audit.result import finite, numbers
    from coterie_node.audit.sources import find_study_number
    from coterie_node.run.recorded_steps import list_contributors
    from coterie_node.run.study_files import study_on_ledger

    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
        contributors = list_contributors(view, list(ledger.history(view.id)))
    name, fit, _ = read_stored_result(folder, view)
    study = study_on_ledger(view, folder.open_archive())
    cards = {"model": make_model_card(study)} if study.models else {}
    cohort = {"name": study.cohort.name, "complete": sorted(study.cohort.complete)}
    cohort |= {"where": list(study.cohort.where)} if study.cohort.where else {}
    plain: dict[str, Any] = finite({"study": name, **numbers(fit, contributors), "notes": list(fit.notes)})
    return {**plain, "cohort": cohort, **cards}
