"""Attacks on the opening of masked studies: the outcome of the one patient of the pool who has a level.

A curious member reads every record. Its own node lets everything leave; the others allow constant columns.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.red_team.hospitals import N, Network, draw, text

from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Step
from coterie_learners.errors import Withheld
from coterie_node.errors import ReleaseRefused
from coterie_node.release.gate import Gate

LOOSE = 'rows = {constant = "allow", collinear = "allow"}'
GRADES = ("low", "high", "middle")
MORE = {
    "months": 'type = "number"\nrange = [0, 60]',
    "grade": f'type = "category"\nlevels = {list(GRADES)}',
}
LEARNERS = {
    "glore": 'name = "glore"',
    "bits": 'name = "glore"\nopening = "bits"',
    "several levels": 'name = "glore"\nfamily = "multinomial"',
    "secure_cola": 'name = "secure_cola"\nscheme = "masks"',
    "ckks": 'name = "secure_cola"\nscheme = "ckks"',
    "newton": 'name = "secure_cola"\nscheme = "newton"',
    "cox": 'name = "cox"\ntime = "months"\nevent = "death"\nbaseline = "site"',
    "propensity": 'name = "propensity"\ntreatment = "sex"',
    "validate": 'name = "validate"\naggregation = "masked"\n'
    'coefficients = { "(Intercept)" = -1.0, sex = 0.5, hiv = 0.2, "sex:hiv" = 0.3 }',
}
FORMULAS = {"several levels": "grade ~ sex + hiv", "validate": "death ~ sex * hiv"}
# The one patient with a level, and another one of the same site, in the same part of an evaluation.
VICTIM, OTHER = 7, 8


class Reader:
    """What one member reads: the masked posts of all sites, by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.posts: dict[str, list[Payload]] = {}
        admit = Gate.admit

        def read(gate: Gate, step: Step, site: Any, attempt: int, payload: Payload) -> Any:
            out = admit(gate, step, site, attempt, payload)
            self.posts.setdefault(step.topic, []).append(payload)
            return out

        monkeypatch.setattr(Gate, "admit", read)

    def numbers(self) -> dict[str, list[Any]]:
        """What the masks leave of each step: the sum of the posts, or the answers of the last one.

        Labels and commitments are left out: they look random to whoever lacks a site's key.
        """
        out: dict[str, list[Any]] = {}
        for topic, posts in self.posts.items():
            if "bits" in posts[0]:
                out[topic] = np.asarray(posts[0]["bits"]).tolist()
            elif not topic.endswith("labels") and "commitment" not in posts[0]:
                parts = [[int(low) + (int(high) << 64) for low, high in np.asarray(p["masked"])] for p in posts]
                out[topic] = [sum(column) % 2**128 for column in zip(*parts, strict=True)]
        assert out
        return out


def hold(tmp_path: Path, at: str, death: int, **one: int) -> Network:
    """Three sites; one patient at one of them has the levels of `one`, which nobody else has."""
    data = {site: draw(k) for k, site in enumerate("abc")}
    for k, site in enumerate("abc"):
        data[site]["months"] = np.round(np.random.default_rng(9 + k).uniform(1, 59, N), 1)
        for name in one:
            data[site][name] = np.zeros(N, dtype=int)
        data[site]["grade"] = np.array(GRADES)[np.random.default_rng(k).integers(0, 3, N)]
    pair = [VICTIM, OTHER]
    data[at]["death"][pair] = death, 1 - death  # as many events in either world
    data[at]["grade"][pair] = GRADES[death], GRADES[1 - death]
    data[at]["sex"][pair] = 1
    for name, value in one.items():
        data[at][name][VICTIM] = value
    tmp_path.mkdir()
    return Network(tmp_path, data)


def stop(network: Network, study: str) -> dict[str, Any]:
    """What a member reads of a study that a small level stops."""
    with pytest.MonkeyPatch.context() as patch:
        reader = Reader(patch)
        with pytest.raises(Withheld, match=r"hiv.* has fewer than 5 patients in .*pool \(small level\)"):
            network.fit(study)
        return reader.numbers()


def write_models(first: str, second: str, order: str, rest: str) -> str:
    """A study of two models."""
    models = "\n".join(
        f'[[models]]\nname = "{name}"\nformula = "{formula}"' for name, formula in (("m", first), ("n", second))
    )
    return text("", order, LEARNERS["glore"], rest, **MORE).replace('formula = ""\n', "") + models


def read_world(tmp_path: Path, learner: str, order: str, at: str, death: int) -> dict[str, Any]:
    formula = FORMULAS.get(learner, "death ~ sex + hiv")
    return stop(hold(tmp_path, at, death, hiv=1), text(formula, order, LEARNERS[learner], LOOSE, **MORE))


@pytest.mark.parametrize(
    ("learner", "order", "at"),
    [
        ("glore", "abc", "b"),
        *(
            pytest.param(learner, "".join(order), at, marks=pytest.mark.long)
            for learner, order, at in itertools.product(LEARNERS, (("a", "b", "c"), ("c", "a", "b")), "ac")
        ),
    ],
)
def test_the_outcome_of_the_one_patient_with_a_level(tmp_path: Path, learner: str, order: str, at: str) -> None:
    """Two worlds that differ in who of two patients has the outcome: every record has the same sum in both."""
    worlds = [read_world(tmp_path / str(death), learner, order, at, death) for death in (0, 1)]
    assert worlds[0].keys() == {"bits" if learner == "bits" else "opening"}
    assert worlds[0] == worlds[1]


@pytest.mark.long
@pytest.mark.parametrize("order", ["abc", "cab"])
def test_the_outcome_of_the_one_patient_with_a_level_of_one_of_several_models(tmp_path: Path, order: str) -> None:
    study = write_models("death ~ sex", "death ~ sex * hiv", order, LOOSE)
    worlds = [stop(hold(tmp_path / str(death), "b", death, hiv=1), study) for death in (0, 1)]
    assert worlds[0].keys() == {"opening"}
    assert worlds[0] == worlds[1]


@pytest.mark.long
def test_another_value_of_the_one_patient_with_a_level_among_the_evaluated_rows(tmp_path: Path) -> None:
    """The evaluated part has products too: its first stage counts none."""
    worlds = []
    for sex in (0, 1):
        network = hold(tmp_path / str(sex), "b", 1, hiv=1)
        network.data["b"]["sex"][[VICTIM, OTHER]] = sex, 1 - sex
        rest = f'patient = "pseudonym"\n{LOOSE}'
        study = text("death ~ sex * hiv", "abc", LEARNERS["glore"], rest)
        worlds.append(stop(network, study.replace("[learner]", "[evaluate]\nheld_out = 0.5\n[learner]")))
    assert worlds[0].keys() == {"evaluation/opening"}
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize("learner", ["glore", pytest.param("bits", marks=pytest.mark.long)])
def test_another_value_of_the_one_patient_with_a_level(tmp_path: Path, learner: str) -> None:
    """A product of two levels tells of a patient who alone has one of them whether it has the other."""
    worlds = []
    for sex in (0, 1):
        network = hold(tmp_path / str(sex), "b", 1, hiv=1)
        network.data["b"]["sex"][[VICTIM, OTHER]] = sex, 1 - sex
        with pytest.MonkeyPatch.context() as patch:
            reader = Reader(patch)
            with pytest.raises(Withheld, match="small level"):
                network.fit(text("death ~ sex * hiv", "abc", LEARNERS[learner], LOOSE))
            worlds.append(reader.numbers())
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize("models", ["", pytest.param("two", marks=pytest.mark.long)])
def test_another_value_by_a_level_that_is_derived_from_two_columns(tmp_path: Path, models: str) -> None:
    """A derived level that joins two columns comes after the levels of one, in another model of the study too."""
    worlds = []
    for sex in (0, 1):
        network = hold(tmp_path / str(sex), "b", 1, hiv=1)
        network.data["b"]["sex"][[VICTIM, OTHER]] = sex, 1 - sex
        derived = '[derive]\nboth = "hiv == 1 and sex == 1"\neither = "hiv == 1 or sex == 1"'
        derived += '\nlate = "death == 1 and relapse == 1"'
        if models:
            study = write_models("death ~ hiv", "late ~ both", "cab", f"{LOOSE}\n{derived}")
        else:
            study = text("death ~ both + hiv + either", "abc", LEARNERS["glore"], f"{LOOSE}\n{derived}")
        worlds.append(stop(network, study))
    assert worlds[0].keys() == {"opening"}
    assert worlds[0] == worlds[1]


@pytest.mark.long  # `learners/sums/test_stages.py` has the rule in `make test`
@pytest.mark.parametrize("outcome", ["death", "lab"])
def test_the_outcome_by_a_weight_that_depends_on_it(tmp_path: Path, outcome: str) -> None:
    """How many patients have a large weight comes last: here only a patient with hiv who died has one."""
    worlds = []
    for death in (0, 1):
        network = hold(tmp_path / str(death), "b", death, hiv=1)
        for k, site in enumerate("abc"):
            rows, size = network.data[site], np.round(np.random.default_rng(k).uniform(1, 9, N), 2)
            rows["heavy"] = np.where(rows["hiv"] * rows["death"] == 1, 10.0, size)
        family = "gaussian" if outcome == "lab" else "binomial"
        learner = f'{LEARNERS["glore"]}\nweights = "heavy"\nfamily = "{family}"'
        more = {"heavy": 'type = "number"\nrange = [1, 10]'}
        worlds.append(stop(network, text(f"{outcome} ~ sex + hiv", "abc", learner, LOOSE, **more)))
    assert worlds[0].keys() == {"opening"}
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize(
    "learner", ["glore", *(pytest.param(name, marks=pytest.mark.long) for name in ("models", "secure_cola", "cox"))]
)
def test_the_outcome_of_the_one_new_patient_with_a_level(tmp_path: Path, learner: str) -> None:
    """Sixty patients more at each site, of whom one has hiv: what counts differ by shows no outcome of this one."""
    worlds = [open_with_new_patients(tmp_path / str(death), learner, death) for death in (0, 1)]
    assert "opening" in worlds[0]
    assert "opening/2" not in worlds[0]
    assert worlds[0] == worlds[1]


def open_with_new_patients(tmp_path: Path, learner: str, death: int) -> dict[str, Any]:
    """What is opened of a study that new patients join since an earlier one."""
    network = hold(tmp_path, "b", 0)
    for k, site in enumerate("abc"):
        new = np.arange(N) >= N - 60
        network.data[site]["hiv"] = np.where(new, 0, np.random.default_rng(k).random(N) < 0.3).astype(int)
    network.data["b"]["hiv"][-1] = 1
    network.data["b"]["death"][-2:] = 1 - death, death
    known = 'patient = "pseudonym"'
    study = text("death ~ sex + hiv", "abc", LEARNERS.get(learner, ""), known, **MORE)
    if learner == "models":
        study = write_models("death ~ sex", "death ~ sex + hiv", "abc", known)
    whole = dict(network.data)
    for site in "abc":
        network.data[site] = {name: column[:-60] for name, column in whole[site].items()}
    network.fit(study)
    network.data |= whole
    with pytest.MonkeyPatch.context() as patch:
        reader = Reader(patch)
        with pytest.raises(ReleaseRefused, match=r"\(difference\).*hiv has fewer than 5 patients \(small level\)"):
            network.fit(study)
        return reader.numbers()


@pytest.mark.parametrize("learner", ["glore", pytest.param("bits", marks=pytest.mark.long)])
def test_the_levels_of_the_one_patient_with_the_outcome(tmp_path: Path, learner: str) -> None:
    """One event in the pool: the events in a level would tell whether its patient is in the level."""
    worlds = []
    for sex in (0, 1):
        network = hold(tmp_path / str(sex), "b", 1)
        for site in "abc":
            network.data[site]["death"][:] = 0
        network.data["b"]["death"][VICTIM] = 1
        network.data["b"]["sex"][[VICTIM, OTHER]] = sex, 1 - sex
        with pytest.MonkeyPatch.context() as patch:
            reader = Reader(patch)
            with pytest.raises(Withheld, match=r"death = 1 has fewer than 5"):
                network.fit(text("death ~ sex + age", "abc", LEARNERS[learner], LOOSE))
            worlds.append(reader.numbers())
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize("learner", ["glore", pytest.param("secure_cola", marks=pytest.mark.long)])
def test_a_fit_whose_levels_are_large_opens_the_events_after_the_patients(
    tmp_path: Path, learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, reader = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")}), Reader(monkeypatch)
    network.fit(text("death ~ sex + hiv", "abc", LEARNERS[learner]))
    assert list(reader.posts)[:3] == ["labels", "opening", "opening/2"]


CUT = "cut(age, c(-Inf, 60, Inf))"
PRODUCTS = {
    "two levels": "death ~ sex * hiv",
    "three levels": "death ~ grade * hiv",
    "cut": f"death ~ {CUT} * hiv",
    "without a factor": "death ~ hiv + sex:hiv",
    "derived": "death ~ man * hiv",
    "several levels of the outcome": "stage ~ sex * hiv",
}


def hold_complement(tmp_path: Path, death: int) -> Network:
    """Three sites; all with hiv have the other levels too, but for one patient, who has none of these."""
    data = {site: draw(k) for k, site in enumerate("abc")}
    for k, rows in enumerate(data.values()):
        rows["hiv"][:] = 0
        rows["months"] = np.round(np.random.default_rng(9 + k).uniform(1, 59, N), 1)
        rows["grade"] = np.array(GRADES)[np.random.default_rng(k).integers(0, 3, N)]
        many = slice(10, 15)
        rows["hiv"][many], rows["sex"][many], rows["age"][many] = 1, 1, 70.5
        rows["death"][many] = 0, 0, 1, 0, 1
        rows["grade"][many] = GRADES[1], GRADES[1], GRADES[1], GRADES[2], GRADES[2]
    # In either world as many events with hiv, without, and in every other level: only pairs of levels differ.
    one, four = data["b"], [VICTIM, OTHER, 9, 10]
    one["death"][four], one["relapse"][four] = (death, 1 - death, death, 1 - death), 0
    one["hiv"][four], one["sex"][four] = (1, 0, 0, 1), (0, 0, 1, 1)
    one["age"][four] = 40.5, 40.5, 70.5, 70.5
    one["grade"][four] = GRADES[0], GRADES[0], GRADES[1], GRADES[1]
    for rows in data.values():
        rows["stage"] = np.where(rows["death"] == 1, GRADES[0], np.where(rows["relapse"] == 1, *GRADES[1:]))
    tmp_path.mkdir()
    return Network(tmp_path, data)


def read_complement(tmp_path: Path, learner: str, product: str, death: int) -> dict[str, Any]:
    derived = f'{LOOSE}\n[derive]\nman = "sex == 1"'
    stage = {"stage": MORE["grade"]}
    study = text(PRODUCTS[product], "abc", LEARNERS[learner], derived, **MORE, **stage)
    return stop(hold_complement(tmp_path, death), study)


@pytest.mark.parametrize(
    ("learner", "product"),
    [
        ("glore", "two levels"),
        *(pytest.param("glore", name, marks=pytest.mark.long) for name in list(PRODUCTS)[1:-1]),
        *(
            pytest.param(name, "two levels", marks=pytest.mark.long)
            for name in LEARNERS
            if name not in ("glore", "several levels", "propensity")
        ),
        pytest.param("bits", "three levels", marks=pytest.mark.long),
        pytest.param("several levels", "several levels of the outcome", marks=pytest.mark.long),
    ],
)
def test_the_outcome_of_the_one_patient_of_a_level_who_lacks_the_other(
    tmp_path: Path, learner: str, product: str
) -> None:
    """Events with a level less those of a product would be the outcome of the only patient between the two."""
    worlds = [read_complement(tmp_path / str(death), learner, product, death) for death in (0, 1)]
    assert worlds[0] == worlds[1]


@pytest.mark.long
def test_a_cell_of_a_product_all_of_whose_patients_have_the_outcome(tmp_path: Path) -> None:
    """Seven patients with hiv and without the other level, all of whom have died."""
    network = hold_complement(tmp_path / "full", 1)
    for rows in network.data.values():
        rows["hiv"][[20, 21]], rows["sex"][[20, 21]], rows["death"][[20, 21]] = 1, 0, 1
    with pytest.raises(Withheld, match=r"hiv = 1 and sex = 0 has the outcome in every patient \(full cell\)"):
        network.fit(text("death ~ sex * hiv", "abc", LEARNERS["glore"], LOOSE))


@pytest.mark.long  # `node/release/test_staged_counts.py` has the rule in `make test`
@pytest.mark.parametrize("second", ["death ~ hiv * sex", "death ~ hiv + sex + hiv:sex"])
def test_a_new_patient_of_a_product_in_a_study_with_another_order_of_terms(tmp_path: Path, second: str) -> None:
    """Of sixty new patients one alone has both levels: by this one the two studies' sums differ."""
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    whole = dict(network.data)
    for site in "abc":
        rows, new = network.data[site], np.arange(60)
        rows["hiv"][-60:], rows["sex"][-60:] = new % 2, (new + 1) % 2
        network.data[site] = {name: column[:-60] for name, column in rows.items()}
    whole["b"]["sex"][-1] = 1
    known = 'patient = "pseudonym"'
    network.fit(text("death ~ sex * hiv", "abc", LEARNERS["glore"], known))
    network.data |= whole
    with pytest.raises(
        ReleaseRefused, match=r"\(difference\).*(hiv:sex|hiv = 1 and sex = 1) has fewer than 5 patients"
    ):
        network.fit(text(second, "abc", LEARNERS["glore"], known))
