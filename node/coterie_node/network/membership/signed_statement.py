"""Small documents that a site signs and another checks: invitations, orders for a new swarm's key, heartbeats."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, ClassVar, Self

from pydantic import Field

from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.keys.statements import recover_statement_signer, sign_statement
from coterie_learners.study.document import Frozen


class SignedStatement(Frozen):
    """What a site says, and its signature over all the rest; a subclass names its `purpose`."""

    purpose: ClassVar[str] = ""
    signature: Annotated[str, Field(pattern="^([0-9a-f]{130})?$")] = ""

    @property
    def content(self) -> bytes:
        """What is signed: the same bytes for equal contents."""
        fields = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @property
    def fingerprint(self) -> str:
        """Sixteen groups of four letters over what is signed, to be read aloud."""
        digest = hashlib.sha256(self.content).hexdigest()
        return " ".join(digest[at : at + 4] for at in range(0, 64, 4))

    @property
    def signer(self) -> str:
        """Address of the key that signed it; empty where none did."""
        return recover_statement_signer(self.purpose, self.content, self.signature)

    def sign(self, keys: SiteKeys) -> Self:
        """The same, signed by a site's key."""
        return self.model_copy(update={"signature": sign_statement(keys, self.purpose, self.content)})

    def to_json(self) -> str:
        """Text of its file."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2) + "\n"
