"""A member may say the same any number of times: what people read of a study has a bounded number of lines."""

from __future__ import annotations

from datetime import UTC, datetime

from support.node.worlds import World, cohort, sweep

from coterie_chain.ledger.protocol import Event
from coterie_node.audit.replay import replay
from coterie_node.audit.report.page import MOST_STEPS, ReportSource, make_report
from coterie_node.site.statements.ended_studies import InspectionVerdict, list_inspections

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MEMBER = "south"


def read_report(world: World) -> str:
    outcome = replay(world.ledger(), world.blobs, world.number)
    report = make_report(world.ledger(), world.blobs, world.number, outcome, [], ReportSource((), ""), NOW)
    assert report.verdict.verdict == "PASS"
    return report.html()


def finish() -> World:
    world = cohort(4, aggregation="plain", silent_site="exclude")
    sweep(world.crew().values())
    return world


def test_a_thousand_attestations_of_one_site_are_a_few_lines_and_hide_no_verdict() -> None:
    world = finish()
    ledger = world.ledger(MEMBER)
    ledger.attest(world.number, b"\1" * 32, InspectionVerdict.FAILED)
    for k in range(1, 1001):
        ledger.attest(world.number, k.to_bytes(32), InspectionVerdict.PASSED)
        ledger.attest(world.number, k.to_bytes(32), 1000 + k)
    inspections = list_inspections(world.ledger().history(), world.number)
    assert [(i.site, i.verdict) for i in inspections] == [(MEMBER, 2), (MEMBER, 1), (MEMBER, 2000)]
    assert inspections[1].snapshot == (1000).to_bytes(32).hex()
    assert read_report(world).count(f"{MEMBER} on ") == 3


def test_votes_that_are_cast_and_taken_back_fill_no_report() -> None:
    world = cohort(4, aggregation="plain", silent_site="exclude")
    ledger = world.ledger(MEMBER)
    for _ in range(2 * MOST_STEPS):
        ledger.abort(world.number, 9, "")
        vote = [e for e in world.chain.log if isinstance(e, Event) and e.name == "AbortVoted"][-1]
        ledger.withdraw(bytes.fromhex(str(dict(vote.details)["motion"]).removeprefix("0x")))
    sweep(world.crew().values())
    page = read_report(world)
    assert f"The study has {2 * MOST_STEPS} anomalies" in page
    assert page.partition("7. Anomalies")[2].partition("</section>")[0].count("<tr><td") == MOST_STEPS
