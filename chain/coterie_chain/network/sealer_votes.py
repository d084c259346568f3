"""A Clique sealer's votes about who seals: its Geth puts them into the blocks that it makes, until a majority has.

Geth forgets its votes when it ends, and keeps one that has passed. A block in which a vote passed may be replaced, and
with it the votes of all others. So a vote is looked at again and again, and taken out once the chain has what it asks
for as deep as no block is replaced any more. (go-ethereum 1.13, consensus/clique/api.go.)
"""

from __future__ import annotations

from coterie_chain.network.greeting import AdminSocket


def read_signers(ask: AdminSocket, block: str = "latest") -> frozenset[str]:
    """The sealers as of a block, in lower case; LedgerUnreachable where the node does not answer."""
    (signers,) = ask([("clique_getSigners", (block,))])
    return frozenset(str(signer).lower() for signer in signers or ())


def pursue_vote(ask: AdminSocket, sealer: str, *, seals: bool) -> bool:
    """Vote that an account seals, or does not; True once the chain has it so for good, and the vote is taken out.

    For good: also N/2 + 1 blocks below the newest, with N sealers. LedgerUnreachable where the node does not answer.
    """
    account = sealer.lower()
    (proposals,) = ask([("clique_proposals", ())])
    cast = {str(name).lower(): bool(value) for name, value in (proposals or {}).items()}
    (newest,) = ask([("eth_blockNumber", ())])
    signers = read_signers(ask, newest)
    deep = hex(max(int(newest, 16) - len(signers) // 2 - 1, 0))
    if (account in signers) is seals and (account in read_signers(ask, deep)) is seals:
        if account in cast:
            ask([("clique_discard", (account,))])
        return True
    if cast.get(account) is not seals:
        ask([("clique_propose", (account, seals))])
    return False
