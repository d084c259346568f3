"""What sites vote about, each motion by the name that Catalog.sol gives it: the hash of the move and its arguments."""

from __future__ import annotations

from eth_utils.crypto import keccak

from coterie_chain.ethereum.calldata import codec, encode_site_name

Value = int | bytes | str


def admission(name: str, key: str, sealing: bytes, peer: bytes) -> bytes:
    """To admit a site."""
    return _motion("admit", encode_site_name(name), key, sealing, peer)


def revocation(site: int) -> bytes:
    """To revoke a site."""
    return _motion("revoke", site)


def recovery(site: int, key: str, sealing: bytes, changed: int) -> bytes:
    """To give a site a new key, while its seat has the key that it got at the network's change number `changed`."""
    return _motion("recover", site, key, sealing, changed)


def succession(successor: str) -> bytes:
    """That another Catalog succeeds this one."""
    return _motion("succeed", successor)


def exclusion(study: int, position: int, attempt: int, site: int) -> bytes:
    """To exclude a silent site."""
    return _motion("exclude", study, position, attempt, site)


def unavailability(study: int, position: int, attempt: int, site: int) -> bytes:
    """That a site's post cannot be used."""
    return _motion("unavailable", study, position, attempt, site)


def resumption(study: int) -> bytes:
    """To go on with a paused study."""
    return _motion("resume", study)


def abortion(study: int, reason: int, culprit: int) -> bytes:
    """To end a study without a result."""
    return _motion("abort", study, reason, culprit)


def supersession(study: int, by: int, reason: bytes) -> bytes:
    """That a study's result is superseded."""
    return _motion("supersede", study, by, reason)


def _motion(move: str, *values: Value) -> bytes:
    # All of abi.encode's values fill one word each.
    return keccak(codec("Catalog").selector(move).ljust(32, b"\0") + b"".join(map(_word, values)))


def _word(value: Value) -> bytes:
    """A number, an address in hex or 32 bytes as one word."""
    if isinstance(value, bytes):
        return value
    return (int(value, 16) if isinstance(value, str) else value).to_bytes(32)
