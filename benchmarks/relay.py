"""A relay on loopback that delays what sites say to each other, as a wide-area network does; used by secure_glm.py.

Each ordered pair of sites has a port of its own. What comes in leaves after a fixed time, in its order; bandwidth is
not limited. Both directions of a connection are delayed alike, so a round trip takes twice the delay.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie_node.demo.run import DemoProcesses, await_reports, start_site
from coterie_node.site.run_folder import RunFolder

HOST = "127.0.0.1"
CHUNK = 1 << 18
# What a link holds at most before its sender must wait: a second of a fast one.
MOST_CHUNKS = 4096
Pair = tuple[str, str]


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass on what comes, each part `delay` seconds later; an end too."""
    parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_CHUNKS)
    loop = asyncio.get_running_loop()

    async def deliver() -> None:
        while True:
            due, data = await parts.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            await parts.put((loop.time() + delay, data))
    except OSError:
        pass  # the other end broke off; the end is passed on
    await parts.put((loop.time() + delay, b""))
    try:
        await delivery
    except OSError:
        writer.close()


async def serve(target: tuple[str, int], delay: float) -> asyncio.Server:
    """A port that leads to the target; a call that the target refuses is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(forward(reader, back, delay), forward(there, writer, delay))

    return await asyncio.start_server(answer, HOST, 0)


@contextmanager
def relay(targets: Mapping[Pair, tuple[str, int]], delay: float) -> Iterator[dict[Pair, int]]:
    """Relays for all (caller, called) pairs in a thread of their own; their ports."""
    loop, ports, ready = asyncio.new_event_loop(), dict[Pair, int](), threading.Event()

    async def open_all() -> None:
        for pair, target in targets.items():
            server = await serve(target, delay)
            ports[pair] = server.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(open_all())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10.0)
    try:
        yield ports
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)


@contextmanager
def delay_sites(place: RunFolder, sites: Sequence[str], delay: float) -> Iterator[dict[str, RunFolder]]:
    """Each site's own view of a run's folder, in which its peers are behind relays."""
    addresses = place.addresses() or {}
    pairs = {pair: addresses[pair[1]] for pair in itertools.permutations(sites, 2)}
    with relay(pairs, delay) as ports:
        yield {
            name: make_view(
                place,
                name,
                {n: f"{HOST}:{addresses[n][1] if n == name else ports[name, n]}" for n in sites},
            )
            for name in sites
        }


def make_view(place: RunFolder, name: str, addresses: Mapping[str, str]) -> RunFolder:
    """A folder beside the run's with links to all that is in it, and with addresses of its own."""
    view = RunFolder(Path(f"{place.root}-{name}"))
    view.root.mkdir()
    for entry in place.root.iterdir():
        if entry != place.talk:
            (view.root / entry.name).symlink_to(entry)
    view.talk.write_text(json.dumps(dict(addresses)))
    return view


def run_delayed(place: RunFolder, delay: float) -> tuple[dict[str, dict[str, Any]], float]:
    """As the demo's `run_sites`, with relays between the sites."""
    sites = place.settings().sites
    with delay_sites(place, sites, delay) as views:
        crew = DemoProcesses({name: start_site(view, name) for name, view in views.items()})
        try:
            reports = await_reports(crew, sites[0], lambda _: None)
        finally:
            crew.stop()
    return reports, max(r["ended"] for r in reports.values()) - min(r["started"] for r in reports.values())
