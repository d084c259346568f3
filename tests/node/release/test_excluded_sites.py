"""A masked study that goes on without an excluded site: its entry has labels, and later studies are judged by them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from support.learners import cohorts

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.protocol import Site
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import Objection, pick_gravest
from coterie_node.release.judgement import Judgement

FIVE = ("north", "south", "west", "east", "coast")
Labels = Mapping[str, Mapping[str, str]]


def label(sites: tuple[str, ...], changed: str = "") -> dict[str, dict[str, str]]:
    """A label of each column at each site."""
    names = cohorts.study(count=3, opening="counts").variables
    return {site: {name: f"{name}/{site}{'/new' * (site == changed)}" for name in names} for site in sites}


class Story:
    """One site with its log, and studies of which only the labels differ."""

    def __init__(self) -> None:
        self.log, self.codes, self.sessions = PrivacyLog(), cohorts.draw(300), 0

    def release(self, labels: Labels, left: tuple[str, ...] = ()) -> Objection | None:
        """Open the pool of all sites with labels, then post sums over those that are left; what is objected to."""
        self.sessions += 1
        study = cohorts.study(count=3, opening="counts")
        rows = cohorts.split(study, self.codes)["north"]
        site = Site(study, "north", rows, session=f"run {self.sessions}", parties=tuple(labels))
        judgement = Judgement(self.log, study.disclosure.stricter(study.disclosure))
        opening = Exposure("counts", rows.n, sums_only=True, parties=len(labels), labels=labels, opening=True)
        pooled = {"the pool": (300.0, 100.0), "male": (140.0, 40.0)}
        for parties, exposure in (
            (tuple(labels), opening),
            (left or tuple(labels), Exposure("sums", rows.n, sums_only=True, parties=3, pooled=pooled)),
        ):
            here = Site(study, "north", rows, session=site.session, parties=parties)
            objection = pick_gravest(judgement.judge(here, exposure))
            if objection is not None:
                return objection
            judgement.write(here, exposure)
            self.log.note_sum(here.session, parties, ())
        return None


def test_the_entry_of_the_sites_that_are_left_has_their_labels() -> None:
    story, left = Story(), FIVE[:3]
    assert story.release(label(FIVE[:4]), left) is None
    head = story.log.find("run 1", left)
    assert head is not None
    assert head.labels == label(left)
    assert head.uncounted
    assert not head.pooled


def test_a_site_more_than_those_that_were_left_is_refused() -> None:
    """The sum over three sites is known since the fourth was excluded: with the fifth it shows the fifth alone."""
    story = Story()
    assert story.release(label(FIVE[:4]), FIVE[:3]) is None
    objection = story.release(label((*FIVE[:3], FIVE[4])))
    assert objection is not None
    assert objection.kind == "site added"


def test_new_patients_of_one_of_those_that_were_left_are_refused() -> None:
    story = Story()
    assert story.release(label(FIVE[:4]), FIVE[:3]) is None
    objection = story.release(label(FIVE[:3], changed="south"))
    assert objection is not None
    assert objection.kind == "site added"


@pytest.mark.parametrize("left", [(), FIVE[:3]])
def test_the_same_study_again_passes(left: tuple[str, ...]) -> None:
    story = Story()
    assert story.release(label(FIVE[:4]), left) is None
    assert story.release(label(FIVE[:4])) is None
    assert np.all([head.kind == "masked" for head in story.log.heads()])


def test_pools_of_which_one_was_not_counted_may_not_differ() -> None:
    """Patients of all three sites that were left are new since: nobody knows how many of a level."""
    story, left = Story(), FIVE[:3]
    assert story.release(label(FIVE[:4]), left) is None
    new = {site: {name: f"{text}/new" for name, text in columns.items()} for site, columns in label(left).items()}
    objection = story.release(new)
    assert objection is not None
    assert objection.kind == "difference"
    assert "a site was excluded" in objection.sentence
