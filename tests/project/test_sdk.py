"""What is public is what the document lists, and an author needs nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coterie import sdk
from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.store.protocol import BlobStore, MemoryBlobs
from coterie_chain.store.urls import open_store

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    """The example's store, installed as its author's users install it, and opened by its address."""
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    target = tmp_path / "packages"
    source = ROOT / "examples/store_directory"
    subprocess.run([sys.executable, *install, "--target", str(target), str(source)], check=True, timeout=120)
    monkeypatch.syspath_prepend(str(target))
    return open_store(f"directory:{tmp_path / 'blocks'}")


def test_the_public_names_are_those_that_the_document_lists() -> None:
    tables = (ROOT / "docs/sdk.md").read_text().partition("## Which files")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(names) == sorted(sdk.__all__)
    assert all(hasattr(sdk, name) for name in names)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_only_the_public_interface_and_has_few_files(example: Path) -> None:
    files = [path for path in example.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) <= 3
    for file in example.glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        own = [str(node.module) for node in imports if str(node.module).startswith("coterie")]
        assert own == ["coterie.sdk"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_the_example_s_store_gives_back_what_was_put_under_the_same_name(store: BlobStore, size: int) -> None:
    data = bytes(size)
    cid = store.put(data)
    assert cid == MemoryBlobs().put(data)
    assert (store.get(cid), store.has(cid)) == (data, True)


def test_the_example_s_store_misses_and_refuses_as_every_store_does(store: BlobStore, tmp_path: Path) -> None:
    cid = store.put(b"some bytes")
    (tmp_path / "blocks" / cid).write_bytes(b"other bytes")
    with pytest.raises(BlobCorrupt):
        store.get(cid)
    with pytest.raises(BlobMissing):
        store.get(MemoryBlobs().put(b"never stored"))
