"""The invitation with which a later site enters a network that exists, and what the newcomer checks of it.

    1. the newcomer   makes its keys and its card, a short text that is public, and sends it to a member
    2. that member    votes for its seat, and writes the invitation: peers, the chain's genesis, the Catalog, and the
                      swarm's key, sealed to the newcomer's card
    3. the newcomer   checks it, writes its files, starts chain node and store, and compares it with its own chain
       the others     vote for the same card; more than half of the sites decide

Invariants. An invitation opens for one card alone, for so many days, and once. It is signed by the member's key, which
the newcomer finds in the Catalog of its own chain. Its fingerprint is compared by telephone: somebody who builds a
whole false network can sign anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from eth_utils.address import to_checksum_address
from pydantic import Field

from coterie_chain.errors import BlobCorrupt, LedgerUnreachable
from coterie_chain.ethereum.network import Network, read_keys
from coterie_chain.keys.private_files import read_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger, SiteEntry
from coterie_chain.network.programs.kubo import fingerprint_swarm_key, is_swarm_key
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, check_distinct, genesis_file, write_network_files
from coterie_node.network.guided_founding import OWN_CARD, FoundedCard
from coterie_node.network.membership.known_members import read_cards
from coterie_node.network.membership.signed_statement import SignedStatement
from coterie_node.site.cards import REVOKED
from coterie_node.site.folder import SiteFolder
from coterie_node.site.invitation import MAX_INVITATION_BYTES, Contracts, Member
from coterie_node.site.strict_file import read_strict

VALID_SECONDS = 14 * 24 * 3600
ENTERED = "entered.json"
_CONTEXT = b"coterie/1 swarm key for a newcomer"


class EntryInvitation(SignedStatement):
    """A network for one newcomer: its contracts, members, cards, genesis, and the swarm's key sealed to its card."""

    purpose: ClassVar[str] = "invitation"
    format: Literal[2] = 2
    contracts: Contracts
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=253)]
    cards: Annotated[tuple[FoundedCard, ...], Field(min_length=1, max_length=253)]
    genesis_file: dict[str, Any]
    newcomer: FoundedCard
    inviter: Annotated[str, Field(max_length=31)]
    until: Annotated[int, Field(ge=0, lt=1 << 53)]
    head: Annotated[int, Field(ge=0, lt=1 << 53)]
    swarm_key: Annotated[str, Field(pattern="^[0-9a-f]*$", max_length=1 << 14)]
    swarm_fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

    @property
    def inviter_address(self) -> str:
        """The address that the invitation's own list gives the member that wrote it; empty if it lists none."""
        return next((to_checksum_address(m.address) for m in self.members if m.name == self.inviter), "")

    def network(self, url: str) -> Network:
        """The network through one's own chain node."""
        place = self.contracts
        return Network(url, place.chain_id, place.catalog, place.genesis, place.block, read_keys(place.founders))

    @classmethod
    def load(cls, path: Path) -> EntryInvitation:
        """Read an invitation; ConfigError (CO-F510) for another file."""
        cure = " A member writes one: coterie site invite CARD."
        return read_strict(path, cls, MAX_INVITATION_BYTES, "CO-F510", "an invitation to enter a network", cure)


def write_invitation(
    home: SiteFolder,
    keys: SiteKeys,
    network: Network,
    sites: Sequence[SiteEntry],
    card: FounderCard,
    *,
    head: int,
    now: int,
) -> EntryInvitation:
    """The invitation of this site's network for a newcomer's card; ConfigError where its name or keys are taken.

    `head` is the number of the newest block, before which the newcomer's own chain knows too little to compare.
    """
    check_seat_is_free(sites, card)
    check_distinct([*(other for name, other in read_cards(home.root).items() if name != card.site), card])
    active = [site for site in sites if site.active]
    if home.name not in {site.name for site in active}:
        raise ConfigError("CO-F329", f"{home.name} has no seat in this network, so it cannot invite a site.")
    own = read_cards(home.root)
    if home.name not in own:
        message = f"{home.root} has no card of {home.name} in founders/, so that a newcomer would find no peers"
        raise ConfigError("CO-F330", f"{message}. Write an invitation by hand: coterie invite.")
    secret = read_private(Kubo(home.root / "kubo").key, "the swarm's key")
    return EntryInvitation(
        contracts=Contracts(
            chain_id=network.chain_id,
            catalog=network.catalog,
            genesis=network.genesis,
            block=network.block,
            founders=dict(network.founders),
        ),
        members=tuple(Member(name=s.name, address=s.address, sealing="0x" + s.sealing.hex()) for s in active),
        cards=tuple(FoundedCard(**asdict(own[site.name])) for site in active if site.name in own),
        genesis_file=json.loads(genesis_file(home.root, own[home.name].chain).read_bytes()),
        newcomer=FoundedCard(**asdict(card)),
        inviter=home.name,
        until=now + VALID_SECONDS,
        head=head,
        swarm_key=keys.seal(secret.encode(), {card.site: bytes.fromhex(card.sealing)}, _bind_to(card)).hex(),
        swarm_fingerprint=fingerprint_swarm_key(secret),
    ).sign(keys)


def check_seat_is_free(sites: Sequence[SiteEntry], card: FounderCard) -> None:
    """ConfigError (CO-F329) if the Catalog has the card's name, address or sealing key already."""
    for site in sites:
        if card.site == site.name and not site.active:
            raise ConfigError("CO-F329", f"The seat of {site.name} was revoked. {REVOKED}")
        taken = {"name": card.site == site.name, "address": card.operator.lower() == site.address.lower()}
        taken["sealing key"] = card.sealing == site.sealing.hex()
        same = [what for what, is_same in taken.items() if is_same]
        if same:
            message = f"{site.name} has the {' and the '.join(same)} of this card in the Catalog already"
            raise ConfigError(
                "CO-F329", f"{message}. Each site has its own. New keys of a member: coterie site recover."
            )


def follow_invitation(folder: Path, keys: SiteKeys, path: Path, invitation: EntryInvitation, now: int) -> None:
    """Check an invitation and write the newcomer's files by it; nothing is written of one that is refused."""
    check_invitation(folder, invitation, now)
    own = FounderCard.read(folder / OWN_CARD)
    secret = _open_swarm_key(keys, own, invitation)
    Kubo(folder / "kubo").join(secret)
    cards = [card.card() for card in invitation.cards if card.site != own.site]
    write_network_files(folder, own.site, [*cards, own], of_network=path)


def check_invitation(folder: Path, invitation: EntryInvitation, now: int) -> None:
    """ConfigError: used (CO-F514), altered (CO-F511), for another site (CO-F512), or too old (CO-F513)."""
    if (folder / ENTERED).exists():
        message = f"{folder} has entered a network already, and an invitation serves once"
        raise ConfigError("CO-F514", f"{message}. Start the site: coterie site start --node {folder}.")
    if not invitation.signer or invitation.signer != invitation.inviter_address:
        message = (
            f"The signature is not that of {invitation.inviter[:40]!r}: the invitation was altered, or is another's"
        )
        raise ConfigError("CO-F511", f"{message}. Do not use it; ask the member for it again.")
    own = FounderCard.read(folder / OWN_CARD)
    if invitation.newcomer.raw_card != own:
        other = invitation.newcomer.site[:40]
        message = f"The invitation is for the card of {other!r}, which is not the card in {folder} ({own.site})"
        raise ConfigError("CO-F512", f"{message}. Send your card to the member: coterie site enter {folder} prints it.")
    if now > invitation.until:
        late = (now - invitation.until) / 86400
        message = f"The invitation ended {late:.1f} days ago by this machine's clock"
        raise ConfigError("CO-F513", f"{message}. Ask the member for a new one; its swarm's key may be another one.")


def check_against_ledger(invitation: EntryInvitation, ledger: Ledger, newest: int) -> bool:
    """Whether the newcomer has its seat; ConfigError (CO-F511, CO-F329) where the chain contradicts the invitation.

    LedgerUnreachable (CO-C302) while the own chain is not as far as the inviter's was (`newest`).
    """
    if newest < invitation.head:
        message = f"This site's chain node is at block {newest}, and the member's was at {invitation.head}"
        raise LedgerUnreachable("CO-C302", f"{message}. Wait until it has caught up.")
    sites, own = ledger.sites(), invitation.newcomer
    inviter = next((site for site in sites if site.name == invitation.inviter), None)
    if inviter is None or not inviter.active or to_checksum_address(inviter.address) != invitation.signer:
        message = f"{invitation.inviter} has no seat with this signature in the Catalog of the chain"
        raise ConfigError("CO-F511", f"{message}. Do not use the invitation; ask another member.")
    seat = next((site for site in sites if site.name == own.site), None)
    if seat is None:
        return False
    if not seat.active:
        raise ConfigError("CO-F329", f"The seat of {own.site} was revoked. {REVOKED}")
    if (seat.address.lower(), seat.sealing.hex()) != (own.operator.lower(), own.sealing):
        message = f"The Catalog lists other keys for {own.site} than this site's card"
        raise ConfigError("CO-F329", f"{message}. Enter under another name, or from the folder that has these keys.")
    return True


def note_entry(folder: Path, invitation: EntryInvitation, now: int) -> None:
    """Write down that the site has entered by this invitation, which then serves no more."""
    digest = hashlib.sha256(invitation.content).hexdigest()
    (folder / ENTERED).write_text(json.dumps({"invitation": digest, "inviter": invitation.inviter, "at": now}) + "\n")


def describe_votes(voters: Mapping[str, Sequence[str]], site: str, active: int) -> str:
    """How the vote for a newcomer's seat stands."""
    names = voters.get(site, ())
    cast = f"{len(names)} of {active // 2 + 1} votes" + f" ({', '.join(names)})" * bool(names)
    return f"{site} has no seat yet: {cast}. The members vote: coterie site admit CARD"


def _open_swarm_key(keys: SiteKeys, own: FounderCard, invitation: EntryInvitation) -> str:
    try:
        raw = keys.unseal(bytes.fromhex(invitation.swarm_key), own.site, _bind_to(own)) or b""
    except BlobCorrupt:
        raw = b""
    text = raw.decode("ascii", "replace")
    if not is_swarm_key(text) or fingerprint_swarm_key(text) != invitation.swarm_fingerprint:
        message = "The invitation holds no swarm's key that opens with this site's card and has its fingerprint"
        raise ConfigError("CO-F511", f"{message}. Ask the member for it again.")
    return text


def _bind_to(card: FounderCard) -> bytes:
    """A key sealed for a card opens for no other card, although the sealing key be the same."""
    return _CONTEXT + hashlib.sha256(json.dumps(asdict(card), sort_keys=True).encode()).digest()
