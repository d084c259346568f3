"""What the reader of a file tells people to do leads to a fit: each of its refusals is followed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.data.site_split import split_by_site

ROWS = """
name = "rows"
sites = ["a", "b", "c"]
formula = "dead ~ age + visits + sex"
disclosure = { cell = 0 }
[variables.dead]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.visits]
type = "count"
range = [0, 50]
[variables.sex]
type = "category"
levels = ["male", "female"]
[variables.dose]
type = "number"
range = [0, 2400]
[learner]
name = "glore"
"""
LINKED = """
name = "linked"
sites = ["a", "b", "c"]
formula = "dead ~ age + dose"
identifier = { pid = "number" }
disclosure = { rebuild = "allow" }
[variables.dead]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.dose]
type = "number"
range = [0, 2400]
[columns]
a = ["dead"]
b = ["age"]
c = ["dose"]
[learner]
name = "vertigo"
ridge = 1.0
"""
TABLES = ROWS.replace('"glore"', '"cola"\ngrids = { age = [40, 50, 60] }').replace("+ visits + sex", "+ sex")
TIMES = (
    ROWS.replace("dead ~ age + visits + sex", "dead ~ 1")
    .replace('"glore"', '"survival_curves"\ntime = "dose"\nevent = "dead"')
    .replace('type = "number"\nrange = [0, 2400]', 'type = "number"\nrange = [-10, 2400]\nunit = "days"')
    + 'time_grid = { width = 30, horizon = 2400, unit = "days" }\n'
)


@dataclass(frozen=True)
class Files:
    """A study and the file of each site: its name and its bytes."""

    study: str
    files: Mapping[str, tuple[str, bytes]]
    by: str = ""

    def text(self) -> str:
        return self.files["a"][1].decode()

    def put(self, raw: str | bytes, name: str = "a.csv") -> Files:
        """Another file of the first site."""
        return replace(self, files={**self.files, "a": (name, raw if isinstance(raw, bytes) else raw.encode())})

    def edit(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Files:
        """The first site's file as text cells, changed."""
        frame = pd.read_csv(io.StringIO(self.text()), dtype=str, keep_default_na=False)
        return self.put(change(frame).to_csv(index=False))

    def say(self, old: str, new: str) -> Files:
        """Another study."""
        assert old in self.study
        return replace(self, study=self.study.replace(old, new, 1))


def draw(n: int = 80, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = np.round(rng.normal(60, 12, n).clip(20, 100), 1)
    return pd.DataFrame({
        "pid": np.arange(n) + 100,
        "dead": (rng.random(n) < 1 / (1 + np.exp(3 - 0.05 * age))).astype(int),
        "age": age,
        "visits": rng.poisson(4, n),
        "sex": np.where(rng.random(n) < 0.5, "male", "female"),
        "dose": np.round(rng.uniform(10, 2000, n), 1),
    })  # fmt: skip


def frame_bytes(frame: pd.DataFrame) -> tuple[str, bytes]:
    return "rows.csv", frame.to_csv(index=False).encode()


def rows_split(study: str = ROWS) -> Files:
    return Files(study, {site: frame_bytes(draw(seed=k)) for k, site in enumerate("abc")})


def columns_split() -> Files:
    whole = draw(120, 5)
    parts = {"a": ["pid", "dead"], "b": ["pid", "age"], "c": ["pid", "dose"]}
    return Files(LINKED, {site: frame_bytes(whole[names]) for site, names in parts.items()})


def tables() -> Files:
    frames = {site: draw(300, seed=k) for k, site in enumerate("abc")}
    for frame in frames.values():
        frame["age"] = np.clip(np.round(frame["age"], -1), 40, 60).astype(int)
    return Files(TABLES, {site: frame_bytes(frame) for site, frame in frames.items()})


def cell(column: str, value: str, row: int = 3) -> Callable[[Files], Files]:
    """One value of the first site's file."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return lambda files: files.edit(change)


def whole(column: str, value: str) -> Callable[[Files], Files]:
    """One value in all rows of the first site's file."""
    return lambda files: files.edit(lambda frame: frame.assign(**{column: value}))


def text(change: Callable[[str], str | bytes], name: str = "a.csv") -> Callable[[Files], Files]:
    return lambda files: files.put(change(files.text()), name)


def say(old: str, new: str) -> Callable[[Files], Files]:
    return lambda files: files.say(old, new)


def parquet(**columns: str) -> Callable[[Files], Files]:
    """The first site's file as Parquet, with columns of these types."""

    def change(files: Files) -> Files:
        buffer = io.BytesIO()
        pd.read_csv(io.StringIO(files.text())).astype(columns).to_parquet(buffer)
        return files.put(buffer.getvalue(), "a.parquet")

    return change


def rename(**names: str) -> Callable[[Files], Files]:
    return lambda files: files.edit(lambda frame: frame.rename(columns=names))


def keep(files: Files) -> Files:
    return files


def restore(files: Files) -> Files:
    """The first site's file as it should be."""
    raw = {"rows": rows_split, "linked": columns_split}["linked" if "[columns]" in files.study else "rows"]().files
    return replace(files, files={**files.files, "a": raw["a"]}, by="")


def copy_from(site: str) -> Callable[[Files], Files]:
    return lambda files: replace(files, files={**files.files, "a": files.files[site]})


def at_few_values(files: Files) -> Files:
    """Ages in whole years, of which the first site has two."""
    out = dict(files.files)
    for site, (_, raw) in files.files.items():
        frame = pd.read_csv(io.BytesIO(raw))
        age = frame["age"].round().astype(int)
        out[site] = frame_bytes(frame.assign(age=50 + age % 2 if site == "a" else age))
    return replace(files, files=out)


def double(files: Files) -> Files:
    return files.edit(lambda frame: pd.concat([frame, frame.tail(2)]))


def as_multiple(files: Files) -> Files:
    return files.edit(lambda frame: frame.assign(dose=frame["age"].astype(float) * 2))


def gather(files: Files) -> Files:
    """All rows in one file, of which a column names the site."""
    frames = [pd.read_csv(io.BytesIO(raw)).assign(hospital=site) for site, (_, raw) in files.files.items()]
    frame = pd.concat(frames)
    frame.iloc[0, -1] = "d"
    return replace(files, files={"all": frame_bytes(frame)}, by="hospital")


def name_sites(files: Files) -> Files:
    frame = pd.read_csv(io.BytesIO(files.files["all"][1]))
    frame.loc[frame["hospital"] == "d", "hospital"] = "a"
    return replace(files, files={"all": frame_bytes(frame)})


def in_all(files: Files, prefix: str) -> Files:
    """The identifiers of the other sites with this prefix too."""
    out = dict(files.files)
    for site in "bc":
        frame = pd.read_csv(io.BytesIO(out[site][1]), dtype=str)
        out[site] = frame_bytes(frame.assign(pid=prefix + frame["pid"]))
    return replace(files, files=out)


def dash_all(files: Files) -> Files:
    """A check digit after a dash in all rows of all sites."""
    out = dict(files.files)
    for site, (_, raw) in files.files.items():
        frame = pd.read_csv(io.BytesIO(raw), dtype=str)
        number = frame["pid"].str.split("-").str[0]
        out[site] = frame_bytes(frame.assign(pid=number + "-" + number.str[-1]))
    return replace(files, files=out)


def new_level(files: Files) -> Files:
    """Five patients of each site have a level that the study does not declare."""
    out = dict(files.files)
    for site, (_, raw) in files.files.items():
        frame = pd.read_csv(io.BytesIO(raw))
        frame.loc[::16, "sex"] = "other"
        out[site] = frame_bytes(frame)
    return replace(files, files=out)


@dataclass(frozen=True)
class Fault:
    """What is wrong, the code and words of the refusal, and what people do about it."""

    spoil: Callable[[Files], Files]
    code: str
    words: str
    repair: Callable[[Files], Files]
    base: Callable[[], Files] = rows_split


def decode_commas(files: Files) -> Files:
    return text(lambda t: t.replace(";", ","))(files)


FAULTS: Mapping[str, Fault] = {
    "no file": Fault(lambda f: f.put(b"", "none/a.csv"), "CO-D101", "Check the path", restore),
    "a folder": Fault(lambda f: f.put(b"", "folder/"), "CO-D102", "Name one CSV", restore),
    "an empty file": Fault(text(lambda _: ""), "CO-D103", "Export", restore),
    "a name twice": Fault(text(lambda t: t.replace("visits", "age", 1)), "CO-D104", "Rename",
                          text(lambda t: t.replace("age,age", "age,visits", 1))),
    "R's row names": Fault(text(lambda t: "\n".join(f'"",{t}'.splitlines())), "CO-D105", "row.names = FALSE", restore),
    "another name": Fault(rename(age="Age"), "CO-D106", "did you mean 'Age'?", rename(Age="age")),
    "semicolons": Fault(text(lambda t: t.replace(",", ";")), "CO-D107", "Export with commas", decode_commas),
    "a ragged line": Fault(text(lambda t: t + "1,2\n"), "CO-D108", "line 82 has 2", restore),
    "Latin-1": Fault(text(lambda t: t.replace("female", "f\u00e9", 1).encode("latin-1")), "CO-D109", "CSV in UTF-8",
                     restore),
    "a quotation mark": Fault(text(lambda t: t.replace("\n1", '\n"1', 1)), "CO-D110", "quotation marks", restore),
    "text in Parquet": Fault(parquet(age="str"), "CO-D111", "Store it as numbers", restore),
    "a decimal comma": Fault(cell("age", "61,5"), "CO-D112", "Write decimals with a dot", cell("age", "61.5")),
    "thousands": Fault(lambda f: say("+ visits", "+ dose")(cell("dose", "1,055")(f)), "CO-D112", "write 1055;",
                       cell("dose", "1055")),
    "blanks": Fault(cell("age", " 61"), "CO-D112", "Remove the blanks", cell("age", "61")),
    "a word": Fault(cell("age", "old"), "CO-D112", "Write a plain number", cell("age", "61")),
    "out of range, corrected": Fault(cell("age", "961"), "CO-D113", "Check", cell("age", "96.1")),
    "out of range, widened": Fault(cell("age", "121"), "CO-D113", "range", say("[0, 120]", "[0, 130]")),
    "no whole number": Fault(cell("visits", "1.5"), "CO-D114", "declare the variable as a number",
                             say('type = "count"', 'type = "number"')),
    "yes for 1": Fault(cell("dead", "yes"), "CO-D115", "Code a binary variable as 0 and 1", cell("dead", "1")),
    "a level in capitals": Fault(cell("sex", "Male"), "CO-D116", "Did you mean 'male'?", cell("sex", "male")),
    "one more level": Fault(new_level, "CO-D116", "add the level",
                            say('levels = ["male", "female"]', 'levels = ["male", "female", "other"]')),
    "missing, left out": Fault(cell("age", ""), "CO-D117", 'rows.missing = "drop"',
                               say("[variables.dead]", '[rows]\nmissing = "drop"\n[variables.dead]')),
    "missing, filled": Fault(cell("age", "NA"), "CO-D117", "missing", cell("age", "50")),
    "few rows": Fault(lambda f: say("[variables.dead]", "[rows]\nminimum = 90\n[variables.dead]")(f), "CO-D118",
                      "at least 90", say("minimum = 90", "minimum = 80")),
    "an Excel file": Fault(text(lambda t: t, "a.xlsx"), "CO-D119", ".csv", restore),
    "a constant": Fault(whole("visits", "7"), "CO-D120", 'rows.constant = "allow"',
                        say("[variables.dead]", '[rows]\nconstant = "allow"\n[variables.dead]')),
    "a constant, left out": Fault(whole("visits", "7"), "CO-D120", "Leave", say("+ visits ", "")),
    "one outcome": Fault(whole("dead", "0"), "CO-D121", 'rows.constant = "allow"',
                         say("[variables.dead]", '[rows]\nconstant = "allow"\n[variables.dead]')),
    "collinear": Fault(lambda f: say("+ visits", "+ dose")(as_multiple(f)), "CO-D122", 'rows.collinear = "allow"',
                       say("[variables.dead]", '[rows]\ncollinear = "allow"\n[variables.dead]')),
    "many columns": Fault(lambda f: say("age + visits + sex", "age*visits*sex")(f.edit(lambda d: d.head(7))),
                          "CO-D123", 'rows.collinear = "allow"',
                          say("[variables.dead]", '[rows]\ncollinear = "allow"\n[variables.dead]')),
    "many columns, shortened": Fault(lambda f: say("age + visits + sex", "age*visits*sex")(f.edit(lambda d: d.head(7))),
                                     "CO-D123", "Shorten the formula",
                                     say("age*visits*sex", "age")),
    "one file twice": Fault(copy_from("b"), "CO-D124", "its own rows", restore),
    "an unknown site": Fault(gather, "CO-D125", "'d'", name_sites),
    "few values": Fault(lambda f: say("disclosure = { cell = 0 }", "")(at_few_values(f)), "CO-D152",
                        "Declare it as binary, count or category",
                        say('type = "number"\nrange = [0, 120]', 'type = "count"\nrange = [0, 120]')),
    "no identifier": Fault(cell("pid", "NA"), "CO-D132", 'linkage.unidentified = "drop"',
                           say("[columns]", '[linkage]\nunidentified = "drop"\n[columns]'), columns_split),
    "no identifier, given": Fault(cell("pid", ""), "CO-D132", "Give every row its identifier",
                                  cell("pid", "103"), columns_split),
    "doubled": Fault(double, "CO-D133", 'linkage.doubled = "drop"',
                     say("[columns]", '[linkage]\ndoubled = "drop"\n[columns]'), columns_split),
    "doubled, kept once": Fault(double, "CO-D133", "leave out or merge the others",
                                lambda f: f.edit(lambda frame: frame.drop_duplicates("pid")), columns_split),
    "a dash in a number": Fault(cell("pid", "10-3"), "CO-D134", "Correct the values", cell("pid", "103"),
                                columns_split),
    "letters in a number": Fault(lambda f: f.edit(lambda d: d.assign(pid="P" + d["pid"])), "CO-D134",
                                 "declare another kind", lambda f: in_all(f, "P").say('pid = "number"', 'pid = "text"'),
                                 columns_split),
    "some check digits": Fault(lambda f: cell("pid", "103-3")(f.say('pid = "number"', 'pid = "check-digit"')),
                               "CO-D135", "Write all of them alike", dash_all, columns_split),
    "off the grid": Fault(cell("age", "47"), "CO-D302", "widen the grid",
                          say("[40, 50, 60]", "[40, 47, 50, 60]"), tables),
    "off the grid, rounded": Fault(cell("age", "47"), "CO-D302", "Round them", cell("age", "50"), tables),
    "a time below 0": Fault(cell("dose", "-2"), "CO-D161", "correct these rows", cell("dose", "2"), lambda: rows_split(
        TIMES)),
}  # fmt: skip


def fit(files: Files, folder: Path) -> tuple[int, bool]:
    """Rows of the fit of these files, and whether all estimates are finite."""
    paths = {}
    for site, (name, raw) in files.files.items():
        path = folder / site / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        elif "/" not in name:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        paths[site] = path
    study = complete_study(Study.from_toml(files.study))
    with split_by_site(study, dict(paths), files.by or None) as parts:
        result = analyse(study, parts)
    return result.fit.n, bool(np.all(np.isfinite(result.fit.estimates)))


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_refused_file_tells_people_to_do_leads_to_a_fit(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    files = fault.spoil(fault.base())
    with pytest.raises(DataError) as refusal:
        fit(files, tmp_path / "before")
    assert refusal.value.code == fault.code, refusal.value.message
    assert fault.words in refusal.value.message
    n, finite = fit(fault.repair(files), tmp_path / "after")
    assert n >= 100
    assert finite
