"""Roles of persons at a site.

Each route of the web page and each verb of the HTTP API names one role. A person has the roles that the site's register
lists or that a group at the identity provider maps to.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["MAX_SIGNERS", "Person", "Role"]


# The most persons that a policy asks for.
MAX_SIGNERS = 16


class Role(StrEnum):
    """What a person may do at a site; roles do not include one another."""

    READ = "read"
    PROPOSE = "propose"
    APPROVE = "approve"
    RELEASE = "release"
    OPERATE = "operate"
    AUDIT = "audit"


@dataclass(frozen=True)
class Person:
    """A person who acts at a site.

    `name` is the name that the site's register and the report print. `account` identifies the person at this site: the
    name of a local account, or issuer and subject of an identity provider.
    """

    account: str
    name: str
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        """Say whether the person has a role."""
        return role in self.roles
