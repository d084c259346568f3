"""Which file this program was installed from: the name and SHA-256 of its wheel, as pip noted them (PEP 610)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic_core import from_json


@dataclass(frozen=True)
class ReleaseFile:
    """A wheel's file name and SHA-256; the digest is empty if the program was not installed from a wheel."""

    wheel: str
    sha256: str

    @property
    def guide(self) -> str:
        """How an auditor gets the same program, as lines of Markdown."""
        digest = self.sha256 or "compare with another site's: the maker of this bundle did not install it from a wheel"
        return (
            f"Take the file `{self.wheel}` from one of the study's sites.\n"
            "Do not install its name from a public index: nobody vouches for what is there under that name.\n\n"
            f"    sha256sum {self.wheel}    # {digest}\n"
            f"    python -m pip install ./{self.wheel}\n"
        )


def find_release_file() -> ReleaseFile:
    """The wheel that this program was installed from."""
    program = distribution("coterie")
    usual = ReleaseFile(f"coterie-{program.version}-py3-none-any.whl", "")
    return read_origin(program.read_text("direct_url.json"), usual)


def read_origin(text: str | None, usual: ReleaseFile) -> ReleaseFile:
    """The wheel that a direct_url.json names; the `usual` one if it names none."""
    try:
        origin: Any = from_json(text or "{}")
        name = PurePosixPath(unquote(urlsplit(origin["url"]).path)).name
        digest = str(origin["archive_info"]["hashes"]["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return usual
    return ReleaseFile(name, digest) if name.endswith(".whl") else usual
