"""What VALORIS' answer about a linear model lets a covariate site find out: no measurement, and the correlation with
a single column of the others (docs/disclosure.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.lanes import later
from support.learners import column_owners, vertical
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol
from support.red_team.hospitals import Network

from coterie_learners.study.document import Study
from coterie_learners.vertical.valoris import valoris
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog


def study_of(others: tuple[str, ...]) -> Study:
    columns = {"hub": ("stay", *others), "clinic": ("age", "w", "f")}
    formula = "stay ~ " + " + ".join(name for own in columns.values() for name in own if name != "stay")
    return column_owners.complete("stays", formula, columns, name="valoris", family="gaussian")


def answer_to_clinic(study: Study, codes: Codes) -> dict[str, Array]:
    table = MemoryProtocol(valoris, study, vertical.split(study, codes))
    table.play()
    return {name: np.asarray(value) for name, value in table.posts("answer/clinic")["hub"].items()}


def test_other_measurements_of_every_patient_give_the_same_answer() -> None:
    """The outcome plus any multiple of the others' columns: the answer stays, each measurement moves."""
    study, codes = study_of(("frail", "ward")), column_owners.codes("stays")
    moved = {**codes, "stay": codes["stay"] + 3.0 * codes["frail"] + 1.5 * (codes["ward"] == 1) + 0.25}
    first = answer_to_clinic(study, codes)
    second = answer_to_clinic(study, moved)
    np.testing.assert_allclose(second["gamma"], first["gamma"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(second["covariance"], first["covariance"], rtol=1e-8, atol=1e-15)
    assert np.min(np.abs(moved["stay"] - codes["stay"])) > 0.2


def test_the_covariance_tells_its_reader_the_correlations_with_a_single_column_elsewhere() -> None:
    """L'L - phi T^-1 is the projection of its columns on the others': of one column it has rank 1, whatever phi.

    A covariance with any dispersion shows this; it is a result that the study wants. What is not stopped is stated.
    """
    study, codes = study_of(("frail",)), column_owners.codes("stays")
    answer = answer_to_clinic(study, codes)
    gamma = answer["gamma"]
    covariance = np.zeros((len(gamma),) * 2)
    covariance[np.triu_indices(len(gamma))] = answer["covariance"]
    covariance = covariance + np.triu(covariance, 1).T
    x = np.column_stack([codes[name] for name in ("age", "w", "f")])
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    gram, rotation = z.T @ z, np.linalg.eigh(z.T @ z)[1][:, ::-1]
    inverse = np.linalg.inv(rotation @ align_signs(z @ rotation, covariance) @ rotation.T)
    # The dispersion is the value at which two of three eigenvalues vanish.
    phi = 1.0 / np.linalg.eigvals(np.linalg.solve(gram, inverse)).real.max()
    projection = gram - phi * inverse
    values, vectors = np.linalg.eigh(projection)
    assert np.max(np.abs(values[:2])) < 1e-6 * values[2]
    frail = codes["frail"] - codes["frail"].mean()
    true = z.T @ frail / np.linalg.norm(frail)
    read = vectors[:, 2] * np.sqrt(values[2])
    np.testing.assert_allclose(read * np.sign(read @ true), true, rtol=1e-5, atol=1e-6)


def align_signs(scores: Array, covariance: Array) -> Array:
    """The covariance of the factor's columns with the signs that the site gave them, which it knows."""
    peak = scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])]
    sign = np.where(peak < 0, -1.0, 1.0)
    return np.asarray(covariance * np.outer(sign, sign))


OWN = {"a": ("stay",), "b": ("age", "bmi"), "c": ("lab", "dose")}
KINDS = "".join(f'[variables.{n}]\ntype = "number"\nrange = [-9, 9]\n' for own in OWN.values() for n in own)
COLUMNS = """
name = "stays"
sites = ["a", "b", "c"]
formula = "stay ~ age + bmi + lab + dose"
identifier = ["pid"]
columns = { a = ["stay"], b = ["age", "bmi"], c = ["lab", "dose"] }
[learner]
name = "valoris"
family = "gaussian"
"""


@pytest.fixture
def joined(tmp_path: Path) -> Network:
    """Three sites with columns of the same 300 patients, which have answered one study."""
    draw = np.random.default_rng(3).normal
    pid = np.array([f"p{k}" for k in range(300)])
    data = {site: {"pid": pid, **{name: draw(size=300) for name in own}} for site, own in OWN.items()}
    network = Network(tmp_path, data)
    network.fit(COLUMNS + KINDS)
    return network


def test_a_site_s_own_gate_lets_no_second_run_leave_one_patient_out(joined: Network) -> None:
    """The two answers would show that patient's residual."""
    with pytest.raises(ReleaseRefused, match=r"b's release gate keeps 'align/points' back: .*\(dropped\)"):
        joined.fit(COLUMNS + KINDS, 299, "b")


@pytest.mark.parametrize("rows", [299, *later(296)])
def test_a_site_that_gets_round_its_own_gate_is_refused_the_answer_by_the_others(joined: Network, rows: int) -> None:
    """Its log is empty, as of a site that lies about its former releases. The others judge the patients who match."""
    joined.logs["b"] = PrivacyLog()
    with pytest.raises(ReleaseRefused, match=r"(a|c)'s release gate keeps .* back: .*\(dropped\)"):
        joined.fit(COLUMNS + KINDS, rows, "b")


def test_the_same_patients_and_many_fewer_of_them_are_answered_again(joined: Network) -> None:
    joined.fit((COLUMNS + KINDS).replace('"stays"', '"again"'))
    joined.logs["b"] = PrivacyLog()
    joined.fit((COLUMNS + KINDS).replace('"stays"', '"fewer"'), 200, "b")
