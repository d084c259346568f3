"""The experiment's tables: text and Markdown for people, one row a trial and model for CSV and Parquet."""

from __future__ import annotations

from collections.abc import Sequence

from coterie_learners.errors import pluralise
from coterie_node.data.arrow import pa
from coterie_node.experiment.comparison import Quartiles
from coterie_node.experiment.results import Experiment, list_usable

Row = tuple[str, ...]
AREA_HEAD: Row = ("model", "trials", "median AUC", "quartiles", "separated or collinear")
TEST_HEAD: Row = ("a", "b", "trials", "median of a - b", "p", "p (Holm)")
SECONDS_HEAD: Row = ("learner", "runs", "median seconds an iteration", "quartiles")


def list_areas(experiment: Experiment) -> list[Row]:
    """A line for each model."""
    lines: list[Row] = []
    for name, areas in experiment.areas.items():
        values = list_usable(areas)
        box = Quartiles.of(values) if values else None
        policies = ", ".join(f"{policy} {count}" for policy, count in experiment.count_policies(name).items())
        figures = (f"{box.median:.4f}", f"{box.low:.4f} to {box.high:.4f}") if box else ("-", "-")
        lines.append((name, str(len(values)), *figures, policies or "none"))
    return lines


def list_tests(experiment: Experiment) -> list[Row]:
    """A line for each pair of models."""
    return [
        (t.a, t.b, str(t.trials), f"{t.difference:+.4f}", f"{t.p_value:.3g}", f"{t.p_holm:.3g}")
        for t in experiment.tests
    ]


def list_seconds(experiment: Experiment) -> list[Row]:
    """A line for each learner, and transport if others than memory were timed."""
    lines: list[Row] = []
    for name, values in experiment.seconds.items():
        box = Quartiles.of(values)
        lines.append((name, str(len(values)), f"{box.median:.4f}", f"{box.low:.4f} to {box.high:.4f}"))
    return lines


def print_markdown(head: Row, lines: Sequence[Row]) -> str:
    """A table in Markdown."""
    rule = tuple("---" for _ in head)
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (head, rule, *lines))


def print_plain(head: Row, lines: Sequence[Row]) -> str:
    """A table for a terminal."""
    widths = [max(len(line[k]) for line in (head, *lines)) for k in range(len(head))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *lines))
    return "\n".join(line.rstrip() for line in padded)


def print_experiment(experiment: Experiment) -> str:
    """The whole experiment for a terminal: areas and seconds; the tests are in the files."""
    parts = [describe_setting(experiment), print_plain(AREA_HEAD, list_areas(experiment))]
    if experiment.seconds:
        parts.append(print_plain(SECONDS_HEAD, list_seconds(experiment)))
    return "\n\n".join(parts)


def print_report(experiment: Experiment) -> str:
    """The experiment as a page of Markdown."""
    parts = [
        f"# {experiment.plan.title or experiment.plan.name}",
        describe_setting(experiment),
        "## Area under the ROC curve on rows left out of the fit",
        print_markdown(AREA_HEAD, list_areas(experiment)),
        "## Wilcoxon's signed-rank tests, two-sided",
        print_markdown(TEST_HEAD, list_tests(experiment)),
    ]
    if experiment.seconds:
        parts += ["## Seconds an iteration", print_markdown(SECONDS_HEAD, list_seconds(experiment))]
    return "\n\n".join(parts) + "\n"


def describe_setting(experiment: Experiment) -> str:
    """What was run, on which rows and how."""
    plan = experiment.plan
    policy = {"ridge": f"again with a ridge of {plan.penalty:g}", "firth": "again with Firth's penalty"}
    counts = f"{pluralise(len(experiment.trials), 'trial')}, {pluralise(experiment.rows, 'row')}"
    return (
        f"{counts} ({experiment.dropped} dropped for missing values), "
        f"{plan.test_share:.0%} of them scored and not fitted. {experiment.setting} A fit whose rows separate the "
        f"outcome or are collinear is {'made ' + policy[plan.separation] if plan.separation in policy else 'skipped'}, "
        "and counted."
    )


def make_trial_table(experiment: Experiment) -> pa.Table:
    """One row for each trial and model."""
    rows = [
        {
            "trial": trial.number,
            "model": score.model,
            "auc": score.auc,
            "seconds": score.seconds,
            "rounds": score.rounds,
            "policy": score.policy,
            "cause": score.cause,
        }
        for trial in experiment.trials
        for score in trial.scores
    ]
    kinds: dict[str, pa.DataType] = {
        "trial": pa.int64(),
        "model": pa.string(),
        "auc": pa.float64(),
        "seconds": pa.float64(),
        "rounds": pa.int64(),
        "policy": pa.string(),
        "cause": pa.string(),
    }
    return pa.Table.from_pylist(rows, pa.schema([pa.field(name, kind) for name, kind in kinds.items()]))
