"""A site's keys: a signing account, an X25519 sealing key, and a secret for streams of random numbers.

Two encrypted key files (Ethereum's JSON, scrypt) lie in a directory of mode 0700. `operator.json` holds the signing
key and opens in any Ethereum tool. `private.json` holds a root of 32 bytes from which the sealing key and the stream
secret are derived, so that a new signing key does not cost the site its sealed payloads.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from coincurve import PrivateKey as PrivateSigningKey
from coincurve import PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_hash.auto import keccak
from nacl.bindings import crypto_scalarmult
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey
from pydantic_core import from_json

from coterie_chain.errors import KeyFault
from coterie_chain.keys.envelopes import open_body_key, seal, unseal
from coterie_chain.keys.keyfiles import WrongPassphrase, decrypt_keyfile, encrypt_keyfile
from coterie_chain.keys.private_files import check_mode, read_private, replace_private

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from coterie_chain.keys.signer import Signer

OPERATOR = "operator.json"
PRIVATE = "private.json"
# Work factor of scrypt as geth sets it: about a second and 256 MB for each file.
SCRYPT = 1 << 18
# X25519 makes a scalar of any 32 bytes.
_ANY_SCALAR = bytes(range(1, 33))


@dataclass(frozen=True, eq=False, repr=False)
class SiteKeys:
    """Keys of one site, opened. Shows its address only."""

    signing: bytes
    private: PrivateKey
    stream: bytes

    def __repr__(self) -> str:
        return f"SiteKeys({self.address})"

    @classmethod
    def create(cls, directory: str | Path, passphrase: str, *, scrypt: int = SCRYPT) -> SiteKeys:
        """New keys in `directory`, all or none; KeyFault if it holds keys already. `scrypt` is a power of two."""
        if not passphrase:
            raise KeyFault("CO-C103", "The passphrase is empty. Choose one that only this site's people know.")
        folder = Path(directory)
        _check_new(folder)
        signing, root = PrivateSigningKey().secret, secrets.token_bytes(32)
        keys = cls.of(signing, root)
        address = keys.address.removeprefix("0x").lower()
        # The address that the format may have would be the root's, and means nothing.
        operator, private = (encrypt_keyfile(secret, passphrase.encode(), scrypt) for secret in (signing, root))
        _save(folder, {PRIVATE: private, OPERATOR: {"address": address, **operator}})
        return keys

    @classmethod
    def load(cls, directory: str | Path, passphrase: str) -> SiteKeys:
        """Keys of a directory; KeyFault if a file is missing, open to others, or does not open with the passphrase."""
        folder = Path(directory)
        if folder.is_dir():
            check_mode(folder, folder.stat().st_mode, "the key directory", "700")
        return cls.of(_read_secret(folder / OPERATOR, passphrase), _read_secret(folder / PRIVATE, passphrase))

    @classmethod
    def of(cls, signing: bytes, root: bytes) -> SiteKeys:
        """Keys from a signing key and a root (32 bytes each)."""
        seed, stream = _derive(root, b"coterie/1 sealing key"), _derive(root, b"coterie/1 stream secret")
        return cls(signing, PrivateKey(seed), stream)

    @property
    def signer(self) -> Signer:
        """What signs this site's transactions."""
        from coterie_chain.keys.signer import KeySigner  # commands that sign nothing do not import what it needs

        return KeySigner(self.address, self.signing)

    @cached_property
    def account(self) -> LocalAccount:
        """The account as the general library has it, for what signs something else than calls."""
        from eth_account import Account  # it takes half a second to import, and many commands sign nothing

        account: LocalAccount = Account.from_key(self.signing)
        return account

    @cached_property
    def address(self) -> str:
        """Signing address, with checksum."""
        point = PublicKey.from_valid_secret(self.signing).format(compressed=False)[1:]
        return _spell_address(keccak(point)[-20:])

    @property
    def sealing(self) -> bytes:
        """X25519 public key (32 bytes), as the Catalog lists it."""
        return bytes(self.private.public_key)

    def derive_for_study(self, seed: bytes) -> SiteKeys:
        """The same keys with another sealing key (32 bytes), for one run of a study."""
        return replace(self, private=PrivateKey(seed))

    def derive_shared_secret(self, peer_public: bytes) -> bytes:
        """Secret (32 bytes) that only this site and the owner of `peer_public` can compute; the same at both ends."""
        if len(peer_public) != 32:
            raise _explain_unusable(peer_public)
        try:
            # libsodium refuses the points of low order, for which the secret would be known to everybody.
            point = crypto_scalarmult(bytes(self.private), peer_public)
        except (CryptoError, RuntimeError):
            raise _explain_unusable(peer_public) from None
        return _derive(point, b"coterie/1 shared secret" + b"".join(sorted((self.sealing, peer_public))))

    def seal(self, raw: bytes, readers: Mapping[str, bytes], context: bytes = b"") -> bytes:
        """Seal bytes to readers; see `envelopes.seal`."""
        return seal(raw, readers, context)

    def open_body_key(self, blob: bytes, name: str) -> bytes | None:
        """The key of one envelope's body, if this site is a reader of it. See `envelopes.open_body_key`."""
        return open_body_key(blob, name, self.private)

    def unseal(self, blob: bytes, name: str, context: bytes = b"") -> bytes | None:
        """Bytes sealed to this site, which is called `name`; None if it is no reader. See `envelopes.unseal`."""
        return unseal(blob, name, self.private, context)


def read_passphrase(path: str | Path) -> str:
    """First line of a passphrase file that only its owner may read."""
    line = read_private(Path(path), "the passphrase file").split("\n", 1)[0].rstrip("\r")
    if not line:
        raise KeyFault("CO-C104", f"The first line of the passphrase file {path} is empty. Write the passphrase there.")
    return line


def _derive(secret: bytes, label: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=label).derive(secret)


def _check_new(folder: Path) -> None:
    existing = [name for name in (OPERATOR, PRIVATE) if (folder / name).exists()]
    if existing:
        raise KeyFault(
            "CO-C105",
            f"{folder} holds {' and '.join(existing)} already, and keys are never overwritten. Name another folder.",
        )


@lru_cache(maxsize=1024)
def is_usable_key(public: bytes) -> bool:
    """Whether others can share a secret with the owner of a sealing key, and seal to it: no point of low order."""
    try:
        return len(public) == 32 and bool(crypto_scalarmult(_ANY_SCALAR, public))
    except (CryptoError, RuntimeError):
        return False


def _save(folder: Path, keyfiles: Mapping[str, dict[str, object]]) -> None:
    """Write the key files aside, and then give them their place: a command that is cut short leaves no half."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, keyfile in keyfiles.items():
            replace_private(aside / name, json.dumps(keyfile, indent=2) + "\n")
        if not folder.exists() or not any(folder.iterdir()):
            aside.replace(folder)
            return
        os.chmod(folder, 0o700)
        for name in keyfiles:
            os.link(aside / name, folder / name)  # refused where somebody made keys meanwhile
            (aside / name).unlink()
        aside.rmdir()
    except OSError as e:
        raise KeyFault(
            "CO-C101", f"Cannot make the key directory {folder}: {e.strerror or e}. Check the path and its permissions."
        ) from e


def _read_secret(path: Path, passphrase: str) -> bytes:
    text = read_private(path, "the key file")
    try:
        secret = decrypt_keyfile(from_json(text), passphrase.encode())
    except WrongPassphrase:
        message = f"The passphrase does not open {path}. Put the one that was there when the keys were made"
        cure = "into the passphrase file again. If nobody has it, this site needs new keys, for which the sites vote."
        raise KeyFault("CO-C103", f"{message} {cure}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise KeyFault(
            "CO-C104", f"{path} is not a key file, or it is damaged ({type(e).__name__}). Restore it from your copy."
        ) from None
    if len(secret) != 32:
        raise KeyFault(
            "CO-C104", f"{path} holds a key of {len(secret)} bytes instead of 32. Restore it from your copy."
        )
    return secret


def _explain_unusable(public: bytes) -> KeyFault:
    return KeyFault(
        "CO-C106", f"The peer's sealing key is not a usable X25519 key: {public.hex()}. Ask the peer for its card."
    )


def _spell_address(address: bytes) -> str:
    """20 bytes in hex whose capitals are a checksum (EIP-55); the library of addresses takes 45 ms to import."""
    digits = address.hex()
    capitals = keccak(digits.encode()).hex()
    return "0x" + "".join(d.upper() if int(c, 16) > 7 else d for d, c in zip(digits, capitals, strict=False))
