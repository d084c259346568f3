"""What stands at a node now that its people get notices of, from the daemon's own state: no row, no sum, no count."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from coterie_node.notices.certificates import list_certificates
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.release.approval import ApprovalFolder
from coterie_node.site.folder import SiteFolder
from coterie_node.site.study_task import StudyTask, TaskState, WaitCause
from coterie_node.site.watch.health import Health
from coterie_node.site.watch.log import code_of

GIB = float(1 << 30)


def list_occasions(
    home: SiteFolder,
    tasks: Iterable[StudyTask],
    releases_of: Callable[[bytes], ApprovalFolder],
    health: Health,
) -> Iterator[Notice]:
    """Everything that stands now; the same thing has the same key each time."""
    for task in tasks:
        yield from _list_of_study(task, home.name, releases_of(task.hash))
    part, free = home.config.notices, shutil.disk_usage(home.root).free / GIB
    if free < part.free_gib:
        text = f"The disk of {home.name}'s node has {free:.2f} GiB left, less than {part.free_gib:g}."
        yield Notice(NoticeKind.DISK, "disk", text)
    for cause in health.causes:
        yield Notice(NoticeKind.CHAIN, f"chain:{cause[:12]}", f"{home.name}'s node is not well: {cause}")
    yield from list_certificates(part, home.root, datetime.now(UTC))


def _list_of_study(task: StudyTask, me: str, releases: ApprovalFolder) -> Iterator[Notice]:
    wait, name = task.waits_for, f"Study {task.number}{f' ({task.name})' if task.name else ''}"
    what = task.number, f"{task.hash.hex()[:16]}:{task.number}"
    if task.state is TaskState.DONE:
        yield _make(NoticeKind.RESULT, what, "", f"The result of study {task.number} is final at {me}.")
    if task.over:
        return
    if task.fault is not None:
        code = code_of(task.fault)
        text = f"{name} stops at {me}: {code}. `coterie study status {task.number}` has the whole sentence."
        yield _make(NoticeKind.STOPPED, what, code, text)
    for step in releases.list_steps():
        text = f"{name}: a payload of step {step} waits for a person's yes (coterie release list)."
        yield _make(NoticeKind.RELEASE, what, step, text)
    if wait is None:
        return
    if wait.cause is WaitCause.APPROVAL and me in wait.sites:
        yield _make(NoticeKind.APPROVAL, what, "", f"{name} of {task.proposer} waits for {me}'s decision.")
    elif wait.cause is WaitCause.PEOPLE:
        mark = hashlib.sha256(wait.note.encode()).hexdigest()[:16]
        yield _make(NoticeKind.DISPUTE, what, mark, f"{name} waits for {wait.note}")
    elif wait.late > 0:
        late = f"{name} waits for {', '.join(wait.sites)} at step {wait.position}, past its deadline."
        yield _make(NoticeKind.LATE, what, f"{wait.position}:{','.join(wait.sites)}", late)


def _make(kind: NoticeKind, what: tuple[int, str], mark: str, text: str) -> Notice:
    number, study = what
    return Notice(kind, f"{kind.value}:{study}:{mark}", text, number)
