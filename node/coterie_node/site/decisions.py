"""What this site's people decided about studies: one file for each study, which the daemon reads and acts on.

The commands write, the daemon reads: only the daemon holds the site's key, so that nothing is signed twice.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import ConfigError

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# Of the file that holds one decision: the study's hash, and which decision about it.
NAME = re.compile(r"([0-9a-f]{64})\.\d{4,}\.json")
Action = Literal["propose", "approve", "decline", "abort"]


class Decision(Frozen):
    """What was decided about the study of this hash, when, on which data, and why; `by` is the user's name."""

    study: Digest
    action: Action
    at: str
    by: Text = ""
    data: str = ""
    reason: Text = ""

    @property
    def takes_part(self) -> bool:
        """Whether this site's people want the study."""
        return self.action in ("propose", "approve")


class DecisionFolder:
    """The decisions of one site, in a folder of mode 0700. The newest about a study counts; all are kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, decision: Decision) -> None:
        """Write a decision down, whole or not at all."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self.count(bytes.fromhex(decision.study))
        place = self.root / f"{decision.study}.{number:04d}.json"
        aside = place.with_suffix(".part")
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(decision.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)

    def count(self, study: bytes) -> int:
        """How often something was decided about a study."""
        return len(list(self.root.glob(f"{study.hex()}.*.json")))

    def latest(self, study: bytes) -> Decision | None:
        """The newest decision about a study."""
        paths = sorted(self.root.glob(f"{study.hex()}.*.json"))
        return _read(paths[-1]) if paths else None

    def studies(self) -> tuple[bytes, ...]:
        """Hashes of the studies about which something was decided."""
        named = (NAME.fullmatch(path.name) for path in self.root.glob("*.json"))  # not what people leave beside them
        return tuple(bytes.fromhex(h) for h in sorted({match[1] for match in named if match}))

    def proposals(self) -> tuple[bytes, ...]:
        """Hashes of the studies that this site's people propose."""
        newest = {study: self.latest(study) for study in self.studies()}
        return tuple(study for study, decision in newest.items() if decision and decision.action == "propose")

    def document(self, study: bytes) -> Path:
        """Where a proposed study's document is kept."""
        return self.root / f"{study.hex()}.study"

    def read_document(self, study: bytes) -> bytes:
        """A proposed study's document; ConfigError if it is gone."""
        try:
            return self.document(study).read_bytes()
        except OSError as error:
            message = f"The proposed study {self.document(study)} cannot be read: {error.strerror}"
            raise ConfigError("CO-F322", f"{message}. Propose it again.") from None

    def certificate(self, study: bytes) -> Path:
        """Where a proposed study's "equals pooled" certificate is kept."""
        return self.root / f"{study.hex()}.certificate"

    def save_document(self, study: bytes, document: bytes) -> None:
        """Keep the document of a study that this site proposes."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.document(study).write_bytes(document)


def make_decision(study: bytes, action: Action, *, data: str = "", reason: str = "") -> Decision:
    """A decision of this moment by this user."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    by = os.environ.get("SUDO_USER") or os.environ.get("USER") or ""
    try:
        return Decision(study=study.hex(), action=action, at=at, by=by, data=data, reason=reason)
    except ValidationError:
        raise ConfigError("CO-F322", "A reason is one line of at most 200 characters.") from None


def _read(path: Path) -> Decision:
    try:
        return Decision.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ConfigError("CO-F322", f"The decision {path} cannot be read. Decide again, and remove it.") from None
