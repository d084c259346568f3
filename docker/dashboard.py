"""The Grafana dashboard of one site's node or of several: a table of panels, with every metric that a daemon has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# Grafana lays panels out on so many columns; each row of the dashboard has this height.
COLUMNS, HEIGHT = 24, 7
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """One panel: what it asks, how each line is called, in which unit; `limit` colours values from there on red."""

    title: str
    asks: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    limit: float | None = None


SITE = '{instance=~"$instance"}'
PANELS = (
    Panel("Daemon", ((f"coterie_build_info{SITE}", "{{instance}} {{version}}"),), kind="stat", width=6),
    Panel("Since the last block", ((f"coterie_seconds_since_block{SITE}", "{{instance}}"),), "s", "stat", 6, 60),
    Panel("Waits for people here", (
        (f"coterie_approvals_waiting{SITE}", "approvals, {{instance}}"),
        (f"coterie_releases_waiting{SITE}", "releases, {{instance}}"),
        (f"coterie_votes_waiting{SITE}", "votes not cast, {{instance}}"),
    ), kind="stat", width=6, limit=1),
    Panel("Studies stopped here", ((f"coterie_study_stopped{SITE}", "study {{study}}, {{code}}, {{instance}}"),),
          kind="stat", width=6, limit=1),
    Panel("Peers", (
        (f"coterie_chain_peers{SITE}", "chain, {{instance}}"),
        (f"coterie_swarm_peers{SITE}", "swarm, {{instance}}"),
    )),
    Panel("Blocks", ((f"rate(coterie_chain_head{SITE}[5m]) * 60", "a minute, {{instance}}"),)),
    Panel("Late steps", ((f"coterie_late_seconds{SITE}", "study {{study}} waits for {{sites}}"),), "s", limit=300),
    Panel("Studies", ((f"sum by (state) (coterie_studies{SITE})", "{{state}}"),)),
    Panel("Steps followed", ((f"sum by (kind) (rate(coterie_steps_total{SITE}[5m])) * 60", "{{kind}}, a minute"),)),
    Panel("Time spent waiting", (
        (f"sum by (cause) (rate(coterie_waited_seconds_total{SITE}[5m]))", "{{cause}}"),
    ), "percentunit"),
    Panel("Faults", ((f"sum by (code) (increase(coterie_faults_total{SITE}[1h]))", "{{code}}"),)),
    Panel("Restarts from the ledger", ((f"increase(coterie_restarts_total{SITE}[1h])", "{{instance}}"),)),
    Panel("Payloads posted", ((f"coterie_payload_bytes{SITE}", "{{instance}}"),), "bytes"),
    Panel("Gas", ((f"coterie_gas{SITE}", "{{instance}}"),)),
    Panel("Free disk", ((f"coterie_disk_free_bytes{SITE}", "{{instance}}"),), "bytes"),
    Panel("Memory of the daemon", ((f"process_resident_memory_bytes{SITE}", "{{instance}}"),), "bytes"),
    Panel("Processor", ((f"rate(process_cpu_seconds_total{SITE}[5m])", "{{instance}}"),), "percentunit"),
    Panel("Open files", ((f"process_open_fds{SITE}", "{{instance}}"),)),
    Panel("Confirmations", ((f"coterie_confirmations{SITE}", "{{instance}}"),), kind="stat", width=6),
)  # fmt: skip


def render_dashboard() -> str:
    """The dashboard as Grafana imports it."""
    panels, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, start=1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + HEIGHT
        panels.append(_render_panel(number, panel, x, y))
        x += panel.width
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "instance", "type": "query", "label": "Node", "datasource": SOURCE, "refresh": 2, "multi": True,
            "includeAll": True, "query": "label_values(coterie_build_info, instance)",
        },
    ]  # fmt: skip
    document = {
        "title": "Coterie", "uid": "coterie", "schemaVersion": 39, "version": 1, "timezone": "utc", "editable": True,
        "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "templating": {"list": variables}, "panels": panels,
    }  # fmt: skip
    return json.dumps(document, indent=1) + "\n"


def _render_panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    targets = [
        {"refId": chr(ord("A") + k), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        for k, (expression, legend) in enumerate(panel.asks)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": targets,
    }
