"""`make audit-deps`: a finding is a finding, and a database that was not reached is no verdict."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_deps", ROOT / "tools" / "house" / "audit_deps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_deps"] = module
    spec.loader.exec_module(module)
    return module


def test_every_list_of_packages_is_there_and_pins_something(tool: ModuleType) -> None:
    assert all(question.count_pins() > 0 for question in tool.QUESTIONS)


@pytest.mark.parametrize("name", ["dev.lock", "slither.lock", "go.txt"])
def test_each_package_of_a_lock_has_a_hash(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text().strip())
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)
    assert any("==" in entry for entry in entries)


def test_findings_are_read_from_the_answers_of_each_tool(tool: ModuleType) -> None:
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}
    assert tool.read_pip(json.dumps({"dependencies": [vulnerable]})).findings == ("a 1: PYSEC-1",)
    assert tool.read_npm(json.dumps({"vulnerabilities": {"b": {"severity": "high"}}})).findings == ("b: high",)
    done = subprocess.CompletedProcess([], 0, '{"finding": {"osv": "GO-2026-1"}}', "")
    assert tool.read_go(done).findings == ("GO-2026-1",)


def test_a_database_that_was_not_reached_is_no_verdict(tool: ModuleType) -> None:
    unknown = {"dependencies": [{"name": "a", "skip_reason": "Dependency not found on PyPI"}]}
    answers = (tool.read_pip(""), tool.read_pip(json.dumps(unknown)), tool.read_npm('{"message": "405"}'))
    assert all(answer.findings is None for answer in answers)
    assert tool.read_go(subprocess.CompletedProcess([], 1, "", "no route")).findings is None
    assert "no database was reached; pinned on" in tool.describe(tool.QUESTIONS[0], answers[0])


def test_a_finding_ends_with_one(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = map(tool.Outcome, ((), None, ("a 1: PYSEC-1",)))
    lock = ROOT / "requirements" / "dev.lock"
    asked = [tool.Question("Python", lock, lambda _, outcome=outcome: outcome) for outcome in outcomes]
    assert (tool.main(asked[:2]), tool.main(asked)) == (0, 1)
    assert "a 1: PYSEC-1" in capsys.readouterr().out
