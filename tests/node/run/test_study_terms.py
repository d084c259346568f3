"""What of a study goes on the ledger: with how few sites it goes on, and which rule on silent sites cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.learners import cohorts, strata
from support.learners.strata import FULL
from support.node.commands import refusal
from support.node.houses import NodeNetwork, make_node_folder, study_file

from coterie_chain.ledger.protocol import Silence
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.run.study_files import check_silence_rule, load_study, study_terms

EXCLUDE: dict[str, Any] = {"[ledger]": '[ledger]\nsilent_site = "exclude"'}
FOUR: dict[str, Any] = {'["north", "south", "west"]': '["north", "south", "west", "east"]'}
PLAIN = {'name = "glore"': 'name = "glore"\naggregation = "plain"'}


@pytest.mark.parametrize(
    ("study", "least"),
    [
        (cohorts.study(count=3, aggregation="masked"), 3),
        (cohorts.study(count=3), 3),
        (cohorts.study(count=5), 3),
        (cohorts.study(count=3, aggregation="plain"), 1),
        (cohorts.study(count=2), 1),
        (strata.study(f"died ~ {FULL}", 4, "secure_cola", scheme="masks"), 3),
        (strata.study(f"died ~ {FULL}", 4, "cola"), 1),
    ],
)
def test_the_terms_keep_as_many_sites_as_hide_each_other_s_sums(study: Study, least: int) -> None:
    assert study_terms(study).least == least


@pytest.mark.parametrize(
    ("changes", "refused"),
    [(EXCLUDE, True), (EXCLUDE | FOUR, False), (EXCLUDE | PLAIN, False), ({}, False), (FOUR, False)],
)
def test_a_masked_study_that_needs_all_of_its_sites_may_not_exclude_one(
    changes: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    study = load_study(study_file(tmp_path, texts=changes))
    if not refused:
        check_silence_rule(study)
        return
    with pytest.raises(StudyError, match="masked sums need 3 sites and the study has 3") as caught:
        check_silence_rule(study)
    assert caught.value.code == "CO-S306"


def test_propose_refuses_it_and_names_the_ways_out(tmp_path: Path) -> None:
    make_node_folder(tmp_path / "north", "north")
    node: tuple[Any, ...] = ("--node", tmp_path / "north")
    error = refusal("study", "propose", study_file(tmp_path, texts=EXCLUDE), *node)
    assert error.code == "CO-S306"
    assert all(word in error.message for word in ('"wait"', '"abort"', "add a site", "do not mask"))
    # The next thing that is missing: the node has joined no network.
    assert refusal("study", "propose", study_file(tmp_path, "four", texts=EXCLUDE | FOUR), *node).code == "CO-F321"


def test_a_daemon_does_not_propose_what_the_command_would_refuse(node_network: NodeNetwork) -> None:
    node_network.propose(study_file(node_network.root, texts=EXCLUDE))
    node_network.settle()
    assert node_network.chain.ledger(None).studies() == ()
    (task,) = node_network.daemons["north"].status
    assert task["fault"]["code"] == "CO-S306"  # type: ignore[index]


def test_the_ledger_excludes_nobody_from_a_masked_study_of_three(node_network: NodeNetwork) -> None:
    terms = study_terms(load_study(study_file(node_network.root, texts=EXCLUDE)))
    assert (terms.silence, terms.least) == (Silence.EXCLUDE, 3)
