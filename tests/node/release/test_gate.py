"""The release gate at a site: what may leave is on record, what may not ends the study, people can be asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts
from support.learners.cohorts import Codes
from support.node.processes import run_command
from support.node.worlds import World, until

from coterie_chain.errors import StoreFault
from coterie_chain.ledger.protocol import State
from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import ColumnCut, Exposure, Ruling
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Script, Site, each
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Floors, Study
from coterie_learners.study.rows import ArrayRows, Rows
from coterie_node.audit.history import history
from coterie_node.errors import ConfigError, ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import RawRows, print_patients
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.approval import ApprovalFolder
from coterie_node.release.beside_rows.judgement_elsewhere import JudgementElsewhere, RawData
from coterie_node.release.gate import Gate, Release, refuse_all
from coterie_node.release.judgement import Judgement
from coterie_node.release.policy import Policy
from coterie_node.run.preview import dry_run
from coterie_node.run.reasons import Reason
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import run

CODES = cohorts.draw(300)


def runner(world: World, name: str, gate: Gate) -> Runner:
    """A participant's runner behind a gate."""
    runner_made = world.runner(name)
    runner_made._gate = gate
    return runner_made


def go(study: Study, rows: dict[str, Rows], policy: Policy | None = None) -> tuple[World, list[Release]]:
    world = World(study, rows)
    seen_releases: list[Release] = []
    gates = {n: Gate(study, policy or Policy(), PrivacyLog(), watch=seen_releases.append) for n in study.sites}
    run(runner(world, n, gates[n]) for n in study.sites)
    return world, seen_releases


def two_sites(codes: Codes = CODES, cell: int = 5) -> tuple[Study, dict[str, Rows]]:
    study = cohorts.study(count=2, aggregation="plain")
    study = Study.model_validate({**study.model_dump(), "disclosure": {"cell": cell}})
    return study, cohorts.split(study, codes)


def rare(codes: Codes) -> Codes:
    """The same rows with two women who died in stage III at the first site, and no other woman there in that stage."""
    male = codes["male"].copy()
    first = np.flatnonzero(codes["stage"][:150] == 2)
    male[first] = 1.0
    male[first[:2]] = 0.0
    return {**codes, "male": male}


def test_plain_sums_with_a_small_cell_are_refused_by_default_and_say_of_which_kind() -> None:
    study, rows = two_sites(rare(CODES))
    world = World(study, rows)
    with pytest.raises(
        ReleaseRefused, match=r"counts below 5 patients can be solved from it, of .*male by stage"
    ) as no:
        run(runner(world, n, Gate(study)) for n in study.sites)
    assert no.value.code == "CO-R301"
    assert world.view().state == State.ABORTED
    aborted = world.events("StudyAborted")[-1]
    assert dict(aborted.details)["reason"] == Reason.RELEASE_REFUSED
    assert world.records() == [] or world.records()[0].site != aborted.site


def test_masked_sums_of_the_same_rows_pass_and_the_records_say_sums_only() -> None:
    study = cohorts.study(count=3, opening="counts")
    world, seen_releases = go(study, cohorts.split(study, rare(CODES)))
    assert world.view().state == State.COMPLETED
    each = [r for r in world.records("each") if r.post.position > 0]
    assert {r.post.verdict[0] for r in each} == {Ruling.SUMS_ONLY}
    assert {r.post.verdict for r in world.records("server")} == {bytes(32)}
    # The labels of rows come first; they are no sums.
    rulings = {release.verdict.topic: release.verdict.ruling for release in seen_releases}
    assert rulings.pop("labels") == Ruling.PASSED
    assert set(rulings.values()) == {Ruling.SUMS_ONLY}
    lines = [line for line in history(world.ledger()) if line.kind == "each" and line.position != 0]
    assert all(line.verdict.startswith("sums only 02") for line in lines)


def change_payload(payload: dict[str, Any]) -> None:
    """Another sum of the score, by a little: nobody can tell."""
    score = payload["masked"][25:26]
    payload["masked"][25] = masked_sum.add_words(score, np.array([[1 << 62, 0]], np.uint64))[0]


def second_round(change: bool, gate: Gate) -> tuple[World, Runner]:
    """A branch of the chain on which two sites have posted in the second round, and a third is about to."""
    study = cohorts.study(count=3, opening="counts")
    world = World(study, cohorts.split(study, CODES))
    north, others = runner(world, "north", gate), world.crew(("south", "east"))
    until(lambda: north.position == 3, [north, *others.values()])
    if change:
        world.forge("south", change_payload)
    until(lambda: north.position == 5, [north, *others.values()])
    return world, north


def test_no_other_numbers_leave_under_masks_that_were_used() -> None:
    """A site that takes its post back in a reorganisation, and posts another, learns nothing of the rest by it."""
    gate = Gate(cohorts.study(count=3, opening="counts"))
    before, north = second_round(False, gate)
    north.turn()
    (sent_record,) = (r for r in before.records() if (r.site, r.post.position) == ("north", 5))
    after, north = second_round(True, gate)
    step, open_ = north.machine.awaits, after.view().open
    assert step is not None
    assert open_ is not None
    drafted = north.machine.draft(open_.parties, open_.attempt)
    gap = masked_sum.decode_fixed_point(
        masked_sum.add_words(
            drafted["masked"], masked_sum.negate_words(np.asarray(before.payload(sent_record)["masked"]))
        )
    )
    assert 0 < np.abs(gap).max() < 10  # no mask is left in it
    with pytest.raises(ReleaseRefused) as refused:
        north.turn()
    assert refused.value.code == "CO-R302"
    assert ("north", 5) not in {(r.site, r.post.position) for r in after.records()}
    (event,) = after.events("StudyAborted")
    assert dict(event.details)["reason"] == Reason.RELEASE_REFUSED


def test_the_same_numbers_leave_under_their_masks_again() -> None:
    gate = Gate(cohorts.study(count=3, opening="counts"))
    for _ in range(2):
        world, north = second_round(False, gate)
        assert north.turn()
        assert ("north", 5) in {(r.site, r.post.position) for r in world.records()}


def test_plain_sums_above_the_floor_pass_and_their_verdict_is_the_digest_on_record() -> None:
    study, rows = two_sites()
    world, seen_releases = go(study, rows)
    assert [r.post.verdict for r in world.records("each")] == [release.verdict.digest for release in seen_releases]
    assert {release.verdict.ruling for release in seen_releases} == {Ruling.PASSED}


def test_a_site_may_be_stricter_than_the_study() -> None:
    study, rows = two_sites()
    with pytest.raises(ReleaseRefused, match="counts below 60 patients"):
        go(study, rows, Policy(floors=Floors(rows=1, cell=60)))


def silence_warning(site: Site) -> Script:
    yield from each("count", lambda s: {"n": np.float64(s.rows.n)})


def test_a_step_that_does_not_say_what_it_reveals_is_refused() -> None:
    study, rows = two_sites()
    world = World(study, rows, silence_warning)
    with pytest.raises(ReleaseRefused, match="does not say what 'count' reveals"):
        runner(world, "north", Gate(study)).turn()


# Policy


def test_a_column_that_a_site_keeps_out_refuses_the_study() -> None:
    study, _ = two_sites()
    Policy(never=("weight",)).check(study, "north")
    with pytest.raises(StudyError, match="north's policy never lets crp be used") as refused:
        Policy(never=("weight", "crp")).check(study, "north")
    assert refused.value.code == "CO-S501"


def test_a_policy_comes_from_a_file_and_an_unusable_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert Policy.load(path) == Policy()
    path.write_text('ask = true\nnever = ["hiv"]\n[floors]\ncell = 11\n')
    assert Policy.load(path) == Policy(ask=True, never=("hiv",), floors=Floors(cell=11))
    for wrong in ("ask = maybe", "asks = true", "[floors]\ncell = -1\n"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=r"policy\.toml") as refused:
            Policy.load(path)
        assert refused.value.code == "CO-F310"


# A person's yes


def test_a_payload_waits_until_its_people_approve_its_digest(tmp_path: Path) -> None:
    study, rows = two_sites()
    world, folder = World(study, rows), ApprovalFolder(tmp_path / "releases")
    asked = runner(world, "north", Gate(study, Policy(ask=True), consent=folder.consent))
    assert not asked.turn()
    assert not asked.turn()
    (waiting_release,) = folder.waiting()
    assert (waiting_release["topic"], waiting_release["payload"]["n"], waiting_release["position"]) == (
        "stats/0",
        150,
        0,
    )
    assert (tmp_path / "releases").stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigError, match="waits for approval"):
        folder.approve("0" * 64)
    folder.approve(waiting_release["payload_digest"][:16])
    assert folder.waiting() == []
    assert asked.turn()
    assert world.records()[0].post.verdict[0] == Ruling.CONSENTED


def test_a_yes_for_one_payload_is_no_yes_for_another(tmp_path: Path) -> None:
    study, rows = two_sites()
    folder = ApprovalFolder(tmp_path)
    first = runner(World(study, rows), "north", Gate(study, Policy(ask=True), consent=folder.consent))
    first.turn()
    folder.approve(folder.waiting()[0]["payload_digest"])
    other, change_payload = two_sites(cohorts.draw(300, seed=2))
    second = runner(World(other, change_payload), "north", Gate(other, Policy(ask=True), consent=folder.consent))
    assert not second.turn()
    (waiting_release,) = folder.waiting()  # asked again, although there was a yes in this place
    folder.approve(waiting_release["payload_digest"])
    assert second.turn()


def test_a_payload_that_waits_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    study, rows = two_sites()
    folder = ApprovalFolder(tmp_path / "releases")
    asked = runner(World(study, rows), "north", Gate(study, Policy(ask=True), consent=folder.consent))
    asked.turn()
    (laid_out,) = folder.root.glob("*")
    before = laid_out.stat()
    asked.turn()
    after = laid_out.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o600


def test_a_folder_of_releases_that_cannot_be_used_is_named_as_such(tmp_path: Path) -> None:
    study, rows = two_sites()
    (tmp_path / "releases").write_text("in the way")
    folder = ApprovalFolder(tmp_path / "releases")
    asked = runner(World(study, rows), "north", Gate(study, Policy(ask=True), consent=folder.consent))
    with pytest.raises(StoreFault) as caught:
        asked.turn()
    assert caught.value.code == "CO-C204"


def test_where_nobody_can_be_asked_nothing_leaves() -> None:
    study, rows = two_sites()
    world = World(study, rows)
    assert not runner(world, "north", Gate(study, Policy(ask=True), consent=refuse_all)).turn()
    assert world.records() == []


# What was released before


def first_release(study: Study, rows: Rows, log: PrivacyLog, session: str, vault: dict[str, bytes]) -> bytes | None:
    """What the gate of north says of the first payload with sums of a run over these rows."""
    world, gate = World(study, {"north": rows, **dict.fromkeys(study.sites[1:], rows)}), Gate(study, Policy(), log)
    gate.vault = vault
    machine = world.runner("north").machine
    for _ in range(2):
        step, site = machine.awaits, replace(machine.seat(study.sites, 0), session=session)
        assert step is not None
        payload = step.make(site, None)
        verdict = gate.admit(step, site, 0, payload)
        if step.topic != "labels":
            break
        machine.advance(dict.fromkeys(study.sites, payload))
    return verdict


def drop_rows(rows: Rows, drop: int) -> Rows:
    (block,) = rows.blocks()
    return ArrayRows(block.x[drop:], block.y[drop:])


def test_nearly_the_same_rows_a_second_time_are_refused() -> None:
    study, rows = two_sites()
    log = PrivacyLog()
    first_release(study, rows["north"], log, "first", {})
    for drop in (1, 4):
        with pytest.raises(ReleaseRefused, match=r"nearly as many|fewer than 5 rows of the study 'cohort'"):
            first_release(study, drop_rows(rows["north"], drop), log, f"drop {drop}", {})
    first_release(study, rows["north"], log, "again", {})


def test_one_site_fewer_over_the_same_rows_is_refused_for_masked_sums() -> None:
    four = cohorts.study(count=4, opening="counts")
    three = cohorts.study(count=3, opening="counts")
    rows, log = cohorts.rows(four, CODES), PrivacyLog()
    first_release(four, rows, log, "first", {})
    with pytest.raises(ReleaseRefused, match="what west holds alone"):
        first_release(three, rows, log, "second", {})


def test_other_columns_with_nearly_as_many_rows_are_refused() -> None:
    study, rows = two_sites()
    other = cohorts.study("died ~ age + years", 2, aggregation="plain")
    log = PrivacyLog()
    first_release(study, rows["north"], log, "first", {})
    shorter = cohorts.rows(other, {name: values[:147] for name, values in CODES.items()})
    with pytest.raises(ReleaseRefused, match="fewer than 5 rows of the study 'cohort'"):
        first_release(other, shorter, log, "second", {})


def test_the_gate_refuses_a_second_run_and_lets_a_restart_pass() -> None:
    study, rows = two_sites()
    log, vault = PrivacyLog(), dict[str, bytes]()
    for _ in range(2):
        assert first_release(study, rows["north"], log, "one session", vault) is not None
    assert len(log.heads()) == 1
    with pytest.raises(ReleaseRefused, match=r"nearly as many|fewer than 5 rows"):
        first_release(study, drop_rows(rows["north"], 2), log, "another", vault)


def test_a_release_that_waits_for_its_people_is_judged_again_if_another_one_left_meanwhile() -> None:
    """Two studies that differ by two patients, both asked about: the second yes must not let the difference out."""
    study, rows = two_sites()
    log, answers = PrivacyLog(), [False, True]
    gate = Gate(study, Policy(ask=True), log, lambda _: answers.pop(0))
    machine = World(study, rows).runner("north").machine
    step, site = machine.awaits, replace(machine.seat(study.sites, 0), session="waiting")
    assert step is not None
    payload = step.make(site, None)
    assert gate.admit(step, site, 0, payload) is None
    assert first_release(study, drop_rows(rows["north"], 2), log, "meanwhile", {}) is not None
    with pytest.raises(ReleaseRefused, match="fewer than 5 rows"):
        gate.admit(step, site, 0, payload)


def test_a_restart_within_a_study_forgets_nothing_of_its_release() -> None:
    study, rows = cohorts.study(count=3, opening="counts"), cohorts.rows(cohorts.study(count=3), CODES)
    log, world = PrivacyLog(), World(study, {"north": rows, **dict.fromkeys(study.sites[1:], rows)})
    machine = world.runner("north").machine
    for topic in ("labels", "opening", "stats/0"):
        gate = Gate(study, Policy(), log)  # as a node that was started again has it
        step = machine.awaits
        assert step is not None
        site = replace(gate.seat(machine.seat(study.sites, 0)), session="one")
        payload = step.make(site, None)
        assert (step.topic, gate.admit(step, site, 0, payload) is None) == (topic, False)
        if topic == "opening":
            break
        machine.advance(dict.fromkeys(study.sites, payload))
    (before,) = log.heads()
    pooled, judgement = {"the pool": (300.0, 90.0)}, Judgement(log, Gate(study).floors)
    exposure = Exposure("Masked sums", 300, sums_only=True, parties=3, pooled=pooled)
    assert judgement.judge(site, exposure) == []
    judgement.write(site, exposure)
    (after,) = log.heads()
    assert set(after.labels) == set(study.sites)
    assert after == replace(before, pooled={name: [*counts] for name, counts in pooled.items()})  # as JSON has them


def test_a_step_that_shows_several_things_keeps_them_all_in_one_write() -> None:
    """Counts by steps of time in a study with opened counts: neither takes the other's place."""
    study, log = cohorts.study(count=3, opening="counts"), PrivacyLog()
    site = Site(study, "north", cohorts.rows(study, CODES), session="one", parties=study.sites)
    labels = {name: {"crp": name} for name in study.sites}
    opened = Exposure("Counts", 300, sums_only=True, parties=3, labels=labels, opening=True)
    cuts, pooled = (ColumnCut("crp", (1.0,), ()),), {"the pool": (300.0, 90.0)}
    shown = Exposure("Steps", 300, sums_only=True, parties=3, pooled=pooled, cuts=cuts)
    judgement = Judgement(log, Gate(study).floors)
    for exposure in (opened, shown):
        judgement.judge(site, exposure)
        judgement.write(site, exposure)
    (head,) = log.heads()
    assert dict(head.pooled) == {"the pool": [300.0, 90.0]}
    assert [cut["column"] for cut in head.cuts] == ["crp"]


def test_a_release_that_was_judged_beside_an_older_log_is_judged_again(tmp_path: Path) -> None:
    """A program that stopped half way has left new patients: no release was written, and places are taken."""
    study, _ = two_sites()
    study = Study.model_validate({**study.model_dump(), "patient": "id"})
    log = PrivacyLog(FolderStorage(tmp_path))
    judgement, exposure = Judgement(log, Gate(study).floors), Exposure("Sums", 300)
    raw = RawRows({"died": CODES["died"]}, {}, [f"P{k}" for k in range(300)])
    site = Site(study, "north", RawData(raw), session="one", parties=study.sites)  # type: ignore[arg-type]
    judgement.judge(site, exposure)
    log.storage["patients"] = print_patients(["other"], log.key).tobytes()
    with pytest.raises(StoreFault) as error:
        judgement.write(site, exposure)
    assert error.value.code == "CO-C216"
    judgement.judge(site, exposure)
    judgement.write(site, exposure)
    assert (len(log.heads()), len(log.patients().prints)) == (1, 301)


class AtAnotherMachine:
    """Rows that are judged by an object beside them, here in this process."""

    def __init__(self, raw: RawRows) -> None:
        self.raw = raw

    def start_beside(self, make: Callable[..., Any], *values: Any) -> AtAnotherMachine:
        self.beside = make(self.raw, *values)
        return self

    def ask(self, method: str, *values: Any) -> Any:
        return getattr(self.beside, method)(*values)


def test_a_judgement_beside_the_rows_hears_of_what_the_log_has_lost(tmp_path: Path) -> None:
    study, _ = two_sites()
    log, raw = PrivacyLog(FolderStorage(tmp_path)), RawRows({"died": CODES["died"]})
    data: Any = AtAnotherMachine(raw)
    elsewhere = JudgementElsewhere(data, log, study, Gate(study).floors)
    for session in ("one", "two"):
        site = Site(study, "north", None, session=session, parties=study.sites)
        assert elsewhere.judge(site, Exposure("Sums", 300)) == []
        elsewhere.write(site, Exposure("Sums", 300))
    (values,) = (tmp_path / "values").iterdir()
    values.unlink()
    site = Site(study, "north", None, session="three", parties=study.sites)
    assert [objection.kind for objection in elsewhere.judge(site, Exposure("Sums", 300))] == ["log lost"]


def test_a_yes_with_a_reason_lets_just_what_was_refused_leave() -> None:
    study, rows = two_sites()
    log = PrivacyLog()
    first_release(study, rows["north"], log, "first", {})
    with pytest.raises(ReleaseRefused):
        first_release(study, drop_rows(rows["north"], 2), log, "second", {})
    assert log.allow("ab" * 32, "no such study") == []
    noted = log.allow(study.hash.hex(), "these two patients agreed")
    assert [refused["kind"] for refused in noted] == ["dropped", "row count", "rows and columns"]
    assert {refused["earlier"] for refused in noted} == {"cohort"}
    verdict = first_release(study, drop_rows(rows["north"], 2), log, "third", {})
    assert verdict is not None
    assert verdict[0] == Ruling.CONSENTED
    assert log.heads()[-1].reason == "these two patients agreed"


def test_a_yes_to_one_objection_is_none_to_another() -> None:
    """A person has said yes to two patients fewer, and to nothing else that follows from these rows."""
    study, rows = two_sites()
    log, digest = PrivacyLog(), study.hash.hex()
    first_release(study, rows["north"], log, "first", {})
    log.note_refusal(digest, study.name, Objection(Grade.REFUSE, "dropped", "", study.name, subject=study.name))
    log.allow(digest, "these two patients agreed")
    with pytest.raises(ReleaseRefused, match="row count"):
        first_release(study, drop_rows(rows["north"], 2), log, "second", {})
    assert [noted["kind"] for noted in log.refusals()[digest]] == ["dropped", "row count", "rows and columns"]


# Dry run


STUDY = """
name = "dry"
sites = ["north", "south"]
formula = "y ~ age + sex"
learner = {name = "glore", aggregation = "AGGREGATION"}
[variables]
y = {type = "binary"}
age = {type = "number", range = [0, 100]}
sex = {type = "category", levels = ["f", "m"]}
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng, out = np.random.default_rng(8), {}
    for name in ("north", "south", "west"):
        lines = [f"{rng.integers(0, 2)},{rng.uniform(20, 90):.1f},{'fm'[int(rng.integers(0, 2))]}" for _ in range(80)]
        out[name] = tmp_path / f"{name}.csv"
        out[name].write_text("y,age,sex\n" + "\n".join(lines) + "\n")
    return out


Made = Callable[[str], Path]


@pytest.fixture
def study_file(tmp_path: Path) -> Made:
    def make(text: str) -> Path:
        path = tmp_path / "dry.toml"
        path.write_text(text)
        return path

    return make


def test_a_dry_run_prints_every_number_that_would_leave(files: dict[str, Path], study_file: Made) -> None:
    path = study_file(STUDY.replace("AGGREGATION", "plain"))
    data = [f"--data={name}={files[name]}" for name in ("north", "south")]
    done = run_command("simulate", path, *data, "--dry-run", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    leaving = json.loads(done.stdout)
    assert {one["site"] for one in leaving} == {"north", "south"}
    assert len(leaving) >= 6
    assert leaving[0]["payload"]["n"] == 80
    assert len(leaving[0]["payload"]["information"]) == 6
    assert leaving[0]["ruling"] == "passed"


def test_a_dry_run_of_one_site_shows_its_first_payload_and_what_is_refused(
    files: dict[str, Path], study_file: Made
) -> None:
    path = study_file(STUDY.replace("AGGREGATION", "plain") + "[disclosure]\ncell = 70\n")
    done = run_command("simulate", path, f"--data=north={files['north']}", "--dry-run")
    assert done.returncode == 14
    assert "counts below 70 patients can be solved from it, of sex" in done.stdout
    assert "sex[f]:" in done.stdout
    assert "information float64 (6,)" in done.stdout


def test_a_dry_run_of_masked_sums_shows_uniform_words(files: dict[str, Path], study_file: Made) -> None:
    text = STUDY.replace("AGGREGATION", "masked").replace('"south"', '"south", "west"')
    from coterie_node.run.study_files import load_study

    labels, one = dry_run(load_study(study_file(text)), {"north": files["north"]})
    assert set(labels.release.payload) == {"labels"}
    words: Payload = one.release.payload
    assert one.release.verdict.ruling is Ruling.SUMS_ONLY
    high = np.asarray(words["masked"])[:, 1] >> np.uint64(32)
    assert len(np.unique(high)) == len(high)
    with pytest.raises(StudyError, match="no site east"):
        dry_run(load_study(study_file(text)), {"east": files["north"]})


def test_a_node_s_people_see_what_waits_in_all_of_its_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.toml").write_text('site = "north"\n')
    for k, seed in enumerate((1, 2)):
        study, rows = two_sites(cohorts.draw(300, seed))
        folder = ApprovalFolder(tmp_path / "releases" / f"{k:016x}")
        asked = runner(World(study, rows), "north", Gate(study, Policy(ask=True), consent=folder.consent))
        asked.turn()
    listed = run_command("release", "list", "--node", tmp_path).stdout.splitlines()
    assert len(listed) == 2
    assert run_command("release", "approve", listed[1].split()[0], "--node", tmp_path).returncode == 0
    assert asked.turn()
    assert run_command("release", "list").returncode == 12
    monkeypatch.setenv("COTERIE_NODE", str(tmp_path))
    assert run_command("release", "list").stdout.splitlines() == listed[:1]
    assert run_command("release", "list", "--at", tmp_path / "other", "--site", "north").returncode == 12
    (tmp_path / "other" / "sites" / "north").mkdir(parents=True)
    assert run_command("release", "list", "--at", tmp_path / "other", "--site", "north").stdout == (
        "Nothing waits for a person's yes.\n"
    )


def test_people_see_and_approve_what_waits(files: dict[str, Path], study_file: Made, tmp_path: Path) -> None:
    study, rows = two_sites()
    folder = ApprovalFolder(tmp_path / "sites" / "north" / "releases")
    asked = runner(World(study, rows), "north", Gate(study, Policy(ask=True), consent=folder.consent))
    asked.turn()
    listed = run_command("release", "list", "--at", tmp_path, "--site", "north")
    assert "stats/0" in listed.stdout
    digest = listed.stdout.split()[0]
    assert run_command("release", "approve", "--at", tmp_path, "--site", "north", digest).returncode == 0
    assert asked.turn()
    assert run_command("release", "approve", "--at", tmp_path, "--site", "north", "f" * 16).returncode == 12
