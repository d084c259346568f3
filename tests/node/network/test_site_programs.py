"""The programs of one site, where one of them cannot be started, or is not installed any more."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import StoreFault
from coterie_node.network import site_programs
from coterie_node.network.site_programs import RECIPES, SitePrograms
from coterie_node.network.systemd_units import Recipe

SLEEPS = ("/bin/sleep", "600")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SitePrograms]:
    """Two programs of a site that sleep, looked at all the time; Geth's file `broken` keeps it from its start."""
    made = SitePrograms(FoundedSites(tmp_path).root / "north")
    broken = made.folder / "broken"

    def make_geth(folder: Path) -> Recipe:
        if broken.exists():
            raise StoreFault("CO-C330", "geth 1.13.15 is not installed.")
        return Recipe((), SLEEPS)

    monkeypatch.setitem(RECIPES, "geth", make_geth)
    monkeypatch.setitem(RECIPES, "kubo", lambda folder: Recipe((), SLEEPS))
    monkeypatch.setattr(site_programs, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(site_programs, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(SitePrograms, "_check_ports", lambda self: None)
    yield made
    made.stop()


def test_a_program_that_cannot_be_started_again_for_a_while_ends_no_other_one(programs: SitePrograms) -> None:
    """The supervisor ended with the first fault, and all programs of the site with it."""
    stop, refused, again = threading.Event(), threading.Event(), threading.Event()

    def notice(text: str) -> None:
        if "cannot be started for now: geth 1.13.15 is not installed" in text:
            refused.set()
        elif refused.is_set() and "geth started" in text:
            again.set()

    watching = threading.Thread(target=programs.watch, args=(stop, notice))
    watching.start()
    try:
        services = programs.services()
        while None in [service.pid for service in services.values()]:
            assert watching.is_alive()
        store = services["kubo"].pid
        (programs.folder / "broken").touch()
        services["geth"].kill()
        assert refused.wait(60)
        assert services["kubo"].pid == store
        (programs.folder / "broken").unlink()
        assert again.wait(60)
        assert services["kubo"].pid == store
    finally:
        stop.set()
        watching.join(60)
    assert [service.pid for service in programs.services().values()] == [None, None]


def test_a_program_that_cannot_be_started_the_first_time_is_a_fault_and_leaves_nothing(programs: SitePrograms) -> None:
    (programs.folder / "broken").touch()
    with pytest.raises(StoreFault, match="is not installed"):
        programs.watch(threading.Event(), lambda text: None)
    assert [service.pid for service in programs.services().values()] == [None, None]


INIT = """\
#!/bin/sh
# As Geth and Kubo at their first start: what they make is there before it is whole.
if [ "$2" = --datadir ]; then made="$3/geth/chaindata"; mkdir -p "$made"; else made="$IPFS_PATH"; fi
[ -e "$made/config" ] && { echo "already exists" >&2; exit 1; }
touch "$made/config" "$made/datastore_spec"
[ -e "$0.killed" ] && kill -9 $$
touch "$made/version"
"""


def test_a_first_start_that_was_cut_short_is_made_again_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Geth wrote another chain's genesis into half of a folder; Kubo refused each further start."""
    folder, program = FoundedSites(tmp_path).root / "north", tmp_path / "program"
    program.write_text(INIT)
    program.chmod(0o700)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))
    key, killed = (folder / "kubo/repo/swarm.key").read_bytes(), tmp_path / "program.killed"
    for name, place in (("geth", "geth/data/geth/chaindata"), ("kubo", "kubo/repo")):
        killed.touch()
        with pytest.raises(StoreFault, match=f"{name} cannot be prepared"):
            SitePrograms(folder).start_one(name)
        assert not (folder / place / "version").exists()
        killed.unlink()
        for _ in range(2):
            for line in RECIPES[name](folder).prepare[:1]:
                environment = os.environ | dict(RECIPES[name](folder).environment)
                subprocess.run(list(line), check=True, env=environment)
        assert (folder / place / "version").exists()
    assert (folder / "kubo/repo/swarm.key").read_bytes() == key
    assert not (folder / "geth/data/init.part").exists()


def test_what_runs_is_ended_although_its_program_is_gone(programs: SitePrograms) -> None:
    """As after an upgrade of Geth beside a running site: `site stop` asked for the old version."""
    for name in ("geth", "kubo"):
        programs.start_one(name)
    (programs.folder / "broken").touch()
    assert all(service.pid for service in programs.services().values())
    programs.stop()
    assert [service.pid for service in programs.services().values()] == [None, None]
