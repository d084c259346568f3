"""`coterie study list|show|status|result`: what is proposed, where a study is, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ledger.protocol import StudyView
from coterie_node.cli.options import (
    At,
    Format,
    Json,
    LedgerStudyArgument,
    Level,
    NodeOption,
    Out,
    Shape,
    Site,
    choose_shape,
    open_site,
)
from coterie_node.cli.output import format_json, print_document, print_rows, save_or_print, save_or_print_fit
from coterie_node.data.findings import printable
from coterie_node.site.folder import SiteFolder
from coterie_node.verbs.studies import list_study_rows, read_status, show_study


def list_studies_command(node: NodeOption = None, at: At = None, site: Site = None, as_json: Json = False) -> None:
    """List the studies on the ledger, and what this site decided."""
    rows = list_study_rows(open_site(node, at, site))
    print_rows(rows, as_json, ("study", "state", "name", "sites", "joined", "decision", "hash", "remark"))


def show_command(
    which: Annotated[str, typer.Argument(help="A study file, or a study's number or hash on the ledger.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Show what a study does: sites, model, what leaves a site, and who must be trusted with what.

    For a study on the ledger it also shows its state, what this site's policy says about it, and its document as it was
    hashed.
    """
    if Path(which).suffix in (".toml", ".json"):
        from coterie_node.cli.study.advise import show_file

        show_file(Path(which), as_json)
        return
    summary = show_study(open_site(node, at, site), which)
    print_document(summary, _format_summary(summary), as_json)


def study_status_command(
    which: LedgerStudyArgument, node: NodeOption = None, at: At = None, site: Site = None, as_json: Json = False
) -> None:
    """Show where a study is, which sites it waits for, how it ended, and its last error at this site."""
    summary = read_status(open_site(node, at, site), which)
    lines = [f"{name.replace('_', ' '):12s} {printable(str(v))}" for name, v in summary.items() if v != ""]
    print_document(summary, "\n".join(lines), as_json)


def result_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    level: Level = 0.95,
    shape: Shape = Format.text,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Print the result of a study that this site's node has written, or its table in another format."""
    from coterie_node.audit.result import finite, fit_lines, soundness_line
    from coterie_node.data.cohort.flow import list_flow_lines
    from coterie_node.verbs.results import read_outcome

    shape = choose_shape(shape, as_json, out)
    folder = open_site(node, at, site)
    outcome = read_outcome(folder, which)
    fit, name = outcome.fit, printable(outcome.name)
    if shape is Format.json:
        save_or_print(format_json(finite(outcome.as_dict(level))), out)
    elif shape is not Format.text:
        save_or_print_fit(fit, name, shape, out, level)
    else:
        flow = [] if outcome.flow is None else list_flow_lines(outcome.flow)
        lines = [
            *fit_lines(fit, name, outcome.contributors, level=level),
            *_describe_exclusion(outcome.view, outcome.contributors),
            *([f"On the way: {'; '.join(outcome.lost)}."] if outcome.lost else []),
            *([f"Flow at {folder.name}: {'; '.join(flow)}."] if flow else []),
            *outcome.row_warnings,
            soundness_line((*fit.warnings, *outcome.row_warnings)),
            *fit.own,
            *(f"{name}: {line}" for name, model in fit.models.items() for line in model.own),
            *_describe_gain(folder, outcome.view),
        ]
        save_or_print("\n".join([*([outcome.superseded] if outcome.superseded else []), *lines]), out)


def _describe_exclusion(view: StudyView, contributors: tuple[str, ...]) -> list[str]:
    """The sites that are no longer in a study, and whether their rows are in the result."""
    gone = [name for name in view.terms.sites if name not in view.parties]
    excluded = [name for name in gone if name not in contributors]
    late = [name for name in gone if name in contributors]
    lines = [f"Excluded: {', '.join(excluded)}; their rows are not in these numbers."] if excluded else []
    return lines + ([f"Left after the last sums: {', '.join(late)}; their rows are in these numbers."] if late else [])


def _describe_gain(folder: SiteFolder, view: StudyView) -> list[str]:
    """What this site gained by joining: about its own rows, so only in the text for its people, in no file."""
    gain = folder.read_gain(view.id, view.terms.hash)
    return [f"{gain} Only {folder.name} knows this; `coterie study gain {view.id}` shows more."] if gain else []


def _format_summary(summary: Mapping[str, Any]) -> str:
    from coterie_node.cli.study.advise import in_words

    head = [
        f"{name:10s} {printable(str(summary[name]))}"
        for name in summary
        if name not in ("document", "what", "disclosure")
    ]
    # its number, name, sites and hash are in the row already
    rest = {
        name: value
        for name, value in summary["what"].items()
        if value and name not in ("study", "sites", "hash", "discloses")
    }
    words = {name: in_words(value).split("\n") for name, value in rest.items()}
    head += [f"{name:10s} " + "\n".join(map(printable, lines)) for name, lines in words.items()]
    head += [printable(line) for line in summary["disclosure"]]
    return "\n".join([*head, "", json.dumps(summary["document"], indent=2, ensure_ascii=True)])
