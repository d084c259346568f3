"""A hospital's first day by its own commands: init, doctor, join, propose, approve, serve; three processes on Anvil."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from support.node.command_network import CommandNetwork
from support.node.commands import refusal, run
from support.node.houses import CANARY, SITES, study_file
from support.node.results import read_result

from coterie_chain.network.devnet import Anvil
from coterie_node.cli.output import print_rows
from coterie_node.errors import ConfigError
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import find_node
from coterie_node.site.invitation import Invitation


@pytest.fixture
def town(tmp_path: Path) -> Iterator[CommandNetwork]:
    with Anvil() as anvil:
        network = CommandNetwork(tmp_path, anvil.url)
        yield network
        network.stop()


def fit_pooled(root: Path) -> Any:
    """The fit of all rows by somebody who knows nothing of federation."""
    rows = np.vstack([np.genfromtxt(root / name / "data.csv", delimiter=",", skip_header=1) for name in SITES])
    rows = rows[~np.isnan(rows).any(axis=1)]
    return sm.Logit(rows[:, 0], sm.add_constant(rows[:, 1:])).fit(disp=0, tol=1e-12)


@pytest.mark.anvil
def test_three_hospitals_from_nothing_to_one_model_by_their_commands_alone(town: CommandNetwork) -> None:
    join_network(town)
    assert "`coterie study propose`" in refusal("study", "approve", "1", *town.node("south")).message
    propose_study(town)
    description = show_study(town)
    replayed = run("audit", "replay", "1", *town.node("north"))
    assert "the study has not ended (proposed)" in replayed
    check_words(town)
    check_rows_that_do_not_fit(town, description["hash"])
    for name in SITES[1:]:
        run("study", "approve", description["hash"], *town.node(name))
    early = refusal("study", "result", "1", *town.node("north"))
    assert (early.code, "when the study is complete" in early.message) == ("CO-F332", True)
    # One process dies without a word while the study runs, and is started again.
    town.until("a first step", lambda: any(e["event"] == "step finished" for e in town.log("west")))
    town.processes["west"].kill()
    town.processes.pop("west").wait()
    town.serve("west")
    results = [town.root / name / "results" / "1.json" for name in SITES]
    town.until("the results", lambda: all(path.exists() for path in results))

    fits = [read_result(path)["fit"] for path in results]
    assert fits[0] == fits[1] == fits[2]
    assert np.allclose(fits[0]["estimates"], fit_pooled(town.root).params, rtol=0, atol=1e-8)
    status = json.loads(run("study", "status", "1", *town.node("north"), "--json"))
    assert status["state"] == "completed"
    assert status["result"] == str(results[0])
    assert list_names(town) == ["cohort"] * 3
    check_ended(town)
    check_result(town)
    check_warning_of_rows(town)
    check_telling(town)
    check_secrets(town)
    for name, process in town.processes.items():
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, name
        assert town.log(name)[-1]["event"] == "stopped"


def join_network(town: CommandNetwork) -> None:
    """The first site founds the network; the others join by its invitation, and the doctor sees their seats."""
    invitation = town.create_network()
    for name in SITES[1:]:
        assert refusal("doctor", "--node", town.root / "nowhere").code == "CO-F320"
        assert "coterie join" in run("doctor", *town.node(name), code=12)
        fingerprint = Invitation.load(invitation).fingerprint
        assert refusal("join", invitation, *town.node(name), "--fingerprint", "00" * 32).code == "CO-F326"
        assert "network of 3 sites" in run("join", invitation, *town.node(name), "--fingerprint", fingerprint)
    checks = json.loads(run("doctor", *town.node("south"), "--json"))
    assert {c["check"]: c["result"] for c in checks}["seat"] == "ok"


def propose_study(town: CommandNetwork) -> None:
    """A site proposes a study of its own rows, which leaves a certificate; all daemons start."""
    dropping = {"[ledger]": '[rows]\nmissing = "drop"\n[ledger]'}
    propose = ("study", "propose", study_file(town.root, texts=dropping), *town.node("north"))
    assert refusal(*propose, "--data", "nowhere.csv").code == "CO-F327"
    assert not (town.root / "north" / "decisions").exists()
    output = run(*propose)
    assert "the federated fit and the pooled one differ by at most" in output
    (certificate,) = (town.root / "north" / "decisions").glob("*.certificate")
    assert json.loads(certificate.read_text())["max_in_std_errors"] < 1e-7
    for name in SITES:
        town.serve(name)


def show_study(town: CommandNetwork) -> Any:
    """What another site reads of the proposal before it decides."""
    town.until("the proposal", lambda: json.loads(run("study", "list", *town.node("south"), "--json")))
    assert list_names(town) == ["cohort"] * 3
    description = json.loads(run("study", "show", "1", *town.node("south"), "--json"))
    assert (description["state"], description["policy"]) == ("proposed", "allowed by this site's policy")
    assert description["document"]["formula"] == "died ~ age + male"
    return description


def list_names(town: CommandNetwork) -> list[str]:
    """The name of the study in each site's list."""
    return [row["name"] for name in SITES for row in json.loads(run("study", "list", *town.node(name), "--json"))]


def check_words(town: CommandNetwork) -> None:
    """What people read of a study holds no Python."""
    lines = run("study", "show", "1", *town.node("south")).splitlines()
    assert [line for line in lines if line.startswith(("sites ", "name "))] == [
        "name       cohort",
        "sites      north, south, west",
    ]
    assert not [line for line in lines if line.startswith(("options ", "floors ")) and "{" in line]


def check_rows_that_do_not_fit(town: CommandNetwork, study: str) -> None:
    """An approval says at once what its rows lack, and the status says what stopped the daemon."""
    wrong = town.root / "south" / "wrong.csv"
    wrong.write_text("died,Age,male\n1,2,0\n")
    approve = ("study", "approve", study, *town.node("south"), "--data")
    assert refusal(*approve, "wrong.csv").code == "CO-F327"  # of the working folder, which has none
    output = run(*approve, wrong)
    assert "CO-D106" in output
    assert "'Age'" in output
    status = ("study", "status", study, *town.node("south"))
    town.until("the fault", lambda: "CO-D106" in run(*status))
    assert "'Age'" in run(*status)


def check_warning_of_rows(town: CommandNetwork) -> None:
    """The site of which most rows are left out reads so in its result and its report; the others do not learn it."""
    words = "west: more than half of its rows are left out (150 of 270)"
    lines = run("study", "result", "1", *town.node("west")).splitlines()
    assert any(line.startswith(words) for line in lines)
    assert "Soundness: 1 warning, among the lines above." in lines
    assert words in json.loads(run("study", "result", "1", *town.node("west"), "--json"))["soundness"]["warnings"][0]
    for name, times in (("west", 1), ("south", 0)):
        report = town.root / f"{name}.html"
        run("audit", "report", "1", *town.node(name), "--out", report)
        assert report.read_text().count(words) == times
    assert words not in run("study", "result", "1", *town.node("south"))


def check_result(town: CommandNetwork) -> None:
    """The result as people read it, and as JSON that `coterie audit replay --result` takes."""
    wanted = fit_pooled(town.root)
    lines = run("study", "result", "1", *town.node("west")).splitlines()
    assert lines[0].startswith("GLORE, binomial (logit)    study ")
    assert [line.split()[0] for line in lines[4:7]] == ["(Intercept)", "age", "male"]
    output = json.loads(run("study", "result", "1", *town.node("west"), "--json"))
    assert np.allclose([t["p_value"] for t in output["terms"]], wanted.pvalues, rtol=0, atol=1e-8)
    assert (output["df_residual"], output["sites"]) == (int(wanted.df_resid), list(SITES))
    (gain,) = [line for line in lines if line.startswith("Joining: with 360 rows in place of 120, intervals are ")]
    assert gain.endswith("Only west knows this; `coterie study gain 1` shows more.")
    assert "Joining" not in json.dumps(output)
    assert gain.startswith(next(e["message"] for e in town.log("west") if e["event"] == "gain"))
    table = run("study", "result", "1", *town.node("west"), "--format", "csv").splitlines()
    assert table[0] == "term,estimate,std.error,statistic,p.value,conf.low,conf.high"
    assert len(table) == 4
    itself = json.loads(run("study", "compare", "1", "1", *town.node("west"), "--json"))
    assert itself["criteria"]["aic"] == [output["aic"], output["aic"]]
    assert itself["reason"].startswith("No test")


def check_ended(town: CommandNetwork) -> None:
    """Nothing more is decided about a study that has ended."""
    assert refusal("study", "propose", town.root / "cohort.toml", *town.node("north")).code == "CO-F328"
    assert refusal("study", "approve", "1", *town.node("south")).code == "CO-F328"
    assert refusal("study", "resume", "1", *town.node("south")).code == "CO-F328"


def check_telling(town: CommandNetwork) -> None:
    """Health for all, metrics for who has the token."""
    for name in SITES:
        port = next(e["port"] for e in reversed(town.log(name)) if e["event"] == "api")
        token = (town.root / name / "api.token").read_text().strip()
        page = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(page, timeout=10) as answer:
            assert 'coterie_steps_total{kind="server"}' in answer.read().decode()


def check_secrets(town: CommandNetwork) -> None:
    """Passphrases and row values are in no log, no environment, no process list and not on the store."""
    stored = b"".join(p.read_bytes() for p in (town.root / "store").rglob("*") if p.is_file())
    for name, process in town.processes.items():
        secret = (town.root / name / "passphrase").read_text().strip()
        content = (town.root / name / "log.jsonl").read_bytes() + stored
        for part in ("environ", "cmdline"):
            place = Path(f"/proc/{process.pid}/{part}")
            content += place.read_bytes() if place.exists() else b""
        assert secret.encode() not in content
        assert repr(CANARY).encode() not in content
        listed = [p for p in (town.root / name).rglob("*") if p.is_file() and secret in p.read_text(errors="ignore")]
        assert listed == [town.root / name / "passphrase"]


@pytest.mark.anvil
def test_a_node_says_what_is_wrong_with_it_and_how_to_mend_it(town: CommandNetwork) -> None:
    invitation = town.create_network()
    run("join", invitation, *town.node("south"))
    home = find_node(town.root / "south")
    os.chmod(home.passphrase, 0o644)
    os.chmod(home.root, 0o755)
    output = run("doctor", *town.node("south"), code=12)
    assert "chmod 600" in output
    assert "chmod 700" in output
    os.chmod(home.passphrase, 0o600)
    os.chmod(home.root, 0o700)
    card = home.root / "card.json"
    stranger = town.root / "east"
    run("init", stranger, "--site", "east", "--chain", town.url, "--store", f"folder:{town.root / 'store'}", "--light")
    assert "no seat there yet" in run("join", invitation, "--node", stranger)
    assert "coterie site admit" in run("doctor", "--node", stranger, code=12)
    check_votes(town, stranger)
    for name in ("operator.json", "private.json"):
        (home.keys / name).write_bytes((stranger / "keys" / name).read_bytes())
    home.passphrase.write_text((stranger / "passphrase").read_text())
    assert "other keys for south" in run("doctor", *town.node("south"), code=12)
    assert card.exists()


def check_votes(town: CommandNetwork, stranger: Path) -> None:
    """A vote is written for the daemon; what cannot be voted on is refused at once."""
    output = run("site", "admit", stranger / "card.json", *town.node("south"))
    assert json.loads((stranger / "card.json").read_text())["address"] in output
    (ballot,) = (town.root / "south" / "ballots").iterdir()
    assert json.loads(ballot.read_text())["subject"] == "east"
    assert [row["state"] for row in json.loads(run("site", "list", *town.node("south"), "--json"))] == ["active"] * 3
    assert refusal("site", "recover", stranger / "card.json", *town.node("south")).code == "CO-F329"
    assert refusal("site", "revoke", "east", *town.node("south")).code == "CO-F329"
    assert refusal("site", "admit", town.root / "north" / "card.json", *town.node("south")).code == "CO-F329"
    ballot.unlink()


def test_init_makes_private_files_and_never_writes_over_a_node(tmp_path: Path) -> None:
    run("init", tmp_path / "n", "--site", "north", "--light")
    modes = {p.name: p.stat().st_mode & 0o777 for p in [tmp_path / "n", *(tmp_path / "n").iterdir()]}
    assert modes["n"] == modes["keys"] == 0o700
    assert modes["passphrase"] == modes["api.token"] == modes[CONFIG] == 0o600
    assert refusal("init", tmp_path / "n", "--site", "north", "--light").code == "CO-F203"
    assert find_node(tmp_path / "n").config.policy.learners


def test_init_keeps_the_keys_with_which_a_site_founded_its_network(tmp_path: Path) -> None:
    run("init", tmp_path / "n", "--site", "north", "--light")
    card = (tmp_path / "n" / "card.json").read_text()
    for name in (CONFIG, "api.token", "card.json"):
        (tmp_path / "n" / name).unlink()
    run("init", tmp_path / "n", "--site", "north", "--light")
    assert (tmp_path / "n" / "card.json").read_text() == card


@pytest.mark.parametrize("name", ["../up", "a/b", "<b>", "\x1b[31m", "=1+1", "NORTH", "", "a" * 32])
def test_a_hostile_name_is_no_sites_name(tmp_path: Path, name: str) -> None:
    if name:
        assert refusal("init", tmp_path / "n", "--site", name, "--light").code == "CO-F325"
        assert not (tmp_path / "n").exists()
    text = {
        "contracts": {"chain_id": 1, "catalog": "0x" + "1" * 40, "genesis": "0x" + "0" * 64, "block": 0},
        "members": [{"name": name, "address": "0x" + "1" * 40, "sealing": "0x" + "0" * 64}],
    }
    (tmp_path / "i.json").write_text(json.dumps(text))
    with pytest.raises(ConfigError) as caught:
        Invitation.load(tmp_path / "i.json")
    assert caught.value.code == "CO-F324"
    assert name not in caught.value.message or len(name) < 2


@pytest.mark.parametrize("value", ['a"\nsite = "b', "#", "\\", "\u0000", "ü", "'''"])
def test_a_value_given_to_init_cannot_leave_its_place_in_the_settings(tmp_path: Path, value: str) -> None:
    run("init", tmp_path / "n", "--site", "north", "--data", value, "--light")
    config = find_node(tmp_path / "n").config
    assert (config.site, config.data) == ("north", value)


def test_what_comes_from_the_ledger_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": "\x1b[2J\x9b31mnorth\r\nsouth\u202e"}, {"name": "Klinik Süd"}], False, ("name",))
    head, hostile, plain = capsys.readouterr().out.splitlines()
    assert (head, plain) == ("name", "Klinik Süd")
    assert hostile.isprintable()
    assert "north" in hostile


def test_the_unit_runs_the_node_without_privileges_and_stops_it_gracefully(tmp_path: Path) -> None:
    run("init", tmp_path / "n", "--site", "north", "--light")
    unit = run("serve", "--node", tmp_path / "n", "--print-unit")
    assert f"serve --node {tmp_path / 'n'}" in unit
    assert re.findall(r"^(?:KillSignal|NoNewPrivileges|UMask)=(.*)$", unit, re.M) == ["SIGTERM", "0077", "true"]
    assert "{" not in unit
