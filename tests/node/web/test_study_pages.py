"""What the pages of a study show and take: words, decisions, releases, results; and what they show to nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node.houses import CANARY, study_file
from support.node.pages import PageHouse, find_token, send_form

from coterie_node.site.decisions import Decision
from coterie_node.web.live.stream import TOKEN_MARK

TITLE = '<script>alert("rows")</script>'


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PageHouse]:
    with PageHouse(tmp_path / "nodes") as house:
        yield house


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHouse]:
    """A house whose first study is done."""
    root = tmp_path_factory.mktemp("done")
    with PageHouse(root / "nodes") as house:
        house.run(root)
        yield house


def latest(house: PageHouse, number: int = 1) -> Decision:
    view = house.reader.find(number).view
    decision = house.network.decisions("north").latest(view.terms.hash, number)
    assert decision is not None
    return decision


def await_job(house: PageHouse, name: str) -> Any:
    deadline = time.monotonic() + 60.0
    while (job := house.services.jobs.find(name)) is None or job.runs:
        assert time.monotonic() < deadline, name
        time.sleep(0.02)
    assert job.problem == ""
    return job.value


def test_a_study_waits_until_a_person_approves_it_and_the_daemon_joins(house: PageHouse, tmp_path: Path) -> None:
    house.propose(tmp_path)
    client = house.browser("ada")
    assert "approve or decline" in client.get("/studies").text
    answer = send_form(client, "/studies/1", "/studies/1/approve", read="yes", reason="the board agreed")
    assert answer.headers["location"] == "/studies/1"
    decision = latest(house)
    assert (decision.action, decision.by, decision.reason) == ("approve", "Ada Lovelace", "the board agreed")
    house.network.settle()
    assert "north" in house.reader.find(1).view.joined
    page = client.get("/studies/1").text
    assert "Approved</strong> by Ada Lovelace" in page
    assert "waits for west to join" in client.get("/studies").text


def test_an_approval_wants_the_word_that_the_disclosure_was_read(house: PageHouse, tmp_path: Path) -> None:
    house.propose(tmp_path)
    client = house.browser("ada")
    send_form(client, "/studies/1", "/studies/1/approve")
    assert "Confirm first" in client.get("/studies/1").text
    assert "Confirm first" not in client.get("/studies/1").text  # a message is shown once
    assert house.network.decisions("north").studies() == ()


def test_a_declined_study_stands_among_the_declined(house: PageHouse, tmp_path: Path) -> None:
    house.propose(tmp_path)
    client = house.browser("approve")
    session = house.services.sessions.find(client.cookies[house.services.cookie])
    assert session is not None
    client.post("/studies/1/decline", data={"csrf": session.token, "reason": "no budget"})
    assert (latest(house).action, latest(house).by) == ("decline", "Approve")
    house.network.settle()
    assert "ended" in house.browser("ada").get("/studies?q=ended").text


def test_a_person_proposes_a_document_after_reading_what_it_does(house: PageHouse, tmp_path: Path) -> None:
    text = study_file(tmp_path, "fresh").read_text()
    client = house.browser("ada")
    token = find_token(client.get("/propose").text)
    seen = client.post("/propose", data={"csrf": token, "act": "check"}, files={"file": ("s.toml", text.encode())})
    assert "What everybody learns:" in seen.text
    assert "Propose it to north, south, west" in seen.text
    client.post("/propose", data={"csrf": token, "act": "propose", "text": text})
    house.network.settle()
    assert house.reader.find(1).view.proposer == "north"
    wrong = client.post("/propose", data={"csrf": token, "act": "propose", "text": text})
    assert (wrong.status_code, "CO-F328" in wrong.text) == (422, True)


def test_what_a_peer_writes_is_text_and_never_a_script(house: PageHouse, tmp_path: Path) -> None:
    path = study_file(tmp_path, "odd")
    path.write_text(f"title = {json.dumps(TITLE)}\n{path.read_text()}")
    house.network.propose(path, "south")
    house.network.settle()
    client = house.browser("ada")
    for page in ("/studies", "/studies/1", "/studies/1/run", "/studies/1/result", "/audit", f"/studies?q={TITLE}"):
        text = client.get(page).text
        assert "<script>alert" not in text, page
        assert "&lt;script&gt;alert" in text or page == "/audit", page


def test_a_payload_that_waits_is_shown_to_who_may_release_it_and_leaves_after_a_yes(
    house: PageHouse, tmp_path: Path
) -> None:
    ask_for_each_payload(house)
    study = house.propose(tmp_path)
    house.network.approve(study, "north", "west")
    house.network.settle()
    reader, releaser = house.browser("read"), house.browser("ada")
    assert "payload to let leave" in reader.get("/studies").text
    assert "Every number that would leave" not in reader.get("/studies/1/run").text
    for _ in range(20):
        page = releaser.get("/studies/1/run").text
        if "Let it leave" not in page:
            break
        digest = page.partition('name="digest" value="')[2].partition('"')[0]
        releaser.post("/studies/1/release", data={"csrf": find_token(page), "digest": digest})
        house.network.settle()
    assert house.reader.find(1).is_over
    assert "consented" in releaser.get("/studies/1/run").text


def ask_for_each_payload(house: PageHouse) -> None:
    """Let the first site's policy ask a person before each payload leaves."""
    path = house.network.root / "north" / "node.toml"
    path.write_text(path.read_text().replace("ask = false", "ask = true"))
    house.network.daemons["north"] = house.network.daemon("north")


def test_rows_and_dry_run_are_for_those_who_decide(house: PageHouse, tmp_path: Path) -> None:
    house.propose(tmp_path)
    client = house.browser("ada")
    send_form(client, "/studies/1", "/studies/1/rows")
    send_form(client, "/studies/1", "/studies/1/dry-run")
    assert await_job(house, "rows 1").rows == 120
    assert len(await_job(house, "dry 1")) == 2
    page = client.get("/studies/1").text
    assert "<strong>120 rows</strong>" in page
    assert "Every number that would leave" in page
    assert f"{CANARY:.4g}"[:4] not in house.browser("read").get("/studies/1").text
    assert "120 rows" not in house.browser("read").get("/studies/1").text


def test_the_run_names_who_is_awaited_and_the_grid_shows_each_turn(house: PageHouse, tmp_path: Path) -> None:
    study = house.propose(tmp_path)
    house.network.approve(study, "north", "west")
    for _ in range(8):
        house.network.daemons["north"].tick()
        house.network.daemons["west"].tick()
    page = house.browser("read").get("/studies/1/run").text
    assert "south is awaited to post" in page
    assert 'class="w r"' in page
    house.network.seconds += 601
    assert "Late: south is awaited" in house.browser("read").get("/studies/1/run").text
    assert "is late" in page


def test_a_result_has_its_table_its_files_and_after_a_replay_its_paragraph(done: PageHouse) -> None:
    client = done.browser("ada")
    page = client.get("/studies/1/result").text
    assert "Forest plot" in page
    assert "Pr(&gt;|z|)" in page
    for name, start in {"csv": b"term,", "json": b"{", "markdown": b"|", "latex": rb"\begin", "docx": b"PK"}.items():
        answer = client.get(f"/studies/1/result/{name}")
        assert answer.content.startswith(start), name
        assert answer.headers["content-disposition"].startswith("attachment")
    assert client.get("/studies/1/result/exe").status_code == 409
    assert client.get("/studies/1/report/html").status_code == 409
    send_form(client, "/studies/1/result", "/studies/1/replay")
    assert await_job(done, "replay 1").verdict.verdict == "PASS"
    page = client.get("/studies/1/result").text
    assert "An independent replay recomputed 5 of 5 server steps bit for bit and ended with PASS." in page
    assert b"Audit report" in client.get("/studies/1/report/html").content
    assert "bundle" not in done.browser("read").get("/studies/1/result").text


def test_the_page_shows_what_has_left_in_words_with_size_and_verdict(done: PageHouse) -> None:
    page = done.browser("read").get("/studies/1/run").text
    assert "Each site posts sums over its rows: first moments" in page
    assert "sums only" in page
    assert "length of the next step" in page


def test_the_history_filters_and_turns_pages(done: PageHouse) -> None:
    client = done.browser("audit")
    assert client.get("/audit").text.count("<tr>") > 27
    joined = client.get("/audit?kind=StudyJoined&site=west").text
    assert joined.count("<tr>") == 2
    assert "approvals=none" in joined
    assert "0" * 64 not in joined
    assert "No entry fits" in client.get("/audit?since=2999-01-01").text
    assert "No entry fits" in client.get("/audit?page=99").text
    assert client.get("/audit?page=no&study=%27").status_code == 200


def test_settings_never_show_a_secret_or_where_it_is(done: PageHouse) -> None:
    folder = done.network.homes["north"]
    page = done.browser("operate").get("/settings").text
    for secret in (folder.passphrase.read_text().strip(), (folder.root / "api.token").read_text().strip(), "api.token"):
        assert secret not in page
    assert "set; not shown" in page
    assert "glore" in page


def test_the_network_lists_members_and_when_each_was_last_seen(done: PageHouse) -> None:
    page = done.browser("read").get("/network").text
    for name in done.network.homes:
        assert f'<th scope="row">{name}' in page
    assert "1970-01-12" in page


def test_a_live_part_comes_after_each_change_with_the_viewers_own_token(done: PageHouse) -> None:
    client = done.browser("ada")
    done.sessions.looks = 1
    part = client.get("/live/studies/1/run").text
    done.sessions.looks = None
    assert "Sites and steps" in part
    assert part.endswith("data: the session has ended\n\n")
    assert TOKEN_MARK not in part
