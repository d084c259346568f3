"""What the test whether the sites agree costs: one sum in the last round, and no round of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.learners import cohorts, strata
from support.learners.cohorts import Codes
from support.learners.table import MemoryProtocol

from coterie_learners.cola.cola import cola
from coterie_learners.cola.secure_cola import secure_cola
from coterie_learners.core.fit import Fit
from coterie_learners.glore.glore import GlorePlan, glore
from coterie_learners.numeric import linalg
from coterie_learners.study.document import Study
from coterie_learners.sums import newton

CODES = cohorts.draw(300)
TEST_OF_AGREEMENT = 4 * 6 + 5
"""Numbers of a site's part of the test whether the sites agree, with six terms."""


def without_test(study: Study, codes: Codes) -> tuple[int, dict[str, int]]:
    """Rounds of the same fit without the test, and how many numbers a site posts in each."""
    plan, sizes = GlorePlan.of(study), dict[str, int]()
    rows, model = cohorts.split(study, codes), newton.begin(GlorePlan.of(study).rules)
    while not model["rests"]:
        kind, frame = newton.kind_of(model), plan.frame(model)
        parts = [
            plan.model.look(part, frame)
            if kind == "look"
            else plan.model.round(kind, part, frame, model["beta"], float(model["null"]))
            for part in rows.values()
        ]
        sizes[f"stats/{len(sizes)}"] = sum(np.size(value) for value in parts[0].values())
        sums = {name: linalg.total([part[name] for part in parts]) for name in parts[0]}
        model = newton.advance(plan.rules, model, sums)
    return len(sizes), sizes


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize(
    ("outcome", "options"),
    [
        ("died", {}),
        ("died", {"link": "probit"}),
        ("died", {"link": "cloglog"}),
        ("died", {"ridge": 2.0}),
        ("died", {"tolerance": 1e-2}),
        ("visits", {"family": "poisson"}),
        ("score", {"family": "gaussian"}),
    ],
)
def test_the_test_of_agreement_is_one_more_sum_in_the_last_round_and_no_round_of_its_own(
    outcome: str, options: dict[str, Any], aggregation: str
) -> None:
    study = cohorts.study(f"{outcome} ~ {cohorts.FULL}", aggregation=aggregation, **options)
    table = MemoryProtocol(glore, study, cohorts.split(study, CODES))
    fit = table.play()[study.sites[0]]
    assert isinstance(fit, Fit)
    rounds, sizes = without_test(study, CODES)
    assert fit.rounds == rounds
    assert np.isfinite(fit.details["agreement"]["p"])
    steps = [name for t in range(rounds) for name in (f"stats/{t}", f"model/{t}")]
    assert table.topics == [*steps, "conclusion"]
    for topic in sizes:
        posts = table.posts(topic)
        words = [sum(np.size(value) for value in post.values()) for post in posts.values()]
        more = TEST_OF_AGREEMENT if topic == f"stats/{rounds - 1}" else 0
        unit = 2 if aggregation == "masked" else 1  # a masked number is two words
        assert words == [unit * (sizes[topic] + more)] * len(posts)


def test_where_nothing_foresaw_the_end_the_test_is_a_round_of_its_own() -> None:
    """Leverages need the pooled information at the coefficients of their own sum."""
    study = cohorts.study(robust="HC3")
    table = MemoryProtocol(glore, study, cohorts.split(study, CODES))
    table.play()
    assert [topic.split("/")[0] for topic in table.topics[-4:]] == ["model", "agreement", "end", "conclusion"]


@pytest.mark.parametrize("silence", ["wait", "exclude"])
@pytest.mark.parametrize("scheme", ["masks", "bfv"])
def test_of_summed_tables_the_test_is_one_masked_sum_before_the_fit_and_no_post_of_a_server(
    scheme: str, silence: str
) -> None:
    """A study that excludes sites has no test."""
    study = strata.study(f"died ~ {strata.FULL}", 4, "secure_cola", scheme=scheme)
    rules = {**study.ledger.model_dump(), "silent_site": silence}
    study = Study.model_validate({**study.model_dump(), "ledger": rules})
    table = MemoryProtocol(secure_cola, study, strata.split(study, strata.draw(400)))
    fits = table.play()
    test = ["agreement"] if silence == "wait" else []
    tables = ["table"] if scheme == "masks" else ["key", "table", "sum", "opened"]
    assert table.topics == [*tables, *test, "fit", "conclusion"]
    assert ("agreement" in fits[study.sites[0]].details) == bool(test)
    for post in table.posts("agreement").values() if test else ():
        p = len(fits[study.sites[0]].terms)
        assert post["masked"].shape == (4 * p + 4, 2)


def test_of_tables_in_the_clear_the_test_costs_nothing() -> None:
    study = strata.study(f"died ~ {strata.FULL}", 3)
    table = MemoryProtocol(cola, study, strata.split(study, strata.draw(400)))
    fits = table.play()
    assert table.topics == ["table", "fit", "conclusion"]
    assert np.isfinite(fits[study.sites[0]].details["agreement"]["p"])
