"""A dry run shows a site's people the numbers under their masks, never the masked words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from support.learners import cohorts, strata, vertical

from coterie_learners.core.masked_sum import unmask_short
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data
from coterie_node.release.policy import Policy
from coterie_node.run.preview import PayloadPreview, PreviewGate
from coterie_node.run.simulate import simulate

WORDS = {"masked", "bytes", "lengths"}


def preview(study: Study, rows: Mapping[str, Data], topic: str) -> dict[str, PayloadPreview]:
    """What each site's people see of the steps whose topic begins so, by site; the last one of several."""
    out: list[PayloadPreview] = []
    simulate(study, rows, gates={name: PreviewGate(study, Policy(), out=out) for name in study.sites})
    return {leaf.site: leaf for leaf in out if leaf.release.verdict.topic.startswith(topic)}


@pytest.mark.parametrize("scheme", ["masks", "bfv", "ckks"])
def test_a_table_under_masks_is_shown_as_its_counts_by_pattern(scheme: str) -> None:
    study, codes = strata.study("died ~ male + smoker", learner="secure_cola", scheme=scheme), strata.draw(120)
    tables = preview(study, strata.split(study, codes), "table")
    assert tables.keys() == set(study.sites)
    for table in tables.values():
        assert table.sums is not None
        assert WORDS.isdisjoint(table.as_dict()["payload"])
        assert "n, under masks" in table.text()
    total = sum(np.asarray(table.as_dict()["payload"]["n, under masks"]) for table in tables.values())
    patterns = np.bincount((2 * codes["male"] + codes["smoker"]).astype(int), minlength=4)
    assert sorted(np.asarray(total).tolist()) == sorted(patterns.tolist())


def test_a_rotated_sum_of_columns_is_shown_as_this_site_s_part_of_it() -> None:
    study = vertical.study(learner="valoris", mode="aggregated")
    rows = vertical.split(study, vertical.draw(400))
    shown = preview(study, rows, "factor/")
    south, east = shown["south"], shown["east"]
    parts = [
        np.vstack([part.sums["columns, under masks"], part.sums["shift, under masks"]])
        for part in (south, east)
        if part.sums
    ]
    assert len(parts) == 2
    assert all(WORDS.isdisjoint(part.as_dict()["payload"]) for part in (south, east))
    posted = unmask_short([part.release.payload["masked"] for part in (south, east)])
    np.testing.assert_allclose(parts[0] + parts[1], posted, atol=1e-10)


def test_masked_sums_of_a_round_are_shown_as_numbers() -> None:
    study = cohorts.study(f"died ~ {cohorts.FULL}", 3, aggregation="masked", opening="counts")
    rows = preview(study, cohorts.split(study, cohorts.draw(300)), "stats/0")["north"].as_dict()["payload"]
    assert rows.keys() == {"sums under masks"}
    assert 100.0 in rows["sums under masks"]
