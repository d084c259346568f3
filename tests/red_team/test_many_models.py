"""Attacks between the models of one document: patients read off two of them, where neither alone shows anybody."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.red_team.hospitals import MASKED, PLAIN, VARIABLES, N, Network, draw, text

from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import Withheld
from coterie_learners.glore.many_disclosure import expose_models
from coterie_learners.glore.many_models import RunningModel, list_rounds, share_round
from coterie_learners.glore.many_plan import ModelsPlan
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.release.known_sets import judge_pool_difference

DROP = 'rows = {missing = "drop", constant = "allow", collinear = "allow"}'


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abcd")})


def many(
    models: Mapping[str, str], sites: str = "abc", learner: str = 'name = "glore"', rest: str = "", **variables: str
) -> str:
    """A study of these models; a text is a formula, after which options may follow."""
    tables = "\n".join(f"[variables.{name}]\n{kind}" for name, kind in (VARIABLES | variables).items())
    parts = (f'[[models]]\nname = "{name}"\nformula = {formula}' for name, formula in models.items())
    listed = "\n".join(parts)
    return f'name = "probe"\nsites = {list(sites)}\n{rest}\n[learner]\n{learner}\n{listed}\n{tables}\n'


# The same patients


@pytest.mark.parametrize("learner", [PLAIN, MASKED])
def test_a_lab_value_that_one_patient_lacks_leaves_the_patient_out_of_all_models(
    network: Network, learner: str
) -> None:
    """The model with the column and the one without it stand on the same patients, and no study after them on more."""
    network.data["a"]["lab"] = network.data["a"]["lab"].astype(object)
    network.data["a"]["lab"][7] = ""
    models = {"without": '"death ~ age + sex"', "with": '"death ~ age + sex + lab"'}
    network.fit(many(models, learner=learner, rest=DROP))
    (head,) = network.logs["a"].heads()
    assert head.n == N - 1
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(text("death ~ age + sex", learner=learner, rest=DROP))


def test_a_model_more_is_no_way_to_leave_one_patient_out(network: Network) -> None:
    network.data["a"]["lab"] = network.data["a"]["lab"].astype(object)
    network.data["a"]["lab"][7] = ""
    network.fit(text("death ~ age + sex", rest=DROP))
    models = {"same": '"death ~ age + sex"', "more": '"relapse ~ lab"'}
    with pytest.raises(ReleaseRefused, match=r"lack lab \(dropped\)"):
        network.fit(many(models, rest=DROP))


# Cells


@pytest.mark.parametrize("learner", [PLAIN, MASKED])
def test_an_interaction_that_isolates_a_cell_in_one_of_two_models_is_refused(network: Network, learner: str) -> None:
    for site in "abc":
        data = network.data[site]
        data["female"] = 1 - data["sex"]
        data["hiv"] = data["hiv"] & data["sex"]
        data["hiv"][np.flatnonzero(data["female"])[0]] = 1
    models = {"main": '"death ~ sex + age"', "cell": '"death ~ female:hiv + age"'}
    with pytest.raises((Withheld, ReleaseRefused)) as caught:
        network.fit(many(models, learner=learner, female='type = "binary"'))
    small = "counts below 5 patients can be solved from it, of female:hiv"
    assert ("Model cell: " if learner == MASKED else small) in str(caught.value)


def eight_patterns(seed: int) -> dict[str, NDArray[Any]]:
    """Three binary columns of which all patterns are frequent but the one with none, which two patients have."""
    rng = np.random.default_rng(seed)
    counts = (2, 50, 50, 60, 50, 60, 60, 68)
    rows = np.repeat(np.array(list(itertools.product((0, 1), repeat=3))), counts, axis=0)
    rng.shuffle(rows)
    return {**draw(seed), "x": rows[:, 0], "y": rows[:, 1], "z": rows[:, 2]}


def small_kinds(models: Mapping[str, str], codes: dict[str, NDArray[Any]]) -> set[str]:
    """The kinds of cells below five that the first plain sums of these models show."""
    binary = dict.fromkeys("xyz", 'type = "binary"')
    study = complete_study(Study.from_toml(many(models, "ab", f'{PLAIN}\nfamily = "gaussian"', **binary)))
    plan = ModelsPlan.of(study)
    running = {name: RunningModel.begin(own) for name, own in plan.plans.items()}
    site = Site(study, "a", ArrayCodes({name: codes[name] for name in ("lab", "x", "y", "z")}), parties=study.sites)
    post = share_round(site, plan, "stats/0", running)
    exposure = expose_models(plan, list_rounds(running), {}, site, post)
    return {exposure.kinds[name] for name in exposure.small(5)}


def test_two_models_that_solve_a_pattern_together_are_judged_together() -> None:
    """The first shows all pairs of columns, the second the triple; together they are the table of all three."""
    models = {"pairs": '"lab ~ x + y + z"', "triple": '"lab ~ x:y + z"'}
    codes = eight_patterns(1)
    for name, formula in models.items():
        assert not small_kinds({name: formula}, codes)
    assert small_kinds(models, codes) == {"single patterns of all covariates of all models"}


# Equations


def test_the_equations_of_all_models_count_together(network: Network) -> None:
    models = {f"m{k}": '"death ~ age + lab + sex"' for k in range(12)}
    network.fit(many({"m0": models["m0"]}, "ab", PLAIN))
    other = replace(network, logs={})
    with pytest.raises(ReleaseRefused, match=r"\(equations\)"):
        other.fit(many(models, "ab", PLAIN))


def test_events_of_a_later_outcome_are_compared_with_those_of_a_study_of_that_outcome() -> None:
    """Ten patients more of a level who all have the second outcome: the first one's events do not hide them."""
    parties, columns = ("a", "b", "c"), {"age": 1}
    former = ReleaseHead("s1", "one", "00", 0, 0, parties, "masked", 90, columns, outcome="relapse")
    former = replace(former, pooled={"the pool": (300.0, 50.0), "hiv": (40.0, 12.0)})
    head = ReleaseHead("s2", "two", "00", 0, 0, parties, "masked", 100, columns, outcome="death")
    pooled = {"the pool": (330.0, 70.0), "hiv": (50.0, 15.0), "hiv (with relapse)": (50.0, 22.0)}
    (objection,) = judge_pool_difference(head, pooled, former, 5)
    assert "hiv has the outcome in every patient" in objection.sentence
    assert not list(judge_pool_difference(head, {**pooled, "hiv (with relapse)": (50.0, 15.0)}, former, 5))
