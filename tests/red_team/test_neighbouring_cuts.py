"""Attacks by two ways to cut one column: the patients between two neighbouring ends are of one study or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.lanes import later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, Network, draw, text

from coterie_node.errors import ReleaseRefused

AGES = 'type = "number"\nrange = [0, 110]'
ALLOW = f'{KNOWN}\n[rows]\nconstant = "allow"\ncollinear = "allow"'
CURVES = 'name = "survival_curves"\ntime = "age"\nevent = "death"\ntime_grid = { width = 11.0, horizon = 88 }'
# Beyond each of these one patient has age 55.05, and all others have ages of one digit.
ENDS = (55.02, 55.08)


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    out = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    out.data["a"]["age"][0] = 55.05
    return out


def cut(end: float, learner: str = MASKED, outcome: str = "death") -> str:
    return text(f"{outcome} ~ cut(age, c(-Inf, 40, {end}, 75, Inf)) + sex", learner=learner, rest=KNOWN, age=AGES)


def table(low: float, width: float = 5, group: str = "sex") -> str:
    grid = f'name = "table_one"\nquantiles = {{ age = {{ width = {width}, low = {low} }} }}'
    return text(f"{group} ~ age", learner=grid, rest=KNOWN, age=AGES)


def test_two_grids_of_bins_over_the_same_patients_show_no_patient(hospitals: Network) -> None:
    hospitals.fit(table(45.02))
    with pytest.raises(ReleaseRefused, match=r"'counts'.*\(neighbouring cuts\)"):
        hospitals.fit(table(45.08))


@pytest.mark.long
def test_two_grids_by_other_groups_show_no_patient(hospitals: Network) -> None:
    hospitals.fit(table(45.02))
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(table(45.08, group="hiv"))


def derive(formula: str, derived: str, learner: str) -> str:
    return text(formula, learner=learner, rest=f"{ALLOW}\n[derive]\n{derived}", age=AGES)


def bins(column: str, low: float) -> str:
    return f'name = "table_one"\nquantiles = {{ {column} = {{ width = 5, low = {low} }} }}'


def steps(time: str, width: float = 11.0) -> str:
    grid = f"time_grid = {{ width = {width}, horizon = {8 * width} }}"
    return f'name = "survival_curves"\ntime = "{time}"\nevent = "death"\n{grid}'


DERIVED_CUTS = [
    (table(45.02), derive("sex ~ shifted", 'shifted = "age + 10"', bins("shifted", 55.08))),
    (derive("sex ~ shifted", 'shifted = "age + 10"', bins("shifted", 55.08)), table(45.02)),
    (table(45.02), derive("death ~ old", 'old = "age > 55.08"', MASKED)),
    (
        derive(
            "sex ~ days",
            'days = "age*365.25"',
            bins("age", 45.02).replace("age =", "days =").replace("5,", "1826.25,").replace("45.02", "16443.555"),
        ),
        derive("death ~ old", 'old = "age > 55.08"', MASKED),
    ),
    (derive("death ~ 1", 'first = "age"', CURVES), derive("death ~ 1", 'shifted = "age + 0.03"', steps("shifted"))),
]


@pytest.mark.parametrize("studies", [DERIVED_CUTS[0], *later(*DERIVED_CUTS[1:])])
def test_bins_and_steps_of_what_a_study_derives_show_no_patient(hospitals: Network, studies: tuple[str, str]) -> None:
    """Bins of `age + 10` are bins of the age."""
    hospitals.fit(studies[0])
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(studies[1])


@pytest.mark.long
def test_the_same_ends_of_what_a_study_derives_pass(hospitals: Network) -> None:
    hospitals.fit(table(45.02))
    hospitals.fit(derive("sex ~ shifted", 'shifted = "age + 10"', bins("shifted", 55.02)))
    hospitals.fit(derive("death ~ old", 'old = "age > 55.02"', MASKED))


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
def test_two_studies_with_neighbouring_intervals_show_no_patient(hospitals: Network, learner: str) -> None:
    hospitals.fit(cut(ENDS[0], learner))
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(cut(ENDS[1], learner, "relapse"))


@pytest.mark.long
@pytest.mark.parametrize("learner", [MASKED, PLAIN], ids=["masked", "plain"])
@pytest.mark.parametrize(
    "term", ["I(age > {})", "I(age > {}):sex", "I((age > {}) * lab)", "I(abs(age - {}) * lab)", "I(age - 0*lab > {})"]
)
def test_neighbouring_comparisons_show_no_patient(hospitals: Network, learner: str, term: str) -> None:
    hospitals.fit(text(f"death ~ {term.format(ENDS[0])} + sex", learner=learner, rest=KNOWN))
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(text(f"death ~ {term.format(ENDS[1])} + sex", learner=learner, rest=KNOWN))


@pytest.mark.long
def test_one_comparison_of_one_column_and_one_of_two_show_no_patient(hospitals: Network) -> None:
    hospitals.fit(text(f"death ~ I(age > {ENDS[0]}) + sex", learner=MASKED, rest=KNOWN))
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(text(f"death ~ I(age + 0*lab > {ENDS[1]}) + sex", learner=MASKED, rest=KNOWN))


def test_two_neighbouring_cuts_in_one_study_show_no_patient(hospitals: Network) -> None:
    terms = " + ".join(f"I(age > {end})" for end in ENDS)
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(text(f"death ~ {terms} + sex", learner=f"{MASKED}\nridge = 0.01", rest=ALLOW))


@pytest.mark.long
def test_two_models_of_one_study_with_neighbouring_cuts_show_no_patient(hospitals: Network) -> None:
    head, _, rest = cut(ENDS[0]).partition("[learner]")
    more = f'[[models]]\nname = "second"\nformula = "death ~ cut(age, c(-Inf, 40, {ENDS[1]}, 75, Inf)) + sex"\n'
    first = '[[models]]\nname = "first"\nformula = "death ~ cut(age, c(-Inf, 40, 55.02, 75, Inf)) + sex"\n'
    head = "\n".join(line for line in head.splitlines() if not line.startswith("formula"))
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(f"{head}\n{first}{more}[learner]{rest}")


@pytest.mark.parametrize("first", [CURVES, *later('name = "table_one"')], ids=["curves", "bins"])
def test_a_table_or_curves_beside_intervals_of_a_formula_show_no_patient(hospitals: Network, first: str) -> None:
    hospitals.fit(text("death ~ 1", learner=first, rest=KNOWN, age=AGES) if first == CURVES else table(45.0))
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(cut(ENDS[1]))


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
@pytest.mark.parametrize("term", ["bs(age, knots = c({}), degree = 1)", *later("sqrt((age - {})^2)")])
def test_hinges_at_neighbouring_knots_show_no_patient(hospitals: Network, learner: str, term: str) -> None:
    for knot in ENDS:
        hospitals.fit(text(f"death ~ {term.format(knot)} + sex", learner=learner, rest=KNOWN))
    with pytest.raises(ReleaseRefused, match=r"\(close functions\)"):
        hospitals.fit(text(f"death ~ {term.format(55.05)} + sex", learner=learner, rest=KNOWN))


def test_cuts_of_parts_and_of_all_patients_show_no_patient(hospitals: Network) -> None:
    """The first half and the second by one end, then all by the other."""
    whole, n = {site: dict(columns) for site, columns in hospitals.data.items()}, len(hospitals.data["a"]["age"])
    for part in (slice(0, n // 2), slice(n // 2, n)):
        hospitals.data |= {site: {k: v[part] for k, v in columns.items()} for site, columns in whole.items()}
        hospitals.fit(cut(ENDS[0]))
    hospitals.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(neighbouring cuts\)"):
        hospitals.fit(cut(ENDS[1]))


def test_honest_ways_to_cut_one_column_pass(hospitals: Network) -> None:
    """The same ends, multiples of them, and knots that are apart."""
    hospitals.fit(cut(55))
    hospitals.fit(table(40))
    hospitals.fit(table(40, 10))
    hospitals.fit(cut(60, outcome="relapse"))
    for knots in ("45, 55, 65", "40, 60, 70"):
        hospitals.fit(text(f"death ~ ns(age, knots = c({knots})) + sex", learner=MASKED, rest=KNOWN, age=AGES))


def test_a_cost_that_most_lack_is_not_one_patient_s(hospitals: Network) -> None:
    for site in "abc":
        own = hospitals.data[site]
        own["lab"] = np.where(np.arange(len(own["lab"])) % 3 == 0, 0.0, np.abs(own["lab"]))
    hospitals.data["a"]["lab"][1] = 90_000.0
    with pytest.raises(ReleaseRefused, match=r"\(dominance\)"):
        hospitals.fit(text("death ~ lab", learner=MASKED, rest=KNOWN, lab='type = "number"\nrange = [0, 100000]'))
