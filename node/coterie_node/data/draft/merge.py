"""From the profiles of several sites to one set of variables, and a mapping for each; every disagreement is named."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coterie_learners.study.days import read_day
from coterie_learners.study.document import Variable
from coterie_node.data.draft.vocabulary import (
    find_conversion,
    knows_level,
    list_known_ratios,
    load_vocabulary,
    name_level,
)
from coterie_node.data.mapping.dates import DateForm
from coterie_node.data.mapping.document import ColumnMapping
from coterie_node.data.quality.profile import ColumnProfile, SiteProfile, widen

# Medians that differ by more are said to be of different units, perhaps.
UNLIKELY_RATIO = 3.0
# A range from profiles is widened by this part of its width at each end.
BEYOND = 10.0
# A known conversion explains a ratio of medians that comes so near it.
NEAR = 1.6

# The range of a date of which nothing is known.
FIRST_DAY, LAST_DAY = "1900-01-01", "2099-12-31"
ANY_DAY = (read_day(FIRST_DAY) or 0.0, read_day(LAST_DAY) or 0.0)

# ISO/IEC 5218, which files with 1 and 2 for sex mostly follow.
_SEX_CODES = {"1": "male", "2": "female"}


@dataclass
class Merged:
    """What the sites' columns have in common: variables, each site's rule for them, and what people must confirm."""

    profiles: Sequence[SiteProfile]
    variables: dict[str, Variable] = field(default_factory=dict)
    dates: dict[str, Variable] = field(default_factory=dict)
    rules: dict[str, dict[str, ColumnMapping]] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)


def merge_profiles(profiles: Sequence[SiteProfile]) -> Merged:
    """One set of variables for all sites."""
    merged = Merged(profiles, rules={profile.site: {} for profile in profiles})
    for profile in profiles:
        for look in profile.columns:
            if look.apart:
                merged.apart.append(f"{profile.site}: {look.name!r} is left out: {look.apart}.")
            merged.questions += [f"{profile.site}: {look.name!r}: {text}." for text in look.questions]
    names = dict.fromkeys(look.variable for p in profiles for look in p.columns if look.kind not in ("apart", "date"))
    _merge_dates(merged)
    for name in names:
        looks = {p.site: own for p in profiles if (own := p.find(name)) is not None}
        lacking = [profile.site for profile in profiles if profile.site not in looks]
        if lacking:
            have = ", ".join(f"{site} has {look.name!r}" for site, look in looks.items())
            merged.apart.append(f"{name}: {have}; no column of that name at {', '.join(lacking)}.")
            continue
        _merge_variable(merged, name, looks)
    return merged


def _merge_dates(merged: Merged) -> None:
    """The dates that all sites have under one name: for conditions and derived variables."""
    names = dict.fromkeys(look.variable for p in merged.profiles for look in p.columns if look.kind == "date")
    for name in names:
        looks = {p.site: own for p in merged.profiles if (own := p.find(name)) is not None and own.kind == "date"}
        if len(looks) < len(merged.profiles):
            continue
        merged.dates[name] = Variable(type="date", range=ANY_DAY)
        for site, look in looks.items():
            rule = ColumnMapping(source=look.name, missing=look.codes, date=DateForm.parse(look.form))
            merged.rules[site][name] = rule


def _merge_variable(merged: Merged, name: str, looks: Mapping[str, ColumnProfile]) -> None:
    kinds = {look.kind for look in looks.values()}
    if kinds <= {"number", "count"}:
        _merge_numbers(merged, name, looks)
    elif kinds <= {"binary", "category"}:
        _merge_levels(merged, name, looks)
    else:
        each = ", ".join(f"{site}: {look.kind} ({look.name!r})" for site, look in looks.items())
        merged.apart.append(f"{name}: the sites hold different things under it: {each}.")


def _merge_numbers(merged: Merged, name: str, looks: Mapping[str, ColumnProfile]) -> None:
    units = Counter(look.unit for look in looks.values() if look.unit)
    unit = units.most_common(1)[0][0] if units else ""
    rules = {site: _rule_for_unit(merged, site, name, look, unit) for site, look in looks.items()}
    ranges = [_convert_range(look, rules[site]) for site, look in looks.items() if look.low is not None]
    partial = any(profile.floor for profile in merged.profiles)
    if not ranges:
        merged.apart.append(f"{name}: no site has enough rows to say its range.")
        return
    whole = all(look.kind == "count" for look in looks.values()) and not any(rule.converts for rule in rules.values())
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if partial:  # a few values may lie beyond what a profile says
        width = high - low
        low, high = (0.0 if low >= 0.0 else low - width / BEYOND), high + width / BEYOND
    if partial or any(rule.converts for rule in rules.values()):
        low, high = widen(low, high)
    merged.variables[name] = Variable(type="count" if whole else "number", unit=unit, range=(low, high))
    for site, rule in rules.items():
        merged.rules[site][name] = rule
    merged.questions += find_odd_medians(name, {s: _middle(looks[s], rules[s]) for s in looks})


def _rule_for_unit(merged: Merged, site: str, name: str, look: ColumnProfile, unit: str) -> ColumnMapping:
    """How a site's column becomes the study's unit."""
    plain = ColumnMapping(source=look.name, missing=look.codes, unit=look.unit)
    if not look.unit:
        if unit:
            merged.questions.append(f"{site}: {look.name!r} names no unit; {unit} is taken, as elsewhere.")
        return plain
    if look.unit == unit:
        return plain
    conversion = find_conversion(name, look.unit, unit)
    if conversion is None:
        merged.questions.append(
            f"{site}: {look.name!r} is in {look.unit}, elsewhere it is in {unit}: give `factor` and `divisor`."
        )
        return plain
    merged.questions.append(f"{site}: {look.name!r} is in {look.unit} and is converted to {unit}.")
    return plain.model_copy(update={"factor": conversion.factor, "divisor": conversion.divisor})


def _convert_range(look: ColumnProfile, rule: ColumnMapping) -> tuple[float, float]:
    assert look.low is not None
    assert look.high is not None
    return _convert(look.low, rule), _convert(look.high, rule)


def _convert(value: float, rule: ColumnMapping) -> float:
    return value * rule.factor / rule.divisor + rule.offset


def _middle(look: ColumnProfile, rule: ColumnMapping) -> float | None:
    return None if look.quarters is None else _convert(look.quarters[1], rule)


def find_odd_medians(name: str, medians: Mapping[str, float | None]) -> list[str]:
    """Sites whose median is several times that of the others, and the conversion that would explain it."""
    known = {site: median for site, median in medians.items() if median is not None and median > 0.0}
    out = []
    for site, median in known.items():
        others = sorted(value for other, value in known.items() if other != site)
        if not others:
            continue
        typical = others[len(others) // 2] if len(others) % 2 else others[len(others) // 2 - 1]
        ratio = median / typical
        if max(ratio, 1.0 / ratio) > UNLIKELY_RATIO:
            reason = explain_ratio(name, ratio)
            out.append(f"{site}: {name} has the median {median:.2g}, elsewhere about {typical:.2g}: {reason}.")
    return out


def explain_ratio(name: str, ratio: float) -> str:
    """Which units would explain best that values are so many times those of others."""
    fits: list[tuple[bool, float, str]] = []
    for small, large, factor, own in list_known_ratios(name):
        for wrong, right, expected in ((small, large, 1.0 / factor), (large, small, factor)):
            if ratio > 0.0 and expected / NEAR < ratio < expected * NEAR:
                distance = abs(math.log(ratio / expected))
                fits.append((not own, distance, f"perhaps {wrong} where the others have {right}"))
    return min(fits)[2] if fits else "the unit may be another"


def _merge_levels(merged: Merged, name: str, looks: Mapping[str, ColumnProfile]) -> None:
    if all(look.kind == "binary" for look in looks.values()):
        merged.variables[name] = Variable(type="binary")
        for site, look in looks.items():
            merged.rules[site][name] = _rule_for_yes(look)
        return
    spellings: dict[str, str] = {}
    names = {site: _name_levels(merged, site, look, spellings) for site, look in looks.items()}
    shares: dict[str, float] = {}
    for site, look in looks.items():
        for level in look.levels:
            target = names[site][level.word]
            shares[target] = shares.get(target, 0.0) + level.share
    levels = tuple(sorted(shares, key=lambda level: -shares[level]))
    if len(levels) < 2:
        merged.apart.append(f"{name}: fewer than two levels have enough rows.")
        return
    merged.variables[name] = Variable(type="category", levels=levels)
    for site, look in looks.items():
        words = names[site]
        recodes = any(word != level for word, level in words.items())
        rule = ColumnMapping(source=look.name, missing=look.codes, levels=words if recodes else {})
        merged.rules[site][name] = rule
    _ask_about_levels(merged, name, levels, {site: set(words.values()) for site, words in names.items()})


def _rule_for_yes(look: ColumnProfile) -> ColumnMapping:
    words = [level.word.casefold() for level in look.levels]
    vocabulary = load_vocabulary()
    yes = tuple(dict.fromkeys(word for word in words if word in vocabulary["yes"]["words"]))
    no = tuple(dict.fromkeys(word for word in words if word in vocabulary["no"]["words"]))
    plain = {*words} == {"0", "1"}
    rule = ColumnMapping(source=look.name, missing=look.codes)
    return rule if plain or not yes or not no else rule.model_copy(update={"yes": yes, "no": no})


def _name_levels(merged: Merged, site: str, look: ColumnProfile, spellings: dict[str, str]) -> dict[str, str]:
    """The study's level of each of a site's words; words that differ in case alone are one level."""
    words = [level.word for level in look.levels]
    if look.variable == "sex" and set(words) <= set(_SEX_CODES):
        merged.questions.append(f"{site}: {look.name!r}: 1 is taken for male and 2 for female (ISO/IEC 5218).")
        return {word: _SEX_CODES[word] for word in words}
    # A single letter means little beside words that are not known: F of N, F and C is not female.
    sure = all(knows_level(word) for word in words)
    names = {word: name_level(word) if sure or len(word) > 1 else word for word in words}
    return {word: spellings.setdefault(name.casefold(), name) for word, name in names.items()}


def _ask_about_levels(merged: Merged, name: str, levels: Sequence[str], by_site: Mapping[str, set[str]]) -> None:
    for site, own in by_site.items():
        missing = [level for level in levels if level not in own]
        if missing:
            merged.questions.append(f"{site}: {name} has no {', '.join(missing)} here, and other sites have it.")
