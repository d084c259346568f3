"""What sites vote about, each motion by the name that Catalog.sol gives it: the hash of the move and its arguments."""

from __future__ import annotations

from eth_hash.auto import keccak

# The moves that are voted on, as the contract spells their signatures.
_SIGNATURES = {
    "admit": "admit(bytes32,address,bytes32,bytes32)",
    "revoke": "revoke(uint8)",
    "recover": "recover(uint8,address,bytes32)",
    "succeed": "succeed(address)",
    "exclude": "exclude(uint64,uint8)",
    "unavailable": "unavailable(uint64,uint32,uint16,uint8,uint16)",
    "resume": "resume(uint64)",
    "abort": "abort(uint64,uint16,uint8)",
    "supersede": "supersede(uint64,uint64,bytes32)",
}
_SELECTORS = {move: keccak(signature.encode())[:4] for move, signature in _SIGNATURES.items()}
_Value = int | bytes | str


def hash_admission(name: str, key: str, sealing: bytes, peer: bytes) -> bytes:
    """To admit a site."""
    return _motion("admit", name.encode().ljust(32, b"\0"), key, sealing, peer)


def hash_revocation(site: int) -> bytes:
    """To revoke a site."""
    return _motion("revoke", site)


def hash_recovery(site: int, key: str, sealing: bytes, changed: int) -> bytes:
    """To give a site a new key, while its seat has the key that it got at the network's change number `changed`."""
    return _motion("recover", site, key, sealing, changed)


def hash_succession(successor: str) -> bytes:
    """That another Catalog succeeds this one."""
    return _motion("succeed", successor)


def hash_exclusion(study: int, position: int, attempt: int, site: int) -> bytes:
    """To exclude a silent site."""
    return _motion("exclude", study, position, attempt, site)


def hash_unavailability(study: int, position: int, attempt: int, site: int) -> bytes:
    """That a site's post cannot be used."""
    return _motion("unavailable", study, position, attempt, site)


def hash_resumption(study: int) -> bytes:
    """To go on with a paused study."""
    return _motion("resume", study)


def hash_abortion(study: int, reason: int, culprit: int) -> bytes:
    """To end a study without a result."""
    return _motion("abort", study, reason, culprit)


def hash_supersession(study: int, by: int, reason: bytes) -> bytes:
    """That a study's result is superseded."""
    return _motion("supersede", study, by, reason)


def _motion(move: str, *values: _Value) -> bytes:
    # All of abi.encode's values fill one word each.
    return keccak(_SELECTORS[move].ljust(32, b"\0") + b"".join(map(_encode_word, values)))


def _encode_word(value: _Value) -> bytes:
    """A number, an address in hex or 32 bytes as one word."""
    if isinstance(value, bytes):
        return value
    return (int(value, 16) if isinstance(value, str) else value).to_bytes(32)
