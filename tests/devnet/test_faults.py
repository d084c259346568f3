"""Faults of machines and networks under a running study: it ends with the right model, or with a coded reason."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.devnet.bed import END_TIMEOUT, OPENING, SITES, SiteProcesses, run_site_processes, scale_with_load

from coterie_chain.network.genesis import build_clique_genesis
from coterie_chain.network.programs.executables import GETH
from coterie_chain.network.programs.geth import Geth, build_init_arguments
from coterie_chain.network.programs.kubo import create_swarm_key
from coterie_chain.network.programs.service import Service
from coterie_chain.network.swarm import Kubo

pytestmark = pytest.mark.devnet


def read_block(site_processes: SiteProcesses, site: str = "west") -> int | None:
    """The newest block that a site's node has; None where it does not answer just now."""
    return site_processes.place.chain().facts(site).get("block")


def await_standstill(site_processes: SiteProcesses, seconds: float) -> None:
    """Wait until a chain has made no block for so many seconds; blocks that were under way may still come."""
    newest, since = read_block(site_processes), time.monotonic()
    deadline = since + scale_with_load(120.0)
    while newest is None or time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, f"the chain goes on, and is at block {newest}"
        time.sleep(0.2)
        block = read_block(site_processes)
        if block is not None and block != newest:
            newest, since = block, time.monotonic()


def copy_if_there(source: str, target: str) -> None:
    """Copy a file of a program that runs, which may take it away at any moment."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


# The chain


def test_a_site_s_geth_killed_and_started_again(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 2)
        site_processes.service("north", "geth").kill()
        site_processes.await_view(lambda view: len(view.open.posted if view.open else ()) == 2)  # the others go on
        site_processes.place.chain().start()
        site_processes.finish()


def test_a_majority_of_sealers_down_stops_the_chain_and_nothing_else(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 2)
        for site in ("north", "south"):
            site_processes.service(site, "geth").kill()
        await_standstill(site_processes, 6.0)
        site_processes.place.chain().start()
        site_processes.finish()


def test_a_site_whose_node_does_not_seal(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        geth = site_processes.service("south", "geth")
        geth.stop()
        follower = drop_sealing(geth)
        follower.start()
        assert "--mine" not in follower.arguments
        site_processes.start_all()
        records = site_processes.finish()
        assert {r.site for r in records} == set(SITES)
        follower.stop()


def drop_sealing(geth: Service) -> Service:
    """The same Geth as a follower: its sealing arguments come last."""
    return replace(geth, arguments=tuple(geth.arguments[: geth.arguments.index("--mine")]))


def test_a_chain_of_another_genesis_in_the_network_s_place_is_refused(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        start_and_stop_before_post(site_processes, "south")
        site_processes.place.chain().stop()
        for site in SITES:
            replace_chain(Geth(site_processes.place.site(site).root / "geth"))
        site_processes.place.chain().start()
        site_processes.signal("south", signal.SIGCONT)
        for site in SITES:
            status, last = site_processes.await_end(site)
            assert (status, last["error"]["code"]) == (23, "CO-C314")
        site_processes.start("north")
        status, last = site_processes.await_end("north")
        assert (status, last["error"]["code"]) == (23, "CO-C311")


def start_and_stop_before_post(site_processes: SiteProcesses, site: str) -> None:
    """Start every site; one stands still before it computes a post that all others then wait for."""
    others = set(SITES) - {site}
    for other in others:
        site_processes.start(other)
    site_processes.start(site, "before compute", "stats/1", "SIGSTOP")
    site_processes.await_view(
        lambda v: (
            v.open is not None
            and v.open.position == OPENING + 2
            and v.open.kind == "each"
            and set(v.open.posted) == others
        )
    )


def replace_chain(geth: Geth) -> None:
    """Give a Geth another chain of the same id: one that began at another moment."""
    for name in ("chaindata", "lightchaindata"):
        shutil.rmtree(geth.data / "geth" / name)
    file = geth.folder / "other.json"
    file.write_text(json.dumps(build_clique_genesis([geth.sealer], [], period=1) | {"timestamp": "0x1"}))
    subprocess.run([GETH.find(), *build_init_arguments(geth.data, file)], check=True, capture_output=True)


# The store


def test_a_site_s_kubo_killed_and_started_again(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 2)
        site_processes.service("south", "kubo").kill()
        time.sleep(5.0)
        site_processes.place.store().start()
        site_processes.finish()


def test_the_only_holder_of_a_payload_gone_and_back(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start("north")
        site_processes.start("south")
        site_processes.start("west", "before compute", "stats/1", "SIGKILL")
        site_processes.await_view(
            lambda v: v.open is not None and v.open.position == OPENING + 2 and "south" in v.open.posted
        )
        assert site_processes.await_end("west")[0] == -signal.SIGKILL
        # What south posted lies at south only as long as the step is open.
        site_processes.service("south", "kubo").kill()
        site_processes.start("west")
        site_processes.await_view(lambda v: v.open is not None and v.open.position == OPENING + 3)
        time.sleep(5.0)
        view = site_processes.view()
        assert view is not None
        assert view.open is not None
        assert view.open.position == OPENING + 3
        assert all(site_processes.processes[site].poll() is None for site in SITES)
        site_processes.place.store().start()
        site_processes.finish()


def test_a_swarm_key_that_differs_stops_every_site_with_a_code_and_is_mended(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        kubo = Kubo(site_processes.place.site("south").root / "kubo")
        key = kubo.key.read_text()
        change_key(site_processes, kubo, create_swarm_key())
        site_processes.start_all()
        ends = {site: site_processes.await_end(site) for site in SITES}
        assert {(status, last["error"]["code"]) for status, last in ends.values()} == {(31, "CO-C201")}
        change_key(site_processes, kubo, key)
        site_processes.place.store().start()
        site_processes.start_all()
        site_processes.finish()


def change_key(site_processes: SiteProcesses, kubo: Kubo, key: str) -> None:
    service = site_processes.service("south", "kubo")
    service.stop()
    kubo.join(key)
    service.start()


# Disks


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """A file system of 600 MB in a folder."""
    at.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", at], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("cannot run here: no right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def test_a_site_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if shutil.which("mount") is None:
        pytest.skip("cannot run here: no mount command")
    disk = tmp_path / "net" / "sites" / "south"
    with small_disk(disk), run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 2)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
        status, last = site_processes.await_end("south")
        # Whichever of the site's programs writes first says so: Kubo, the journal, or Geth, which then ends.
        status_and_code = (status, last["error"]["code"])
        assert status_and_code in {(32, "CO-C213"), (32, "CO-C322"), (30, "CO-C301"), (30, "CO-C304")}, last
        log_text = last["error"]["message"] if status == 32 else site_processes.service("south", "geth").read_log_tail()
        # Geth's log lies on the same disk: its last line may be cut in the middle in place of saying so.
        cut = not (disk / "geth" / "log").read_bytes().endswith(b"\n")
        assert "full" in log_text or "Low disk space" in log_text or (status == 30 and cut)
        filler.unlink()
        site_processes.place.chain().start()
        site_processes.place.store().start()
        site_processes.start("south")
        site_processes.finish()


# Sites


def test_a_paused_server_that_wakes_after_its_turn_was_skipped(tmp_path: Path) -> None:
    with run_site_processes(tmp_path, step_seconds=60) as site_processes:
        site_processes.start("north")
        site_processes.start("west")
        site_processes.start("south", "after compute", "model/1", "SIGSTOP")
        site_processes.await_view(lambda v: v.open is not None and v.open.position > OPENING + 3, within=150.0)
        site_processes.signal("south", signal.SIGCONT)
        records = site_processes.finish()
        assert {"ServerSkipped"} <= {event.name for event in site_processes.events()}
        third = [r for r in records if r.post.position == OPENING + 3]
        assert [(r.site, r.post.attempt) for r in third] == [("west", 1)]


def test_a_second_process_with_the_same_key(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 2)
        first = site_processes.processes["south"]
        site_processes.start("south")
        status, last = site_processes.await_end("south")
        assert (status, last["error"]["code"]) == (32, "CO-C320")
        site_processes.processes["south"] = first
        site_processes.finish()


def test_a_copy_of_a_site_on_another_machine_records_nothing_twice(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 2)
        twin = tmp_path / "twin"
        left = shutil.ignore_patterns("geth.ipc", "data", "repo")
        shutil.copytree(site_processes.place.root, twin, ignore=left, copy_function=copy_if_there)
        first = site_processes.processes["south"]
        site_processes.start("south", root=twin)
        copied, site_processes.processes["south"] = site_processes.processes["south"], first
        site_processes.finish()
        assert copied.wait(scale_with_load(END_TIMEOUT)) == 0


def test_all_sites_started_again_at_once(tmp_path: Path) -> None:
    with run_site_processes(tmp_path) as site_processes:
        site_processes.start_all()
        site_processes.await_position(OPENING + 3)
        for site in SITES:
            site_processes.signal(site, signal.SIGKILL)
            site_processes.processes[site].wait()
        site_processes.start_all()
        site_processes.finish()
