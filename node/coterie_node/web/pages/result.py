"""A result: its table, figures and soundness, downloads in every format, and the replay that checks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.responses import Response

from coterie_chain.errors import ChainError
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_learners.core.fit import Fit
from coterie_learners.core.heterogeneity import Heterogeneity
from coterie_learners.errors import LearnerError
from coterie_node.audit.printed.evaluation import find_evaluation, print_evaluation, print_ranges
from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.audit.printed.word_document import save_word_document
from coterie_node.audit.replay import replay
from coterie_node.audit.report.evaluation_figures import Panel, draw_evaluation
from coterie_node.audit.report.figures import Forest, draw_forest
from coterie_node.audit.report.page import AuditReport, ReportSource, make_report
from coterie_node.audit.report.survival_figure import draw_survival, list_causes
from coterie_node.audit.result import finite, fit_lines, format_table, print_fit, title_of
from coterie_node.audit.sources import note_seals
from coterie_node.data.cohort.flow import list_flow_lines
from coterie_node.errors import ConfigError, NodeError
from coterie_node.persons.roles import Role
from coterie_node.run.follower import Progress
from coterie_node.verbs.audits import save_study_bundle
from coterie_node.verbs.results import StudyOutcome, read_outcome
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.guard import go
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.pages.study import find_number, make_head
from coterie_node.web.rendering import render

LEVEL = 0.95
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@dataclass(frozen=True)
class ResultFigures:
    """The tables and figures of a fit; what the fit does not have is empty or None."""

    table: PrintedTable
    forest: Forest | None
    curves: dict[str, str]
    evaluation: PrintedTable | None
    ranges: PrintedTable | None
    panels: tuple[Panel, ...]


def open_result(visit: Visit) -> Response:
    """The result of a study, or why there is none here."""
    head, site = make_head(visit), visit.services.site
    outcome, problem = None, ""
    try:
        outcome = read_outcome(site.folder, str(head.line.number))
    except (ChainError, LearnerError, NodeError) as error:
        problem = f"{error.code}: {error.message}"
    job = visit.services.jobs.find(f"replay {head.line.number}")
    report = job.value if job is not None and isinstance(job.value, AuditReport) else None
    return render(
        visit,
        "result.html.j2",
        head=head,
        outcome=outcome,
        problem=problem,
        figures=None if outcome is None else draw_result(outcome.fit, _find_comparison(report)),
        lines=[] if outcome is None else fit_lines(outcome.fit, outcome.name, outcome.contributors),
        notes=[] if outcome is None else group_notes(outcome.fit.notes),
        flow=[] if outcome is None or outcome.flow is None else list_flow_lines(outcome.flow),
        formats=tuple(FORMATS),
        replay=job,
        report=report,
        may_audit=visit.person.may(Role.AUDIT),
    )


def group_notes(notes: Iterable[str]) -> list[tuple[bool, str]]:
    """Notes as blocks of text, and whether each is a table: lines whose columns are set apart by blanks."""
    blocks = groupby(notes, lambda line: "  " in line.strip())
    return [block for is_table, lines in blocks for block in _join_block(is_table, list(lines))]


def _join_block(is_table: bool, lines: list[str]) -> list[tuple[bool, str]]:
    return [(True, "\n".join(lines))] if is_table else [(False, line) for line in lines]


def _find_comparison(report: AuditReport | None) -> Heterogeneity | None:
    """The sites' own estimates, once a replay has read their sums; None where the ledger does not have them."""
    return None if report is None or report.screen is None else report.screen.comparison


def draw_result(fit: Fit, sites: Heterogeneity | None = None) -> ResultFigures:
    """The tables and figures of a fit; the forest plot has each site's own interval where `sites` are compared."""
    survival = fit.details.get("survival")
    curves = {} if not survival else {"Survival": draw_survival(survival)}
    curves |= {} if not survival else {f"Incidence of {c}": draw_survival(survival, c) for c in list_causes(survival)}
    evaluation = find_evaluation(fit.details)
    return ResultFigures(
        print_fit(fit),
        None if fit.models else draw_forest(fit, sites),
        curves,
        None if evaluation is None else print_evaluation(evaluation),
        None if evaluation is None else print_ranges(evaluation["groups"][0]),
        () if evaluation is None else draw_evaluation(evaluation),
    )


# Downloads


def _write_json(outcome: StudyOutcome) -> bytes:
    plain: dict[str, Any] = finite(outcome.as_dict(LEVEL))
    return (json.dumps(plain, indent=2) + "\n").encode()


def _write_word(outcome: StudyOutcome) -> bytes:
    with TemporaryDirectory(prefix="coterie-") as folder:
        path = Path(folder) / "table.docx"
        title, warnings = title_of(outcome.fit, outcome.name), (*outcome.fit.warnings, *outcome.row_warnings)
        save_word_document(path, title, print_fit(outcome.fit), warnings)
        return path.read_bytes()


def _write_table(shape: str) -> Callable[[StudyOutcome], bytes]:
    return lambda outcome: (format_table(outcome.fit, shape) + "\n").encode()


# Name of a format: ending of the file, kind of content, and what writes it.
FORMATS: dict[str, tuple[str, str, Callable[[StudyOutcome], bytes]]] = {
    "csv": ("csv", "text/csv; charset=utf-8", _write_table("csv")),
    "json": ("json", "application/json", _write_json),
    "markdown": ("md", "text/markdown; charset=utf-8", _write_table("markdown")),
    "latex": ("tex", "application/x-tex", _write_table("latex")),
    "docx": ("docx", WORD, _write_word),
}


def download_result(visit: Visit) -> Response:
    """A result as a file."""
    name = str(visit.request.path_params["format"])
    if name not in FORMATS:
        raise ConfigError("CO-W109", f"There is no format {name[:20]!r}. Take one of {', '.join(FORMATS)}.")
    ending, kind, write = FORMATS[name]
    outcome = read_outcome(visit.services.site.folder, str(find_number(visit)))
    return send_file(write(outcome), f"{outcome.name}.{ending}", kind)


def send_file(content: bytes, name: str, kind: str) -> Response:
    """A file that a browser saves and never shows."""
    plain = "".join(c if c.isalnum() or c in "-._" else "-" for c in name if c.isascii())
    headers = {"content-disposition": f'attachment; filename="{plain}"'}
    return Response(content, media_type=kind, headers=headers)


# The replay


def start_replay(visit: Visit) -> Response:
    """Compute every server step again."""
    number, site = make_head(visit).line.number, visit.services.site
    visit.services.jobs.start(f"replay {number}", visit.person.name, lambda: replay_here(site, number))
    return go(visit, f"/studies/{number}/result#replay", "The replay has begun. This page shows its verdict.")


def replay_here(site: SiteReader, number: int) -> AuditReport:
    """The report on a study from this site's ledger and store."""
    progress: list[Progress] = []
    outcome = note_seals(replay(site.ledger, site.blobs, number, observe=progress.append), site.ledger)
    view, folder = site.ledger.view(number), site.folder
    flow, hash = folder.read_flow(view.id, view.terms.hash), view.terms.hash
    source = ReportSource(
        (_describe_network(site),),
        f"coterie audit replay {number} --node NODE",
        None,
        folder.read_row_warnings(number, hash),
        {} if flow is None else {site.name: flow},
    )
    return make_report(site.ledger, site.blobs, number, outcome, progress, source, datetime.now(UTC))


def _describe_network(site: SiteReader) -> str:
    if not isinstance(site.ledger, EthereumLedger):
        return "Read from this site's own ledger."
    network = site.ledger.network
    return (
        f"Read through one node of chain {network.chain_id} (block 0 is {network.genesis}), from the Catalog "
        f"{network.catalog}. A bundle (coterie audit export) shows that it is sealed, and each entry signed."
    )


def download_report(visit: Visit) -> Response:
    """The report of the last replay, as a page or as JSON."""
    number, name = find_number(visit), str(visit.request.path_params["format"])
    job = visit.services.jobs.find(f"replay {number}")
    if job is None or not isinstance(job.value, AuditReport):
        raise ConfigError("CO-W110", f"There is no replay of study {number} yet. Run it on the page of the result.")
    if name == "json":
        content = json.dumps(finite(job.value.as_dict()), indent=2).encode()
        return send_file(content, f"report-{number}.json", "application/json")
    return send_file(job.value.html().encode(), f"report-{number}.html", "text/html; charset=utf-8")


def offer_bundle(visit: Visit) -> Response:
    """The study and all that proves it, as a zip file that `coterie audit verify` reads."""
    number = make_head(visit).line.number
    with TemporaryDirectory(prefix="coterie-") as folder:
        path = Path(folder) / "bundle.zip"
        save_study_bundle(visit.services.site.folder, str(number), path)
        return send_file(path.read_bytes(), f"study-{number}.zip", "application/zip")


RESULT_ROUTES = (
    PageRoute("GET", "/studies/{number:number}/result", Role.READ, open_result),
    PageRoute("GET", "/studies/{number:number}/result/{format}", Role.READ, download_result),
    PageRoute("POST", "/studies/{number:number}/replay", Role.AUDIT, start_replay),
    PageRoute("GET", "/studies/{number:number}/report/{format}", Role.AUDIT, download_report),
    PageRoute("GET", "/studies/{number:number}/bundle", Role.AUDIT, offer_bundle),
)
