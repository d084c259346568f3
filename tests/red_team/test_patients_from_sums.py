"""Attacks on the release gate: patients, levels and hospitals read off sums, in one study or in several.

Each fails when what stops it is taken out; the honest studies beside them pass with nobody's override.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal, later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text, write

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, LearnerError, Withheld
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.release.judgement import Judgement
from coterie_node.run import simulate as simulation


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abcd")})


MODELS = {
    "the same": "death ~ age + sex",
    "blanks": "death ~ age +  sex",
    "order": "death ~ sex + age",
    "interaction": "death ~ age + sex + age:sex",
    "another outcome": "relapse ~ age",
    "another column": "death ~ age + sex + lab",
}

# One patient more


@pytest.mark.parametrize(
    ("formula", "how"), diagonal(list(MODELS), [(PLAIN, ""), (MASKED, KNOWN), (PLAIN, KNOWN), (MASKED, "")])
)
def test_one_patient_more(network: Network, formula: str, how: tuple[str, str]) -> None:
    learner, rest = how
    network.fit(text("death ~ age + sex", learner=learner, rest=rest), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"the study 'probe'.*\(added\).*\[cohort\]"):
        network.fit(text(MODELS[formula], learner=learner, rest=rest))


@pytest.mark.parametrize("bounds", ["[18, 110.1]", "[0, 200]"])
def test_one_patient_more_under_another_range(network: Network, bounds: str) -> None:
    network.fit(text("death ~ age + sex", rest=KNOWN), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(text("death ~ age + sex", rest=KNOWN, age=f'type = "number"\nrange = {bounds}'))


@pytest.mark.parametrize("rest", ["", KNOWN], ids=["rows", "identifiers"])
def test_a_lab_value_that_one_patient_lacks(network: Network, rest: str) -> None:
    drop = rest + '\nrows = {missing = "drop"}'
    network.data["a"]["lab"] = network.data["a"]["lab"].astype(object)
    network.data["a"]["lab"][7] = ""
    network.fit(text("death ~ age + sex", rest=drop))
    with pytest.raises(ReleaseRefused, match=r"lack lab \(dropped\)"):
        network.fit(text("death ~ age + sex + lab", rest=drop))


@pytest.mark.parametrize("rest", ["", KNOWN], ids=["rows", "identifiers"])
def test_a_corrected_outcome(network: Network, rest: str) -> None:
    network.fit(text("death ~ age + sex", rest=rest))
    network.data["a"]["death"][3] ^= 1
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        network.fit(text("death ~ sex", rest=rest))


def test_a_patient_with_two_rows(network: Network) -> None:
    network.data["a"]["pseudonym"][1] = network.data["a"]["pseudonym"][0]
    with pytest.raises(ReleaseRefused, match=r"repeated patients"):
        network.fit(text("death ~ age + sex", rest=KNOWN))


# Values, not declarations


@pytest.mark.parametrize("declared", ['type = "number"\nrange = [0, 1]', 'type = "count"\nrange = [0, 9]'])
@pytest.mark.parametrize("value", [1, 0.5])
def test_a_rare_value_declared_as_a_number(network: Network, declared: str, value: float) -> None:
    for site in "ab":
        network.data[site]["hiv"] = np.zeros(N)
        network.data[site]["hiv"][0] = value if "number" in declared else 1
    with pytest.raises(ReleaseRefused, match=r"of hiv \(small level\)"):
        network.fit(text("death ~ age + hiv", "ab", PLAIN, hiv=declared))


@pytest.mark.parametrize("learner", ['name = "glore"\nfamily = "poisson"', 'name = "cola"\nfamily = "poisson"'])
def test_a_binary_outcome_declared_as_a_count(network: Network, learner: str) -> None:
    for site in "ab":
        rare = network.data[site]["hiv"] == 1
        network.data[site]["death"][rare] = 0
        network.data[site]["death"][np.flatnonzero(rare)[0]] = 1
    counts = {"death": 'type = "count"\nrange = [0, 1]'}
    with pytest.raises(ReleaseRefused, match=r"of hiv by death \(small level\)"):
        network.fit(text("death ~ sex + hiv", "ab", learner, **counts))


@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_an_offset_switches_nothing_off(network: Network, offset: float) -> None:
    for site in "ab":
        network.data[site]["hiv"] = (np.arange(N) == 0).astype(int)
        network.data[site]["lt"] = np.full(N, offset)
    kinds = {"death": 'type = "count"\nrange = [0, 9]', "lt": 'type = "number"\nrange = [-1, 1]'}
    learner = 'name = "glore"\nfamily = "poisson"'
    # The learner's own tables find the level first, as without the offset.
    with pytest.raises(ReleaseRefused, match=r"counts below 5 patients can be solved from it, of hiv"):
        network.fit(text("death ~ sex + hiv + offset(lt)", "ab", learner, **kinds))


@pytest.mark.parametrize("rows", [9, *later(6, 30)])
def test_few_rows_for_many_columns(network: Network, rows: int) -> None:
    """Jennrich's joint diagonalisation of two rounds gives all rows back where there are no more rows than columns."""
    rng, kinds = np.random.default_rng(5), {}
    for k in range(9):
        kinds[f"x{k}"] = 'type = "number"\nrange = [0, 100]'
        for site in "ab":
            network.data[site][f"x{k}"] = np.round(rng.uniform(10, 90, N), 1)
    for site in "ab":
        network.data[site]["lt"] = np.round(rng.normal(size=N), 3)
    kinds |= {"death": 'type = "count"\nrange = [0, 9]', "lt": 'type = "number"\nrange = [-9, 9]'}
    formula = f"death ~ {' + '.join(f'x{k}' for k in range(9))} + offset(lt)"
    loose = 'rows = {collinear = "allow", constant = "allow"}'
    # The learner solves each row as a pattern of its own, as without the offset.
    with pytest.raises(ReleaseRefused, match=r"single patterns of all covariates"):
        network.fit(text(formula, "ab", 'name = "glore"\nfamily = "poisson"', loose, **kinds), rows, "a")


@pytest.mark.parametrize("rows", [6, 9])
def test_the_log_refuses_few_rows_for_many_columns_whatever_the_learner_solves(tmp_path: Path, rows: int) -> None:
    rng, names = np.random.default_rng(5), [f"x{k}" for k in range(9)]
    kinds = dict.fromkeys(names, 'type = "number"\nrange = [0, 100]')
    columns = {name: np.round(rng.uniform(10, 90, rows), 1) for name in names}
    write(tmp_path / "a.csv", {"death": np.arange(rows) % 2, **columns}, None)
    loose = 'rows = {collinear = "allow", constant = "allow", minimum = 1}'
    study = complete_study(Study.from_toml(text(f"death ~ {' + '.join(names)}", "ab", PLAIN, loose, **kinds)))
    loaded = load_site(tmp_path / "a.csv", study, "a")
    assert loaded is not None
    site = Site(study, "a", loaded.rows, session="one", parties=study.sites)
    (objection, *_) = Judgement(PrivacyLog(), study.disclosure).judge(site, Exposure("sums", rows, by_columns=True))
    assert objection is not None
    assert objection.kind == "rows and columns"


@pytest.mark.parametrize("learner", ["glore", "cola"])
def test_a_level_whose_patients_all_have_the_outcome(network: Network, learner: str) -> None:
    for site in "ab":
        network.data[site]["grp"] = np.array((["x", "y"] * N)[:N], dtype=object)
        network.data[site]["grp"][:10], network.data[site]["death"][:10] = "z", 1
        network.data[site]["sex"][:10] = [0] * 5 + [1] * 5
    grp = 'type = "category"\nlevels = ["x", "y", "z"]'
    with pytest.raises(ReleaseRefused, match="full cell"):
        network.fit(text("death ~ sex + grp", "ab", f'name = "{learner}"', grp=grp))


def test_one_patient_who_is_nearly_all_of_a_cost(network: Network) -> None:
    for site in "ab":
        network.data[site]["cost"] = np.round(np.random.default_rng(1).lognormal(5, 1, N), 2)
        network.data[site]["cost"][0] = 9e7
    with pytest.raises(ReleaseRefused, match=r"dominance"):
        network.fit(text("death ~ sex + cost", "ab", PLAIN, cost='type = "number"\nrange = [0, 1e8]'))


def test_one_patient_who_is_nearly_all_of_a_site_s_cost_under_masks(network: Network) -> None:
    for site in "abc":
        network.data[site]["cost"] = np.round(np.random.default_rng(1).lognormal(5, 1, N), 2)
    network.data["b"]["cost"][0] = 9e7
    with pytest.raises(ReleaseRefused, match=r"at this site \(dominance\)"):
        network.fit(text("death ~ sex + cost", cost='type = "number"\nrange = [0, 1e8]'))


# The pool

MASKED_TABLES = [f'name = "secure_cola"\nscheme = "{scheme}"' for scheme in ("masks", "bfv", "newton")]


@pytest.mark.parametrize("learner", MASKED_TABLES, ids=["masks", "bfv", "newton"])
def test_summed_tables_are_judged_before_they_are_opened(network: Network, learner: str) -> None:
    for site in "abc":
        network.data[site]["hiv"], network.data[site]["hospital"] = np.zeros(N, int), np.array([site] * N)
    network.data["b"]["hiv"][0] = 1
    loose = 'rows = {constant = "allow", collinear = "allow"}'
    with pytest.raises(Withheld, match="hiv has fewer than 5 patients in the pool"):
        network.fit(text("death ~ sex + hiv", learner=learner, rest=loose))
    hospital = 'type = "category"\nlevels = ["a", "b", "c"]'
    with pytest.raises(Withheld, match="few sites"):
        network.fit(text("death ~ sex + hospital", learner=learner, rest=loose, hospital=hospital))
    with pytest.raises(ReleaseRefused, match="not opened"):
        network.fit(text("death ~ sex", learner=f'{learner}\nopening = "none"'))


@pytest.mark.parametrize("formula", ["death ~ age + sex + hospital", "death ~ hospital*age + hospital*sex"])
def test_a_hospital_s_fixed_effect(network: Network, formula: str) -> None:
    for site in "abc":
        network.data[site]["hospital"] = np.array([site] * N)
    loose = 'rows = {collinear = "allow", constant = "allow"}'
    hospital = 'type = "category"\nlevels = ["a", "b", "c"]'
    with pytest.raises(Withheld, match=r"hospital\[b\].*few sites"):
        network.fit(text(formula, rest=loose, hospital=hospital))


def test_a_hospital_s_number_as_a_measurement(network: Network) -> None:
    for k, site in enumerate("abc"):
        network.data[site]["hospital"] = np.full(N, float(k))
    loose = 'rows = {collinear = "allow", constant = "allow"}'
    with pytest.raises(DataError, match="has 3 values or fewer"):
        network.fit(text("death ~ age + hospital", rest=loose, hospital='type = "number"\nrange = [0, 3]'))


@pytest.mark.parametrize("formula", ["death ~ age + hiv", "death ~ age + sex:hiv + hiv"])
def test_a_level_that_one_patient_of_the_pool_has(network: Network, formula: str) -> None:
    for site in "abc":
        network.data[site]["hiv"] = np.zeros(N, int)
    network.data["b"]["hiv"][0] = 1
    with pytest.raises(Withheld, match=r"hiv has fewer than 5 patients in the pool"):
        network.fit(text(formula, rest='rows = {constant = "allow", collinear = "allow"}'))


def test_a_level_of_the_pool_whose_patients_all_have_the_outcome(network: Network) -> None:
    for site in "abc":
        network.data[site]["death"][network.data[site]["hiv"] == 1] = 1
    with pytest.raises(Withheld, match="full cell"):
        network.fit(text("death ~ age + hiv"))


def test_masked_sums_that_are_not_opened_first(network: Network) -> None:
    with pytest.raises(ReleaseRefused, match="not opened"):
        network.fit(text("death ~ age + sex", learner='name = "glore"\nopening = "none"'))


# Parties


@pytest.mark.parametrize("bounds", ["[18, 110]", "[18, 110.1]"])
def test_one_site_more_while_the_others_stay_the_same(network: Network, bounds: str) -> None:
    network.fit(text("death ~ age + sex", rest=KNOWN))
    with pytest.raises(ReleaseRefused, match="what d holds alone"):
        network.fit(text("death ~ sex + age", "abcd", rest=KNOWN, age=f'type = "number"\nrange = {bounds}'))


def test_one_site_fewer(network: Network) -> None:
    network.fit(text("death ~ age + sex", "abcd"))
    with pytest.raises(ReleaseRefused, match="what d holds alone"):
        network.fit(text("death ~ age", "abc"))


@pytest.mark.parametrize("rest", ["", KNOWN], ids=["rows", "identifiers"])
def test_plain_sums_of_the_others_after_a_masked_sum(network: Network, rest: str) -> None:
    network.fit(text("death ~ sex", "abc", MASKED, rest))
    with pytest.raises(ReleaseRefused, match=r"show the sums of a \(masks undone\)"):
        network.fit(text("death ~ sex", "bc", PLAIN, rest))


def test_a_masked_sum_after_plain_sums_of_all_sites_but_two(network: Network) -> None:
    balance(network)
    network.fit(text("death ~ sex", "cd", PLAIN, KNOWN))
    with pytest.raises(ReleaseRefused, match=r"show the sums of a and b \(masks undone\)"):
        network.fit(text("sex ~ death", "abcd", MASKED, KNOWN))


def test_plain_sums_of_all_sites_of_a_masked_sum_show_nothing_of_others(network: Network) -> None:
    balance(network)
    network.fit(text("death ~ sex", "abc", MASKED, KNOWN))
    network.fit(text("death ~ sex", "abc", PLAIN, KNOWN))


def balance(network: Network) -> None:
    """Cells of many patients at each site, so that plain sums may leave."""
    for site in network.data:
        network.data[site]["death"] = (np.arange(N) % 3 == 0).astype(int)
        network.data[site]["sex"] = np.arange(N) // 4 % 2


# A difference is a release


def test_thirty_patients_more_are_a_plain_release_of_thirty_patients(network: Network) -> None:
    for site in "ab":
        network.data[site]["hiv"] = (np.arange(N) % 10 == 0).astype(int)
        network.data[site]["death"] = (np.arange(N) // 2 % 3 == 0).astype(int)
        network.data[site]["sex"] = np.arange(N) // 4 % 2
    study = text("death ~ sex + hiv", "ab", PLAIN, KNOWN)
    network.fit(study, N - 30, "a")
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\).*\[cohort\]"):
        network.fit(study)


def test_the_patients_who_left_a_file_are_judged_too(network: Network) -> None:
    for site in "ab":
        network.data[site]["death"] = (np.arange(N) % 4 == 0).astype(int)
        network.data[site]["sex"] = np.arange(N) // 4 % 2
        network.data[site]["death"][-40:], network.data[site]["death"][-80:-40] = 1, 0
    study = text("death ~ sex", "ab", PLAIN, KNOWN)
    network.fit(study)
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(full cell\)"):
        network.fit(study, N - 40, "a")


def test_women_after_all_pass_as_the_men_are_many(network: Network) -> None:
    order = np.argsort(network.data["a"]["sex"], kind="stable")
    network.data["a"] = {name: column[order] for name, column in network.data["a"].items()}
    women = int(np.count_nonzero(network.data["a"]["sex"] == 0))
    loose = KNOWN + '\nrows = {constant = "allow", collinear = "allow"}'
    network.fit(text("death ~ age + lab", "ab", PLAIN, loose))
    network.fit(text("death ~ age + lab", "ab", PLAIN, loose), women, "a")


# Honest work


def test_honest_studies_pass(network: Network) -> None:
    """The same study again, two outcomes, another model, and one site more after three others have grown."""
    short = {site: {name: column[:300] for name, column in network.data[site].items()} for site in "abc"}
    full, network.data = network.data, {**network.data, **short}
    network.fit(text("death ~ age + sex", rest=KNOWN))
    network.fit(text("death ~ age + sex", rest=KNOWN))
    network.fit(text("relapse ~ age + sex", rest=KNOWN))
    network.fit(text("death ~ age*sex + lab", rest=KNOWN))
    network.data = full
    network.fit(text("death ~ age + sex", "abcd", rest=KNOWN))


@pytest.mark.parametrize("rest", [KNOWN, ""], ids=["identifiers", "rows"])
def test_five_models_pass_on_a_declared_cohort_although_a_file_grows(network: Network, rest: str) -> None:
    cohort = f'{rest}\n[cohort]\nname = "autumn"\ncomplete = ["death", "relapse", "age", "sex", "lab"]'
    for k, formula in enumerate(list(MODELS.values())[:2] + list(MODELS.values())[3:]):
        network.fit(text(formula, rest=cohort), N - 10 + k, "a")


def test_the_honest_three_run_again_without_the_one_who_spoiled_the_sum(network: Network) -> None:
    study = text("death ~ age + sex", "abcd", rest=KNOWN)
    real = simulation.make_runner

    def lying(world: Any, name: str, *rest: Any) -> Any:
        runner = real(world, name, *rest)
        if name == "d":
            draft = runner.machine.draft

            def lie(*args: Any) -> Payload | None:
                return {"masked": np.zeros(3)} if runner.position == 1 else draft(*args)

            patch.setattr(runner.machine, "draft", lie)
        return runner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "make_runner", lying)
        with pytest.raises(LearnerError, match="d posted a bad 'opening'"):
            network.fit(study)
    assert any(head.missing == ("d",) for log in network.logs.values() for head in log.heads())
    spoiled = [site for site in "abc" if any(head.state == "spoiled" for head in network.logs[site].heads())]
    assert spoiled
    for site in set("abc") - set(spoiled):
        # The run ended before these had read the spoiled post; their daemons read it when they are next awake.
        network.logs[site].note_sum(network.logs[site].heads()[0].session, tuple("abcd"), ("d",))
    network.fit(text("death ~ age + sex", "abc", rest=KNOWN))
