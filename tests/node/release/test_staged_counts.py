"""The privacy log keeps the pool's counts once they are whole: with the first sums after the opening, never before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.learners import cohorts
from support.red_team.hospitals import KNOWN, N, Network, draw, text

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.protocol import Site
from coterie_learners.errors import Withheld
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.release.judgement import Judgement
from coterie_node.release.known_sets import judge_pool_difference

SITES = ("north", "south", "west")
FIRST = {"the pool": (300.0, float("nan")), "male": (140.0, float("nan"))}
WHOLE = {"the pool": (300.0, 100.0), "male": (140.0, 40.0), "male:old": (70.0, 20.0)}


def write_steps(log: PrivacyLog, *exposures: Exposure) -> None:
    study = cohorts.study(count=3, opening="counts")
    rows = cohorts.split(study, cohorts.draw(300))["north"]
    site = Site(study, "north", rows, session="run 1", parties=SITES)
    judgement = Judgement(log, study.disclosure.stricter(study.disclosure))
    for exposure in exposures:
        assert judgement.judge(site, exposure) == []
        judgement.write(site, exposure)


def open_counts(pooled: Mapping[str, tuple[float, float]]) -> Exposure:
    labels = {site: {name: f"{name}/{site}" for name in cohorts.study(count=3).variables} for site in SITES}
    return Exposure("counts", 100, sums_only=True, parties=3, labels=labels, opening=True, pooled=pooled)


def test_the_counts_of_an_early_stage_are_not_kept() -> None:
    log = PrivacyLog()
    write_steps(log, open_counts({}), open_counts(FIRST))
    head = log.find("run 1", SITES)
    assert head is not None
    assert head.labels
    assert not head.pooled


def test_the_first_sums_keep_all_counts_of_all_stages() -> None:
    log = PrivacyLog()
    sums = Exposure("sums", 100, sums_only=True, parties=3, pooled=WHOLE)
    write_steps(log, open_counts({}), open_counts(FIRST), sums, sums)
    head = log.find("run 1", SITES)
    assert head is not None
    assert {name: tuple(counts) for name, counts in head.pooled.items()} == WHOLE


@pytest.mark.parametrize("stops", [True, pytest.param(False, marks=pytest.mark.long)])
def test_counts_of_a_study_that_its_opening_stopped_stand_for_no_later_study(tmp_path: Path, stops: bool) -> None:
    """A study whose opening stopped has no counts in the log, so new patients are judged by each site's own part."""
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    for site in "abc":
        network.data[site]["sex"][-60:] = np.arange(60) % 2
        network.data[site]["hiv"] = np.zeros(N, int) if stops else network.data[site]["hiv"]
    network.data["b"]["hiv"][7] = 1
    network.data["a"]["sex"][-60:] = 0
    network.data["a"]["sex"][-1] = 1  # the one of the new patients of this site: of the pool's many are
    whole = dict(network.data)
    for site in "abc":
        network.data[site] = {name: column[:-60] for name, column in whole[site].items()}
    loose = f'{KNOWN}\nrows = {{constant = "allow", collinear = "allow"}}'
    if stops:
        with pytest.raises(Withheld, match=r"hiv has fewer than 5 patients in the pool \(small level\)"):
            network.fit(text("death ~ sex + hiv", rest=loose))
    else:
        network.fit(text("death ~ sex + hiv", rest=loose))
    assert [bool(head.pooled) for head in network.logs["a"].heads()] == [not stops]
    network.data |= whole
    if stops:
        with pytest.raises(ReleaseRefused, match=r"a's release gate keeps 'opening' back.*\(small level\)"):
            network.fit(text("death ~ sex", rest=loose))
    else:
        network.fit(text("death ~ sex", rest=loose))


@pytest.mark.parametrize(
    ("here", "there"),
    [("old:male", "male:old"), ("old:male, not zero", "male:old, not zero"), ("age[a]:old", "old:age[a]")],
)
def test_products_are_compared_whatever_the_order_of_their_factors(here: str, there: str) -> None:
    log = PrivacyLog()
    write_steps(log, open_counts({}), Exposure("sums", 100, sums_only=True, parties=3, pooled=WHOLE))
    (head,) = log.heads()
    former = replace(head, pooled={"the pool": (300.0, 90.0), there: (70.0, 20.0)})
    found = list(judge_pool_difference(head, {"the pool": (360.0, 110.0), here: (71.0, 20.0)}, former, 5))
    assert [objection.subject for objection in found] == [f"difference: {min(here, there)}"]
    assert "small level" in found[0].sentence
