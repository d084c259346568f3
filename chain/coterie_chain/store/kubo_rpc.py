"""What Kubo's RPC is asked, and what its answers mean.

The daemon is the site's own but it is a large program that talks to others: its answers are bounded, compared and
named, never believed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from pydantic_core import from_json

from coterie_chain.errors import BlobCorrupt, BlobMissing, ChainError, StoreFault
from coterie_chain.store.cid import MAX_BLOCK, RAW, parse_cid

ABSENT = "CO-C201"
# Kubo has one status for everything (500); what it means is in the text.
ABSENT_SIGNS = ("not found", "could not find", "deadline exceeded", "context canceled")
NOT_PINNED = "not pinned"
DISK_FULL = "no space left on device"


def build_put_options(cid: str, pin: bool) -> dict[str, str]:
    """Parameters of block/put, all of them, so that no setting of the daemon matters."""
    codec = "raw" if parse_cid(cid).codec == RAW else "dag-pb"
    return {"cid-codec": codec, "mhtype": "sha2-256", "pin": str(pin).lower()}


def build_headers(token: str | None) -> dict[str, str]:
    """Headers of every request; StoreFault for a token that no header can carry."""
    # Blocks do not compress, and what a daemon inflates on our side would not be bounded.
    headers = {"Accept-Encoding": "identity"}
    if token is not None:
        if not (token.isascii() and token.isprintable() and token and " " not in token):
            raise StoreFault("CO-C210", "The daemon's token must be printable ASCII without spaces; check its file.")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def build_form(block: bytes) -> tuple[bytes, dict[str, str]]:
    """A block as the form that block/put wants, and the header that says so."""
    # Random, so that no block can hold it.
    boundary = secrets.token_hex(16)
    disposition = 'Content-Disposition: form-data; name="data"; filename="block"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    form = b"".join((head.encode(), block, f"\r\n--{boundary}--\r\n".encode()))
    return form, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def format_duration(seconds: float) -> str:
    """Seconds as Go reads them."""
    return f"{round(seconds * 1000)}ms"


def read_bounded(url: str, chunks: Iterable[bytes], seconds: float) -> bytes:
    """An answer of at most one byte more than a block may have, if it comes in time."""
    deadline = time.monotonic() + seconds
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_BLOCK:
            break
        if time.monotonic() > deadline:
            raise explain_silence(url, TimeoutError(f"no end of the answer after {seconds:g} s"))
    return bytes(body[: MAX_BLOCK + 1])


def read_field(body: bytes, name: str) -> str | None:
    """A text in a JSON object, None if it is not there or the bytes are something else."""
    try:
        # Not json.loads: py_ecc, under web3, lifts Python's recursion limit, so that nested brackets crash the process.
        document = from_json(body)
    except ValueError:
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else None


def read_texts(body: bytes, name: str) -> tuple[str, ...]:
    """A list of texts in a JSON object, empty if it is not there or the bytes are something else."""
    try:
        document = from_json(body)
    except ValueError:
        return ()
    values = document.get(name) if isinstance(document, dict) else None
    return tuple(v for v in values if isinstance(v, str)) if isinstance(values, list) else ()


def read_peer_ids(body: bytes) -> frozenset[str]:
    """The ids in an answer of swarm/peers, none if the bytes are something else."""
    try:
        document = from_json(body)
    except ValueError:
        return frozenset()
    peers = document.get("Peers") if isinstance(document, dict) else None
    listed = [p.get("Peer") for p in peers if isinstance(p, dict)] if isinstance(peers, list) else []
    return frozenset(p for p in listed if isinstance(p, str))


def check_key(url: str, cid: str, key: str | None) -> None:
    """BlobCorrupt if the daemon answered another CID than ours."""
    if key != cid:
        raise BlobCorrupt(
            "CO-C209", f"The daemon at {url} answered {_shorten(key)} for the block {cid}. Check what answers there."
        )


def explain_silence(url: str, error: Exception) -> BlobMissing:
    """The daemon did not answer in time."""
    return BlobMissing(
        "CO-C205", f"The daemon at {url} did not answer in time ({type(error).__name__}). Check that it runs."
    )


def explain_unreachable(url: str, error: Exception) -> BlobMissing:
    """The daemon is not there, or the connection broke."""
    advice = "Is it running, and is this its RPC address?"
    return BlobMissing("CO-C206", f"The daemon at {url} cannot be reached ({type(error).__name__}). {advice}")


def explain_refusal(url: str, status: int, answer: str | None) -> ChainError:
    """What an answer other than 200 means; `answer` is the daemon's own message."""
    if status in (401, 403):
        advice = "Check the token, and the AllowedPaths of the daemon's API.Authorizations."
        return StoreFault("CO-C207", f"The daemon at {url} does not let this site in (HTTP {status}). {advice}")
    if status in (429, 502, 503, 504):
        return BlobMissing("CO-C206", f"The daemon at {url} is not available now (HTTP {status}). Check that it runs.")
    if status == 500 and answer and DISK_FULL in answer:
        message = f"The disk of the daemon at {url} is full: {_shorten(answer)}."
        return StoreFault("CO-C213", f"{message} Make room there; nothing that was recorded is lost.")
    if status == 500 and answer and any(sign in answer for sign in ABSENT_SIGNS):
        return BlobMissing(ABSENT, f"The daemon at {url} finds no such block: {_shorten(answer)}.")
    return StoreFault("CO-C208", f"The daemon at {url} refused (HTTP {status}): {_shorten(answer)}. Is it a Kubo RPC?")


def _shorten(text: str | None) -> str:
    return "something that is not Kubo's JSON" if text is None else ascii(text[:200])
