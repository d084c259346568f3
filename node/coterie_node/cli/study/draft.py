"""`coterie study draft`: a study and mappings from the sites' own files, or from the profiles that sites gave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from coterie_learners.errors import StudyError
from coterie_node.cli.options import Json
from coterie_node.cli.output import print_document
from coterie_node.data.draft.draft import DraftFiles, draft_from_files, draft_from_profiles, save_draft
from coterie_node.data.draft.write import StudyDraft
from coterie_node.data.findings import printable


def draft_command(
    files: Annotated[
        list[Path],
        typer.Argument(help="One file of rows or source (.toml) a site; with --from-sites one profile a site."),
    ],
    out: Annotated[Path, typer.Option(help="Study file to write; mappings are written beside it.")],
    from_sites: Annotated[
        bool, typer.Option("--from-sites", help="The files are profiles that sites wrote by `coterie data profile`.")
    ] = False,
    split_by: Annotated[
        str | None, typer.Option("--split-by", help="One file of all sites: the column that names each row's site.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="NAME=HEADER: the variable of a column, if sites use different headers; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draft a study and one mapping a site from the sites' own columns, and name what people must confirm."""
    if split_by is not None:
        from coterie_node.data.draft.split import split_file

        if from_sites or len(files) != 1:
            raise typer.BadParameter("It divides one file of rows. Give that file alone.", param_hint="--split-by")
        files = split_file(files[0], split_by, out.parent)
    names = _read_names(column or [])
    if from_sites:
        from coterie_node.data.quality.profile_file import read_profile

        draft = draft_from_profiles([read_profile(path) for path in files], out, names=names)
    else:
        draft = draft_from_files(files, out, names)
    places = save_draft(draft, out)
    summary = {
        "study": str(places.study),
        "mappings": {site: str(path) for site, path in places.mappings.items()},
        "questions": list(draft.questions),
        "left_out": list(draft.apart),
    }
    print_document(summary, "\n".join(_describe(draft, places)), as_json)


def _read_names(pairs: list[str]) -> dict[str, str]:
    """The variable of each header; StudyError (CO-S112) for a header with two."""
    out: dict[str, str] = {}
    for pair in pairs:
        name, _, header = pair.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name) or not header:
            message = f"{pair!r} is no NAME=HEADER, such as ef='EF (%)'; NAME has letters, digits and _."
            raise typer.BadParameter(message, param_hint="--column")
        if out.setdefault(header, name) != name:
            raise StudyError("CO-S112", f"The column {header!r} is named {out[header]!r} and {name!r}. Name it once.")
    return out


def _describe(draft: StudyDraft, places: DraftFiles) -> list[str]:
    lines = [f"Study: {places.study}"]
    lines += [f"Mapping of {site}: {path}" for site, path in places.mappings.items()]
    lines += ["Left out:", *(f"  {printable(text)}" for text in draft.apart)] if draft.apart else []
    lines += ["To confirm:", *(f"  {printable(text)}" for text in draft.questions)] if draft.questions else []
    if any("no column of that name" in text for text in draft.apart):
        lines += ["Name a column that is headed otherwise, for all sites: --column NAME='HEADER'."]
    data = " ".join(f"--data {site}={path}" for site, path in places.mappings.items())
    return [*lines, "Correct the study and the mappings, then try them:", f"  coterie simulate {places.study} {data}"]
