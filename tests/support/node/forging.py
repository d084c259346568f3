"""Bundles as a forger would make them: parts exchanged, roots and lists computed anew, as far as no key is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coterie_chain.ethereum.headers import HEADER_FIELDS, MAX_HEADER_BYTES, Header
from coterie_chain.ethereum.rlp_bounds import Item, decode_rlp, encode_rlp, split_items
from coterie_chain.proof.evidence import BODIES, HEADERS
from coterie_chain.proof.receipts import Body
from coterie_chain.proof.tries import compute_root
from coterie_node.audit import bundle as bundles
from coterie_node.audit.archive import write_archive
from coterie_node.audit.bundle import METADATA

Files = dict[str, bytes]


def write_bundle(files: Mapping[str, bytes], folder: Path, name: str = "forged.zip") -> Path:
    """A bundle of these files, its crate described anew."""
    content = {k: v for k, v in files.items() if k != METADATA}
    metadata = json.loads(files[METADATA])
    others = [e for e in metadata["@graph"] if e.get("@type") != "File"]
    metadata["@graph"] = [*others, *bundles._files(content)]
    path = folder / name
    write_archive(path, {METADATA: json.dumps(metadata).encode(), **content})
    return path


def headers_of(files: Mapping[str, bytes]) -> list[Header]:
    return [Header.decode(raw) for raw in split_items(files[HEADERS], HEADERS, MAX_HEADER_BYTES)]


def bodies_of(files: Mapping[str, bytes]) -> list[Body]:
    return [Body.decode(raw) for raw in split_items(files[BODIES], BODIES, 1 << 26)]


def with_headers(files: Files, headers: Sequence[Header]) -> Files:
    return {**files, HEADERS: b"".join(h.raw for h in headers)}


def with_bodies(files: Files, bodies: Sequence[Body]) -> Files:
    return {**files, BODIES: b"".join(b.raw for b in bodies)}


def change_header(header: Header, **fields: bytes) -> Header:
    return replace(header, fields=tuple(fields.get(n, v) for n, v in zip(HEADER_FIELDS, header.fields, strict=False)))


def relink_headers(headers: Sequence[Header]) -> list[Header]:
    """Headers that name each other again, as whoever runs an unsealed chain can make them."""
    chained = [headers[0]]
    for header in headers[1:]:
        chained.append(change_header(header, parentHash=chained[-1].digest()))
    return chained


def edit_body(body: Body, change: Callable[[list[Any]], None]) -> Body:
    """A body whose last receipt's logs were changed."""
    raw = body.receipts[-1]
    receipt = _to_lists(decode_rlp(raw, "receipt"))
    change(receipt[3])
    return replace(body, receipts=(*body.receipts[:-1], encode_rlp(receipt)))


def set_roots(headers: Sequence[Header], body: Body) -> list[Header]:
    """Headers in which a block's roots are those of another body."""
    roots = {"receiptsRoot": compute_root(body.receipts), "transactionsRoot": compute_root(body.transactions)}
    return [change_header(h, **roots) if h.number == body.number else h for h in headers]


def _to_lists(item: Item) -> Any:
    return item if isinstance(item, bytes) else [_to_lists(part) for part in item]
