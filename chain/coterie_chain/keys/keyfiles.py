"""Encrypted key files in the JSON form that Ethereum's programs share (Web3 Secret Storage, version 3).

The library that reads them computes constants of a curve for validators when it is imported, which takes half a second
of every process that opens a key. The form itself is a KDF, AES-128-CTR and a Keccak code of the ciphertext.
"""

from __future__ import annotations

import hmac
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from eth_hash.auto import keccak

# scrypt's block size and parallelism as Geth sets them; bytes of the derived key.
_R, _P, _DERIVED = 8, 1, 32
# The most that a file may ask for: its owner's programs write 2^18 and 1 to 8.
_LARGEST = {"n": 1 << 20, "r": 16, "p": 16, "c": 1 << 26, "dklen": 64}


class WrongPassphrase(ValueError):
    """The code of the ciphertext is another under the key that the passphrase gives."""


def encrypt_keyfile(secret: bytes, passphrase: bytes, scrypt: int) -> dict[str, object]:
    """A key file without address; `scrypt` is the work factor, a power of two."""
    salt, start = secrets.token_bytes(16), secrets.token_bytes(16)
    derived = Scrypt(salt, _DERIVED, scrypt, _R, _P).derive(passphrase)
    ciphertext = _apply_stream(derived, start, secret)
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": start.hex()},
        "ciphertext": ciphertext.hex(),
        "kdf": "scrypt",
        "kdfparams": {"dklen": _DERIVED, "n": scrypt, "r": _R, "p": _P, "salt": salt.hex()},
        "mac": _compute_code(derived, ciphertext).hex(),
    }
    return {"crypto": crypto, "id": str(uuid.uuid4()), "version": 3}


def decrypt_keyfile(file: Any, passphrase: bytes) -> bytes:
    """The secret of a key file; WrongPassphrase, or KeyError, TypeError, ValueError for what is no such file."""
    entries = _lower_keys(file)
    crypto = entries["crypto"]
    if entries["version"] != 3 or crypto["cipher"] != "aes-128-ctr":
        raise ValueError("not version 3, or another cipher than AES-128-CTR")
    derived = _derive(crypto["kdf"], crypto["kdfparams"], passphrase)
    ciphertext = _read_hex(crypto["ciphertext"])
    if not hmac.compare_digest(_compute_code(derived, ciphertext), _read_hex(crypto["mac"])):
        raise WrongPassphrase
    return _apply_stream(derived, _read_hex(crypto["cipherparams"]["iv"]).rjust(16, b"\0"), ciphertext)


def _derive(kdf: str, parameters: Mapping[str, Any], passphrase: bytes) -> bytes:
    salt, length = _read_hex(parameters["salt"]), _read_count(parameters, "dklen")
    if length < _DERIVED:
        raise ValueError(f"a derived key of {length} bytes is too short")
    if kdf == "scrypt":
        n, r, p = (_read_count(parameters, name) for name in "nrp")
        return Scrypt(salt, length, n, r, p).derive(passphrase)
    if kdf == "pbkdf2" and parameters["prf"] == "hmac-sha256":
        return PBKDF2HMAC(SHA256(), length, salt, _read_count(parameters, "c")).derive(passphrase)
    raise ValueError(f"unknown key derivation {kdf!r:.40}")


def _read_count(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters[name]
    if type(value) is not int or not 0 < value <= _LARGEST[name]:
        raise ValueError(f"{name} is {value!r:.40}, no number between 1 and {_LARGEST[name]}")
    return value


def _read_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _lower_keys(value: Any) -> dict[str, Any]:
    """A file's entries with keys in small letters: old programs write `Crypto`."""
    return {key.lower(): _lower_keys(item) if isinstance(item, dict) else item for key, item in value.items()}


def _compute_code(derived: bytes, ciphertext: bytes) -> bytes:
    return keccak(derived[16:32] + ciphertext)


def _apply_stream(derived: bytes, start: bytes, data: bytes) -> bytes:
    """AES-128-CTR, which encrypts and decrypts alike."""
    stream = Cipher(AES(derived[:16]), CTR(start)).encryptor()
    return stream.update(data) + stream.finalize()
