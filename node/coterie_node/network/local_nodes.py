"""The nodes of a development network: `coterie serve` for each site, as programs that run on."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections import deque
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from coterie_chain.errors import StoreFault
from coterie_chain.http_client import WIRE_FAULTS, HttpClient, Waits
from coterie_chain.keys.private_files import read_private, replace_private, write_private
from coterie_chain.network.programs.ports import LOOPBACK, read_ports, reserve_for_all
from coterie_chain.network.programs.service import Service, explain_early_end, scale_wait, stretch_wait
from coterie_node.site.config import CONFIG
from coterie_node.site.run_folder import RunFolder

READY_WITHIN, STARTING_AT_ONCE = 60.0, 4
WAITS = Waits(connect=3.0, silence=5.0, answer=5.0)
MAX_ANSWER_BYTES = 1 << 20
PORTS = ("api", "talk")
SETTINGS = """\
# The development network writes this file at each start; `coterie init` explains the settings.
site = {site}

[chain]
url = {chain}
confirmations = {confirmations}
sleep = {sleep}

[store]
url = {store}

[policy]
learners = {learners}

[api]
port = {port}

[talk]
listen = "{listen}"
peers = {{ {peers} }}
"""


class SiteDaemons:
    """One daemon per site of a network whose Catalog is deployed."""

    def __init__(self, place: RunFolder) -> None:
        self._place = place
        self._sites = place.settings().sites

    def start(self) -> None:
        """Start every daemon that does not run, a few at a time; returns when all of them have read the ledger."""
        waiting = {site: service for site, service in self.services().items() if service.pid is None}
        reserve_for_all([self._ports(self._place.site_root(site)) for site in waiting], PORTS)
        begun: deque[tuple[str, Service]] = deque()
        for site, service in waiting.items():
            # Each reads its libraries for seconds: all at once none would be ready in time.
            if len(begun) >= STARTING_AT_ONCE:
                self._await_first(begun)
            self._write_settings(site)
            service.start()
            begun.append((site, service))
        while begun:
            self._await_first(begun)
        for site, service in self.services().items():
            await_health(service, self._api(site))

    def _await_first(self, begun: deque[tuple[str, Service]]) -> None:
        site, service = begun.popleft()
        await_health(service, self._api(site), scale_wait(READY_WITHIN, len(self._sites)))

    def stop(self) -> None:
        """Ask all daemons to end, then wait for them: a step at hand is finished first."""
        for service in self.services().values():
            service.stop()

    def services(self) -> dict[str, Service]:
        """Each site's daemon."""
        return {site: self._service(self._place.site_root(site)) for site in self._sites}

    def facts(self, site: str) -> Mapping[str, int]:
        """Studies done and gas used since its start, from its metrics; what these do not have yet is left out."""
        return read_daemon_facts(self._ask(site, "/metrics").decode())

    def read_cause(self, site: str, study: str) -> str:
        """What a site's daemon says about a study (the hash in hex): its fault, or what it waits for; else empty."""
        listed: list[dict[str, Any]] = json.loads(self._ask(site, "/status") or b"[]")
        found: dict[str, Any] = next((task for task in listed if task["hash"] == study), {})
        return str((found.get("fault") or {}).get("message") or found.get("cause") or "")

    def _ask(self, site: str, page: str) -> bytes:
        """A page of a site's daemon; empty if it does not answer."""
        token = read_private(self._place.site_root(site) / "api.token", "the API's token file").strip()
        try:
            with HttpClient(self._api(site), WAITS, {"Authorization": f"Bearer {token}"}) as client:
                answer = client.get(page, limit=MAX_ANSWER_BYTES)
        except WIRE_FAULTS:
            return b""
        return answer.body if answer.status == 200 else b""

    def _write_settings(self, site: str) -> None:
        """Write a site's settings for the addresses of today."""
        root, chain, store = self._place.site_root(site), self._place.chain(), self._place.store()
        text = SETTINGS.format(
            site=json.dumps(site),
            chain=json.dumps(chain.url(site)),
            store=json.dumps(store.url(site)),
            confirmations=chain.confirmations,
            sleep=json.dumps(self._place.settings().sleep),
            learners=json.dumps(sorted({point.name for point in entry_points(group="coterie.learners")})),
            port=read_ports(self._ports(root))["api"],
            listen=self._talk_address(site),
            peers=", ".join(f'{peer} = "{self._talk_address(peer)}"' for peer in self._sites if peer != site),
        )
        replace_private(root / CONFIG, text)
        replace_private(root / "network.json", self._place.network(site).to_json())
        if not (root / "api.token").exists():
            write_private(root / "api.token", secrets.token_urlsafe(32) + "\n")

    def _talk_address(self, site: str) -> str:
        return f"{LOOPBACK}:{read_ports(self._ports(self._place.site_root(site)))['talk']}"

    def _api(self, site: str) -> str:
        return f"http://{LOOPBACK}:{read_ports(self._ports(self._place.site_root(site)))['api']}"

    def _ports(self, root: Path) -> Path:
        return root / "node" / "ports.json"

    def _service(self, root: Path) -> Service:
        arguments = ("-m", "coterie_node", "serve", "--node", str(root.absolute()))
        quiet = {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return Service("node", root / "node", lambda: Path(sys.executable), arguments, quiet)


def read_daemon_facts(metrics: str) -> Mapping[str, int]:
    """Studies done and gas used in a daemon's metrics; a daemon that has just started does not have all of them."""
    figures = {(s.name, s.labels.get("state", "")): s.value for s in _samples(metrics)}
    wanted = {"studies": ("coterie_studies", "done"), "gas": ("coterie_gas", "")}
    return {name: int(figures[key]) for name, key in wanted.items() if key in figures}


def _samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def await_health(service: Service, url: str, within: float = READY_WITHIN) -> None:
    """Wait until a daemon says that it is well; StoreFault (CO-C336) with its log's end if it does not in time.

    The time in which the daemon has no processor, as on a busy machine, does not count, up to ten times `within`.
    """
    began, said = time.monotonic(), ""
    with HttpClient(url, WAITS) as client:
        while time.monotonic() <= began + stretch_wait(within, service):
            try:
                answer = client.get("/health", limit=MAX_ANSWER_BYTES)
                if answer.status == 200:
                    return
                said = answer.body[:500].decode(errors="replace")
            except WIRE_FAULTS:
                if service.pid is None:
                    raise explain_early_end(service) from None
            time.sleep(0.1)
    raise _explain_delay(service, time.monotonic() - began, said)


def _explain_delay(service: Service, seconds: float, said: str) -> StoreFault:
    """The fault of a daemon that runs and is not well after so many seconds."""
    site = service.folder.absolute().parent.name
    state = f"is not well after {seconds:.0f} s: {said}" if said else f"does not answer after {seconds:.0f} s"
    message = f"The daemon of {site} {state}. It runs, and had no processor for {service.queued:.0f} s of them"
    log = f"{service.log} ends: {service.read_log_tail()}"
    return StoreFault("CO-C336", f"{message}. Repeat the command to wait on. Its log {log}")
