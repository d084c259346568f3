"""Which store an address names."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from coterie_chain.errors import StoreFault
from coterie_chain.keys.private_files import read_private
from coterie_chain.store.kubo import HttpClientBlobs, KuboBlobs
from coterie_chain.store.protocol import BlobStore, FolderBlobs, MemoryBlobs

# Entry points by the scheme of an address: a function from the address to the store.
GROUP = "coterie.stores"
FORMS = (
    "folder:PATH, file:///PATH, kubo+http://HOST:PORT?token_file=PATH, "
    "ipfshttpclient+http://HOST:PORT?token_file=PATH or memory:"
)


def open_store(url: str) -> BlobStore:
    """The store at an address: folder:PATH, file:///PATH, kubo+http(s)://, ipfshttpclient+http(s):// or memory:.

    Daemons take their token from a file that only its owner may read (`?token_file=PATH`), never from the address.
    """
    kind, _, rest = url.partition(":")
    if url == "memory:":
        return MemoryBlobs()
    if kind == "folder" and rest:
        return FolderBlobs(Path(rest).expanduser())
    parts = _split_url(url)
    if kind == "file" and parts.path and parts.netloc in ("", "localhost"):
        return FolderBlobs(unquote(parts.path))
    if kind in ("kubo+http", "kubo+https"):
        return KuboBlobs(*_parse_daemon(parts))
    if kind in ("ipfshttpclient+http", "ipfshttpclient+https"):
        return HttpClientBlobs(*_parse_daemon(parts))
    return _open_installed(kind, url)


def _open_installed(kind: str, url: str) -> BlobStore:
    """The store of another package; those of this one cannot be replaced."""
    entry = next(iter(entry_points(group=GROUP, name=kind)), None)
    if entry is None:
        raise _explain_bad_address(f"it starts with {kind[:30]!r}")
    store: BlobStore = entry.load()(url)
    return store


def _parse_daemon(parts: SplitResult) -> tuple[str, str | None]:
    """URL and token of a daemon's RPC."""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    token_file = options.pop("token_file", None)
    if options or parts.path not in ("", "/") or parts.fragment or not parts.hostname:
        raise _explain_bad_address("a daemon's address is a host, a port and at most a token_file")
    if parts.username is not None or parts.password is not None:
        raise _explain_bad_address("passwords do not belong into an address; use token_file")
    token = None if token_file is None else read_private(Path(token_file), "the token file").strip()
    return f"{parts.scheme.partition('+')[2]}://{parts.netloc}", token


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        raise _explain_bad_address(str(e)) from None
    return parts


def _explain_bad_address(cause: str) -> StoreFault:
    # The address itself may hold a password by mistake, so it is not repeated here.
    return StoreFault("CO-C210", f"The store's address names no store: {cause}. Write {FORMS}.")
