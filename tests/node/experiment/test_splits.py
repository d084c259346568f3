"""Each trial's permutation: who is scored, who fits what, alike in every stratum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.node.experiments import write_plan, write_rows

from coterie_node.data.draft.site_look import name_site
from coterie_node.errors import ConfigError
from coterie_node.experiment.cohort import load_experiment_rows
from coterie_node.experiment.plan import read_plan
from coterie_node.experiment.splits import TrialSplit, split_trial


def split(folder: Path, number: int = 0, **changes: str) -> TrialSplit:
    plan = read_plan(write_plan(folder, **changes))
    return split_trial(plan, load_experiment_rows(plan, folder), number)


def test_every_row_is_scored_or_fitted_at_one_site(tmp_path: Path) -> None:
    write_rows(tmp_path)
    parts = split(tmp_path)
    rows = np.concatenate([parts.test, parts.train])
    assert sorted(rows.tolist()) == list(range(360))
    assert len(parts.test) == 90
    assert {name: len(at) for name, at in parts.sites.items()} == {"site-1": 90, "site-2": 90, "site-3": 90}


def test_each_stratum_gives_its_share_to_all(tmp_path: Path) -> None:
    write_rows(tmp_path)
    plan = read_plan(write_plan(tmp_path))
    cohort = load_experiment_rows(plan, tmp_path)
    parts = split_trial(plan, cohort, 3)
    stratum = 2 * np.asarray(cohort.codes["died"], dtype=int) + np.asarray(cohort.codes["sex"], dtype=int)
    counts = np.bincount(stratum)
    assert np.abs(np.bincount(stratum[parts.test]) - counts * 0.25).max() <= 1
    for rows in parts.sites.values():
        assert np.abs(np.bincount(stratum[rows]) - counts * 0.25).max() <= 2


def test_a_trial_is_the_same_each_time_and_another_is_another(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert np.array_equal(split(tmp_path, 1).test, split(tmp_path, 1).test)
    assert not np.array_equal(split(tmp_path, 1).test, split(tmp_path, 2).test)
    assert not np.array_equal(split(tmp_path, 1).test, split(tmp_path, 1, seed="8").test)


def test_a_columns_levels_are_the_sites(tmp_path: Path) -> None:
    write_rows(tmp_path)
    plan = read_plan(write_plan(tmp_path, stratify='[]\nby = "hospital"'))
    cohort = load_experiment_rows(plan, tmp_path)
    parts = split_trial(plan, cohort, 0)
    assert list(parts.sites) == ["north", "south-west"]
    assert set(cohort.codes["hospital"][parts.sites["south-west"]].tolist()) == {1}


def test_a_file_for_each_site_splits_the_rows(tmp_path: Path) -> None:
    write_rows(tmp_path, 120, name="a.csv")
    write_rows(tmp_path, 90, name="b.csv", seed=2)
    parts = split(tmp_path, data='{ first = "a.csv", second = "b.csv" }')
    assert list(parts.sites) == ["first", "second"]
    assert parts.sites["first"].max() < 120 <= parts.sites["second"].min()


def test_a_site_without_rows_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, 12)
    with pytest.raises(ConfigError, match="site-10") as caught:
        split(tmp_path, sites="10")
    assert caught.value.code == "CO-F361"


def test_a_share_that_leaves_no_row_to_score_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, 12)
    plan = read_plan(write_plan(tmp_path))
    few = plan.model_copy(update={"test_share": 0.001})
    with pytest.raises(ConfigError, match=r"test_share = 0.001 of 12 rows leaves none to score"):
        split_trial(few, load_experiment_rows(plan, tmp_path), 0)


@pytest.mark.parametrize(("level", "name"), [("South West", "south-west"), ("  ", "site"), ("x" * 40, "x" * 31)])
def test_a_site_has_a_name_of_its_level(level: str, name: str) -> None:
    assert name_site(level) == name
