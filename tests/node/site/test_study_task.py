"""A study at the daemon as an automaton: its moves are those of the table, and its invariants hold in each state."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest

from coterie_node.errors import ConfigError
from coterie_node.run.supervisor import Supervisor
from coterie_node.site import study_task
from coterie_node.site.study_task import FINAL, MOVES, StudyTask, TaskEvent, TaskState, Wait, WaitCause

FAULT = ConfigError("CO-F320", "A setting is wrong.")


def supervise() -> Supervisor:
    return Supervisor(lambda: pytest.fail("nothing to begin"))


def happen(task: StudyTask, event: TaskEvent) -> None:
    """Let an event happen to a study by the verb for it."""
    match event:
        case TaskEvent.BEGIN:
            task.begin(supervise())
        case TaskEvent.WAIT:
            task.wait_for(Wait(WaitCause.APPROVAL, ("west",)))
        case TaskEvent.SETTLE:
            task.settle(3)
        case TaskEvent.REOPEN:
            task.reopen()
        case TaskEvent.FINISH:
            task.finish()
        case TaskEvent.STOP:
            task.stop(FAULT, 60.0, 1)
        case TaskEvent.DECLINE:
            task.decline("declined")
        case TaskEvent.ABORT:
            task.abort()


def test_the_table_at_the_top_of_the_file_is_the_one_that_the_code_has() -> None:
    names = "|".join(state.value for state in TaskState)
    rows = re.findall(rf"^    (any open|{names}) +(\w+) +({names}) ", study_task.__doc__ or "", re.MULTILINE)
    table = {}
    for before, event, after in rows:
        states = [s for s in TaskState if s not in FINAL] if before == "any open" else [TaskState(before)]
        table.update({(state, TaskEvent(event)): TaskState(after) for state in states})
    assert table == MOVES
    assert {event for _, event in MOVES} == set(TaskEvent)


@pytest.mark.parametrize(("state", "event"), list(product(sorted(FINAL, key=str), TaskEvent)))
def test_a_final_state_is_left_by_no_event(state: TaskState, event: TaskEvent) -> None:
    assert (state, event) not in MOVES


@pytest.mark.parametrize("seed", range(50))
def test_any_order_of_events_follows_the_table_and_keeps_the_invariants(seed: int) -> None:
    chance, task = random.Random(seed), StudyTask(1, bytes(32))
    for _ in range(30):
        event, before = chance.choice(list(TaskEvent)), task.state
        happen(task, event)
        assert task.state is MOVES.get((before, event), before)
        if task.over:
            break
    if task.over:
        assert (task.supervisor, task.fault, task.waits_for, task.final_at) == (None, None, None, None)
    if task.state is TaskState.STOPPED:
        assert task.supervisor is None
        assert task.fault is FAULT


def test_a_stopped_study_is_due_when_its_pause_is_over_or_people_decide_again() -> None:
    task = StudyTask(1, bytes(32))
    assert task.is_due(0.0, 1)
    task.stop(FAULT, 60.0, 1)
    assert [task.is_due(59.0, 1), task.is_due(60.0, 1), task.is_due(1.0, 2)] == [False, True, True]


def test_what_is_waited_for_is_news_once_and_again_when_it_is_late() -> None:
    task = StudyTask(1, bytes(32))
    waits = [Wait(WaitCause.SITES, ("west",), 0, late) for late in (0, 0, 10, 90)]
    assert [task.wait_for(wait) for wait in waits] == [True, False, True, False]
    assert task.cause == "west at step 0, 90 s past the deadline"
    assert task.wait_label == "sites"
    assert task.wait_for(Wait(WaitCause.SITES, ("west",), 5, note="rows, 40 % done"))
    assert task.cause == "west at step 5 (rows, 40 % done)"
