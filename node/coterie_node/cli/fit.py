"""The commands that fit a study on this machine: demo, simulate, and the process of one of their sites."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.audit.result import Result
from coterie_node.cli.options import Format, Json, Level, Out, Shape, choose_shape, open_site
from coterie_node.cli.output import save_or_print, save_or_print_fit
from coterie_node.data.installed_source import RowsAddress, parse_rows_address
from coterie_node.data.site_split import split_by_site
from coterie_node.demo.site_process import build_step_line, take_part_in
from coterie_node.run.study_files import load_study

if TYPE_CHECKING:
    from coterie_node.run.preview import PayloadPreview


def demo_command(
    sites: Annotated[
        int | None, typer.Option(min=1, max=20, help="Number of sites, each a process of its own.", show_default="3")
    ] = None,
    learner: Annotated[str, typer.Option(help="Learner to run.")] = "glore",
    chain: Annotated[str, typer.Option(help="Chain to run on: anvil, or clique (one Geth a site).")] = "anvil",
    store: Annotated[str, typer.Option(help="Store to run on: folder, or kubo (one Kubo a site).")] = "folder",
    at: Annotated[Path | None, typer.Option(help="Run on the network that `coterie devnet up` started there.")] = None,
    keep: Annotated[Path | None, typer.Option(help="New folder in which the whole run is left.")] = None,
    level: Level = 0.95,
    shape: Shape = Format.text,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit death by 1992 in NHEFS on several sites over a ledger, compare with the pooled fit, and replay it all."""
    from coterie_node.demo.cases import find_case
    from coterie_node.demo.run import (  # its imports are slow and no other command needs them
        demo,
        open_run_folder,
        rerun,
    )
    from coterie_node.network.devnet import make_settings

    case = find_case(learner)
    settings = make_settings(chain, store)
    shape = choose_shape(shape, as_json, out)
    if at is not None:
        from coterie_node.site.run_folder import RunFolder

        _print(replace(rerun(RunFolder(at), case), level=level), shape, out)
        return
    with open_run_folder(keep) as place:
        names = case.site_names(sites or case.sites)
        result = demo(place, case, names, settings, lambda line: _print_progress(line, shape))
    _print(replace(result, level=level), shape, out)


def simulate_command(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).")],
    data: Annotated[
        list[str],
        typer.Option(
            help="SITE=FILE (CSV, Parquet or a mapping) or SITE=ADDRESS, once for each site; or all=FILE with --by."
        ),
    ],
    by: Annotated[str | None, typer.Option(help="Column of the one CSV file that names each row's site.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print all that would leave each site, and the gate's verdict.")
    ] = False,
    node: Annotated[
        Path | None, typer.Option(help="With --dry-run: this site's node, whose log has earlier evaluations.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="New folder that keeps the run, with copies of the rows: each site runs as a process."),
    ] = None,
    level: Level = 0.95,
    shape: Shape = Format.text,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a study on files of this machine, all sites in one process, and replay it.

    With --dry-run one site's file is enough to see what that site would post first. With --keep each site is a process,
    on a development chain in that folder: `coterie audit replay|export|report --at FOLDER` then audit the run.
    """
    from coterie_node.analysis.analyse import analyse

    if dry and keep is not None:
        raise typer.BadParameter(
            "A dry run posts nothing that could be kept. Leave out one of them.", param_hint="--keep"
        )
    files, shape = dict(_pair(d) for d in data), choose_shape(shape, as_json, out)
    loaded = load_study(study)
    with split_by_site(loaded, files, by) as parts:
        if dry:
            _preview(loaded, parts, node, shape)
            return
        if keep is None:
            result = analyse(loaded, parts, lambda p: _print_progress(build_step_line(p), shape))
        else:
            result = _keep_run(study, loaded, parts, keep, shape)
    _print(replace(result, level=level), shape, out)


def _preview(study: Study, rows: Mapping[str, RowsAddress], node: Path | None, shape: Format) -> None:
    """Print what would leave, and what the study discloses; exit status 14 if a payload would be kept back."""
    from coterie_node.cli.study.advise import list_repeats  # it imports every learner
    from coterie_node.run.preview import dry_run
    from coterie_node.verbs.disclosure import disclosure_lines

    if shape is Format.text:
        folder = open_site(node, None, None) if node is not None else None
        print("\n".join([*disclosure_lines(study), *list_repeats(study, folder)]))
    _print_leaving(dry_run(study, rows), shape)


def _keep_run(path: Path, study: Study, rows: Mapping[str, RowsAddress], keep: Path, shape: Format) -> Result:
    """Fit a study on files, in a folder that keeps the run."""
    from coterie_node.analysis.analyse import load_sites
    from coterie_node.demo.kept_files import keep_files
    from coterie_node.demo.run import open_run_folder, simulate_kept

    files, loaded = keep_files(path, rows), load_sites(study, rows)
    with open_run_folder(keep) as place:
        return simulate_kept(place, study, files, loaded, lambda line: _print_progress(line, shape))


def take_part_command(
    at: Annotated[Path, typer.Option(help="Folder of the run.")],
    site: Annotated[list[str], typer.Option(help="Name of this site; with --to, of each site.")],
    approve: Annotated[str, typer.Option(help="Hash of the study that this site's people approved.")],
    to: Annotated[list[int] | None, typer.Option(help="Open file for the lines of each --site.")] = None,
) -> None:
    """Take part in a study as one site; progress as JSON lines.

    With --to this process imports what sites need, forks one process for each --site, and says how each ended.
    """
    take_part_in(at, site, approve, to)


def _pair(text: str) -> tuple[str, RowsAddress]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise StudyError(
            "CO-S107", f"--data {text!r} is not SITE=FILE. Write the name of a site, `=` and the path of its file."
        )
    return name, parse_rows_address(path)


def _print_progress(line: Mapping[str, Any], shape: Format) -> None:
    """One line per round on standard error, for people; before the first, who will learn what."""
    if shape is Format.text and "trust" in line:
        print(line["trust"], file=sys.stderr)
    if shape is not Format.text or not {"deviance", "gain"} <= line.keys():
        return
    message = f"round {line['round'] + 1:2d}  server {line['sites'][0]:<10s} deviance {line['deviance']:.6f}"
    print(f"{message}  next step {max(line['gain'], 0.0) ** 0.5:.1e} standard errors", file=sys.stderr)


def _print_leaving(leaving: list[PayloadPreview], shape: Format) -> None:
    """Print payloads with their verdicts; exit status 14 if one would be kept back."""
    if shape is Format.json:
        print(json.dumps([payload.as_dict() for payload in leaving], indent=2))
    else:
        print("\n".join(payload.text() for payload in leaving))
    if any(payload.release.verdict.refused for payload in leaving):
        raise typer.Exit(14)


def _print(result: Result, shape: Format, out: Path | None) -> None:
    """Print a result, or write it into a file; exit status 22 if its replay failed."""
    if shape is Format.json:
        save_or_print(json.dumps(result.as_dict(), indent=2), out)
    elif shape is Format.text:
        save_or_print(result.text(), out)
    else:
        save_or_print_fit(result.fit, result.study, shape, out, result.level, result.beside)
    if result.replay is None or not result.replay.intact:
        raise typer.Exit(22)
