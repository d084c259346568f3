"""card.json: the name and the public keys with which a hospital asks the sites for a seat in their Catalog.

The `FounderCard` of `coterie network keys` (founder.json) is another card: it also has the sealer and the addresses of
the site's chain node and store, which the founders need before there is a Catalog.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eth_utils.address import to_checksum_address
from pydantic import Field, TypeAdapter, ValidationError

from coterie_chain.ledger.protocol import ZERO, SiteEntry
from coterie_learners.study.document import Frozen, Name
from coterie_node.errors import ConfigError
from coterie_node.site.invitation import Hex32
from coterie_node.site.strict_file import read_strict

MAX_CARD_BYTES = 1 << 16
REVOKED = "The Catalog takes no name and no key twice: it may come back under another name, with new keys."


def check_site_name(text: str) -> str:
    """A site's name; ConfigError for another text."""
    try:
        return TypeAdapter(Name).validate_python(text)
    except ValidationError:
        message = "A site's name has 1 to 31 letters a-z, digits and hyphens, and starts with none"
        raise ConfigError("CO-F325", f"{text[:40]!r} is not a site's name. {message}.") from None


class SeatCard(Frozen):
    """What the Catalog lists of a site: name, signing address, sealing key, key of its swarm peer (zero for none)."""

    name: Name
    address: Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$")]
    sealing: Hex32
    peer: Hex32 = "0x" + ZERO.hex()

    @property
    def entry(self) -> SiteEntry:
        """The seat that the site asks for; its number is the Catalog's to give."""
        address = to_checksum_address(self.address)
        return SiteEntry(0, self.name, address, bytes.fromhex(self.sealing[2:]), bytes.fromhex(self.peer[2:]))

    @classmethod
    def load(cls, path: Path) -> SeatCard:
        """Read a card from a file; ConfigError for another file."""
        return read_strict(path, cls, MAX_CARD_BYTES, "CO-F501", "a site's card.json", " `coterie init` makes one.")
