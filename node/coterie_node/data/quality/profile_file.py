"""Profiles as files: JSON, read within bounds."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.data.quality.profile import SiteProfile
from coterie_node.errors import ConfigError

MAX_PROFILE = 1 << 22


def read_profile(path: Path) -> SiteProfile:
    """Read a profile; ConfigError (CO-F233) says what is wrong with it."""
    try:
        return SiteProfile.model_validate_json(read_bounded(path, MAX_PROFILE))
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        cause = f"is no profile: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    except ValueError as error:
        cause = f"is no profile: {error}"
    raise ConfigError("CO-F233", f"{path} {cause}. Write it again with `coterie data profile`.")


def write_profile(profile: SiteProfile, path: Path) -> None:
    """Write a profile to a new file; ConfigError (CO-F232) for one that exists or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(profile.model_dump_json(indent=2, exclude_defaults=True) + "\n")
    except OSError as error:
        raise ConfigError("CO-F232", f"{path} cannot be written: {error.strerror}. Name another file.") from None
