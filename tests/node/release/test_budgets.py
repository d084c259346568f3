"""What `coterie release log` shows, and a yes with a reason from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from node.privacy.sites import Archive
from typer.testing import CliRunner

from coterie_node.cli.study.release import release
from coterie_node.errors import ConfigError
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.budgets import group_populations

HASH = "ab" * 32


@pytest.fixture
def log(tmp_path: Path) -> PrivacyLog:
    (tmp_path / "node.toml").write_text('site = "north"\n')
    return PrivacyLog(FolderStorage(tmp_path / "privacy"))


def test_releases_over_overlapping_rows_are_one_population(log: PrivacyLog) -> None:
    site = Archive(log=log)
    site.release(np.arange(200), kind="masked", terms=("(Intercept)", "age", "sex"))
    site.release(np.arange(220), equations=30, measured=("age",), terms=("(Intercept)", "age"))
    site.release(np.arange(300, 400))
    one, two = group_populations(log)
    assert (one.rows, one.columns, one.smallest, len(one.heads)) == (200, 3, 20, 2)
    assert (one.budget.equations, one.budget.unknowns) == (30, 400)
    assert two.smallest is None
    assert any("one or two sites" in words for words in one.list_next_refusals())


def test_people_see_the_log_and_allow_one_refusal_with_a_reason(log: PrivacyLog, tmp_path: Path) -> None:
    Archive(log=log).release(np.arange(200))
    refused = Objection(Grade.REFUSE, "added", "It adds fewer than 5 patients.", "s1", subject="s1")
    log.note_refusal(HASH, "probe", refused)
    cli, node = CliRunner(), ["--node", str(tmp_path)]
    shown = cli.invoke(release, ["log", *node]).output
    assert "s1: 200 patients, 1 release, 0 of them masked" in shown
    assert "smallest known set      none: no two releases differ in patients" in shown
    assert f"refused  {HASH[:16]}  probe: It adds fewer" in shown
    assert json.loads(cli.invoke(release, ["log", "--json", *node]).output)["populations"][0]["rows"] == 200
    assert log.allowance(HASH, refused) == ""
    assert cli.invoke(release, ["allow", HASH[:16], "--reason", "they agreed", *node]).exit_code == 0
    assert log.allowance(HASH, refused) == "they agreed"
    assert log.allowance(HASH, Objection(Grade.REFUSE, "added", "", "s2", subject="s2")) == ""
    failed = cli.invoke(release, ["allow", "cd" * 8, "--reason", "why not", *node])
    assert isinstance(failed.exception, ConfigError)
