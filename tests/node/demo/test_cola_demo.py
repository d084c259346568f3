"""The demos of both forms of COLA-GLM: site processes on Anvil, pooled comparison, replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.node.processes import run_command, run_process

from coterie_node.demo.cases import find_case, secure_cola
from coterie_node.errors import ConfigError

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("demo")]


@pytest.mark.long
@pytest.mark.parametrize(("learner", "records"), [("cola", 5), ("secure_cola", 20)])
def test_the_demo_equals_the_pooled_fit_and_replays_identically(learner: str, records: int, tmp_path: Path) -> None:
    done = run_process("demo", "--learner", learner, "--json", "--keep", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["n"], result["events"], result["rounds"]) == (1629, 318, 1)
    assert result["pooled"]["max_abs_estimate"] < 1e-10
    assert result["pooled"]["max_abs_std_error"] < 1e-9
    assert (result["replay"]["verdict"], result["replay"]["grade"]) == ("PASS", "identical")
    assert result["ledger"]["records"] == records
    second_run = run_command("audit", "replay", "--at", tmp_path / "run", "--json")
    assert second_run.returncode == 0, second_run.stdout + second_run.stderr
    assert json.loads(second_run.stdout)["grade"] == "identical"


def test_the_secure_demo_asks_for_three_sites() -> None:
    with pytest.raises(ConfigError, match="three sites or more"):
        secure_cola.CASE.site_names(2)
    assert find_case("secure_cola").sites == 3
