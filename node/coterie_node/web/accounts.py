"""The accounts of persons who may sign in, as the page sees them: `persons/` has accounts, codes and locks."""

from __future__ import annotations

from typing import Protocol

from coterie_node.persons.roles import Person


class Accounts(Protocol):
    """The persons of a site."""

    def check(self, name: str, password: str, code: str) -> Person | None:
        """The person who signs in with an account's name, a password and a code; None if one of them is wrong.

        NodeError if the account is locked for a while, or if there is something to do before it can be used.
        """

    def refresh(self, person: Person) -> Person | None:
        """The person of a session as the site lists them now; None for one who may not sign in any more."""

    def is_empty(self) -> bool:
        """Whether nobody can sign in yet, so that the page says how to make the first account."""
