"""What a person signs: an EIP-712 text, and the signature of a key or a passkey under it.

Source: EIP-712 (typed structured data), EIP-2 (a signature has one form, with the lower s), 21 CFR 11.50 and 11.70.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coterie_learners.study.document import Frozen, Name, Text
from coterie_node.errors import AuditFailed
from coterie_node.persons.passkeys import Assertion, check_assertion
from coterie_node.persons.roles import Role

Digest32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
EthereumAddress = Annotated[str, Field(pattern="^0x[0-9a-f]{40}$")]
Seconds = Annotated[int, Field(ge=0, lt=1 << 63)]
ActKind = Literal["propose", "approve", "decline", "abort", "withdraw", "allow", "release", "amend", "vote"]
ZEROS = "00" * 32
# Half of the order of secp256k1's group: a signature with a larger s is the mirror of another one.
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0

MEANINGS: dict[str, str] = {
    "propose": "I propose this study and approve it for my site.",
    "approve": "I have read this study and approve that my site takes part.",
    "decline": "I decline this study for my site.",
    "abort": "I end this study for all sites.",
    "withdraw": "I take back what my site said of this study.",
    "allow": "I allow what the privacy log refused of this study.",
    "release": "I have read this payload and allow that it leaves my site.",
    "amend": "I amend the study that this one names, for the reason that it states.",
    "vote": "I cast my site's vote on this motion.",
}
_FIELDS = {
    "name": "string",
    "role": "string",
    "meaning": "string",
    "act": "string",
    "study": "bytes32",
    "number": "uint64",
    "decision": "uint64",
    "about": "bytes32",
    "site": "string",
    "time": "uint64",
}
_DOMAIN = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}


class ActDomain(Frozen):
    """The network on which a signature counts: its chain id and its Catalog's address, in small letters."""

    chain_id: Annotated[int, Field(ge=0, lt=1 << 63)]
    catalog: EthereumAddress


class ActText(Frozen):
    """What one person signs about one act.

    `study` is the SHA-256 of the document, `number` the proposal's number on the ledger (0 before it has one), and
    `decision` counts the site's decisions on this study. `about` is the SHA-256 of what else the act is about: a
    proposal's terms, a payload, a motion. `time` is in seconds since 1970 by the clock of the site.
    """

    name: Text
    role: Role
    meaning: Text
    act: ActKind
    study: Digest32 = ZEROS
    number: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    decision: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    about: Digest32 = ZEROS
    site: Name
    time: Seconds
    domain: ActDomain

    @property
    def typed_data(self) -> dict[str, object]:
        """The EIP-712 structure as JSON, which a wallet signs (`eth_signTypedData_v4`)."""
        values = self.model_dump(mode="json", exclude={"domain"})
        values |= {name: f"0x{values[name]}" for name in ("study", "about")}
        return make_typed_data("Act", _FIELDS, values, self.domain)

    @property
    def digest(self) -> bytes:
        """The 32 bytes that are signed; a passkey signs them as its challenge."""
        values = self.model_dump(mode="json", exclude={"domain"})
        values |= {name: bytes.fromhex(values[name]) for name in ("study", "about")}
        return digest_typed("Act", _FIELDS, values, self.domain)


class PersonKey(Frozen):
    """A public key of a person.

    A "key" has an Ethereum address. A "passkey" has a point of P-256 (64 bytes in hexadecimal digits), the credential's
    id, and the origin on which it was registered.
    """

    kind: Literal["key", "passkey"]
    public: Annotated[str, Field(pattern="^(0x[0-9a-f]{40}|[0-9a-f]{128})$")]
    credential: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{0,1400}$")] = ""
    origin: Annotated[str, Field(max_length=300)] = ""

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return self.public if self.kind == "key" else f"passkey {self.public[:16]} on {self.origin}"


class SignedAct(Frozen):
    """A text with a person's signature: 65 bytes of a key, or a passkey's assertion with the digest as challenge."""

    text: ActText
    key: PersonKey
    signature: Annotated[str, Field(pattern="^([0-9a-f]{130})?$")] = ""
    assertion: Assertion | None = None

    def check(self) -> None:
        """AuditFailed (CO-A211) unless the key signed the text."""
        if self.key.kind == "passkey" and self.assertion is not None and not self.signature:
            check_assertion(self.assertion, self.text.digest, self.key.public, self.key.origin, self.text.name)
        elif (
            self.key.kind != "key"
            or self.assertion
            or recover_signer(self.text.digest, self.signature) != (self.key.public)
        ):
            message = f"The signature of {self.text.name} is not of the key {self.key.fingerprint}"
            raise AuditFailed("CO-A211", f"{message}: the name or the text was forged. Ask the site for its record.")


def sign_act(text: ActText, secret: bytes) -> SignedAct:
    """Sign a text with the secret key (32 bytes) of a person."""
    from eth_keys.main import KeyAPI

    private = KeyAPI().PrivateKey(secret)
    signature = sign_digest(text.digest, secret)
    key = PersonKey(kind="key", public=private.public_key.to_address())
    return SignedAct(text=text, key=key, signature=signature)


def sign_digest(digest: bytes, secret: bytes) -> str:
    """A signature of 65 bytes (r, s, v) in hexadecimal digits; the same each time (RFC 6979)."""
    from eth_keys.main import KeyAPI

    v, r, s = KeyAPI().ecdsa_sign(digest, KeyAPI().PrivateKey(secret)).vrs
    return (r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v + 27])).hex()


def recover_signer(digest: bytes, signature: str) -> str:
    """Address of the key that made a signature, in small letters; "" if it is none, or not in its one form."""
    from eth_keys.exceptions import BadSignature
    from eth_keys.main import KeyAPI
    from eth_utils.exceptions import ValidationError

    raw = bytes.fromhex(signature)
    if len(raw) != 65 or raw[64] not in (27, 28) or int.from_bytes(raw[32:64], "big") > _HALF_ORDER:
        return ""
    vrs = raw[64] - 27, int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    try:
        public = KeyAPI().ecdsa_recover(digest, KeyAPI.Signature(vrs=vrs))
    except (BadSignature, ValidationError, ValueError):
        return ""
    return str(public.to_address())


def digest_typed(kind: str, fields: dict[str, str], values: dict[str, object], domain: ActDomain) -> bytes:
    """The EIP-712 digest of a flat structure in Coterie's domain on one network."""
    from eth_account.messages import encode_typed_data  # it takes half a second to import
    from eth_utils.crypto import keccak

    message = encode_typed_data(full_message=make_typed_data(kind, fields, values, domain))
    return bytes(keccak(b"\x19" + message.version + message.header + message.body))


def make_typed_data(
    kind: str, fields: dict[str, str], values: dict[str, object], domain: ActDomain
) -> dict[str, object]:
    """The EIP-712 structure of a flat text in Coterie's domain on one network."""
    listed = [{"name": name, "type": type_} for name, type_ in fields.items()]
    domain_values: dict[str, object] = {"name": "Coterie", "version": "1", "chainId": domain.chain_id}
    domain_values["verifyingContract"] = domain.catalog
    types = {"EIP712Domain": [{"name": n, "type": t} for n, t in _DOMAIN.items()], kind: listed}
    return {"types": types, "primaryType": kind, "domain": domain_values, "message": values}
