"""Look at the rows of a source: a mapping without columns, whose database or dictionary says what its columns are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coterie_learners.study.toml_text import MAX_TOML
from coterie_node.data.draft.site_look import look_at_table, name_site
from coterie_node.data.draft.vocabulary import split_unit
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.data.findings import FileOrigin
from coterie_node.data.mapping.document import DateRules, OmopSource, SiteMapping, read_mapping
from coterie_node.data.mapping.mapped_rows import open_mapped_table
from coterie_node.data.omop.definition import CHARLSON_WEIGHTS, Covariate
from coterie_node.data.quality.profile import ColumnKind, ColumnProfile, LevelShare, SiteProfile
from coterie_node.data.redcap.dictionary import CHOOSING, RedcapField, read_dictionary

# The oldest age that a study expects.
OLDEST = 120.0


@dataclass(frozen=True)
class Declared:
    """A source's facts about a column: kind, and levels, range and unit if it knows them; or why it is left out."""

    kind: ColumnKind
    levels: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""
    apart: str = ""


def is_source(path: Path) -> bool:
    """Whether a file names a source, and holds no rows itself."""
    return path.suffix.lower() == ".toml"


def name_site_of(path: Path) -> str:
    """The site's name from its file, or from its source `SITE.source.toml`."""
    return name_site(path.name.partition(".")[0] if is_source(path) else path.stem)


def read_source_text(path: Path, site: str) -> str:
    """The text of a source, to which a draft adds columns; DataError (CO-D170) if it has columns already."""
    mapping = read_mapping(path, site)
    if mapping.columns or mapping.dates != DateRules():
        text = "It has [columns] or [dates], which the draft writes. Leave them out."
        raise FileOrigin.of(site, path).error("CO-D170", text)
    return read_bounded_text(path, MAX_TOML)


def look_at_source(path: Path, site: str, floor: int = 0) -> SiteProfile:
    """The profile of a source's rows. At home (floor 0) it has what database and dictionary declare, too."""
    mapping = read_mapping(path, site)
    profile = look_at_table(open_mapped_table(mapping, path, site), site, mapping.table, path.name, floor)
    declared = {} if floor else _declare(mapping, path, site)
    columns = tuple(_apply(look, declared.get(look.name)) for look in profile.columns)
    return profile.model_copy(update={"columns": columns})


def _declare(mapping: SiteMapping, path: Path, site: str) -> Mapping[str, Declared]:
    if mapping.omop is not None:
        return declare_omop(mapping.omop)
    if mapping.redcap is None:
        return {}
    fields = read_dictionary(FileOrigin.of(site, path.parent / Path(mapping.redcap.dictionary).expanduser()))
    return {column: own for field in fields for column in field.columns if (own := declare_field(field)) is not None}


def _apply(look: ColumnProfile, declared: Declared | None) -> ColumnProfile:
    """What was seen, with what the source says instead; a column without several values stays left out."""
    if declared is None:
        return look
    if declared.apart:
        return look.model_copy(update={"kind": "apart", "apart": declared.apart, "questions": ()})
    if look.apart.startswith(("it has no values", "it is the same", "it holds the same")):
        return look
    shares = {level.word: level.share for level in look.levels}
    words = tuple(dict.fromkeys((*shares, *declared.levels)))
    levels = tuple(LevelShare(word=word, share=shares.get(word, 0.0)) for word in words)
    low = look.low if declared.low is None else declared.low
    high = look.high if declared.high is None else declared.high
    update = {
        "kind": declared.kind,
        "apart": "",
        "unit": declared.unit or look.unit,
        "levels": levels if declared.kind in ("binary", "category") else (),
        "low": low if declared.kind in ("number", "count") else None,
        "high": high if declared.kind in ("number", "count") else None,
        "questions": tuple(text for text in look.questions if "missing" in text),
    }
    return look.model_copy(update=update)


def declare_omop(source: OmopSource) -> Mapping[str, Declared]:
    """What a definition's columns are."""
    out = {"person_id": Declared("apart", apart="it identifies patients")}
    out |= {name: _declare_covariate(covariate) for name, covariate in source.covariates.items()}
    if source.outcome is not None:
        out[source.outcome.event] = Declared("binary", ("0", "1"))
        out[source.outcome.time] = Declared("count", low=0.0, high=float(source.outcome.days[1]), unit="days")
    return out


def _declare_covariate(covariate: Covariate) -> Declared:
    if covariate.kind == "age":
        return Declared("count", low=0.0, high=OLDEST, unit="years")
    if covariate.kind == "age_group":
        inner = [f"{low}-{high - 1}" for low, high in itertools.pairwise((0, *covariate.breaks))]
        return Declared("category", (*inner, f"{covariate.breaks[-1]}+"))
    if covariate.kind == "sex":
        return Declared("category", tuple(covariate.levels.values()))
    if covariate.kind == "charlson":
        return Declared("count", low=0.0, high=float(sum(CHARLSON_WEIGHTS[group] for group in covariate.groups)))
    return Declared("number") if covariate.take != "any" else Declared("binary", ("0", "1"))


def declare_field(field: RedcapField) -> Declared | None:
    """The facts of a dictionary about a field; None where it leaves the type open."""
    unit = split_unit(field.label)[1]
    if field.identifies:
        return Declared("apart", apart="the dictionary says that it identifies patients")
    if field.kind in CHOOSING:
        return Declared("category", tuple(field.choices.values()))
    if field.kind in ("yesno", "truefalse", "checkbox"):
        return Declared("binary", ("0", "1"))
    if field.kind == "notes":
        return Declared("apart", apart="it is a field of notes, which may name patients")
    if field.kind == "slider":
        return Declared("number", low=_read_bound(field.bounds[0], 0.0), high=_read_bound(field.bounds[1], 100.0))
    if field.validation == "integer" or field.validation.startswith("number"):
        low, high = (_read_bound(text, None) for text in field.bounds)
        whole = field.validation == "integer" and (low is None or low >= 0)
        return Declared("count" if whole else "number", low=low, high=high, unit=unit)
    return None


def _read_bound(text: str, otherwise: float | None) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return otherwise
    return value if abs(value) < 1e300 else otherwise
