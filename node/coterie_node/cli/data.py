"""`coterie data check|profile`: a site's own rows, looked at by its own people before anything leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie_learners.errors import pluralise
from coterie_node.cli.options import Json, NodeOption, StudyFile, open_node_folder
from coterie_node.cli.output import print_document, print_json
from coterie_node.errors import ConfigError

if TYPE_CHECKING:
    from coterie_learners.study.document import Study
    from coterie_node.data.installed_source import RowsAddress
    from coterie_node.data.quality.check import DataCheck

FLOOR = 5


def check_command(
    study: StudyFile,
    data: Annotated[
        str | None, typer.Option(help="SITE=FILE, a mapping or an address. Default: the rows of this site's node.")
    ] = None,
    node: NodeOption = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Profile of another site; may be given several times.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="New file for the report as an HTML page.")] = None,
    flow: Annotated[
        Path | None,
        typer.Option(help="New SVG of the flow of rows for others, with counts rounded down to the study's floor."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report on a site's rows for a study, at home: missing, wrong, far off, double, unordered; status 10 for faults.

    With --against also what is odd beside other sites' profiles: another unit, an exchanged label.
    """
    from coterie_node.data.cohort.flow import draw_flow
    from coterie_node.data.installed_source import parse_rows_address
    from coterie_node.data.quality.check import check_data
    from coterie_node.data.quality.page import list_lines, write_page
    from coterie_node.run.study_files import load_study

    loaded = load_study(study)
    if data is None:
        folder = open_node_folder(node)
        site, address = folder.name, folder.locate_rows("")
    else:
        site, _, place = data.partition("=")
        address = parse_rows_address(place)
    if site not in loaded.owners:
        message = f"{site!r} holds no rows in {loaded.name!r}; its sites are {', '.join(loaded.owners)}"
        raise ConfigError("CO-F302", f"{message}. Write --data SITE=FILE.")
    check = check_data(address, loaded, site)
    if against:
        check = _compare(check, address, loaded, against)
    if html is not None:
        _write_new(html, write_page(check))
    if flow is not None:
        _write_new(flow, draw_flow(check.flow, max(loaded.disclosure.cell, FLOOR)))
    print_document(check.as_dict(), "\n".join(list_lines(check)), as_json)
    if check.faults:
        raise typer.Exit(10)


def _compare(check: DataCheck, address: RowsAddress, study: Study, against: list[Path]) -> DataCheck:
    """The check with what is odd beside other sites' profiles."""
    from dataclasses import replace

    from coterie_node.data.quality.against import compare_with_profiles
    from coterie_node.data.quality.profile_file import read_profile
    from coterie_node.data.quality.study_profile import profile_study

    others = [read_profile(path) for path in against]
    own = profile_study(address, study, check.site, max(other.floor for other in others))
    return replace(check, against=compare_with_profiles(own, others))


def profile_command(
    rows: Annotated[
        str, typer.Argument(help="File of rows or source (.toml); with --study a mapping or an address too.")
    ],
    out: Annotated[Path, typer.Option(help="New file for the profile (JSON).")],
    site: Annotated[str | None, typer.Option(help="The site's name. Default: the file's.")] = None,
    floor: Annotated[int, typer.Option(min=FLOOR, help="Fewest rows behind anything in the profile.")] = FLOOR,
    study: Annotated[Path | None, typer.Option(help="Profile the variables of this study, in its words.")] = None,
    as_json: Json = False,
) -> None:
    """Write what a site's columns are, in bands and round numbers above a floor, for others to draft a study with.

    Read the file before others get it: it names your columns and levels.
    """
    from coterie_node.data.draft.site_look import look_at_file
    from coterie_node.data.draft.source_look import is_source, look_at_source, name_site_of
    from coterie_node.data.installed_source import parse_rows_address
    from coterie_node.data.quality.profile_file import write_profile
    from coterie_node.data.quality.study_profile import profile_study
    from coterie_node.run.study_files import load_study

    name = site or name_site_of(Path(rows))
    if study is None:
        profile = (look_at_source if is_source(Path(rows)) else look_at_file)(Path(rows), name, floor)
    else:
        profile = profile_study(parse_rows_address(rows), load_study(study), name, floor)
    write_profile(profile, out)
    if as_json:
        print_json(profile.model_dump(mode="json", exclude_defaults=True))
        return
    columns = pluralise(len(profile.columns), "column")
    print(f"Profile of {name}: {out}, {columns}; nothing in it stands on fewer than {floor} rows.")
    print("Read it, then give it to the people who draft the study.")


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError("CO-F232", f"{path} cannot be written: {error.strerror}. Name another file.") from None
