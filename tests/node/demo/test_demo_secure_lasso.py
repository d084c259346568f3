"""The demo of Secure Lasso: three processes that talk over TLS, on a development chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.node.processes import Completed, run_command, run_process

pytestmark = [pytest.mark.long, pytest.mark.anvil, pytest.mark.xdist_group("demo")]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Completed]:
    """A finished demo, kept, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = run_process("demo", "--learner", "secure_lasso", "--keep", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_two_owners_and_a_helper_fit_what_scikit_learn_fits_on_the_pooled_join(
    demo_run: tuple[Path, Completed],
) -> None:
    result = json.loads((demo_run[0] / "result.json").read_text())
    assert result["sites"] == ["clinic", "registry", "helper"]
    assert result["pooled"]["max_abs_estimate"] < 5e-4
    assert (result["replay"]["verdict"], result["replay"]["grade"]) == ("RECORD INTACT", "opened results")
    assert result["ledger"]["records"] == 13
    assert 900 < result["n"] < 1300
    assert set(result["details"]["interactive"]["bytes_sent"]) == {"clinic", "registry", "helper"}


def test_who_learns_what_is_printed_first_and_the_table_stands_beside_scikit_learn_s(
    demo_run: tuple[Path, Completed],
) -> None:
    completed = demo_run[1]
    assert "learns the coefficients of 1 penalty" in completed.stderr.split("\n")[0]
    assert "No two of clinic, registry, helper may collude" in completed.stderr
    head = next(line for line in completed.stdout.splitlines() if "Estimate" in line)
    assert head.split() == ["Estimate", "Pooled", "site"]
    assert "Replay: RECORD INTACT, model not recomputed, opened results" in completed.stdout


def test_the_helper_s_folder_and_the_open_store_hold_no_identifier(
    demo_run: tuple[Path, Completed],
) -> None:
    folder = demo_run[0]
    assert not (folder / "sites" / "helper" / "data.csv").exists()
    blocks = [p.read_bytes() for p in (folder / "store").rglob("*") if p.is_file()]
    assert len(blocks) >= 8
    assert not any(b"NH-0" in block for block in blocks)


def test_an_auditor_without_keys_replays_it(demo_run: tuple[Path, Completed]) -> None:
    done = run_command("audit", "replay", "--at", demo_run[0], "--json")
    assert done.returncode == 25, done.stdout
    verdict = json.loads(done.stdout)
    assert (verdict["verdict"], verdict["grade"], verdict["unsealed"]) == ("RECORD INTACT", "opened results", True)


def test_another_number_of_sites_is_refused_in_words() -> None:
    done = run_command("demo", "--learner", "secure_lasso", "--sites", "5")
    assert done.returncode == 12
    assert "CO-F314: The demo of secure_lasso has 3 sites: clinic, registry, helper." in done.stderr
