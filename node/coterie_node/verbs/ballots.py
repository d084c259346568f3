"""A ballot in the name of a person."""

from __future__ import annotations

from coterie_node.site.votes import Ballot


def sign_ballot(ballot: Ballot, by: str) -> Ballot:
    """The ballot in the name of a person; that of the user of this machine stays without one."""
    return ballot.model_copy(update={"by": by}) if by else ballot
