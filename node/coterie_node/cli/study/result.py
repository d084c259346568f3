"""`coterie study result`: the result that this site's node left of a study."""

from __future__ import annotations

import json

from coterie_chain.ledger.protocol import StudyView
from coterie_learners.core.fit import Fit, fit_from_json
from coterie_node.audit.result import finite, fit_lines, format_csv, numbers
from coterie_node.cli.options import Format, Shape
from coterie_node.cli.output import HERE, Folder, Json, open_ledger, resolve_study_number
from coterie_node.cli.study.status import LedgerStudyArgument
from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.site.config import NodeFolder


def result_command(
    which: LedgerStudyArgument, node: Folder = HERE, shape: Shape = Format.text, as_json: Json = False
) -> None:
    """Print the result that this site's node left of a study, as a table, JSON or CSV."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    name, fit = _result(home, view)
    sites, gone = view.parties, [site for site in view.terms.sites if site not in view.parties]
    if as_json or shape is Format.json:
        summary = {"study": name, **numbers(fit, sites), "notes": list(fit.notes), "details": dict(fit.details)}
        print(json.dumps(finite(summary), indent=2))
    else:
        print(
            format_csv(fit).rstrip()
            if shape is Format.csv
            else "\n".join([*fit_lines(fit, printable(name), sites), *_describe_exclusion(gone)])
        )


def _describe_exclusion(gone: list[str]) -> list[str]:
    return [f"Excluded: {', '.join(gone)}; no row of theirs is in these numbers."] if gone else []


def _result(home: NodeFolder, view: StudyView) -> tuple[str, Fit]:
    """A study's name and fit, as this site's node left them; ConfigError (CO-F332) if there is none."""
    path = home.results / f"{view.id}.json"
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        summary = {}
    if summary.get("hash") != view.terms.hash.hex() or summary["fit"] is None:
        cause = f"{home.config.site} has no result of study {view.id}, which is {view.state.name.lower()}"
        raise ConfigError("CO-F332", f"{cause}: its node leaves one in {path.parent} once the study is done.")
    return str(summary["name"]), fit_from_json(summary["fit"])
