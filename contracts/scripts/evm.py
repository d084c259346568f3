"""What a London chain would refuse, without a message: code that is too large, and opcodes that came later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

SIZE_LIMIT = 24_576  # EIP-170
AFTER_LONDON = {
    0x1E: "CLZ",
    0x49: "BLOBHASH",
    0x4A: "BLOBBASEFEE",
    0x5C: "TLOAD",
    0x5D: "TSTORE",
    0x5E: "MCOPY",
    0x5F: "PUSH0",
}


def list_faults(name: str, creation: bytes, deployed: bytes) -> Iterator[str]:
    """Why a contract could not be deployed."""
    if len(deployed) >= SIZE_LIMIT:
        yield f"{name}: {len(deployed)} bytes deployed, the limit is {SIZE_LIMIT}"
    for newer in count_newer_opcodes(creation), count_newer_opcodes(deployed):
        if newer:
            yield f"{name}: opcodes newer than London: {dict(newer)}"


def count_newer_opcodes(code: bytes) -> Counter[str]:
    """Count the opcodes that London does not know. What a PUSH pushes is data, not code."""
    counts: Counter[str] = Counter()
    i = 0
    while i < len(code):
        if code[i] in AFTER_LONDON:
            counts[AFTER_LONDON[code[i]]] += 1
        i += 1 + (code[i] - 0x5F if 0x60 <= code[i] <= 0x7F else 0)
    return counts
