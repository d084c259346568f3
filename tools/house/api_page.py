"""Write the OpenAPI document docs/openapi.json and the table of routes in docs/api.md; `--check` compares instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from coterie_node.web.api.app import API_ROUTES, build_routes, write_openapi

DOCS = Path(__file__).parents[2] / "docs"
PAGE, DOCUMENT = DOCS / "api.md", DOCS / "openapi.json"
MARK = "<!-- The rest is written by tools/house/api_page.py. -->"


def render_document() -> str:
    """The OpenAPI document, without the version of this release: it would change with each."""
    document = write_openapi(build_routes())
    document["info"]["version"] = "v1"
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def render_routes() -> str:
    """The table of routes."""
    lines = ["", "", "| request | scope | what |", "|---|---|---|"]
    for route in API_ROUTES:
        what = (route.endpoint.__doc__ or "").split("\n")[0]
        lines.append(f"| `{route.method} {route.path}` | {route.scope.value} | {what} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """0 if both are as they should be, or were written."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    before = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    if "--check" in sys.argv:
        same = (before, rest) == (render_document(), render_routes())
        if not same:
            print("docs/api.md or docs/openapi.json is not up to date. Run: python tools/house/api_page.py")
        return int(not same)
    DOCUMENT.write_text(render_document(), encoding="utf-8")
    PAGE.write_text(f"{head}{MARK}{render_routes()}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
