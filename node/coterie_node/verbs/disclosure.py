"""What a study does and discloses, for the people who decide about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from coterie_learners.core.registry import learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.preparation.words import list_preparation
from coterie_learners.sums.families import choose_family

# What the parts of a disclosure are called where people read them.
HEADINGS = {
    "leaves": "What leaves a site, and who reads it:",
    "collusion": "Who must not collude, and who is trusted:",
    "everybody": "What everybody learns:",
}


# What holds for every study; docs/disclosure.md has the whole list.
NOT_STOPPED = (
    "Bounds and probabilities: a value may be nearly determined, and readers may guess who is in the data.",
    "Differences with what another network released, or with columns and patients that are written in another way.",
    "What a person of a site says yes to.",
)


def describe(study: Study) -> dict[str, Any]:
    """What a completed study does, for the people who approve it."""
    learner = learner_of(study)
    schedule = learner.schedule(study)
    return {
        "study": study.name,
        "hash": study.hash.hex(),
        "sites": list(study.sites),
        "split": study.split,
        **({"models": _list_models(study), "cohort": _describe_cohort(study)} if study.models else {}),
        **({"rows": list(list_preparation(study))} if study.preparation is not None else {}),
        "formula": study.formula,
        "learner": f"{learner.name} {learner.version}",
        "options": _name_link(study.learner.options),
        "floors": study.disclosure.model_dump(),
        "schedule": schedule.model_dump(mode="json"),
        "discloses": learner.discloses(study).as_dict(),
    }


def _name_link(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the link that stands for none: the first one of the family."""
    if "family" not in options or options.get("link", "") is not None:
        return dict(options)
    return {**options, "link": choose_family(options["family"], None).link}


def _list_models(study: Study) -> list[str]:
    """Each of several models with its formula and the options that it sets itself."""
    options = ("".join(f", {key} = {json.dumps(value)}" for key, value in m.options.items()) for m in study.models)
    return [f"{m.name}: {m.formula}{text}" for m, text in zip(study.models, options, strict=True)]


def _describe_cohort(study: Study) -> str:
    """On which rows several models stand."""
    rule = "a row that lacks one is left out of all" if study.rows.missing == "drop" else "no row may lack one"
    return f"all {len(study.models)} models stand on one: of {', '.join(Design(study).read)} {rule}"


def disclosure_lines(study: Study) -> Iterator[str]:
    """What a study discloses, for a terminal: a heading, and a line for each sentence."""
    for heading, sentences in learner_of(study).discloses(study).paragraphs.items():
        yield HEADINGS[heading]
        yield from (f"  {sentence}" for sentence in sentences)
    yield "What is not stopped (docs/disclosure.md has all of it):"
    yield from (f"  {sentence}" for sentence in NOT_STOPPED)
