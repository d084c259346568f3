"""A model is fitted on some rows and evaluated on the others by three daemons, of which one is killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import brier_score_loss, roc_auc_score
from support.node.command_network import CommandNetwork
from support.node.commands import run
from support.node.houses import SITES, study_file, write_rows
from support.node.results import read_result

from coterie_chain.network.devnet import Anvil
from coterie_node.site.folder import find_node

pytestmark = [pytest.mark.anvil, pytest.mark.long]
WHERE = 'formula = "died ~ age + male"\n[evaluate]\non = "other rows"\nwhere = "age > 0.5"\nper_site = true'


@pytest.fixture
def town(tmp_path: Path) -> Iterator[CommandNetwork]:
    with Anvil() as anvil:
        network = CommandNetwork(tmp_path, anvil.url)
        for k, name in enumerate(SITES):
            write_rows(tmp_path / name / "data.csv", k, n=900)
        yield network
        network.stop()


def read_rows(town: CommandNetwork, *names: str) -> tuple[Any, Any]:
    """The rows of some sites that are fitted, and those that are evaluated."""
    rows = np.vstack([np.genfromtxt(town.root / name / "data.csv", delimiter=",", skip_header=1) for name in names])
    return rows[rows[:, 1] <= 0.5], rows[rows[:, 1] > 0.5]


def start_study(town: CommandNetwork) -> None:
    """The study is proposed by one site and approved by the others."""
    town.join_all()
    path = study_file(town.root, texts={'formula = "died ~ age + male"': WHERE})
    run("study", "propose", path, *town.node("north"))
    for name in SITES:
        town.serve(name)
    town.until("the proposal", lambda: json.loads(run("study", "list", *town.node("south"), "--json")))
    study = json.loads(run("study", "show", "1", *town.node("south"), "--json"))["hash"]
    for name in SITES[1:]:
        run("study", "approve", study, *town.node(name))


def has_posted(town: CommandNetwork, name: str, topic: str) -> bool:
    """Whether a site has finished a step."""
    return any(e["event"] == "step finished" and topic in json.dumps(e) for e in town.log(name))


def test_daemons_fit_and_evaluate_and_each_site_sees_its_gain_alone(town: CommandNetwork) -> None:
    start_study(town)
    town.until("the evaluation", lambda: has_posted(town, "west", "evaluation/scores"))
    town.kill("west")
    results = [town.root / name / "results" / "1.json" for name in SITES]
    town.until("the results", lambda: all(path.exists() for path in results))
    fits = [read_result(path)["fit"] for path in results]
    assert fits[0] == fits[1] == fits[2]
    check_measures(town, fits[0])
    for name in SITES:
        check_gain(town, name)
    check_bundle(town)


def check_measures(town: CommandNetwork, fit: dict[str, Any]) -> None:
    """Fit and measures are those of statsmodels and scikit-learn on the pooled rows."""
    fitted, evaluated = read_rows(town, *SITES)
    wanted = sm.Logit(fitted[:, 0], sm.add_constant(fitted[:, 1:])).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(fit["estimates"], wanted.params, rtol=0, atol=1e-8)
    group, score = fit["details"]["evaluation"]["groups"][0], wanted.predict(sm.add_constant(evaluated[:, 1:]))
    assert (group["n"], group["events"]) == (len(evaluated), evaluated[:, 0].sum())
    assert abs(group["auc"]["value"] - roc_auc_score(evaluated[:, 0], score)) <= group["auc"]["within"]
    assert group["brier"] == pytest.approx(brier_score_loss(evaluated[:, 0], score), abs=1e-8)


def check_gain(town: CommandNetwork, name: str) -> None:
    """What a site's people read stands on its own rows, and is in no file that leaves."""
    gain = json.loads(run("study", "gain", "1", *town.node(name), "--json"))
    fitted, evaluated = read_rows(town, name)
    own = sm.Logit(fitted[:, 0], sm.add_constant(fitted[:, 1:])).fit(disp=0, tol=1e-12)
    score = own.predict(sm.add_constant(evaluated[:, 1:]))
    assert (gain["n"], gain["held_out"]["n"]) == (len(fitted), len(evaluated))
    assert gain["held_out"]["own_area"]["value"] == pytest.approx(roc_auc_score(evaluated[:, 0], score), abs=1e-12)
    assert gain["terms"][1]["own"] == pytest.approx(own.params[1], abs=1e-8)
    (sentence,) = {e["message"] for e in town.log(name) if e["event"] == "gain"}
    assert gain["sentence"] == sentence
    stored = b"".join(path.read_bytes() for path in (town.root / "store").rglob("*") if path.is_file())
    for number in (gain["terms"][1]["own"], gain["held_out"]["own_area"]["value"]):
        assert np.float64(number).tobytes() not in stored
        assert repr(number).encode() not in stored + find_node(town.root / name).results.joinpath("1.json").read_bytes()


def check_bundle(town: CommandNetwork) -> None:
    """A bundle of the study is verified by somebody who has it alone."""
    bundle = town.root / "study.zip"
    run("audit", "export", "1", bundle, *town.node("south"))
    assert "PASS" in run("audit", "verify", bundle, "--network", town.root / "north" / "network.json")
