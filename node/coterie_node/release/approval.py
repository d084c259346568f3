"""A person's yes: payloads that wait in a folder of the site until its people approve them by digest.

releases/<study>/<position>-<attempt>.json   what would leave, what can be solved from it (for this site's people only)
releases/<study>/<position>-<attempt>.yes    the digest that was approved

<study> is the first 16 digits of the study's hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie_chain.errors import StoreFault
from coterie_chain.keys.private_files import replace_private, write_private
from coterie_learners.core.payload import canonical
from coterie_node.errors import ConfigError
from coterie_node.release.gate import Release


@dataclass(frozen=True)
class ApprovalFolder:
    """The folder of one study at one site."""

    root: Path

    @classmethod
    def of_study(cls, releases: Path, study: bytes) -> ApprovalFolder:
        """The folder of a study (its hash) below a site's releases."""
        return cls(releases / study.hex()[:16])

    def consent(self, release: Release) -> bool:
        """Whether this very payload has been approved; if not, it is laid out for reading.

        StoreFault if the folder cannot be used.
        """
        digest = _digest(release)
        stem = self.root / f"{release.position}-{release.attempt}"
        try:
            approved = _line(stem.with_suffix(".yes"))
            if approved != digest:
                self._lay_out(stem, digest, release)
        except OSError as error:
            describe_release = f"The folder of releases {self.root} cannot be used: {error.strerror or error}"
            raise StoreFault(
                "CO-C204", f"{describe_release}. Check the free space, and that this user may write there."
            ) from None
        return approved == digest

    def _lay_out(self, stem: Path, digest: str, release: Release) -> None:
        """Write a payload down for this site's people, once; a yes to another one in its place is worth nothing now."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem.with_suffix(".yes").unlink(missing_ok=True)
        place, aside = stem.with_suffix(".json"), stem.with_suffix(".part")
        if _read_release(place) != digest:
            text = json.dumps({"payload_digest": digest, **describe_release(release)}, indent=2) + "\n"
            aside.unlink(missing_ok=True)
            write_private(aside, text)
            aside.replace(place)

    def waiting(self) -> list[Mapping[str, Any]]:
        """What waits for a yes, in order."""
        return [json.loads(path.read_text()) for path in sorted(self._list_waiting(), key=_order)]

    def count_waiting(self) -> int:
        """How many payloads wait for a yes."""
        return len(self._list_waiting())

    def list_steps(self) -> list[str]:
        """The positions and attempts whose payloads wait for a yes."""
        return sorted(path.stem for path in self._list_waiting())

    def _list_waiting(self) -> list[Path]:
        return [path for path in self.root.glob("*.json") if not path.with_suffix(".yes").exists()]

    def approve(self, digest: str) -> Mapping[str, Any]:
        """Approve what waits under this digest; ConfigError if nothing does."""
        for path in self.root.glob("*.json"):
            waiting_paths: dict[str, Any] = json.loads(path.read_text())
            if waiting_paths["payload_digest"].startswith(digest) and len(digest) >= 8:
                replace_private(path.with_suffix(".yes"), waiting_paths["payload_digest"] + "\n")
                return waiting_paths
        describe_release = f"Nothing with the digest {digest!r} waits for approval in {self.root}"
        raise ConfigError("CO-F311", f"{describe_release}. List what does with `coterie release list`.")


def _line(path: Path) -> str:
    """The line in a file, empty if there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _read_release(path: Path) -> str:
    """The digest of the payload in a file, empty if the file is not there or not whole."""
    try:
        return str(json.loads(path.read_bytes())["payload_digest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""


def describe_release(release: Release) -> dict[str, Any]:
    """A release for this site's own people: where, the verdict, the cells below the floor, and every number."""
    verdict = release.verdict
    numbers = {name: np.asarray(value) for name, value in release.payload.items()}
    return {
        "position": release.position,
        "attempt": release.attempt,
        **verdict.as_dict(),
        "cells_below_floor": dict(verdict.secret),
        "payload": {name: _plain(value) for name, value in numbers.items()},
    }


def _plain(value: np.ndarray[Any, np.dtype[Any]]) -> Any:
    return value.tolist() if value.dtype.kind in "fiub" else value.tobytes().hex()


def _digest(release: Release) -> str:
    return hashlib.sha256(canonical(release.payload)).hexdigest()


def _order(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.stem.split("-"))
