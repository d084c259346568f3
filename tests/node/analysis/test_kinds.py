"""Kinds of studies that once gave a wrong number, each in many variants: a result is right, warned of, or refused.

A variant changes files or declarations as hospitals do. Its slopes must be those of the pooled rows as they now are, or
the study must end with a code that names what is wrong. A site whose rows mean something else must be warned of.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from support.lanes import later, one_of_each
from support.learners.cohorts import Array

from coterie_chain.errors import ChainError
from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse

N = 900
MASKED, PLAIN = {"name": "glore"}, {"name": "glore", "aggregation": "plain"}
COLA, MASKS = {"name": "cola"}, {"name": "secure_cola", "scheme": "masks"}
FAMILIES = {"died": sm.families.Binomial(), "cost": sm.families.Gaussian(), "visits": sm.families.Poisson()}


def draw(seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, sex = np.round(rng.normal(60, 12, N).clip(20, 100), 1), rng.integers(0, 2, N)
    children = rng.integers(0, 5, N)
    chance = 1 / (1 + np.exp(0.95 - 0.05 * (age - 60) - 0.4 * sex))
    return pd.DataFrame({
        "died": (rng.random(N) < chance).astype(int),
        "age": age,
        "sex": sex,
        "children": children,
        "group": np.array(["low", "mid", "high"])[rng.integers(0, 3, N)],
        "cost": np.round(6e4 + 300 * age + 500 * children + rng.normal(0, 9e3, N), 2),
        "visits": rng.poisson(np.exp(0.02 * age - 0.2 + 0.1 * sex)),
    })  # fmt: skip


VARIABLES: Mapping[str, Mapping[str, Any]] = {
    "died": {"type": "binary"},
    "age": {"type": "number", "range": [0, 120]},
    "sex": {"type": "binary"},
    "children": {"type": "count", "range": [0, 10]},
    "group": {"type": "category", "levels": ["low", "mid", "high"]},
    "cost": {"type": "number", "range": [0, 200_000]},
    "visits": {"type": "count", "range": [0, 60]},
}


@dataclass(frozen=True)
class Files:
    """The rows of three sites as they mean it (`frames`), as they write it (`written`), and the study.

    `slopes`: the slopes that a change carries into others, by name: the result times this number is the reference's.
    """

    formula: str
    learner: Mapping[str, Any]
    frames: tuple[pd.DataFrame, ...]
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: VARIABLES)
    written: tuple[pd.DataFrame, ...] = ()
    rows: Mapping[str, Any] = field(default_factory=dict)
    sites: tuple[str, ...] = ("a", "b", "c")

    def write(self, change: Callable[[pd.DataFrame], pd.DataFrame], site: int = -1) -> Files:
        """The files written another way, all or one of them; they mean the same."""
        files = self.written or self.frames
        return replace(self, written=tuple(change(f.copy()) if site in (-1, k) else f for k, f in enumerate(files)))

    def mean(self, change: Callable[[pd.DataFrame], pd.DataFrame], site: int = -1) -> Files:
        """Other rows, at all sites or one."""
        return replace(
            self, frames=tuple(change(f.copy()) if site in (-1, k) else f for k, f in enumerate(self.frames))
        )

    def declare(self, **changes: Mapping[str, Any]) -> Files:
        return replace(self, variables={**self.variables, **changes})


def parts(frame: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    return tuple(frame.iloc[k : k + N // 3].reset_index(drop=True) for k in range(0, N, N // 3))


def study_of(formula: str, learner: Mapping[str, Any]) -> Files:
    outcome = formula.split()[0]
    family = {"died": "binomial", "cost": "gaussian", "visits": "poisson"}[outcome]
    return Files(formula, {**learner, "family": family}, parts(draw()))


def fit(files: Files) -> Fit:
    plain = {
        "name": "kinds", "sites": list(files.sites), "formula": files.formula, "learner": dict(files.learner),
        "variables": {name: dict(v) for name, v in files.variables.items()},
        "rows": dict(files.rows), "disclosure": {"cell": 0},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Any] = {}
        for site, frame in zip("abc", files.written or files.frames, strict=True):
            paths[site] = Path(folder) / f"{site}.csv"
            frame.to_csv(paths[site], index=False)
        return analyse(complete_study(Study.model_validate(plain)), paths).fit


def pooled(files: Files) -> dict[str, tuple[float, float]]:
    """Slopes and standard errors of the model on all rows as they are meant, from centred and scaled columns."""
    frame = pd.concat(files.frames, ignore_index=True)
    outcome, right = files.formula.split(" ~ ")
    columns: dict[str, Array] = {}
    for term in right.split(" + "):
        levels = files.variables[term].get("levels", ())
        more = {f"{term}[{level}]": (frame[term] == level).to_numpy(float) for level in levels[1:]}
        columns |= more or {term: frame[term].to_numpy(float)}
    places = {name: (float(v.mean()), float(v.std())) for name, v in columns.items()}
    x = np.column_stack([np.ones(len(frame)), *((v - places[n][0]) / places[n][1] for n, v in columns.items())])
    y = frame[outcome].to_numpy(float)
    place, unit = (float(y.mean()), float(y.std())) if outcome == "cost" else (0.0, 1.0)
    got = sm.GLM((y - place) / unit, x, family=FAMILIES[outcome]).fit(tol=1e-14, tol_criterion="params", maxiter=200)
    values = zip(places, got.params[1:], got.bse[1:], strict=True)
    return {name: (unit * b / places[name][1], unit * e / places[name][1]) for name, b, e in values}


def outcome_of(files: Files) -> str:
    """ "right" where all slopes follow, "warned: ..." if a site disagrees besides, or the code of the refusal."""
    try:
        got = fit(files)
    except (LearnerError, ChainError) as error:
        return error.code if error.message else "no message"
    warned = " warned" if any("do not agree on one model" in text for text in got.warnings) else ""
    values = {term: (b, e) for term, b, e in zip(got.terms, got.estimates, got.std_errors, strict=True)}
    for name, (estimate, std_error) in pooled(files).items():
        off = max(abs(values[name][0] - estimate) / std_error, abs(values[name][1] / std_error - 1))
        if off > 1e-7:
            return f"{name} is off by {off:.1e}{warned}"
    return f"right{warned}"


# Units, places and ranges


def unit(name: str, times: float, plus: float = 0.0) -> Callable[[Files], Files]:
    """A variable in another unit, measured from another zero, as all sites declare it."""

    def change(files: Files) -> Files:
        low, high = sorted(times * end + plus for end in files.variables[name]["range"])
        moved = files.mean(lambda frame: frame.assign(**{name: times * frame[name] + plus}))
        return moved.declare(**{name: {"type": "number", "range": [low, high]}})

    return change


def widen(name: str, times: float, at: float = 0.5) -> Callable[[Files], Files]:
    """A declared range so many times as wide."""

    def change(files: Files) -> Files:
        low, high = files.variables[name]["range"]
        width = (high - low) * times
        start = low - (width - (high - low)) * at
        kind = "number" if files.variables[name]["type"] == "number" else "count"
        ends = [start, start + width] if kind == "number" else [0, int(high * times)]
        return files.declare(**{name: {"type": kind, "range": ends}})

    return change


POWERS = (-6, -3, 3, 6)


def scale_variants(name: str) -> dict[str, Callable[[Files], Files]]:
    return {
        **{f"{name} times 1e{k}": unit(name, 10.0**k) for k in POWERS},
        **{f"{name} from {plus:g}": unit(name, 1.0, plus) for plus in (1e4, -1e6, 1e8)},
        f"{name} turned round": unit(name, -1.0),
        **{f"range of {name} {times:g} times": widen(name, times) for times in (10, 1e3, 1e6)},
        **{f"range of {name} 1e5 times, data at an end": widen(name, 1e5, end) for end in (0.0, 1.0)},
    }


# Ways to write the same, and other things


def text_of(name: str, words: Mapping[str, str]) -> Callable[[Files], Files]:
    """Values of a column in other words, at the second site."""
    return lambda files: files.write(lambda f: f.assign(**{name: f[name].astype(str).replace(words)}), 1)


def cell(name: str, value: str) -> Callable[[Files], Files]:
    """One value of a column, at the second site."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        out = frame.astype({name: str})
        out.loc[7, name] = value
        return out

    return lambda files: files.write(change, 1)


def at_one_site(name: str, change: Callable[[pd.Series], Any]) -> Callable[[Files], Files]:
    """The last site's values mean another thing than the declaration says."""
    return lambda files: files.mean(lambda f: f.assign(**{name: change(f[name])}), 2)


def formatted(name: str, form: str) -> Callable[[Files], Files]:
    return lambda files: files.write(lambda f: f.assign(**{name: f[name].map(form.format)}), 1)


WRITTEN: Mapping[str, tuple[Callable[[Files], Files], tuple[str, ...]]] = {
    "rows in another order": (lambda f: f.write(lambda d: d.sample(frac=1, random_state=1)), ("right",)),
    "columns in another order": (lambda f: f.write(lambda d: d[d.columns[::-1]]), ("right",)),
    "sites in another order": (lambda f: replace(f, sites=("c", "a", "b")), ("right",)),
    "columns that nobody asked for": (lambda f: f.write(lambda d: d.assign(note="x", ward=3)), ("right",)),
    "two decimals": (formatted("age", "{:.2f}"), ("right",)),
    "powers of ten": (formatted("age", "{:.3e}"), ("right",)),
    "a plus sign": (formatted("age", "+{:.1f}"), ("right", "CO-D112")),
    "zeros before": (formatted("age", "{:08.1f}"), ("right", "CO-D112")),
    "blanks": (formatted("age", " {:.1f}"), ("CO-D112",)),
    "a unit behind": (formatted("age", "{:.1f} years"), ("CO-D112",)),
    "a decimal comma": (cell("age", "61,5"), ("CO-D112",)),
    "Arabic digits": (cell("age", "\u0666\u0661"), ("CO-D112",)),
    "full width digits": (cell("age", "\uff16\uff11"), ("CO-D112",)),
    "an underscore": (cell("age", "6_1"), ("CO-D112",)),
    "hexadecimal": (cell("age", "0x3D"), ("CO-D112",)),
    "a date": (cell("age", "1961-03-02"), ("CO-D112",)),
    "a date of a spreadsheet": (cell("children", "02-Mar"), ("CO-D112",)),
    "not a number": (cell("age", "NaN"), ("CO-D117",)),
    "infinite": (cell("age", "1e999"), ("CO-D112",)),
    "TRUE and FALSE": (text_of("sex", {"1": "TRUE", "0": "FALSE"}), ("right", "CO-D115")),
    "yes and no": (text_of("sex", {"1": "yes", "0": "no"}), ("CO-D115",)),
    "1.0 and 0.0": (text_of("sex", {"1": "1.0", "0": "0.0"}), ("right",)),
    "1 and 2": (text_of("sex", {"1": "2", "0": "1"}), ("CO-D115",)),
    "a level in capitals": (text_of("group", {"mid": "Mid"}), ("CO-D116",)),
    "a level with a blank": (text_of("group", {"mid": "mid "}), ("CO-D116",)),
    "a level in full width": (
        text_of("group", {"mid": unicodedata.normalize("NFKC", "\uff4d\uff49\uff44")}), ("right",)
    ),
    "an empty level": (cell("group", ""), ("CO-D117",)),
    "an unknown level": (cell("group", "none"), ("CO-D116",)),
    "levels by number": (text_of("group", {"low": "1", "mid": "2", "high": "3"}), ("CO-D116",)),
    "a missing column": (lambda f: f.write(lambda d: d.drop(columns="age"), 1), ("CO-D106",)),
    "a constant column": (lambda f: f.write(lambda d: d.assign(sex=1), 1), ("CO-D120",)),
    "one outcome": (lambda f: f.write(lambda d: d.assign(died=0), 1), ("CO-D121",)),
    "few rows": (lambda f: f.write(lambda d: d.head(3), 1), ("CO-D118",)),
}  # fmt: skip
OTHER: Mapping[str, tuple[Callable[[Files], Files], tuple[str, ...]]] = {
    "turned labels": (at_one_site("died", lambda v: 1 - v), ("right warned",)),
    "age in months": (lambda f: at_one_site("age", lambda v: v * 12)(f), ("CO-D113",)),
    "age in decades": (at_one_site("age", lambda v: v / 10), ("right warned",)),
    "age from 120 down": (at_one_site("age", lambda v: 120 - v), ("right warned",)),
    "the levels of sex turned": (at_one_site("sex", lambda v: 1 - v), ("right", "right warned")),
    "half of the labels turned": (at_one_site("died", lambda v: v.where(v.index % 2 == 0, 1 - v)), ("right warned",)),
    "a level at one site alone": (
        lambda f: f.mean(lambda d: d.assign(group=d["group"].replace("high", "low"))).mean(
            lambda d: d.assign(group=np.resize(["low", "mid", "high"], len(d))), 2
        ),
        ("right", "CO-N131", "CO-R301"),
    ),
    "a level that nobody has": (
        lambda f: f.mean(lambda d: d.assign(group=d["group"].replace("high", "low"))), ("CO-N201", "CO-N131", "CO-D120")
    ),
    "a constant at one site, allowed": (
        lambda f: replace(f.mean(lambda d: d.assign(sex=1), 2), rows={"constant": "allow"}), ("right", "CO-N131")
    ),
    "one outcome at one site, allowed": (
        lambda f: replace(f.mean(lambda d: d.assign(died=0), 2), rows={"constant": "allow"}),
        ("right warned", "CO-R301", "CO-N131"),
    ),
    "nearly collinear": (
        lambda f: f.mean(lambda d: d.assign(children=d["age"] + 1e-3 * np.sin(np.arange(len(d))))).declare(
            children={"type": "number", "range": [0, 120]}
        ),
        ("right",),
    ),
    "collinear": (
        lambda f: f.mean(lambda d: d.assign(children=2 * d["age"])).declare(
            children={"type": "number", "range": [0, 240]}
        ),
        ("CO-D122",),
    ),
    "separated": (lambda f: f.mean(lambda d: d.assign(died=(d["age"] > 60).astype(int))), ("CO-N302",)),
    "a level without events": (
        lambda f: f.mean(lambda d: d.assign(died=d["died"].where(d["group"] != "mid", 0))), ("CO-N302",)
    ),
    "one outcome everywhere": (
        lambda f: replace(f.mean(lambda d: d.assign(died=0)), rows={"constant": "allow"}), ("CO-N301", "CO-N131")
    ),
    "twelve events": (
        lambda f: f.mean(lambda d: d.assign(died=(d.index % 75 == 3).astype(int))), ("right", "right warned", "CO-N131")
    ),
}  # fmt: skip
FULL = "age + sex + children + group"
KINDS: dict[str, tuple[Files, dict[str, tuple[Callable[[Files], Files], tuple[str, ...]]]]] = {}
for label, learner in {"masked": MASKED, "plain": PLAIN}.items():
    KINDS |= {
        f"cost, {label}": (
            study_of(f"cost ~ {FULL}", learner), {n: (c, ("right",)) for n, c in scale_variants("cost").items()}
        ),
        f"age, {label}": (
            study_of(f"died ~ {FULL}", learner), {n: (c, ("right",)) for n, c in scale_variants("age").items()}
        ),
        f"age of counts, {label}": (
            study_of(f"visits ~ {FULL}", learner), {n: (c, ("right",)) for n, c in scale_variants("age").items()}
        ),
        f"written, {label}": (study_of(f"died ~ {FULL}", learner), dict(WRITTEN)),
        f"sites that differ, {label}": (study_of(f"died ~ {FULL}", learner), dict(OTHER)),
    }  # fmt: skip
for label, learner in {"cola": COLA, "masked tables": MASKS}.items():
    KINDS[f"cost, {label}"] = (
        study_of("cost ~ sex + children + group", learner),
        {n: (c, ("right",)) for n, c in scale_variants("cost").items()},
    )
CASES = [(kind, name) for kind, (_, variants) in KINDS.items() for name in variants]


@pytest.mark.parametrize(("kind", "name"), one_of_each(CASES, lambda case: case[0]))
def test_a_variant_is_right_or_warned_of_or_refused_by_name(kind: str, name: str) -> None:
    files, variants = KINDS[kind]
    change, allowed = variants[name]
    assert outcome_of(change(files)) in allowed


# Identifiers


def linked(write: Callable[[int], str], kind: str, mean: Callable[[int], str] = str) -> str:
    """ "right" if a column split over sites is joined by what one site writes its own way, or the refusal's code."""
    frame = draw(8).head(300)
    written: dict[str, Callable[[int], str]] = {"a": mean, "b": write, "c": mean}
    columns = {"a": ["died"], "b": ["age"], "c": ["sex"]}
    plain = {
        "name": "kinds", "sites": list("abc"), "formula": "died ~ age + sex", "columns": columns,
        "identifier": {"pid": kind}, "learner": {"name": "vertigo"}, "disclosure": {"rebuild": "allow", "cell": 0},
        "variables": {name: dict(VARIABLES[name]) for name in ("died", "age", "sex")},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Any] = {}
        for site, names in columns.items():
            paths[site] = Path(folder) / f"{site}.csv"
            pids = [written[site](k) for k in range(1000, 1300)]
            frame[names].assign(pid=pids).to_csv(paths[site], index=False)
        try:
            got = analyse(complete_study(Study.model_validate(plain)), paths).fit
        except (LearnerError, ChainError) as error:
            return error.code
    x = sm.add_constant(frame[["age", "sex"]].to_numpy(float))
    wanted = sm.GLM(frame["died"].to_numpy(float), x, family=FAMILIES["died"]).fit(tol=1e-14)
    close = got.n == 300 and np.allclose(np.sort(got.estimates), np.sort(wanted.params), rtol=1e-7)
    return "right" if close else f"n = {got.n}, estimates {got.estimates}"


IDENTIFIERS: Mapping[str, tuple[str, Callable[[int], str], Callable[[int], str], tuple[str, ...]]] = {
    "zeros before": ("number", "{:08d}".format, str, ("right",)),
    "a float": ("number", "{:.1f}".format, str, ("right", "CO-D134")),
    "two decimals": ("number", "{:.2f}".format, str, ("right", "CO-D134")),
    "powers of ten": ("number", "{:.3e}".format, str, ("right", "CO-D134")),
    "a float that is no number of a patient": ("number", lambda k: f"{k}.5", str, ("CO-D134",)),
    "blanks": ("number", " {:d} ".format, str, ("right", "CO-D134")),
    "full width": ("number", lambda k: "".join(chr(0xFF10 + int(c)) for c in str(k)), str, ("right", "CO-D134")),
    "a dash": ("number", lambda k: f"{k // 10}-{k % 10}", str, ("CO-D134",)),
    "thousands": ("number", "{:,}".format, str, ("CO-D134",)),
    "letters": ("number", "P{:d}".format, str, ("CO-D134",)),
    "hexadecimal": ("number", hex, str, ("CO-D134",)),
    "a missing one": ("number", lambda k: "NA" if k == 1007 else str(k), str, ("CO-D132",)),
    "an empty one": ("number", lambda k: "" if k == 1007 else str(k), str, ("CO-D132",)),
    "one twice": ("number", lambda k: str(1008 if k == 1007 else k), str, ("CO-D133",)),
    "one twice, by its zeros": ("number", lambda k: "01008" if k == 1007 else str(k), str, ("CO-D133",)),
    "text in capitals": ("text", "ABC{:d}".format, "abc{:d}".format, ("right", "CO-N251", "CO-N205")),
    "text with a dash": ("text", "ab-{:d}".format, "ab{:d}".format, ("right", "CO-N251", "CO-N205")),
    "text with blanks": ("text", " ab{:d}".format, "ab{:d}".format, ("right", "CO-N251")),
    "text with zeros": ("text", "000{:d}".format, str, ("CO-N205",)),
    "composed accents": (
        "text", lambda k: unicodedata.normalize("NFD", f"Müller{k}"), "Müller{:d}".format, ("right",)
    ),
    "text of a float": ("text", "{:.1f}".format, str, ("CO-N205", "CO-D134", "CO-N251")),
    "a date": ("date", lambda k: str(np.datetime64("1950-01-01") + k), lambda k: str(np.datetime64("1950-01-01") + k),
               ("right",)),
    "a slashed date": ("date", lambda k: f"{1 + k % 12}/{1 + k % 28}/{1900 + k % 90}",
                       lambda k: str(np.datetime64("1950-01-01") + k), ("CO-D134", "CO-D133")),
}  # fmt: skip


@pytest.mark.parametrize("name", [*list(IDENTIFIERS)[::6], *later(*(n for k, n in enumerate(IDENTIFIERS) if k % 6))])
def test_identifiers_written_another_way_are_joined_rightly_or_refused_by_name(name: str) -> None:
    kind, write, mean, allowed = IDENTIFIERS[name]
    assert linked(write, kind, mean) in allowed


def test_every_kind_has_ten_variants_or_more() -> None:
    assert all(len(variants) >= 10 for _, variants in KINDS.values())
    assert len(IDENTIFIERS) >= 10
