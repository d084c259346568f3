"""What stopped a study here, in whole sentences: for this site's people only, because they may quote rows or counts."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from coterie_chain.keys.private_files import replace_private
from coterie_node.site.watch.log import code_of


class FaultRecord:
    """The last fault of each study, one private file each, in a folder of mode 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def note(self, study: int, error: Exception) -> None:
        """Write a fault down; a disk that cannot take it has faults of its own, which are in the log."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime())} {code_of(error)}: {error}"
        with suppress(OSError):
            self.root.mkdir(mode=0o700, exist_ok=True)
            replace_private(self.root / f"{study}.txt", line + "\n")

    def note_defect(self, study: int, lines: list[str]) -> Path:
        """Write down the whole text of a defect of the program, beside the last fault; returns where."""
        path = self.root / f"{study}.traceback"
        with suppress(OSError):
            self.root.mkdir(mode=0o700, exist_ok=True)
            replace_private(path, "".join(lines))
        return path

    def of(self, study: int) -> str:
        """The last fault of a study, and when it was; empty if there was none."""
        try:
            return (self.root / f"{study}.txt").read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def name_last(self, study: int) -> str:
        """Code and time of the last fault of a study, without its sentence; empty if there was none."""
        day, _, rest = self.of(study).partition(" ")
        moment, _, sentence = rest.partition(" ")
        return f"{sentence.partition(':')[0]} ({day} {moment})" if sentence else ""
