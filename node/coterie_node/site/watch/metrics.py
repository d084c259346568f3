"""What Prometheus reads: counts, bytes, times and causes; never a payload's value or a number of patients."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)


class Metrics:
    """One node's metrics in a registry of its own."""

    def __init__(self) -> None:
        # A series beside each counter that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        self.rounds = Counter("coterie_steps_total", "Finished steps followed, by kind.", ["kind"], registry=r)
        self.waited = Counter("coterie_waited_seconds_total", "Time spent waiting, by cause.", ["cause"], registry=r)
        self.faults = Counter("coterie_faults_total", "Transient and reported errors, by code.", ["code"], registry=r)
        self.restarts = Counter("coterie_restarts_total", "Protocol machines restarted from the ledger.", registry=r)
        self.bytes = Gauge("coterie_payload_bytes", "Bytes of payloads posted since the start.", registry=r)
        self.gas = Gauge("coterie_gas", "Gas used since the start.", registry=r)
        self.peers = Gauge("coterie_chain_peers", "Peers of this site's chain node.", registry=r)
        self.head = Gauge("coterie_chain_head", "Number of the newest block.", registry=r)
        self.confirmations = Gauge("coterie_confirmations", "Blocks after which a result is final.", registry=r)
        self.studies = Gauge("coterie_studies", "Studies of this site, by state.", ["state"], registry=r)
        self.block_age = Gauge("coterie_seconds_since_block", "Age of the newest block.", registry=r)
        self.swarm_peers = Gauge("coterie_swarm_peers", "Peers of this site's store.", registry=r)
        self.approvals = Gauge("coterie_approvals_waiting", "Studies that wait for this site's people.", registry=r)
        self.releases = Gauge("coterie_releases_waiting", "Payloads that wait for this site's people.", registry=r)
        self.votes = Gauge("coterie_votes_waiting", "Votes of this site's people that are not cast yet.", registry=r)
        self.free = Gauge("coterie_disk_free_bytes", "Free bytes on the disk of the node's folder.", registry=r)
        late = "Seconds past the deadline of the step that a study is at, by the sites that it waits for."
        self.late = Gauge("coterie_late_seconds", late, ["study", "sites"], registry=r)
        build = "1, with the version of this daemon."
        self.build = Gauge("coterie_build_info", build, ["version"], registry=r)
        what = "1 for each study that a fault stops at this site."
        self.stopped = Gauge("coterie_study_stopped", what, ["study", "code"], registry=r)

    def show_faults(self, codes: Mapping[int, str]) -> None:
        """Show the studies that a fault stops here, by number, each with its code."""
        self.stopped.clear()
        for study, code in codes.items():
            self.stopped.labels(str(study), code).set(1)

    def show_late(self, waits: Mapping[int, tuple[str, int]]) -> None:
        """Show the studies whose step is late, by number: the sites they wait for, and the seconds."""
        self.late.clear()
        for study, (sites, seconds) in waits.items():
            self.late.labels(str(study), sites).set(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
