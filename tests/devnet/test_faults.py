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
from devnet.bed import SITES, Bed, bed

from coterie_chain.genesis import clique
from coterie_chain.geth import Geth, initial
from coterie_chain.kubo import swarm_key
from coterie_chain.programs import GETH
from coterie_chain.service import Service
from coterie_chain.swarm import Kubo

pytestmark = pytest.mark.devnet


def block(made: Bed, site: str = "west") -> int:
    """The newest block that a site's node has."""
    return made.place.chain().facts(site).get("block", -1)


# The chain


def test_a_site_s_geth_killed_and_started_again(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        made.await_position(2)
        made.service("north", "geth").kill()
        made.await_view(lambda view: len(view.open.posted if view.open else ()) == 2)  # the others go on
        made.place.chain().start()
        made.finish()


def test_a_majority_of_sealers_down_stops_the_chain_and_nothing_else(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        made.await_position(2)
        for site in ("north", "south"):
            made.service(site, "geth").kill()
        time.sleep(3.0)  # a block that was under way may still come
        stood = block(made)
        time.sleep(6.0)
        assert block(made) == stood
        made.place.chain().start()
        made.finish()


def test_a_site_whose_node_does_not_seal(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        geth = made.service("south", "geth")
        geth.stop()
        follower = replaced(geth)
        follower.start()
        assert "--mine" not in follower.arguments
        made.start_all()
        records = made.finish()
        assert {r.site for r in records} == set(SITES)
        follower.stop()


def replaced(geth: Service) -> Service:
    """The same Geth as a follower: its sealing arguments come last."""
    return replace(geth, arguments=tuple(geth.arguments[: geth.arguments.index("--mine")]))


def test_a_chain_of_another_genesis_in_the_network_s_place_is_refused(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        stopped_before_its_post(made, "south")
        made.place.chain().stop()
        for site in SITES:
            renew(Geth(made.place.site(site).root / "geth"))
        made.place.chain().start()
        made.signal("south", signal.SIGCONT)
        for site in SITES:
            status, last = made.ended(site)
            assert (status, last["error"]["code"]) == (23, "CO-C314")
        made.start("north")
        status, last = made.ended("north")
        assert (status, last["error"]["code"]) == (23, "CO-C311")


def stopped_before_its_post(made: Bed, site: str) -> None:
    """Let a site's process stand still where all others wait for its post."""
    made.await_position(1)
    made.signal(site, signal.SIGSTOP)
    others = set(SITES) - {site}
    made.await_view(lambda v: v.open is not None and v.open.kind == "each" and set(v.open.posted) == others)


def renew(geth: Geth) -> None:
    """Give a Geth another chain of the same id: one that began at another moment."""
    for name in ("chaindata", "lightchaindata"):
        shutil.rmtree(geth.data / "geth" / name)
    file = geth.folder / "other.json"
    file.write_text(json.dumps(clique([geth.sealer], [], period=1) | {"timestamp": "0x1"}))
    subprocess.run([GETH.find(), *initial(geth.data, file)], check=True, capture_output=True)


# The store


def test_a_site_s_kubo_killed_and_started_again(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        made.await_position(2)
        made.service("south", "kubo").kill()
        time.sleep(5.0)
        made.place.store().start()
        made.finish()


def test_the_only_holder_of_a_payload_gone_and_back(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start("north")
        made.start("south")
        made.start("west", "before compute", "stats/1", "SIGKILL")
        made.await_view(lambda v: v.open is not None and v.open.position == 2 and "south" in v.open.posted)
        assert made.ended("west")[0] == -signal.SIGKILL
        # What south posted lies at south only as long as the step is open.
        made.service("south", "kubo").kill()
        made.start("west")
        made.await_view(lambda v: v.open is not None and v.open.position == 3)
        time.sleep(5.0)
        view = made.view()
        assert view is not None
        assert view.open is not None
        assert view.open.position == 3
        assert all(made.processes[site].poll() is None for site in SITES)
        made.place.store().start()
        made.finish()


def test_a_swarm_key_that_differs_stops_every_site_with_a_code_and_is_mended(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        kubo = Kubo(made.place.site("south").root / "kubo")
        key = kubo.key.read_text()
        change_key(made, kubo, swarm_key())
        made.start_all()
        ends = {site: made.ended(site) for site in SITES}
        assert {(status, last["error"]["code"]) for status, last in ends.values()} == {(31, "CO-C201")}
        change_key(made, kubo, key)
        made.place.store().start()
        made.start_all()
        made.finish()


def change_key(made: Bed, kubo: Kubo, key: str) -> None:
    service = made.service("south", "kubo")
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
    with small_disk(disk), bed(tmp_path) as made:
        made.start_all()
        made.await_position(2)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
        status, last = made.ended("south")
        # Whichever of the site's programs writes first says so: Kubo, the journal, or Geth, which then ends.
        told = (status, last["error"]["code"])
        assert told in {(32, "CO-C213"), (32, "CO-C322"), (30, "CO-C301"), (30, "CO-C304")}, last
        said = last["error"]["message"] if status == 32 else made.service("south", "geth").said()
        assert "full" in said or "Low disk space" in said
        filler.unlink()
        made.place.chain().start()
        made.place.store().start()
        made.start("south")
        made.finish()


# Sites


def test_a_paused_server_that_wakes_after_its_turn_was_skipped(tmp_path: Path) -> None:
    with bed(tmp_path, step_seconds=60) as made:
        made.start("north")
        made.start("west")
        made.start("south", "after compute", "model/1", "SIGSTOP")
        made.await_view(lambda v: v.open is not None and v.open.position > 3, within=150.0)
        made.signal("south", signal.SIGCONT)
        records = made.finish()
        assert {"ServerSkipped"} <= {event.name for event in made.events()}
        third = [r for r in records if r.post.position == 3]
        assert [(r.site, r.post.attempt) for r in third] == [("west", 1)]


def test_a_second_process_with_the_same_key(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        made.await_position(2)
        first = made.processes["south"]
        made.start("south")
        status, last = made.ended("south")
        assert (status, last["error"]["code"]) == (32, "CO-C320")
        made.processes["south"] = first
        made.finish()


def test_a_copy_of_a_site_on_another_machine_records_nothing_twice(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        made.await_position(2)
        twin = tmp_path / "twin"
        shutil.copytree(made.place.root, twin, ignore=shutil.ignore_patterns("geth.ipc", "data", "repo"))
        first = made.processes["south"]
        made.start("south", root=twin)
        copied, made.processes["south"] = made.processes["south"], first
        made.finish()
        assert copied.wait(60) == 0


def test_all_sites_started_again_at_once(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.start_all()
        made.await_position(3)
        for site in SITES:
            made.signal(site, signal.SIGKILL)
            made.processes[site].wait()
        made.start_all()
        made.finish()
