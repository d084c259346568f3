"""Write docs/errors.md from the error codes; `--check` compares instead."""

from __future__ import annotations

import sys
from pathlib import Path

from coterie_node.error_codes import render_page

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
MARK = "<!-- The rest is written by tools/house/errors_page.py. -->"


def main() -> int:
    """0 if the page is as it should be, or was written."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    wanted = f"\n{render_page()}"
    if "--check" in sys.argv:
        if rest != wanted:
            print("docs/errors.md is not up to date. Run: python tools/house/errors_page.py")
        return int(rest != wanted)
    PAGE.write_text(f"{head}{MARK}{wanted}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
