"""View keys: what a reader of a study's sealed payloads hands to an auditor, so that these can be opened and replayed.

A grant lists, for each payload that its giver can read, the key of that one envelope's body; it opens these payloads
and nothing else, now or later, and contains no key of a site. It travels sealed to the auditor's own key. Several
grants add up: where each site reads other payloads, each gives what it can. A granted key cannot be called back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic_core import from_json

from coterie_chain.errors import BlobCorrupt
from coterie_chain.keys.envelopes import is_sealed
from coterie_chain.keys.private_files import write_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger, Record
from coterie_chain.store.protocol import BlobStore
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.errors import ConfigError
from coterie_node.run.codec import fetch

READER = "auditor"
# A key of 32 bytes for each payload, sealed and in hexadecimal digits: 50,000 payloads.
MAX_GRANT_BYTES = 1 << 24
View = Mapping[bytes, bytes]


def view_of(ledger: Ledger, blobs: BlobStore, number: int, name: str, keys: Iterable[SiteKeys]) -> View:
    """The body keys of all payloads of a study that a site can read with its keys, by SHA-256 of the stored bytes."""
    return join_views(ledger, blobs, number, {name: keys})


def join_views(ledger: Ledger, blobs: BlobStore, number: int, givers: Mapping[str, Iterable[SiteKeys]]) -> View:
    """What several sites can read together; each payload is fetched once."""
    keys = {name: list(pairs) for name, pairs in givers.items()}
    out: dict[bytes, bytes] = {}
    for record in ledger.history(number):
        blob = fetch(record.post, blobs) if isinstance(record, Record) else b""
        if not isinstance(record, Record) or not is_sealed(blob):
            continue
        for name, pairs in keys.items():
            key = _first_key(blob, name, pairs)
            if key is not None:
                out[record.post.sha256] = key
    return out


def _first_key(blob: bytes, name: str, keys: Iterable[SiteKeys]) -> bytes | None:
    """The body's key with whichever of a site's keys it was sealed to."""
    for key_pair in keys:
        try:
            return key_pair.open_body_key(blob, name)
        except BlobCorrupt as error:
            if error.code != "CO-C222":
                raise
    return None


def save_grant(path: Path, view: View, study: bytes, auditor: bytes, giver: SiteKeys) -> None:
    """Write a grant for the owner of a sealing key (32 bytes)."""
    plain = json.dumps({digest.hex(): key.hex() for digest, key in sorted(view.items())}).encode()
    write_private(path, giver.seal(plain, {READER: auditor}, _context(study)).hex() + "\n")


def load_grants(paths: Iterable[Path], study: bytes, auditor: SiteKeys) -> View:
    """The view that grants made for this auditor and this study give together; ConfigError names one that is not."""
    view: dict[bytes, bytes] = {}
    for path in paths:
        try:
            plain = auditor.unseal(
                bytes.fromhex(read_bounded_text(path, MAX_GRANT_BYTES).strip()), READER, _context(study)
            )
            parts = from_json(plain or b"")
            view |= {bytes.fromhex(digest): bytes.fromhex(key) for digest, key in parts.items()}
        except (OSError, ValueError, AttributeError, TypeError, BlobCorrupt) as error:
            message = f"{path} is not a grant for this auditor's key and this study ({type(error).__name__})"
            raise ConfigError("CO-F351", f"{message}. Ask the site that gave it for a new one.") from None
    return view


def _context(study: bytes) -> bytes:
    return b"coterie/1 grant " + study
