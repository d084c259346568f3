"""The alerts and the dashboard name metrics that a daemon has, and Prometheus takes the alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from coterie_node.site.watch.metrics import Metrics

DOCKER = Path(__file__).parents[2] / "docker"
RULES, DASHBOARD = DOCKER / "prometheus-rules.yaml", DOCKER / "grafana-dashboard.json"


def list_metrics() -> set[str]:
    """Names of the series that a daemon shows; labelled ones without a value yet are in its help lines."""
    text = Metrics().text().decode()
    return set(re.findall(r"^# HELP (\S+)", text, re.MULTILINE)) | set(re.findall(r"^(\w+)", text, re.MULTILINE))


def list_asked(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"\b(?:coterie|process)_\w+", text)}


def read_targets() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_of_the_dashboard_is_one_of_the_daemon() -> None:
    asked = list_asked(read_targets())
    assert len(asked) > 15
    assert asked - list_metrics() == set()


def test_every_metric_of_the_daemon_is_on_the_dashboard() -> None:
    assert {name for name in list_metrics() if name.startswith("coterie_")} - list_asked(read_targets()) == set()


def test_panels_of_the_dashboard_do_not_cover_each_other() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [(p["x"] + dx, p["y"] + dy) for p in places for dx in range(p["w"]) for dy in range(p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus")
def test_prometheus_takes_the_alerts() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus")
def test_prometheus_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    asks = [text.replace("$instance", ".*") for text in read_targets()]
    rules = [{"record": f"panel:{k}", "expr": text} for k, text in enumerate(asks)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
