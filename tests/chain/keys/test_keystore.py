"""Key files and signed transactions: the same bytes as Ethereum's own tools read and write."""

from __future__ import annotations

import json
import secrets
from typing import Any, Literal

import pytest
from eth_account import Account
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from coterie_chain.keys.keystore import WrongPassphrase, decrypt_secret, encrypt_secret
from coterie_chain.keys.signing import SigningAccount

WORDS = "pässword with spaces".encode()
# The vector of the Web3 Secret Storage Definition (ethereum.org, version 3). Its other one has r = 1 with n = 2^18,
# which RFC 7914 forbids, and OpenSSL with it; all tools write r = 8.
SECRET = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
PUBLISHED: dict[str, Any] = {
    "cipher": "aes-128-ctr",
    "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
    "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
    "kdf": "pbkdf2",
    "kdfparams": {
        "c": 262144,
        "dklen": 32,
        "prf": "hmac-sha256",
        "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
    },
    "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
}


@pytest.mark.parametrize("word", ["crypto", "Crypto"])
def test_the_definition_s_own_file_opens(word: str) -> None:
    keyfile = {word: PUBLISHED, "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6", "version": 3}
    assert decrypt_secret(keyfile, b"testpassword").hex() == SECRET


@pytest.mark.parametrize("kind", ["scrypt", "pbkdf2"])
def test_files_of_eth_keyfile_open(kind: Literal["scrypt", "pbkdf2"]) -> None:
    for _ in range(5):
        secret = secrets.token_bytes(31).rjust(32, b"\0")
        keyfile = create_keyfile_json(secret, WORDS, kdf=kind, iterations=2)
        assert decrypt_secret(json.loads(json.dumps(keyfile)), WORDS) == secret


def test_eth_keyfile_opens_ours() -> None:
    for _ in range(5):
        secret = secrets.token_bytes(31).rjust(32, b"\0")
        assert decode_keyfile_json(json.loads(json.dumps(encrypt_secret(secret, WORDS, 2))), WORDS) == secret


def test_two_files_of_one_secret_share_nothing() -> None:
    first, second = (encrypt_secret(bytes(32), WORDS, 2) for _ in range(2))
    assert first["id"] != second["id"]
    assert first["crypto"] != second["crypto"]


def test_a_wrong_passphrase_or_a_changed_byte_is_told_from_damage() -> None:
    keyfile: Any = encrypt_secret(bytes(range(32)), WORDS, 2)
    with pytest.raises(WrongPassphrase):
        decrypt_secret(keyfile, WORDS + b" ")
    changed = keyfile["crypto"] | {"ciphertext": "00" + keyfile["crypto"]["ciphertext"][2:]}
    with pytest.raises(WrongPassphrase):
        decrypt_secret(keyfile | {"crypto": changed}, WORDS)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("kdf", "argon2"),
        ("cipher", "aes-256-gcm"),
        ("kdfparams", {"n": 1 << 40, "r": 8, "p": 1, "dklen": 32, "salt": "00"}),
        ("kdfparams", {"n": 2, "r": 1 << 40, "p": 1, "dklen": 32, "salt": "00"}),
        ("kdfparams", {"n": 2, "r": 8, "p": 1 << 40, "dklen": 32, "salt": "00"}),
        ("kdfparams", {"n": 2, "r": 8, "p": 1, "dklen": 1 << 40, "salt": "00"}),
        ("kdfparams", {"n": -2, "r": 8, "p": 1, "dklen": 32, "salt": "00"}),
        ("ciphertext", "zz"),
        ("mac", 7),
    ],
)
def test_a_file_that_asks_for_what_nobody_writes_is_refused(part: str, value: object) -> None:
    keyfile: Any = encrypt_secret(bytes(32), WORDS, 2)
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)) as refused:
        decrypt_secret(keyfile | {"crypto": keyfile["crypto"] | {part: value}}, WORDS)
    assert not isinstance(refused.value, WrongPassphrase)


def test_too_many_rounds_are_refused() -> None:
    keyfile: Any = create_keyfile_json(bytes(31) + b"\1", WORDS, kdf="pbkdf2", iterations=2)
    keyfile["crypto"]["kdfparams"]["c"] = 1 << 40
    with pytest.raises(ValueError, match="rounds"):
        decrypt_secret(keyfile, WORDS)


@pytest.mark.parametrize("kind", ["price", "fees"])
def test_transactions_are_signed_as_eth_account_signs_them(kind: str) -> None:
    for k in range(100):
        key = secrets.token_bytes(32)
        fields: dict[str, Any] = {
            "chainId": (1, 127, 128, 20240, 2**40)[k % 5],
            "nonce": (0, 1, 127, 128, 70000)[k % 5],
            "gas": 21000 + k,
            "value": (0, 10**18)[k % 2],
            "data": "0x" + secrets.token_hex(k),
        }
        price = (0, 1, 10**9)[k % 3]
        fees = {"maxFeePerGas": 2 * price + 7, "maxPriorityFeePerGas": price}
        fields |= {"gasPrice": price} if kind == "price" else fees
        if k % 4:
            fields["to"] = SigningAccount.create().address
        ours, theirs = SigningAccount(key), Account.from_key(key)
        signed, wanted = ours.sign_transaction(fields), theirs.sign_transaction(fields)
        assert ours.address == theirs.address
        assert signed.raw_transaction == bytes(wanted.raw_transaction)
        assert signed.hash == bytes(wanted.hash)


def test_an_account_shows_its_address_only() -> None:
    account = SigningAccount.create()
    assert repr(account) == f"SigningAccount({account.address})"
    assert account.key.hex() not in f"{account} {[account]!r}"
