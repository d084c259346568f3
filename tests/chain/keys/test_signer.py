"""Transactions that a site signs are those of the general library, and so are its key files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from eth_account import Account
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from coterie_chain.keys.keyfiles import WrongPassphrase, decrypt_keyfile, encrypt_keyfile
from coterie_chain.keys.signer import KeySigner
from coterie_chain.keys.site_keys import SiteKeys

if TYPE_CHECKING:
    from eth_account.types import TransactionDictType

PASSPHRASE = "correct horse battery staple"
FAST = 2


def draw_transaction(rng: random.Random, fees: dict[str, int]) -> TransactionDictType:
    address = Account.from_key(rng.randbytes(32)).address
    return {
        "to": rng.choice([address, address, ""]),
        "data": "0x" + rng.randbytes(rng.choice([0, 1, 4, 55, 56, 300])).hex(),
        "gas": rng.choice([0, 21_000, 8_000_000]),
        "nonce": rng.choice([0, 1, 127, 128, 1 << 40]),
        "value": rng.choice([0, 1, 10**18]),
        "chainId": rng.choice([1, 31337, 20_260_901]),
        **fees,
    }


@pytest.mark.parametrize(
    "fees",
    [{"gasPrice": 0}, {"gasPrice": 7}, {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 1}],
    ids=["free", "one price", "fee market"],
)
def test_a_signed_transaction_has_the_bytes_and_the_hash_of_the_general_library(fees: dict[str, int]) -> None:
    rng = random.Random(5)
    for _ in range(40):
        secret = rng.randbytes(32)
        account = Account.from_key(secret)
        transaction = draw_transaction(rng, fees)
        expected = account.sign_transaction(transaction)
        signed = KeySigner(account.address, secret).sign_transaction(transaction)
        assert (signed.raw_transaction, signed.hash) == (bytes(expected.raw_transaction), bytes(expected.hash))


def test_a_signer_shows_its_address_and_not_its_key() -> None:
    keys = SiteKeys.of(bytes([3]) * 32, bytes(32))
    assert repr(keys.signer) == f"KeySigner({keys.address})"


def test_the_general_library_reads_a_key_file_of_ours() -> None:
    file = json.loads(json.dumps(encrypt_keyfile(bytes(range(32)), PASSPHRASE.encode(), FAST)))
    assert decode_keyfile_json(file, PASSPHRASE.encode()) == bytes(range(32))


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_a_key_file_of_the_general_library_is_read(kdf: Any) -> None:
    file = create_keyfile_json(bytes(range(32)), PASSPHRASE.encode(), kdf=kdf, iterations=FAST)
    assert decrypt_keyfile(file, PASSPHRASE.encode()) == bytes(range(32))
    old = {"Crypto": file["crypto"], "Version": 3}
    assert decrypt_keyfile(old, PASSPHRASE.encode()) == bytes(range(32))
    with pytest.raises(WrongPassphrase):
        decrypt_keyfile(file, b"hunter2")


@pytest.mark.parametrize(
    ("part", "value"),
    [("n", 1 << 40), ("n", 3), ("n", True), ("r", 1 << 20), ("p", 0), ("dklen", 16), ("dklen", 1 << 30), ("salt", "x")],
)
def test_a_key_file_that_asks_for_the_impossible_is_refused(part: str, value: Any) -> None:
    file: dict[str, Any] = encrypt_keyfile(bytes(range(32)), PASSPHRASE.encode(), FAST)
    file["crypto"]["kdfparams"][part] = value
    with pytest.raises(ValueError):  # noqa: PT011  which words the KDF has is its library's affair
        decrypt_keyfile(file, PASSPHRASE.encode())


def test_keys_open_and_sign_without_the_general_library(tmp_path: Path) -> None:
    SiteKeys.create(tmp_path / "keys", PASSPHRASE, scrypt=FAST)
    script = (
        "import sys; from coterie_chain.keys.site_keys import SiteKeys;"
        f"SiteKeys.load({str(tmp_path / 'keys')!r}, {PASSPHRASE!r}).signer.sign_transaction("
        "dict(to='0x' + 40 * '1', data='0x', gas=21000, nonce=0, value=0, chainId=1, gasPrice=1));"
        "print(sorted({'eth_account', 'eth_keyfile', 'py_ecc', 'web3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
