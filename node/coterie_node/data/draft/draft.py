"""A study and mappings from files of several sites, or from the profiles that sites gave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie_learners.errors import StudyError
from coterie_node.data.draft.merge import merge_profiles
from coterie_node.data.draft.site_look import look_at_file, name_site
from coterie_node.data.draft.source_look import is_source, look_at_source, name_site_of, read_source_text
from coterie_node.data.draft.write import StudyDraft, write_draft
from coterie_node.data.quality.profile import ColumnProfile, SiteProfile
from coterie_node.errors import ConfigError


@dataclass(frozen=True)
class DraftFiles:
    """The files of a draft."""

    study: Path
    mappings: Mapping[str, Path]


def draft_from_files(paths: Sequence[Path], out: Path, column_names: Mapping[str, str] | None = None) -> StudyDraft:
    """Read each site's file or source and draft a study; StudyError (CO-S110) if they have no column in common."""
    names = [name_site_of(path) for path in paths]
    if len(set(names)) < len(names):
        raise StudyError("CO-S110", f"The files give the sites {names}, two of which are the same. Rename a file.")
    sources = {name: path for path, name in zip(paths, names, strict=True) if is_source(path)}
    heads = {name: _read_head(path, name, out) for name, path in sources.items()}
    looks = (look_at_source if is_source(path) else look_at_file for path in paths)
    profiles = [look(path, name) for look, path, name in zip(looks, paths, names, strict=True)]
    return draft_from_profiles(profiles, out, heads, column_names)


def _read_head(path: Path, site: str, out: Path) -> str:
    """The text of a source; ConfigError (CO-F232) if its paths would mean others beside the draft."""
    if path.resolve().parent != out.resolve().parent:
        message = f"The source {path} names files beside it, and the draft is written to {out.resolve().parent}"
        raise ConfigError("CO-F232", f"{message}. Write the draft beside the source.")
    return read_source_text(path, site)


def draft_from_profiles(
    profiles: Sequence[SiteProfile],
    out: Path,
    heads: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> StudyDraft:
    """Draft a study from profiles of all sites.

    heads: the text of the sources of those sites that have one. names: the variable of each column that a person named.
    """
    profiles = _name_columns(profiles, names or {})
    merged = merge_profiles(profiles)
    if not merged.variables:
        reasons = " ".join(merged.apart[:5])
        raise StudyError("CO-S110", f"The sites have no variable in common. {reasons} Rename columns alike.")
    files = {profile.site: _name_file(profile, out) for profile in profiles}
    return write_draft(name_site(out.stem), profiles, merged, files, heads or {})


def _name_columns(profiles: Sequence[SiteProfile], names: Mapping[str, str]) -> Sequence[SiteProfile]:
    """The profiles with the variables that people named; StudyError (CO-S110) for a column that no site has."""
    unknown = sorted(set(names) - {look.name for profile in profiles for look in profile.columns})
    if unknown:
        raise StudyError("CO-S110", f"No site has a column {unknown[0]!r}. Write it as the file's header has it.")
    return [_name_site_columns(profile, names) for profile in profiles]


def _name_site_columns(profile: SiteProfile, names: Mapping[str, str]) -> SiteProfile:
    """A site's profile with these variables; StudyError (CO-S112) if two of its columns are to hold one of them."""
    named: dict[str, str] = {}
    for look in profile.columns:
        name = names.get(look.name)
        if name in named:
            message = f"{profile.site}: the columns {named[name]!r} and {look.name!r} are both named {name!r}"
            raise StudyError("CO-S112", f"{message}. Give a variable one column at each site.")
        if name is not None:
            named[name] = look.name

    def rename(look: ColumnProfile) -> ColumnProfile:
        own = names.get(look.name, look.variable)
        if look.kind != "apart" and look.name not in names and own in named:
            reason = f"{named[own]!r} was named {own!r}"
            return look.model_copy(update={"kind": "apart", "apart": reason})
        return look.model_copy(update={"variable": own})

    return profile.model_copy(update={"columns": tuple(map(rename, profile.columns))})


def _name_file(profile: SiteProfile, out: Path) -> str:
    """A site's file as its mapping, which lies beside the study, names it."""
    if not profile.file:
        return f"{profile.site}.csv"
    if profile.floor:  # the file is at another site
        return Path(profile.file).name
    return Path(os.path.relpath(Path(profile.file).resolve(), out.resolve().parent)).as_posix()


def save_draft(draft: StudyDraft, out: Path) -> DraftFiles:
    """Write the study and its mappings beside it; ConfigError (CO-F232) rather than overwrite a file."""
    mappings = {site: out.parent / f"{site}.mapping.toml" for site in draft.mappings}
    existing = [str(path) for path in (out, *mappings.values()) if path.exists()]
    if existing:
        message = f"There is {', '.join(existing)} already, and a draft overwrites nothing"
        remedy = "remove it" if len(existing) == 1 else "remove them"
        raise ConfigError("CO-F232", f"{message}. Name another file for `--out`, or {remedy}.")
    try:
        out.write_text(draft.study, encoding="utf-8")
        for site, path in mappings.items():
            path.write_text(draft.mappings[site], encoding="utf-8")
    except OSError as error:
        message = f"The draft cannot be written to {out.parent}: {error.strerror or error}"
        raise ConfigError("CO-F232", f"{message}. Name another folder.") from None
    return DraftFiles(out, mappings)
