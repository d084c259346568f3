"""A member falls silent, withholds, garbles, misstates a size, leaves or lies, at a step of all sites or as the server.

Each pair is a story with three and with four masked sites and each rule for silent sites, by real daemons on the memory
ledger. Four sites that exclude complete over three. The others wait or end as the study says. Ledger, log, status and
result name the member, and nobody else.
"""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from pathlib import Path

import pytest
from support.lanes import one_of_each
from support.node.results import read_result
from support.red_team.members import DEEDS, LIAR, CrookedMember

from coterie_chain.ledger.protocol import Event, State
from coterie_node.audit.replay import replay
from coterie_node.run.reasons import Reason
from coterie_node.verbs.studies import describe_progress

THREE, FOUR = (LIAR, "north", "south"), (LIAR, "north", "south", "west")
# Of an undisturbed run: the counts that open the pool, a sum, and the first turn of a server, which is the liar's.
OPENING, SUM, SERVER = 0, 5, 4
RULES = [(THREE, "wait"), (THREE, "abort"), (FOUR, "wait"), (FOUR, "exclude"), (FOUR, "abort")]
QUICK = [(THREE, "wait"), (FOUR, "exclude")]
STORIES = one_of_each(
    [
        (*rule, position, deed)
        for rule, position, deed in itertools.product(RULES, (OPENING, SUM, SERVER), DEEDS)
        if deed != "lies" or position == SERVER
    ],
    lambda story: (story[:2] if story[:2] in QUICK else None, story[3]),
)


def foresee(silent_site: str, deed: str) -> State:
    """What becomes of a study with such a member."""
    if silent_site == "exclude":
        return State.COMPLETED
    if deed == "lies":
        return State.PAUSED
    return State.ABORTED if silent_site == "abort" or deed in ("garbles", "misstates", "leaves") else State.RUNNING


REASONS = {
    "falls silent": Reason.SILENT_SITE,
    "withholds": Reason.UNAVAILABLE,
    "garbles": Reason.BAD_PAYLOAD,
    "misstates": Reason.BAD_PAYLOAD,
    "leaves": Reason.OPERATOR,
}


@pytest.mark.parametrize(("sites", "silent_site", "position", "deed"), STORIES)
def test_the_study_goes_on_waits_or_ends_as_it_says_and_everybody_names_the_member(
    sites: tuple[str, ...], silent_site: str, position: int, deed: str, tmp_path: Path
) -> None:
    with closing(CrookedMember(tmp_path, sites, silent_site, position, deed)) as story:
        story.play()
        state = story.view().state
        assert state == foresee(silent_site, deed)
        assert story.list_blamed() <= {LIAR}
        if state == State.COMPLETED:
            check_completion(story)
        elif state == State.ABORTED:
            check_ending(story, REASONS[deed])
        for name in story.honest:
            check_words(story, name)


def check_completion(story: CrookedMember) -> None:
    """The three others have a result, and a replay finds it over their rows alone."""
    assert story.view().parties == tuple(story.honest)
    outcome = replay(story.network.chain.ledger(None), story.network.blobs, story.number)
    assert (outcome.verdict.verdict, outcome.contributors) == ("PASS", tuple(story.honest))
    files = [story.network.root / name / "results" / f"{story.number}.json" for name in story.honest]
    first, *others = [read_result(file)["fit"] for file in files]
    assert first is not None
    assert all(fit == first for fit in others)


def check_ending(story: CrookedMember, reason: Reason) -> None:
    """The ledger has one end, with its reason."""
    (end,) = (e for e in story.entries() if isinstance(e, Event) and e.name == "StudyAborted")
    assert Reason(int(dict(end.details)["reason"])) == reason
    assert LIAR in (end.site, dict(end.details)["culprit"])


def check_words(story: CrookedMember, name: str) -> None:
    """An honest site's status, the command's status and its log name the liar, and blame nobody else."""
    status = story.status(name)
    assert LIAR in str([status[key] for key in ("cause", "ending", "lost", "fault")])
    ledger = story.network.chain.ledger(None)
    assert LIAR in str({k: v for k, v in describe_progress(ledger, story.view()).items() if k != "snapshots"})
    lines = [json.loads(line) for line in story.network.log(name).splitlines()]
    about = [line for line in lines if line.get("study") == story.number]
    culprits = {line["culprit"] for line in about if line.get("culprit")}
    assert culprits <= {LIAR}
    assert culprits or any(LIAR in str(line.get(key)) for line in about for key in ("waits_for", "cause", "message"))


def test_three_masked_sites_that_exclude_are_no_proposal(tmp_path: Path) -> None:
    """The first silent site would end it: the proposer's daemon says so, and the ledger gets nothing."""
    with closing(CrookedMember(tmp_path, THREE, "exclude", OPENING, "falls silent")) as story:
        (stuck,) = story.network.daemons["north"].status
        assert (stuck["study"], "CO-S306" in json.dumps(stuck)) == (0, True)
        assert list(story.network.chain.ledger(None).studies()) == []
