"""Seventeen Kubos of one machine, each with some of the others as peers: what one holds all others can fetch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.devnet.bed import skip_without_programs

from coterie_chain.errors import BlobMissing, StoreFault
from coterie_chain.network.swarm import KuboSwarm
from coterie_chain.store.urls import open_store

pytestmark = pytest.mark.devnet
SITES = [f"site-{number:02d}" for number in range(17)]


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[KuboSwarm]:
    skip_without_programs()
    swarm = KuboSwarm(tmp_path, SITES)
    swarm.prepare()
    try:
        swarm.start()
        yield swarm
    finally:
        swarm.stop()


def test_all_sites_fetch_what_one_of_them_puts(swarm: KuboSwarm) -> None:
    assert max(swarm.facts(site)["peers"] for site in SITES) < len(SITES) - 1
    blob = b"what one site posts" * 50
    name = open_store(swarm.url(SITES[0])).put(blob)

    def fetch(site: str) -> bytes:
        deadline = time.monotonic() + 120
        while True:
            try:
                return open_store(swarm.url(site)).get(name)
            except (BlobMissing, StoreFault):
                if time.monotonic() > deadline:
                    raise

    with ThreadPoolExecutor(len(SITES)) as pool:
        assert set(pool.map(fetch, SITES)) == {blob}
