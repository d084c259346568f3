"""Keys of persons for the command line: one passphrase-protected file each, in the form that Ethereum's tools read.

Source: Web3 Secret Storage, version 3, with scrypt.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

from pydantic_core import from_json

from coterie_chain.keys.private_files import read_private, write_private
from coterie_chain.keys.site_keys import SCRYPT
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import PersonKey

MIN_PASSPHRASE = 12


class KeyFolder:
    """The key files of a site's persons, in a folder of mode 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str, passphrase: str, *, scrypt: int = SCRYPT) -> PersonKey:
        """Make a person's key; ConfigError (CO-F439) for a short passphrase. An older key of the name is put aside."""
        if len(passphrase) < MIN_PASSPHRASE:
            message = f"A passphrase has at least {MIN_PASSPHRASE} characters, and this one has {len(passphrase)}"
            raise ConfigError("CO-F439", f"{message}. Choose a longer one.")
        from eth_keyfile.keyfile import create_keyfile_json  # slow to import
        from eth_keys.main import KeyAPI

        secret = secrets.token_bytes(32)
        address = str(KeyAPI().PrivateKey(secret).public_key.to_address())
        keyfile = dict(create_keyfile_json(secret, passphrase.encode(), kdf="scrypt", iterations=scrypt))
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._locate(name)
        if path.exists():
            path.replace(path.with_suffix(f".{secrets.token_hex(4)}.old"))
        write_private(path, json.dumps(keyfile, indent=2) + "\n")
        return PersonKey(kind="key", public=address)

    def open(self, name: str, passphrase: str) -> bytes:
        """A person's secret key (32 bytes); ConfigError (CO-F439) if the passphrase does not open it."""
        path = self._locate(name)
        if not path.exists():
            message = f"There is no key of {name[:60]!a} in {self.root}"
            raise ConfigError("CO-F432", f"{message}. Make one with `coterie person add`, or sign on the page.")
        from eth_keyfile.keyfile import decode_keyfile_json

        try:
            secret = bytes(decode_keyfile_json(from_json(read_private(path, "the person's key")), passphrase.encode()))
        except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
            raise ConfigError("CO-F439", f"The passphrase does not open the key of {name[:60]!a}. Try again.") from None
        return secret

    def remove(self, name: str) -> None:
        """Delete a person's key, if there is one."""
        self._locate(name).unlink(missing_ok=True)

    def _locate(self, name: str) -> Path:
        """The file of a name, whatever characters it has."""
        return self.root / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
