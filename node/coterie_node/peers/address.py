"""The address at which a site listens for its peers: a host and a port."""

from __future__ import annotations

Address = tuple[str, int]


def address_of(text: str) -> Address:
    """Host and port of "host:port" or "[host]:port"; ValueError if it is neither."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 1 << 16 or not _nameable(host):
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _nameable(host: str) -> bool:
    """Whether a host can be looked up at all: `socket` raises no OSError for a name that it cannot even ask for."""
    try:
        return b"\0" not in host.encode("idna")
    except UnicodeError:
        return False
