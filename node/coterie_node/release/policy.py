"""A site's own rules: what the gate compares a study with, beside the study's own floors.

The settings of a node have them, and so every command reads them: the design of a study, which needs numpy, is imported
where a study is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from coterie_learners.errors import StudyError
from coterie_learners.study.document import ColumnName, Floors, Frozen, Study
from coterie_learners.study.toml_text import MAX_TOML, parse_toml
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.errors import ConfigError

NO_FLOORS = Floors(rows=1, cell=0, rebuild="allow")


class Policy(Frozen):
    """A site's own rules: floors that may be stricter than a study's, columns never to be used, a person's yes.

    `near`: whether a person is asked about nearly the patients of a study that shares no column with the new one.
    """

    floors: Floors = NO_FLOORS
    never: tuple[ColumnName, ...] = ()
    ask: bool = False
    near: Literal["pass", "ask"] = "pass"

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy from a TOML file; a site without one has no rules beyond the study's."""
        try:
            return cls.model_validate(parse_toml(read_bounded_text(path, MAX_TOML)))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise ConfigError("CO-F310", f"The site's policy {path} cannot be used: {error}.") from None

    def check(self, study: Study, site: str) -> None:
        """StudyError if a study uses, at this site, a column that the policy keeps out."""
        from coterie_learners.study.design import Design

        forbidden = [name for name in Design(study, site).read if name in self.never]
        if forbidden:
            message = (
                f"{site}'s policy never lets {', '.join(forbidden)} be used, which the study {study.name!r} asks for"
            )
            raise StudyError("CO-S501", f"{message}. Decline the study, or change the policy.")
