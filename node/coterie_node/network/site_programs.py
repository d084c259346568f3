"""The three programs of one site as processes: chain node, store and daemon, started, watched and ended together.

`coterie site start` lets them run on; `coterie site run` stays in the foreground, starts again what ends, and ends all
three at a signal. A site with systemd or containers has their supervisor instead.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag

from coterie_chain.errors import StoreFault
from coterie_chain.network.peers import Place, find_open_ports
from coterie_chain.network.programs.service import STOP_TIMEOUT, Service, explain_early_end
from coterie_node.errors import ConfigError
from coterie_node.network.devnet import await_catalog
from coterie_node.network.founding import FOUNDERS
from coterie_node.network.local_nodes import await_health
from coterie_node.network.membership.known_members import write_peers
from coterie_node.network.site_ports import SitePorts
from coterie_node.network.systemd_units import Recipe, make_daemon_recipe, make_geth_recipe, make_kubo_recipe
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import NETWORK, find_node

PREPARE_SECONDS, LOOK_SECONDS = 120.0, 1.0
# The daemon finishes the step at hand, and an interactive one takes up to 150 s.
DAEMON_STOP_SECONDS = 180.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_LOOPBACK = "127.0.0.1"
# What people call these programs besides.
OTHER_NAMES = {"daemon": "node", "ipfs": "kubo"}
RECIPES: Mapping[str, Callable[[Path], Recipe]] = {
    "geth": make_geth_recipe,
    "kubo": make_kubo_recipe,
    "node": make_daemon_recipe,
}


@dataclass(frozen=True)
class SitePrograms:
    """The programs of the site in a folder; the daemon is one of them once the site has a network."""

    folder: Path

    def services(self) -> dict[str, Service]:
        """The programs by name, in the order in which they start: to look at and to end.

        What runs can be ended although its program is gone, or is of another version by now.
        """
        names = [name for name in RECIPES if name != "node" or (self.folder / NETWORK).exists()]
        return {
            name: Service(name, self.folder.absolute() / name, partial(_find_program, self.folder, name), ())
            for name in names
        }

    def start(self) -> None:
        """Prepare and start what does not run; returns once the daemon is well, if there is one.

        The daemon ends where its chain node lacks the Catalog, so that it is started after the chain node has it. The
        settings of chain node and store are written again, as this version has them. ConfigError (CO-F505) where
        another program has the ports, such as a second copy of this site: it would answer in place of these.
        """
        self._write_settings()
        self._check_ports()
        for name, service in self.services().items():
            if name == "node" and service.pid is None:
                await_catalog(find_node(self.folder).network(), site=self.folder.absolute().name)
            self.start_one(name)
            if name == "node":
                api = find_node(self.folder).config.api
                await_health(service, f"http://{api.host}:{api.port}")

    def start_one(self, name: str) -> None:
        """Prepare and start one program unless it runs; StoreFault (CO-C336) where the preparation fails."""
        if self.services()[name].pid is not None:
            return
        recipe = RECIPES[name](self.folder)
        environment = {**os.environ, **recipe.environment}
        for line in recipe.prepare:
            try:
                done = subprocess.run(
                    list(line), env=environment, capture_output=True, text=True, timeout=PREPARE_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                message = f"{name} is not prepared within {PREPARE_SECONDS:g} s by {shlex.join(line)[:300]}"
                raise StoreFault("CO-C336", f"{message}. Repeat the command when the machine is less busy.") from None
            if done.returncode:
                message = f"{name} cannot be prepared: {(done.stderr or done.stdout)[-500:].strip()}"
                raise StoreFault("CO-C336", f"{message}. Correct the cause, and start again.")
        self._make_service(name, recipe).start()

    def check_alive(self) -> None:
        """StoreFault (CO-C336) with the log's end where chain node or store has ended, as with a port that is taken."""
        for name, service in self.services().items():
            if name != "node" and service.pid is None:
                raise explain_early_end(service)

    def restart_store(self) -> bool:
        """Start the store again with its files of today; False where it is not one of these processes."""
        service = self.services()["kubo"]
        if service.pid is None:
            return False
        service.stop()
        self.start_one("kubo")
        return True

    def stop(self, only: str | None = None) -> None:
        """End all programs, the daemon first, or one of them; ConfigError (CO-F305) for any other name."""
        only = OTHER_NAMES.get(only, only) if only is not None else None
        if only is not None and only not in RECIPES:
            message = f"A site has no program {only[:40]!r}"
            raise ConfigError("CO-F305", f"{message}. Name one of {', '.join(RECIPES)} (the daemon).")
        chosen = {name: service for name, service in self.services().items() if only in (None, name)}
        for name, service in reversed(chosen.items()):
            service.stop(DAEMON_STOP_SECONDS if name == "node" else STOP_TIMEOUT)

    def watch(self, stop: Flag, notice: Callable[[str], None]) -> None:
        """Start everything, and again what ends, until `stop` is set; then end everything.

        A program that ends again and again, or cannot be started again for now, is started after longer and longer
        pauses: the others run on. The first start of each ends with the fault that it has.
        """
        self._write_settings()
        self._check_ports()
        pauses, due = dict.fromkeys(RECIPES, FIRST_PAUSE), dict.fromkeys(RECIPES, 0.0)
        running: set[str] = set()
        try:
            while not stop.wait(LOOK_SECONDS):
                for name, service in self.services().items():
                    now = time.monotonic()
                    if service.pid is not None or now < due[name]:
                        continue
                    due[name] = now + pauses[name]
                    pauses[name] = min(2 * pauses[name], LONGEST_PAUSE)
                    try:
                        self._start_again(service, notice, ended=name in running)
                    except (StoreFault, ConfigError, OSError) as error:
                        if name not in running:
                            raise
                        notice(f"{name} cannot be started for now: {error}")
                    running.add(name)
        finally:
            self.stop()

    def _start_again(self, service: Service, notice: Callable[[str], None], *, ended: bool) -> None:
        if ended:
            notice(f"{service.name} has ended; its log {service.log} ends: {service.read_log_tail()[-300:]}")
        self.start_one(service.name)
        notice(f"{service.name} started, process {service.pid}")

    def _check_ports(self) -> None:
        """ConfigError (CO-F505) if something answers where a program of this site listens that does not run."""
        ports = SitePorts.read(self.folder)
        places: dict[str, Place] = {"geth": (_LOOPBACK, ports.rpc), "kubo": (_LOOPBACK, ports.store)}
        if (self.folder / NETWORK).exists():
            api = find_node(self.folder).config.api
            places["node"] = (api.host, api.port)
        stopped = {name for name, service in self.services().items() if service.pid is None}
        if taken := find_open_ports({name: place for name, place in places.items() if name in stopped}):
            listed = ", ".join(f"{places[name][0]}:{places[name][1]} ({name})" for name in sorted(taken))
            message = f"Something answers at {listed}, where programs of {self.folder} listen, and these do not run"
            remedy = "Stop the other copy of this site, which would sign with the same keys, or free the ports"
            raise ConfigError("CO-F505", f"{message}. {remedy}.")

    def _write_settings(self) -> None:
        if (self.folder / FOUNDERS).is_dir() and (self.folder / CONFIG).exists():
            write_peers(find_node(self.folder))

    def _make_service(self, name: str, recipe: Recipe) -> Service:
        program, *arguments = recipe.command
        environment = dict(recipe.environment)
        if name == "node":
            environment |= {"PYTHONUNBUFFERED": "1"}
        return Service(name, self.folder.absolute() / name, lambda: Path(program), arguments, environment)


def _find_program(folder: Path, name: str) -> Path:
    return Path(RECIPES[name](folder).command[0])
