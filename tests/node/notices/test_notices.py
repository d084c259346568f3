"""Notices: each event once, through restarts, quiet hours, digests and failures; and what a daemon hands over."""

from __future__ import annotations

import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.node.houses import CANARY, NodeNetwork, study_file
from support.node.notice_servers import write_certificate

from coterie_node.errors import ConfigError
from coterie_node.notices.certificates import list_certificates
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.notices.notifier import QUEUE_LOOKS, Notifier, is_quiet_hour
from coterie_node.notices.outbox import LIFETIME_SECONDS, OUTBOX, Outbox
from coterie_node.notices.senders import MemorySender
from coterie_node.notices.settings import NoticesPart
from coterie_node.site.config import CONFIG, load_config
from coterie_node.site.watch.occasions import list_occasions

APPROVAL = Notice(NoticeKind.APPROVAL, "approval-waits:a:1", "Study 1 of east waits for north's decision.", 1)
RESULT = Notice(NoticeKind.RESULT, "result-final:a:1", "The result of study 1 is final at north.", 1)
DISK = Notice(NoticeKind.DISK, "disk", "The disk of north's node has 0.10 GiB left, less than 1.")
DISPUTE = Notice(NoticeKind.DISPUTE, "dispute:a:1:x", "Study 1 waits for people.", 1)


class NoticeHouse:
    """A notifier on a clock that tests move, and whose state is in a folder."""

    def __init__(self, folder: Path, part: NoticesPart | None = None, failures: int = 0) -> None:
        self.folder, self.part, self.now = folder, part or NoticesPart(), 1_764_400_000.0
        self.sender, self.reports = MemorySender(failures=failures), list[str]()
        self.outbox: Outbox | None = None
        self.open()

    def open(self) -> None:
        """A notifier as a fresh process makes it."""
        if self.outbox is not None:
            self.outbox.close()
        self.outbox = Outbox(self.folder / OUTBOX)
        self.notifier = Notifier(
            self.part, self.outbox, [self.sender], lambda: self.now, lambda way, error: self.reports.append(str(error))
        )

    def sent(self) -> list[tuple[Notice, ...]]:
        deliveries, self.sender.deliveries = self.sender.deliveries, []
        return deliveries


def test_each_event_is_sent_once_and_a_restart_repeats_none(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path)
    notices.notifier.work([APPROVAL])
    notices.notifier.work([APPROVAL, RESULT])
    assert notices.sent() == [(APPROVAL,), (RESULT,)]
    notices.open()
    notices.notifier.work([APPROVAL, RESULT])
    notices.notifier.work()
    assert notices.sent() == []
    assert stat.S_IMODE((tmp_path / OUTBOX).stat().st_mode) == 0o600


def test_a_restart_sends_what_waited(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path, failures=1)
    notices.notifier.work([APPROVAL])
    notices.open()
    notices.now += 11
    notices.notifier.work([APPROVAL])
    assert notices.sent() == [(APPROVAL,)]


def test_old_results_are_no_news_at_the_first_look(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path)
    notices.notifier.work([RESULT, APPROVAL])
    assert notices.sent() == [(APPROVAL,)]
    later = replace(RESULT, key="result-final:b:2")
    notices.notifier.work([RESULT, later])
    assert notices.sent() == [(later,)]


def test_what_passes_and_comes_again_is_sent_again(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path)
    for standing in ([DISK], [DISK], [], [DISK]):
        notices.notifier.work(standing)
    assert notices.sent() == [(DISK,), (DISK,)]


def test_quiet_hours_let_urgent_notices_through_and_send_the_rest_together(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path, NoticesPart(quiet="22:00-07:00"))
    notices.now = datetime(2026, 11, 29, 23, 30).timestamp()
    notices.notifier.work([APPROVAL, DISPUTE])
    assert notices.sent() == [(DISPUTE,)]
    notices.now = datetime(2026, 11, 30, 6, 59).timestamp()
    notices.notifier.work([APPROVAL, DISPUTE, RESULT])
    assert notices.sent() == []
    notices.now = datetime(2026, 11, 30, 7, 0).timestamp()
    notices.notifier.work()
    assert notices.sent() == [(APPROVAL, RESULT)]


@pytest.mark.parametrize(
    ("quiet", "hour", "is_quiet"),
    [("22:00-07:00", 23, True), ("22:00-07:00", 7, False), ("12:00-13:00", 12, True), ("12:00-13:00", 13, False),
     ("12:00-12:00", 12, False), ("", 12, False)],
)  # fmt: skip
def test_quiet_hours_begin_and_end_as_they_say(quiet: str, hour: int, is_quiet: bool) -> None:
    assert is_quiet_hour(quiet, datetime(2026, 11, 29, hour)) == is_quiet


def test_a_digest_collects_for_its_minutes(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path, NoticesPart(digest_minutes=30))
    notices.notifier.work([APPROVAL])
    notices.now += 29 * 60
    notices.notifier.work([APPROVAL, RESULT, DISK])
    assert notices.sent() == [(DISK,)]
    notices.now += 60
    notices.notifier.work()
    assert notices.sent() == [(APPROVAL, RESULT)]


def test_a_way_that_fails_is_tried_again_with_growing_pauses_and_given_up_after_a_day(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path, failures=1000)
    notices.notifier.work([APPROVAL])
    tries, end = 1, notices.now + LIFETIME_SECONDS + 3700
    while notices.now < end:
        notices.now += 60
        before = notices.sender.failures
        notices.notifier.work()
        tries += before - notices.sender.failures
    assert 20 < tries < 40
    assert notices.outbox is not None
    assert notices.outbox.list_waiting("memory") == []
    assert len(notices.reports) == 1  # the same failure is reported once
    notices.sender.failures = 0
    notices.notifier.work([APPROVAL, DISPUTE])
    assert notices.sent() == [(DISPUTE,)]
    assert notices.reports[1:] == ["None"]


def test_a_kind_that_nobody_wants_is_not_sent(tmp_path: Path) -> None:
    notices = NoticeHouse(tmp_path, NoticesPart(kinds=(NoticeKind.DISPUTE,)))
    notices.notifier.work([APPROVAL, DISPUTE])
    assert notices.sent() == [(DISPUTE,)]


class SlowSender(MemorySender):
    """A way that takes notices only when it may."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.gate = gate

    def send(self, delivery: str, notices: object) -> None:
        self.gate.wait(60)


def test_a_way_that_hangs_never_stops_the_hand_over(tmp_path: Path) -> None:
    gate, outbox = threading.Event(), Outbox(tmp_path / OUTBOX)
    with Notifier(NoticesPart(), outbox, [SlowSender(gate)]) as notifier:
        taken = [notifier.observe([APPROVAL]) for _ in range(QUEUE_LOOKS + 20)]
        gate.set()
    outbox.close()
    assert taken.count(False) > 0
    assert taken[0]


def test_a_daemon_hands_over_what_waits_and_what_is_final_without_any_number_of_rows(node_network: NodeNetwork) -> None:
    looks: list[Notice] = []
    for name, daemon in node_network.daemons.items():
        daemon.services = replace(daemon.services, observe=looks.extend if name == "west" else None)
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    node_network.seconds += 10
    node_network.daemons["west"].tick()
    node_network.approve(study, "south", "west")
    node_network.settle()
    node_network.seconds += 10
    node_network.daemons["west"].tick()
    kinds = [notice.kind for notice in looks]
    assert NoticeKind.APPROVAL in kinds
    assert kinds[-1] is NoticeKind.RESULT
    texts = " ".join(notice.text for notice in looks)
    assert str(CANARY) not in texts
    assert "360" not in texts
    assert "120 " not in texts


def test_a_late_site_a_fault_and_a_release_are_named(node_network: NodeNetwork) -> None:
    settings = node_network.root / "west" / CONFIG
    settings.write_text(settings.read_text().replace("ask = false", "ask = true"))
    node_network.daemons["west"] = daemon = node_network.daemon("west")
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    (node_network.root / "south" / "data.csv").write_text("died,age,male\n1,x,1\n")
    node_network.settle()
    south = node_network.daemons["south"]
    texts = {
        n.kind: n.text
        for n in list_occasions(south.services.home, south.tasks.values(), south._releases_of, south.health)
    }
    assert texts[NoticeKind.STOPPED].startswith("Study 1 stops at south: CO-D")
    assert "line" not in texts[NoticeKind.STOPPED]
    assert daemon.tasks[1].cause == "approval by south"


def test_certificates_that_end_soon_have_a_notice(tmp_path: Path) -> None:
    for name, days in (("good", 60), ("soon", 5), ("over", -3)):
        (tmp_path / name).mkdir()
        write_certificate(tmp_path / name, days)
    names = tuple(f"{name}/server.pem" for name in ("good", "soon", "over", "none"))
    notices = list_certificates(NoticesPart(certificates=names), tmp_path, datetime.now(UTC))
    assert [notice.text for notice in notices] == [
        "The certificate soon/server.pem ends in 5 days.",
        "The certificate over/server.pem has ended.",
        "The certificate none/server.pem cannot be read.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[notices]\nquiet = "10pm-7am"',
        '[notices]\nkinds = ["everything"]',
        '[notices.mail]\nhost = "mail"\nsender = "a@b"\nto = []',
        '[notices.mail]\nhost = "mail"\nsender = "a@b\\nBcc: x@y"\nto = ["a@b"]',
        '[[notices.webhooks]]\nname = "a"\nsecret_file = "s"\nurl = "http://north.example/x"',
        '[[notices.webhooks]]\nname = "a"\nsecret_file = "s"\nurl = "file:///etc/passwd"',
        '[[notices.webhooks]]\nname = "a"\nsecret_file = "s"\nurl = "https://user:word@north.example"',
    ],
)
def test_settings_that_cannot_work_are_refused_when_the_node_starts(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG).write_text(f'site = "north"\n{text}\n')
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / CONFIG)
    assert error.value.code == "CO-F320"
