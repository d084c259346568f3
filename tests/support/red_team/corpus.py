"""Hostile inputs of up to 10 MB for every parser, made at run time from the kinds of attack that are known.

`python -m support.red_team.corpus PARSER FOLDER` reads all inputs of one parser, and prints a line of JSON for each:
the case, its size, what came of it, CPU seconds, and the peak of memory in MB above what was in use before. Without
PARSER, one input of each parser is read (SAMPLES).
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from support.red_team.readers import READERS, STUDY, try_reading

from coterie_chain.ethereum.rlp_bounds import encode_number, encode_rlp
from coterie_chain.proof.evidence import BODIES, CODES, HEADERS, STATE
from coterie_learners.core.payload import MAGIC, SHUFFLE_ZSTD, STORED
from coterie_learners.study.document import Study

MB = 1 << 20
SIZE = 10 * MB
LIMIT = 500 * MB
Cases = Iterator[tuple[str, bytes]]


def any_bytes() -> Cases:
    """What no format is."""
    yield "empty", b""
    yield "zeros", bytes(SIZE)
    yield "ff", b"\xff" * SIZE
    yield "noise", np.random.default_rng(1).bytes(MB)
    yield "line", b"a" * SIZE
    yield "lines", b"\n" * SIZE
    yield "lone surrogate", b"\xed\xa0\x80"
    yield "byte order mark", b"\xef\xbb\xbf"


def json_texts() -> Cases:
    """JSON that is deep, long, or holds what other parsers choke on."""
    yield from any_bytes()
    yield "deep lists", b"[" * SIZE
    yield "deep objects", b'{"a":' * (SIZE // 5)
    yield "many lists", b"[" + b"[]," * (SIZE // 3) + b"[]]"
    yield "many objects", b"[" + b"{}," * (SIZE // 3) + b"{}]"
    yield "whole number", b"9" * SIZE
    yield "key again", b"{" + b'"a":1,' * (SIZE // 6) + b'"a":1}'
    yield "many keys", b"{" + b",".join(b'"k%d":1' % k for k in range(500_000)) + b"}"
    yield "not a number", b'{"a": NaN, "b": 1e400}'
    yield "quotation mark", b'"' * SIZE
    yield "escapes", b'"' + b"\\u0000" * (SIZE // 6) + b'"'


def toml_texts() -> Cases:
    """TOML with what its parser needs the square of time, or a traceback, for."""
    yield from any_bytes()
    yield "digits", b"a = " + b"9" * 100_000
    yield "dotted key", b".".join([b"a"] * 400_000) + b" = 1"
    yield "dotted header", b"[" + b".".join([b"a"] * 400_000) + b"]"
    yield "quoted key", b'"a".' * 200_000 + b"b = 1"
    yield "deep list", b"a = " + b"[" * 500_000
    yield "deep table", b"a = " + b"{b=" * 300_000
    yield "spread deep list", b"a = " + b"[1,[" * 250_000
    yield "tables", b"".join(b"[a%d]\n" % k for k in range(90_000))
    yield "table again", b"[[a]]\n" * 170_000
    yield "list", b"a = [" + b"0," * 500_000 + b"]"
    yield "titles", STUDY.encode() + b'title = "' + b"a" * MB + b'"'
    for name, sign in {"bidi": "\u202e", "zero width": "\u200b", "escape": "\x1b", "tag": "\U000e0041"}.items():
        yield name, STUDY.replace('"stroke"', f'"stroke"\ntitle = "a{sign}b"').encode()


def study_documents() -> Cases:
    yield from json_texts()
    names = [f"v{k}" for k in range(60_000)]
    yield "columns", json.dumps(make_split_study(names)).encode()
    yield "variables", json.dumps({"variables": dict.fromkeys(names, 7)}).encode()


def make_split_study(names: list[str]) -> dict[str, object]:
    """A study that gives each of these columns to two sites."""
    study = Study.from_toml(STUDY).model_dump(mode="json")
    columns = {"north": names[: len(names) // 2], "south": names[: len(names) // 2]}
    return {**study, "sites": ["north", "south"], "identifier": ["code"], "columns": columns}


def formulas() -> Cases:
    yield "products", ("y ~ " + "*".join(f"v{k}" for k in range(30))).encode()
    yield "product of ten", ("died ~ " + "*".join(f"v{k}" for k in range(10))).encode()
    yield "one term", ("died ~ " + ":".join(f"v{k}" for k in range(1500))).encode()
    yield "terms", ("died ~ " + "+".join(f"v{k}" for k in range(1600))).encode()
    yield "same term", ("died ~ " + "+".join(["age*sex"] * 1200)).encode()
    yield "powers", ("died ~ " + "+".join(f"age^{k}" for k in range(1, 100))).encode()
    yield "blanks", ("died ~ " + " " * 9000 + "-").encode()
    yield "signs", b"died ~ " + b"+-" * 4000
    yield "long", b"died ~ " + b"a+" * (SIZE // 2)


def payloads() -> Cases:
    yield from any_bytes()
    for name, raw in {"zeros": bytes(SIZE), "braces": b'{"a":' * MB}.items():
        yield f"stored {name}", MAGIC + bytes([STORED]) + len(raw).to_bytes(8, "little") + raw
    bomb = zstandard.compress(bytes(1 << 30), 19)
    for size in (64, 1 << 20, 1 << 30, 1 << 62):
        yield f"bomb that declares {size}", MAGIC + bytes([SHUFFLE_ZSTD]) + size.to_bytes(8, "little") + bomb


def bundles() -> Cases:
    yield from any_bytes()
    network = {
        "chain_id": 1,
        "catalog": "0x" + "1" * 40,
        "genesis": "0x" + "2" * 64,
        "first": 0,
        "last": "0x" + "2" * 64,
    }
    code = {"coterie": "0", "learner": "glore 1", "wheel": "a.whl", "wheel_sha256": ""}
    manifest = {
        "format": "coterie-bundle/1",
        "network": network,
        "study": {"number": 1, "hash": "3" * 64},
        "code": code,
    }
    parts = {"bundle.json": json.dumps(manifest).encode(), HEADERS: b"", BODIES: b"", STATE: b"", CODES: b""}
    row = b"".join(make_header(k) for k in range(50_000))
    bombs = {
        HEADERS: {"zeros": bytes(20 * MB), "more zeros": bytes(500 * MB), "in a row": row, "again": row[:600] * 50_000},
        BODIES: {"zeros": bytes(64 * MB), "list": b"\xfb" + (50 * MB).to_bytes(4) + bytes(50 * MB)},
        STATE: {"strings": b"\x80" * (20 * MB), "lists": b"\xc1" * (20 * MB), "deep": b"\xc1\xc0" * (10 * MB)},
        CODES: {"zeros": bytes(MB), "long": b"\xff" * MB},
        "bundle.json": {
            "deep": b"[" * MB,
            "digits": parts["bundle.json"].replace(b'"chain_id": 1', b'"chain_id": ' + b"9" * 200_000),
        },
        "ro-crate-metadata.json": {"deep": b"[" * (16 * MB), "objects": b"[" + b"{}," * (5 * MB)},
        "certificate.json": {"deep": b"[" * MB},
    }
    for name, contents in bombs.items():
        for what, content in contents.items():
            yield f"{name}: {what}", make_zip({**parts, name: content})
    yield "names", make_zip({f"payloads/{k}": b"" for k in range(60_000)})
    yield "slip", make_zip({"../outside": b"x"})


def make_header(number: int) -> bytes:
    """A header of the right form that nothing vouches for."""
    hash_, address = bytes(32), bytes(20)
    fields = [hash_, hash_, address, hash_, hash_, hash_, bytes(256), encode_number(1), encode_number(number)]
    return encode_rlp([*fields, encode_number(1), b"", encode_number(1), b"", hash_, bytes(8)])


def make_zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def csv_files() -> Cases:
    yield from any_bytes()
    head = b"died,age,sex\n"
    yield "rows", head + b"0,50,f\n" * (SIZE // 7)
    yield "open quotation mark", head + b'0,50,"' + b"f\n" * (SIZE // 2)
    yield "header", b",".join(b"c%d" % k for k in range(100_000)) + b"\n1"
    yield "commas", head + b"," * SIZE
    yield "digits", head + b"0," + b"9" * MB + b",f\n"
    yield "texts", head + b"".join(b"0,50,%d\n" % k for k in range(700_000))
    yield "escapes", head + b"0,50,\x1b[2J\xe2\x80\xae\n" * 1000


def parquet_files() -> Cases:
    yield from any_bytes()
    whole = make_patients()
    yield "cut", whole[:-9]
    yield "footer of zeros", whole[:4] + bytes(1000) + b"\xff\xff\xff\x7fPAR1"
    yield "magic", b"PAR1" * (SIZE // 4)
    yield "rows of one value", make_parquet(20_000_000)
    for k in range(8):
        damaged = bytearray(whole)
        for place in np.random.default_rng(k).integers(4, len(whole) - 8, 6):
            damaged[place] ^= 0xFF
        yield f"damaged {k}", bytes(damaged)


def make_parquet(rows: int) -> bytes:
    """Rows of one value, which shrink to next to nothing."""
    return write_parquet({"died": np.zeros(rows, np.int8), "age": np.full(rows, 50, np.int16)}, np.zeros(rows, np.int8))


def make_patients() -> bytes:
    """Twenty rows from which a model can be fitted."""
    k = np.arange(20)
    return write_parquet(
        {"died": (k % 3 == 0).astype(np.int8), "age": (20 + 3 * k).astype(np.int16)}, (k % 2).astype(np.int8)
    )


def write_parquet(columns: Mapping[str, Any], sex: Any) -> bytes:
    out, coded = io.BytesIO(), pa.DictionaryArray.from_arrays(pa.array(sex), ["f", "m"])
    arrays = {name: pa.array(column) for name, column in columns.items()}
    pq.write_table(pa.table({**arrays, "sex": coded}), out, compression="zstd")
    return out.getvalue()


def node_answers() -> Cases:
    """Answers of JSON-RPC and of Kubo: cut, of other kinds, endless."""
    yield from ((name, content) for name, content in json_texts() if len(content) <= SIZE)
    results: dict[str, object] = {
        "null": None,
        "list": [],
        "text": "x",
        "object": {},
        "number": 7,
        "hex": "0x" + "f" * MB,
    }
    for name, result in results.items():
        yield f"result {name}", json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode()
    yield "batch of other ids", json.dumps([{"id": [], "result": {}}, {"id": None, "result": 1}, {}]).encode()
    for k, result in enumerate((None, [], {}, 7, "0x1", "x", [None], [{"data": "0x" + "0" * MB, "topics": []}])):
        yield f"batch {k}", json.dumps([{"id": i, "result": result} for i in range(5)]).encode()
    yield "error", json.dumps({"id": 0, "error": [[], {}]}).encode()
    yield "cut", b'{"jsonrpc": "2.0", "id": 0, "result": [{"addr'
    yield "other key", b'{"Key": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", "Size": 1}'
    yield "key of another kind", b'{"Key": ["x"], "Size": {}}'


CORPUS: Mapping[str, Callable[[], Cases]] = {
    "study": toml_texts,
    "document": study_documents,
    "formula": formulas,
    "payload": payloads,
    "bundle": bundles,
    "invitation": json_texts,
    "card": json_texts,
    "founder": json_texts,
    "decision": json_texts,
    "node.toml": toml_texts,
    "policy": toml_texts,
    "network": json_texts,
    "result": json_texts,
    "grant": json_texts,
    "csv": csv_files,
    "parquet": parquet_files,
    "chain": node_answers,
    "store": node_answers,
}


# One input of each parser, of as many kinds as there are.
SAMPLES: Mapping[str, str] = {
    "study": "deep table",
    "document": "columns",
    "formula": "products",
    "payload": "bomb that declares 64",
    "bundle": "slip",
    "invitation": "deep lists",
    "card": "deep objects",
    "founder": "many lists",
    "decision": "key again",
    "node.toml": "digits",
    "policy": "dotted key",
    "network": "many keys",
    "result": "not a number",
    "grant": "whole number",
    "csv": "digits",
    "parquet": "footer of zeros",
    "chain": "batch of other ids",
    "store": "key of another kind",
}


def main(folder: Path, parser: str | None = None) -> None:
    """Read every input of one parser, or one input of every parser, within 500 MB above what the imports take."""
    for name in CORPUS if parser is None else (parser,):
        for case, content in CORPUS[name]():
            if parser is None and case != SAMPLES[name]:
                continue
            if len(content) > SIZE + MB:
                raise SystemExit(f"{name}, {case}: {len(content)} bytes are more than the corpus may have.")
            path = folder / READERS[name][0]
            path.write_bytes(content)
            line = {"parser": name, "case": case, "size": len(content)}
            del content
            print(json.dumps(line | read_within(LIMIT, name, path)), flush=True)
            if parser is None:
                break


def read_within(limit: int, parser: str, path: Path) -> dict[str, Any]:
    """What came of reading a file with so much memory more than is in use, in which time, with which peak."""
    base = reset_peak()
    limit_memory(limit)
    began = time.process_time()
    outcome = try_reading(partial(READERS[parser][1], path))
    seconds = time.process_time() - began
    limit_memory(None)
    return {"outcome": outcome, "seconds": round(seconds, 2), "peak_mb": (read_status("VmHWM") - base) // MB}


def read_status(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak() -> int:
    """Forget the peak so far; returns the bytes in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def limit_memory(above: int | None) -> None:
    """Let this process take so many bytes more than it has, or as many as it likes."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard if above is None else read_status("VmData") + above, hard))


if __name__ == "__main__":
    *parsers, place = sys.argv[1:]
    main(Path(place), *parsers)
