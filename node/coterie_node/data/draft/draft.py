"""A study and mappings from files of several sites, or from the profiles that sites gave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie_learners.errors import StudyError
from coterie_node.data.draft.merge import merge_profiles
from coterie_node.data.draft.site_look import look_at_file, name_site
from coterie_node.data.draft.write import StudyDraft, write_draft
from coterie_node.data.quality.profile import SiteProfile
from coterie_node.errors import ConfigError


@dataclass(frozen=True)
class DraftFiles:
    """Where a draft was written."""

    study: Path
    mappings: Mapping[str, Path]


def draft_from_files(paths: Sequence[Path], out: Path) -> StudyDraft:
    """Read each site's file and draft a study; StudyError (CO-S110) if the files have no column in common."""
    names = [name_site(path.stem) for path in paths]
    if len(set(names)) < len(names):
        raise StudyError("CO-S110", f"The files give the sites {names}, of which two are the same. Rename a file.")
    profiles = [look_at_file(path, name) for path, name in zip(paths, names, strict=True)]
    return draft_from_profiles(profiles, out)


def draft_from_profiles(profiles: Sequence[SiteProfile], out: Path) -> StudyDraft:
    """Draft a study from profiles of all sites."""
    merged = merge_profiles(profiles)
    if not merged.variables:
        reasons = " ".join(merged.apart[:5])
        raise StudyError("CO-S110", f"The sites have no variable in common. {reasons} Rename columns alike.")
    files = {profile.site: _name_file(profile, out) for profile in profiles}
    return write_draft(name_site(out.stem), profiles, merged, files)


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
        raise ConfigError("CO-F232", f"There is {', '.join(existing)} already. Name another file, or remove it.")
    try:
        out.write_text(draft.study, encoding="utf-8")
        for site, path in mappings.items():
            path.write_text(draft.mappings[site], encoding="utf-8")
    except OSError as error:
        message = f"The draft cannot be written to {out.parent}: {error.strerror or error}"
        raise ConfigError("CO-F232", f"{message}. Name another folder.") from None
    return DraftFiles(out, mappings)
