"""`coterie experiment`: D-CLEF's evaluation of an experiment file, on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import Json
from coterie_node.cli.output import print_document


def experiment_command(
    experiment: Annotated[Path, typer.Argument(help="Experiment file (TOML); docs/experiment.md explains it.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials, instead of the file's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results; finished trials in it are kept.", show_default="experiment-NAME"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of trials that run at the same time.", show_default="cores")
    ] = None,
    gated: Annotated[bool, typer.Option("--gated", help="Let each site's release gate judge what leaves it.")] = False,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help="Also time the protocols over anvil, clique, redis or amqp, or redis://HOST:PORT, amqp://HOST:PORT."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit siloed, pooled, decentralised and ensemble models over permuted trials, and compare their AUC.

    It runs on one machine that has all rows; no gate judges anything without --gated. A killed experiment goes on where
    it was: the folder has a file for each finished trial.
    """
    from coterie_node.experiment.page import write_experiment
    from coterie_node.experiment.plan import read_plan
    from coterie_node.experiment.run import run_experiment
    from coterie_node.experiment.tables import print_experiment

    plan = read_plan(experiment)
    if trials is not None:
        plan = plan.model_copy(update={"trials": trials})
    folder = out or Path(f"experiment-{plan.name}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    result = run_experiment(
        plan, experiment.parent, folder / "trials", jobs or cores, print_trials, gated=gated, over=tuple(over or ())
    )
    write_experiment(result, folder)
    print_document(result.as_dict(), f"{print_experiment(result)}\n\nFigures, tests and trials: {folder}", as_json)


def print_trials(finished: int, total: int) -> None:
    """How many trials are finished, on standard error: one line that grows where it is a terminal."""
    end = "\r" if sys.stderr.isatty() and finished < total else "\n"
    print(f"trial {finished} of {total}", end=end, file=sys.stderr, flush=True)
