"""Encrypted key files as Ethereum's tools write them: the Web3 Secret Storage Definition, version 3.

A passphrase is stretched by scrypt (written and read) or PBKDF2 (read); AES-128 in counter mode hides the secret, and
a Keccak digest tells a wrong passphrase. eth-keyfile does the same and takes half a second of CPU to import, because
it computes pairings of another curve; the tests open each other's files.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from eth_utils.crypto import keccak

_KEY_BYTES, _R, _P = 32, 8, 1
# Memory that a key file may ask for (scrypt takes 128 * n * r bytes), and rounds of PBKDF2: four times geth's own.
_MOST_MEMORY, _MOST_ROUNDS = 1 << 30, 1 << 22


class WrongPassphrase(ValueError):
    """The passphrase does not open the key file, or its content was changed."""


def encrypt_secret(secret: bytes, passphrase: bytes, scrypt: int) -> dict[str, object]:
    """A key file for 32 secret bytes; `scrypt` is its work factor, a power of two. It names no address."""
    salt, start = secrets.token_bytes(16), secrets.token_bytes(16)
    parameters = {"dklen": _KEY_BYTES, "n": scrypt, "r": _R, "p": _P, "salt": salt.hex()}
    key = _stretch("scrypt", parameters, passphrase)
    hidden = _crypt(secret, key, start)
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": start.hex()},
        "ciphertext": hidden.hex(),
        "kdf": "scrypt",
        "kdfparams": parameters,
        "mac": keccak(key[16:32] + hidden).hex(),
    }
    return {"crypto": crypto, "id": str(uuid.uuid4()), "version": 3}


def decrypt_secret(keyfile: Mapping[str, Any], passphrase: bytes) -> bytes:
    """The secret of a key file; WrongPassphrase, or ValueError, TypeError or LookupError for what is no key file."""
    crypto = _lower({**keyfile})["crypto"]
    if _lower({**keyfile})["version"] != 3 or crypto["cipher"] != "aes-128-ctr":
        raise ValueError("The file is no Web3 key file of version 3 with aes-128-ctr.")
    key = _stretch(crypto["kdf"], crypto["kdfparams"], passphrase)
    hidden = _unhex(crypto["ciphertext"])
    if not hmac.compare_digest(keccak(key[16:32] + hidden), _unhex(crypto["mac"])):
        raise WrongPassphrase("MAC mismatch")
    return _crypt(hidden, key, _unhex(crypto["cipherparams"]["iv"]))


def _stretch(function: str, parameters: Mapping[str, Any], passphrase: bytes) -> bytes:
    """The key (32 bytes) that a passphrase stands for."""
    salt, size = _unhex(parameters["salt"]), parameters["dklen"]
    if size != _KEY_BYTES:
        raise ValueError(f"The key file stretches its passphrase to {size!r:.20} bytes instead of {_KEY_BYTES}.")
    if function == "scrypt":
        n, r, p = parameters["n"], parameters["r"], parameters["p"]
        most = 128 * r * (n + p + 2)
        if not 0 < most <= _MOST_MEMORY + (1 << 20):
            raise ValueError("The key file asks for more than 1 GiB of memory.")
        return hashlib.scrypt(passphrase, salt=salt, n=n, r=r, p=p, maxmem=most + (1 << 20), dklen=size)
    if function != "pbkdf2" or parameters["prf"] != "hmac-sha256":
        raise ValueError(f"The key file stretches its passphrase by {function!r:.20}.")
    if not 0 < parameters["c"] <= _MOST_ROUNDS:
        raise ValueError(f"The key file asks for more than {_MOST_ROUNDS} rounds of PBKDF2.")
    return hashlib.pbkdf2_hmac("sha256", passphrase, salt, parameters["c"], size)


def _crypt(text: bytes, key: bytes, start: bytes) -> bytes:
    """AES-128 in counter mode, which is its own inverse; the counter begins at `start`."""
    # Some tools drop leading zeros of the counter.
    cipher = Cipher(AES(key[:16]), CTR(start.rjust(16, b"\0"))).encryptor()
    return cipher.update(text) + cipher.finalize()


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _lower(value: Any) -> Any:
    """The same with the names of all fields in small letters: some tools write `Crypto`."""
    if not isinstance(value, Mapping):
        return value
    return {name.lower(): _lower(item) for name, item in value.items()}
