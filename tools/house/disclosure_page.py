"""Write what each learner discloses into docs/disclosure.md; `--check` compares instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from coterie_learners.core.registry import Learner, complete_study, find_learner, list_learners
from coterie_learners.study.document import Study

PAGE = Path(__file__).parents[2] / "docs" / "disclosure.md"
MARK = "<!-- The rest is written by tools/house/disclosure_page.py. -->"
_VARIABLES = {
    "died": {"type": "binary"},
    "male": {"type": "binary"},
    "age": {"type": "number", "range": [18, 100]},
    "pressure": {"type": "number", "range": [40, 250]},
    "months": {"type": "number", "range": [0, 100], "unit": "months"},
}
# What learners of times to an event, and of treatments or published models, ask for.
_ASKED = {
    "treatment": "male",
    "time": "months",
    "event": "died",
    "group": "male",
    "coefficients": {"(Intercept)": -6.0, "male": 0.3, "age": 0.05, "pressure": 0.01},
    "time_grid": {"width": 1, "horizon": 60},
}
_SITES = ["north", "south", "east"]
_HEADINGS = {"leaves": "Leaves a site", "collusion": "Collusion", "everybody": "Everybody learns"}


def make_study(learner: Learner, options: Mapping[str, object]) -> Study:
    """A small study of a learner with these options, over three sites.

    Its columns are split if the learner takes that; the last site of an interactive learner is a helper without data.
    """
    # A number without a grid has no patterns to count.
    formula = "died ~ male" if learner.reads == "codes" else "died ~ male + age + pressure"
    plain = {"name": "example", "sites": _SITES, "formula": formula, "variables": _VARIABLES}
    curves = "group" in learner.options.model_fields
    asked = {name: value for name, value in _ASKED.items() if name in learner.options.model_fields}
    asked = asked if curves else {name: value for name, value in asked.items() if name != "time_grid"}
    if "effect" in learner.options.model_fields and options.get("effect") != "hazard_ratio":
        asked.pop("time", None)
    plain |= {"learner": {"name": learner.name, **asked, **options}}
    plain |= {"formula": "died ~ 1"} if "time_grid" in asked else {}
    if learner.helpers:
        plain |= {"helpers": ["east"]}
    elif "columns" in learner.splits:
        south, east = (["male", "age"], []) if learner.talks else (["male"], ["age"])
        plain |= {"columns": {"north": ["died", "pressure"], "south": south, "east": east}}
        plain |= {"identifier": ["code"], "disclosure": {"rebuild": "allow"}}
    return complete_study(Study.model_validate_json(json.dumps(plain)))


def render_page() -> str:
    """The part of the page that learners say."""
    return "\n".join(_list_lines())


def _list_lines() -> Iterator[str]:
    yield "\n\n## By learner and option\n"
    yield "The examples have the sites north, south and east. `coterie study show` prints the same for your study.\n"
    for learner in map(find_learner, list_learners()):
        for options in learner.profile.examples:
            yield from _describe_choice(learner, options)


def _describe_choice(learner: Learner, options: Mapping[str, object]) -> Iterator[str]:
    study = make_study(learner, options)
    chosen = ", ".join(f"{name} = {value}" for name, value in options.items())
    yield f"### {learner.name}: {chosen}\n"
    for part, sentences in learner.discloses(study).paragraphs.items():
        yield f"{_HEADINGS[part]}:\n"
        yield from (f"- {sentence.replace('*', chr(92) + '*')}" for sentence in sentences)
        yield ""


def main() -> int:
    """0 if the page is as it should be, or was written."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    wanted = render_page()
    if "--check" in sys.argv:
        if rest != wanted:
            print("docs/disclosure.md is not up to date. Run: python tools/house/disclosure_page.py")
        return int(rest != wanted)
    PAGE.write_text(f"{head}{MARK}{wanted}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
