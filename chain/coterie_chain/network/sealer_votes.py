"""A Clique sealer's votes about who seals: its Geth puts them into the blocks that it makes, until a majority has.

Geth forgets its votes when it ends, and keeps one that has passed. So a vote is looked at again and again until the
chain has what it asks for, and is then taken out. (go-ethereum 1.13, consensus/clique/api.go.)
"""

from __future__ import annotations

from coterie_chain.network.greeting import AdminSocket


def read_signers(ask: AdminSocket) -> frozenset[str]:
    """The sealers as of the newest block, in lower case; LedgerUnreachable where the node does not answer."""
    (signers,) = ask([("clique_getSigners", ("latest",))])
    return frozenset(str(signer).lower() for signer in signers or ())


def pursue_vote(ask: AdminSocket, sealer: str, *, seals: bool) -> bool:
    """Vote that an account seals, or does not; True once the chain has it so, and the vote is taken out.

    LedgerUnreachable where the node does not answer.
    """
    account = sealer.lower()
    (proposals,) = ask([("clique_proposals", ())])
    cast = {str(name).lower(): bool(value) for name, value in (proposals or {}).items()}
    if (account in read_signers(ask)) is seals:
        if account in cast:
            ask([("clique_discard", (account,))])
        return True
    if cast.get(account) is not seals:
        ask([("clique_propose", (account, seals))])
    return False
