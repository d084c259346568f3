"""A drafted study and its sites' mappings as TOML that people read, with a comment for each thing to confirm."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coterie_learners.study.document import Variable
from coterie_node.data.draft.merge import FIRST_DAY, LAST_DAY, Merged
from coterie_node.data.draft.vocabulary import load_vocabulary
from coterie_node.data.mapping.document import ColumnMapping
from coterie_node.data.quality.profile import SiteProfile

# A longer formula is for people to write.
MOST_TERMS = 12


@dataclass(frozen=True)
class StudyDraft:
    """The text of a study, of one mapping a site, and all that people must read before they use them."""

    study: str
    mappings: Mapping[str, str]
    outcome: str
    questions: Sequence[str]
    apart: Sequence[str]


def write_draft(
    name: str,
    profiles: Sequence[SiteProfile],
    merged: Merged,
    files: Mapping[str, str],
    heads: Mapping[str, str] | None = None,
) -> StudyDraft:
    """The draft; `files` are the sites' files as their mappings name them, `heads` what names a source instead."""
    outcome = choose_outcome(merged.variables)
    own = heads or {}
    mappings = {p.site: write_mapping(p, merged.rules[p.site], files[p.site], own.get(p.site, "")) for p in profiles}
    study = _write_study(name, [p.site for p in profiles], merged, outcome)
    return StudyDraft(study, mappings, outcome, tuple(merged.questions), tuple(merged.apart))


def choose_outcome(variables: Mapping[str, Variable]) -> str:
    """The variable that a study may explain: one of that name, else the first that is yes or no; "" for none."""
    known = load_vocabulary()["outcomes"]["words"]
    named = [name for word in known for name in variables if word == name]
    binary = [name for name, variable in variables.items() if variable.type == "binary"]
    rest = [name for name, variable in variables.items() if variable.type != "category"]
    return next(iter((*named, *binary, *rest)), "")


def _write_study(name: str, sites: Sequence[str], merged: Merged, outcome: str) -> str:
    terms = [variable for variable in merged.variables if variable != outcome]
    model = " + ".join(terms[:MOST_TERMS]) or "1"
    lines = [
        "# A draft that `coterie study draft` wrote of the sites' own columns. Read all of it: every line is a guess.",
        f"name = {_quote(name)}",
        'title = ""                             # a sentence for people',
        f"sites = [{', '.join(map(_quote, sites))}]",
        "# The outcome and the covariates that the question of the study names; the draft took all columns in common.",
        f"formula = {_quote(f'{outcome} ~ {model}')}",
    ]
    lines += [f"# not in the formula: {', '.join(terms[MOST_TERMS:])}"] if terms[MOST_TERMS:] else []
    lines += ["", "[learner]", 'name = "glore"', f"family = {_quote(_choose_family(merged.variables, outcome))}"]
    lines += ["", "[rows]", 'missing = "drop"                      # rows that lack a value are left out, and counted']
    for variable, declared in merged.variables.items():
        lines += ["", *_write_variable(variable, declared)]
    for variable in merged.dates:
        span = f"range = [{FIRST_DAY}, {LAST_DAY}]  # no model reads a date; a condition or a derived variable does"
        lines += ["", f"[variables.{variable}]", 'type = "date"', span]
    lines += ["", *_suggest_conditions(merged)]
    lines += ["", *_comment("Left out:", merged.apart), *_comment("To confirm:", merged.questions)]
    return "\n".join(lines).rstrip() + "\n"


def _suggest_conditions(merged: Merged) -> list[str]:
    """How the study would take some rows only, and derive variables: lines to uncomment."""
    dates, numbers = list(merged.dates), [n for n, v in merged.variables.items() if v.type in ("number", "count")]
    rules = [f"{numbers[0]} >= {_number(merged.variables[numbers[0]].bounds[0])}"] if numbers else []
    rules += [f"{dates[0]} >= 2020-01-01"] if dates else []
    if not rules:
        return []
    lines = ["# Rows that fulfil conditions, and variables that each site derives (docs/cohort.md):"]
    lines += ["# [cohort]", f"# where = {_quote(' and '.join(rules))}"]
    derived = [f"# days = {_quote(f'{dates[1]} - {dates[0]}')}"] if len(dates) > 1 else []
    return lines + (["# [derive]", *derived] if derived else [])


def _choose_family(variables: Mapping[str, Variable], outcome: str) -> str:
    kind = variables[outcome].type if outcome in variables else "binary"
    return {"binary": "binomial", "count": "poisson", "number": "gaussian"}.get(kind, "multinomial")


def _write_variable(name: str, variable: Variable) -> list[str]:
    lines = [f"[variables.{name}]", f"type = {_quote(variable.type)}"]
    lines += [f"unit = {_quote(variable.unit)}"] if variable.unit else []
    if variable.range is not None:
        low, high = variable.range
        lines.append(f"range = [{_number(low)}, {_number(high)}]  # widened to round numbers; say what is possible")
    if variable.levels:
        levels = ", ".join(map(_quote, variable.levels))
        lines.append(f"levels = [{levels}]  # by count; the first is the reference")
    return lines


def write_mapping(profile: SiteProfile, rules: Mapping[str, ColumnMapping], file: str, head: str = "") -> str:
    """One site's mapping; its questions stand beside the columns that they are about. `head` names a source."""
    form = profile.written
    lines = [f"# What the columns of {profile.site} are in the study's words. The rows themselves stay as they are."]
    if head:
        lines += head.rstrip().splitlines()
    elif file.endswith(".toml"):  # at another site
        lines += [f"# Write the lines of {_plain(file)} of the site here, in place of the next one."]
        lines += [f"file = {_quote(file)}"]
    else:
        lines += [f"file = {_quote(file)}", "", "[table]", f"separator = {_quote(form.separator)}"]
        lines += [f"decimal = {_quote(form.decimal)}", f"encoding = {_quote(form.encoding)}"]
        lines += [f"skip = {form.skip}  # lines before the header"] if form.skip else []
    asked = {look.name: look.questions for look in profile.columns}
    for name, rule in rules.items():
        lines += ["", f"[columns.{name}]", *_comment("", asked.get(rule.source, ())), *_write_rule(rule)]
    lines += _write_dates(profile)
    aside = [f"{look.name}: {look.apart}" for look in profile.columns if look.apart]
    return "\n".join([*lines, "", *_comment("Left out:", aside)]).rstrip() + "\n"


def _write_rule(rule: ColumnMapping) -> list[str]:
    lines = [f"from = {_quote(rule.source)}"]
    lines += [f"missing = [{', '.join(map(_quote, rule.missing))}]  # counts as missing"] if rule.missing else []
    lines += [f"date = {_quote(rule.date.text)}"] if rule.date is not None else []
    if rule.levels:
        pairs = ", ".join(f"{_quote(word)} = {_quote(level)}" for word, level in rule.levels.items())
        lines.append(f"levels = {{ {pairs} }}")
    if rule.yes:
        lines.append(f"yes = [{', '.join(map(_quote, rule.yes))}]")
        lines.append(f"no = [{', '.join(map(_quote, rule.no))}]")
    lines += [f"unit = {_quote(rule.unit)}"] if rule.unit else []
    lines += [f"factor = {_number(rule.factor)}"] if rule.factor != 1.0 else []
    lines += [f"divisor = {_number(rule.divisor)}"] if rule.divisor != 1.0 else []
    return lines


def _write_dates(profile: SiteProfile) -> list[str]:
    """The dates of the file, for `coterie data check`; no study reads them unless a column counts days."""
    dates = {look.name: look for look in profile.columns if look.kind == "date"}
    if not dates:
        return []
    lines = [
        "",
        "[dates]",
        "# `coterie data check` reads these, whether a study does or not.",
    ]
    lines += [line for look in dates.values() for line in _comment("", look.questions)]
    lines.append(f"forms = {{ {', '.join(f'{_quote(n)} = {_quote(look.form)}' for n, look in dates.items())} }}")
    orders = ", ".join(f"[{', '.join(map(_quote, names))}]" for names in profile.order)
    return [*lines, f"order = [{orders}]"] if orders else lines


def _comment(head: str, lines: Iterable[str]) -> list[str]:
    """Lines of a comment; what is not printable in them is spelled out, so that none ends it."""
    texts = list(map(_plain, lines))
    if not texts:
        return []
    return [*([f"# {head}"] if head else []), *(f"# {'- ' if head else ''}{text}" for text in texts)]


def _plain(line: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _quote(text: str) -> str:
    """A text as TOML writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    return f"{value:.15g}"
