"""Results that daemons write into their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_result(path: Path) -> dict[str, Any]:
    """The document without what its site sees of itself alone: what all sites of the study share."""
    document: dict[str, Any] = json.loads(path.read_text())
    if document["fit"] is not None:
        for fit in (document["fit"], *document["fit"].get("models", {}).values()):
            fit.pop("own", None)
    return document
