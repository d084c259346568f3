"""`coterie study advise` and `show`, and `coterie pda export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.lanes import later
from typer.testing import CliRunner

from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.cli.main import app
from coterie_node.cli.study.advise import advise
from coterie_node.errors import ConfigError

HEAD = """
name = "stroke"
sites = [SITES]
formula = "died ~ sex + stage"
MORE
[variables.died]
type = "binary"
[variables.sex]
type = "category"
levels = ["male", "female"]
[variables.stage]
type = "category"
levels = ["I", "II", "III"]
"""
AGE = '[variables.age]\ntype = "number"\nrange = [0, 110]\n'


EVALUATED = """
name = "evaluated"
sites = ["s0", "s1", "s2"]
formula = "died ~ age"
learner = {{ name = "glore" }}
[evaluate]
{evaluate}
[variables]
died = {{ type = "binary" }}
age = {{ type = "number", range = [0, 110] }}
"""


def text_of(sites: int = 3, extra_text: str = '[learner]\nname = "glore"', formula: str = "", extra: str = "") -> str:
    text = HEAD.replace("SITES", ", ".join(f'"s{k}"' for k in range(sites))).replace("MORE", extra_text) + extra
    return text.replace("died ~ sex + stage", formula) if formula else text


def study(sites: int = 3, extra_text: str = '[learner]\nname = "glore"', formula: str = "", extra: str = "") -> Study:
    return Study.from_toml(text_of(sites, extra_text, formula, extra))


def order(of: Study, rows: int | None = None) -> list[str]:
    return [item.learner for item in advise(of, rows) if item.fits]


def test_categories_with_few_patterns_are_for_one_round_of_tables() -> None:
    advices = advise(study())
    assert (advices[0].learner, advices[0].fits) == ("cola", True)
    assert "6 patterns" in advices[0].why
    assert order(study())[:3] == ["cola", "secure_cola", "glore"]


MODELS = """
[learner]
name = "glore"
[[models]]
name = "crude"
formula = "died ~ sex"
[[models]]
name = "full"
formula = "died ~ sex + stage"
firth = true
"""


def test_several_models_are_for_glore_and_shown_one_by_one(tmp_path: Path) -> None:
    text = text_of(extra_text=MODELS).replace('formula = "died ~ sex + stage"\n\n[learner]', "\n[learner]")
    assert order(Study.from_toml(text)) == ["glore"]
    why = {item.learner: item.why for item in advise(Study.from_toml(text)) if not item.fits}
    assert "cola fits one at a time" in why["cola"]
    path = tmp_path / "study.toml"
    path.write_text(text)
    shown = CliRunner().invoke(app, ["study", "show", str(path)]).output
    assert "crude: died ~ sex\n" in shown
    assert "full: died ~ sex + stage, firth = true" in shown
    assert "all 2 models stand on one: of died, sex, stage no row may lack one" in shown
    assert "Each site posts for each model: sums over its rows" in shown
    described = json.loads(CliRunner().invoke(app, ["study", "show", str(path), "--json"]).output)
    assert len(described["models"]) == 2


def test_a_number_without_a_grid_is_for_glore() -> None:
    of = study(formula="died ~ sex + age", extra=AGE)
    assert order(of)[0] == "glore"
    no = {item.learner: item.why for item in advise(of) if not item.fits}
    assert "age is a number without a declared grid" in no["cola"]
    with_grid = study(
        extra_text='[learner]\nname = "cola"\ngrids = {age = [40, 60, 80]}', formula="died ~ sex + age", extra=AGE
    )
    assert order(with_grid)[0] == "cola"


def test_a_grid_that_is_nearly_a_list_of_patients_is_for_glore() -> None:
    counts = "".join(f'[variables.n{k}]\ntype = "count"\nrange = [0, 99]\n' for k in range(3))
    of = study(formula="died ~ n0 + n1 + n2", extra=counts)
    assert order(of)[:2] == ["glore", "cola"]
    assert "nearly a list of patients" in advise(of)[1].why


def test_few_rows_for_each_pattern_are_for_the_sum_over_sites() -> None:
    assert order(study(), rows=100)[0] == "secure_cola"
    assert order(study(), rows=100_000)[0] == "cola"
    assert order(study(2), rows=100)[0] == "glore"


def test_two_sites_cannot_sum_in_secret() -> None:
    no = {item.learner: item.why for item in advise(study(2)) if not item.fits}
    assert "three sites or more" in no["secure_cola"]
    assert "without masks" in next(item.why for item in advise(study(2)) if item.learner == "glore")


def test_a_multinomial_outcome_is_for_tables_or_for_masked_sums() -> None:
    of = study(extra_text='[learner]\nname = "cola"\nfamily = "multinomial"', formula="stage ~ sex")
    assert order(of) == ["cola", "secure_cola", "glore"]
    assert order(of)[0] == "cola"


def test_columns_split_over_sites_rule_out_learners_of_rows() -> None:
    extra_text = 'identifier = ["id"]\ncolumns = {s0 = ["died", "sex"], s1 = ["stage"]}\n[learner]\nname = "glore"'
    advices = {item.learner: item for item in advise(study(2, extra_text))}
    assert not advices["cola"].fits
    assert not advices["glore"].fits
    assert advices["cola"].why == "it is for studies whose rows are split over sites."


def test_a_learner_of_another_kind_of_outcome_is_not_advised() -> None:
    """Lasso is linear: for deaths it would run, and answer another question."""
    advices = {item.learner: item for item in advise(study())}
    assert not advices["secure_lasso"].fits
    assert advices["secure_lasso"].why == "it fits gaussian models, and the study asks for a binomial one."
    number = '[variables.sbp]\ntype = "number"\nrange = [50, 250]\n'
    linear = study(extra_text='[learner]\nname = "glore"\nfamily = "gaussian"', formula="sbp ~ sex", extra=number)
    assert "secure_lasso" in order(linear)
    columns_text = 'identifier = ["id"]\ncolumns = {s0 = ["died", "sex"], s1 = ["stage"], s2 = []}\n'
    split = columns_text.replace('"died"', '"sbp"') + '[learner]\nname = "secure_lasso"\nalpha = 0.5'
    assert order(study(3, split, "sbp ~ sex + stage", number)) == ["secure_lasso"]
    assert "secure_lasso" not in order(study(3, f'{columns_text}[learner]\nname = "vertigo"'))


def test_two_sites_are_advised_to_compute_on_shares_with_a_helper() -> None:
    without = {item.learner: item for item in advise(study(2))}["secure_glm"]
    assert not without.fits
    assert "a third site without data" in without.needs
    of = Study.model_validate({**study(3).model_dump(), "helpers": ("s2",)})
    assert order(of) == ["secure_glm"]
    number = '[variables.sbp]\ntype = "number"\nrange = [50, 250]\n'
    linear = study(2, '[learner]\nname = "glore"\nfamily = "gaussian"', "sbp ~ sex", number)
    assert not {item.learner: item for item in advise(linear)}["secure_glm"].needs


def test_binary_columns_that_must_not_come_back_are_for_shares(tmp_path: Path) -> None:
    extra_text = 'identifier = ["id"]\ncolumns = {s0 = ["died", "sex"], s1 = ["stage"], s2 = []}'
    path = tmp_path / "study.toml"
    path.write_text(text_of(3, f'{extra_text}\n[learner]\nname = "secure_glm"'))
    assert json.loads(run("study", "advise", path, "--json"))["advice"] == "secure_glm"
    two = tmp_path / "two.toml"
    two.write_text(text_of(2))
    done = CliRunner().invoke(app, ["study", "advise", str(two)])
    assert "secure_glm" in done.output


def test_what_a_learner_would_refuse_is_not_advised() -> None:
    columns_text = 'identifier = ["id"]\ncolumns = {s0 = ["sbp", "sex"], s1 = ["stage"]}\n[learner]\nname = "glore"'
    number = '[variables.sbp]\ntype = "number"\nrange = [50, 250]\n'
    of = study(2, f'{columns_text}\nfamily = "gamma"', "sbp ~ sex + stage", number)
    assert order(of) == []
    linear = study(2, f'{columns_text}\nfamily = "gaussian"', "sbp ~ sex + stage", number)
    assert order(linear) == ["valoris", "vertigo"]
    offset = study(
        extra_text='[learner]\nname = "glore"\nfamily = "gaussian"',
        formula="sbp ~ sex + offset(base)",
        extra=(number + number.replace("sbp", "base")),
    )
    lasso = next(item for item in advise(offset) if item.learner == "secure_lasso")
    assert not lasso.fits
    assert "has no offset" in lasso.why


MORE = (
    AGE
    + """
[variables.treated]
type = "binary"
[variables.visits]
type = "count"
range = [0, 60]
[variables.logdays]
type = "number"
range = [0, 7]
[variables.w]
type = "number"
range = [0.1, 5]
"""
)
PROPENSITY = '[learner]\nname = "propensity"\ntreatment = "treated"'
# The study's learner and formula; the advice; what is said of learners that would answer another question; a line
# that the study's description has.
ASKED: dict[str, tuple[str, str, str, dict[str, str], str]] = {
    "propensity": (
        f'{PROPENSITY}\nestimand = "ATT"\neffect = "ratio"\nstabilised = true',
        "died ~ treated + age + sex",
        "propensity",
        dict.fromkeys(
            ("glore", "secure_glm"), "it compares no arms of a treatment, and the study names its `treatment`."
        ),
        "A patient's score and weight stay at the site.",
    ),
    "weights": (
        '[learner]\nname = "glore"\nweights = "w"',
        "died ~ age + sex",
        "glore",
        {"secure_glm": "it weighs no rows, and the study names its `weights`."},
        "how many patients, at how many sites, weigh at least 10, 1, 0.1 and so on",
    ),
    "weights of samples": (
        '[learner]\nname = "cola"\nweights = "w"\nweight_kind = "sampling"',
        "died ~ sex + stage",
        "glore",
        dict.fromkeys(("cola", "secure_cola"), "it weighs no rows, and the study names its `weights`."),
        "",
    ),
    "offset": (
        '[learner]\nname = "glore"\nfamily = "poisson"',
        "visits ~ age + sex + offset(logdays)",
        "glore",
        {"secure_lasso": "it fits gaussian models, and the study asks for a poisson one."},
        "formula    visits ~ age + sex + offset(logdays)",
    ),
}


@pytest.mark.parametrize("asked", ["weights", *later("propensity", "weights of samples", "offset")])
def test_scores_weights_and_offsets_are_advised_and_shown_for_what_they_are(tmp_path: Path, asked: str) -> None:
    learner, formula, best, others, line = ASKED[asked]
    text = text_of(extra_text=learner, formula=formula, extra=MORE)
    advices = {item.learner: item for item in advise(Study.from_toml(text))}
    assert next(iter(advices)) == best
    assert {name: advices[name].why for name in others} == others
    assert not any(advices[name].fits for name in others)
    path = tmp_path / "study.toml"
    path.write_text(text)
    advice = json.loads(run("study", "advise", path, "--rows", "900,800,700", "--json"))
    assert advice["advice"] == best
    if line:
        assert line in run("study", "show", path)
        assert f'"{best}' in json.dumps(json.loads(run("study", "show", path, "--json"))["learner"])


def test_a_propensity_study_is_shown_with_its_treatment_and_every_step(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text_of(extra_text=PROPENSITY, formula="died ~ treated + age + sex", extra=MORE))
    described = json.loads(run("study", "show", path, "--json"))
    assert (described["options"]["treatment"], described["options"]["estimand"]) == ("treated", "ATE")
    protections = {step["topic"]: step["protection"] for step in described["discloses"]["steps"]}
    masked = [topic for topic, protection in protections.items() if protection == "masked"]
    assert masked == ["opening*", "score/*", "weights", "outcomes", "sandwich"]


@pytest.mark.long
def test_where_no_learner_answers_what_is_asked_none_is_advised(tmp_path: Path) -> None:
    """An effect that there is not: GLORE would fit the formula, and give an odds ratio within levels of the score."""
    text = f'{PROPENSITY}\neffect = "risk_difference"'
    advice = advise_file(tmp_path, status=3, extra_text=text, formula="died ~ treated + age + sex", extra=MORE)
    assert advice["advice"] is None
    why = {item["learner"]: item["why"] for item in advice["learners"]}
    assert "'effect'" in why["propensity"]
    assert "compares no arms" in why["glore"]


# Commands


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    extra_text = '[learner]\nname = "secure_cola"\nholder = "s1"'
    path.write_text(HEAD.replace("SITES", '"s0", "s1", "s2"').replace("MORE", extra_text))
    return path


def advise_file(tmp_path: Path, *options: str, status: int = 0, **shape: Any) -> dict[str, Any]:
    """What the command says of a study of this shape."""
    path = tmp_path / "study.toml"
    path.write_text(text_of(**shape))
    done = CliRunner().invoke(app, ["study", "advise", str(path), "--json", *options])
    assert done.exit_code == status, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_table_that_the_gate_would_keep_back_is_not_advised(tmp_path: Path) -> None:
    """6 % of 800 patients at three sites: some level has fewer than five events at a site."""
    advice = advise_file(tmp_path, "--rows", "300,300,200", "--events", "6%")
    assert advice["advice"] == "secure_cola"
    why = {item["learner"]: item["why"] for item in advice["learners"] if not item["fits"]}
    assert "CO-R301" in why["cola"]
    assert advise_file(tmp_path, "--rows", "40000", "--events", "40%")["advice"] == "cola"


def test_where_the_gate_refuses_all_learners_the_status_is_three(tmp_path: Path) -> None:
    advice = advise_file(tmp_path, "--rows", "30,30", "--events", "10%", status=3, sites=2)
    assert advice["advice"] is None
    assert not any(item["fits"] for item in advice["learners"])


def test_where_a_scheme_is_refused_the_one_that_passes_is_named(tmp_path: Path) -> None:
    advice = advise_file(
        tmp_path, "--rows", "60,60,60", "--events", "10%", extra_text='[learner]\nname = "secure_cola"'
    )
    assert advice["advice"] in ("secure_cola", "glore")
    if advice["advice"] == "secure_cola":
        assert advice["options"] in ({}, {"scheme": "newton"})


def test_expected_widths_shrink_with_the_root_of_the_rows_and_are_those_of_a_fit(tmp_path: Path) -> None:
    few, many = (
        {w["term"]: w["width"] for w in advise_file(tmp_path, "--rows", rows, "--events", "30%")["widths"]}
        for rows in ("2000,2000,2000", "8000,8000,8000")
    )
    assert list(few) == ["sex[female]", "stage[II]", "stage[III]"]
    assert [few[term] / many[term] for term in few] == pytest.approx([2.0] * 3, rel=0.05)
    # Half of 6,000 rows are of either sex, 30 % have the event: 1 / (n / 4 * mean variance) at best.
    assert few["sex[female]"] == pytest.approx(2 * 1.96 * (6000 / 4 * 0.3 * 0.7) ** -0.5, rel=0.15)


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--rows", "800,1200", "2 numbers of rows for 3 sites"),
        ("--rows", "many", "not a number of rows"),
        ("--events", "120%", "not a fraction of events"),
        ("--events", "0", "not a fraction of events"),
    ],
)
def test_rows_and_events_that_say_nothing_are_refused_in_words(
    file: Path, option: str, value: str, sentence: str
) -> None:
    done = CliRunner().invoke(app, ["study", "advise", str(file), option, value], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert sentence in done.output


def test_advise_prints_the_learner_and_why(file: Path) -> None:
    output = run("study", "advise", file)
    assert output.startswith("Advice: cola\n")
    assert "can run it" in output
    advices = json.loads(run("study", "advise", file, "--rows", "50", "--json"))
    assert advices["advice"] == "secure_cola"
    assert {item["learner"] for item in advices["learners"]} >= {"cola", "glore", "secure_cola"}


WAYS = {
    "held_out = 0.2": "hold other patients out (another evaluate.seed), or count coarsely",
    'on = "other rows"\nwhere = "age >= 60"': "evaluate other rows (evaluate.where), or count coarsely",
    "": "",
}


@pytest.mark.parametrize("evaluate", [next(iter(WAYS)), *later(*list(WAYS)[1:])])
def test_other_models_on_the_evaluated_patients_are_foreseen(tmp_path: Path, evaluate: str) -> None:
    """It is a person's last chance to choose: a second model is refused when the study has begun."""
    path, rows, ways = tmp_path / "study.toml", tmp_path / "s0.csv", WAYS[evaluate]
    path.write_text(EVALUATED.format(evaluate=evaluate))
    rows.write_text("died,age\n" + "".join(f"{k % 2},{30 + k % 60}\n" for k in range(300)))
    warnings = json.loads(run("study", "advise", path, "--json"))["warnings"]
    leaving = run("simulate", path, "--data", f"s0={rows}", "--dry-run")
    assert bool(ways) == bool(warnings)
    assert ways in " ".join(warnings)
    assert ways in leaving
    assert ("often refused in the middle of its study" in leaving) == bool(ways)


def test_show_prints_what_leaves_and_which_sites_to_trust(file: Path) -> None:
    output = run("study", "show", file)
    assert "What leaves a site, and who reads it:" in output
    assert "encrypted over its masks (bfv). Every member" in output
    assert "s1 holds the key and learns the summed table" in output
    description = json.loads(run("study", "show", file, "--json"))
    fit = ["only:s1", "each", "server", "only:s1", "each", "server", "server"]
    assert description["schedule"]["opening"] == ["each", "each", "each", *fit]
    assert description["sites"] == ["s0", "s1", "s2"]
    protections = {step["topic"]: step["protection"] for step in description["discloses"]["steps"]}
    assert protections["table"] == "masked"


def test_export_writes_a_table_for_r_and_never_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the privacy log stands in the working folder
    path = tmp_path / "study.toml"
    path.write_text(HEAD.replace("SITES", '"s0", "s1"').replace("MORE", '[learner]\nname = "cola"'))
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "died,sex,stage\n"
        + "".join(f"{k % 2},{s},{t}\n" for k in range(20) for s in ("male", "female") for t in ("I", "II", "III"))
    )
    out = tmp_path / "s0_initialize.json"
    output = run("pda", "export", path, "--site", "s0", "--data", rows, "--to", out)
    assert "120 rows of s0 counted" in output
    assert (tmp_path / "privacy" / "key").is_file()
    written = json.loads(out.read_text())
    assert sum(line["n"] for line in written["Xtable"]) == 120
    assert written["SXY"] == [[60, 30, 20, 20]]
    second = CliRunner().invoke(
        app, ["pda", "export", str(path), "--site", "s0", "--data", str(rows), "--to", str(out)]
    )
    assert isinstance(second.exception, ConfigError)
    other = tmp_path / "other.toml"
    other.write_text(HEAD.replace("SITES", '"s0", "s1"').replace("MORE", '[learner]\nname = "glore"'))
    wrong = CliRunner().invoke(
        app, ["pda", "export", str(other), "--site", "s0", "--data", str(rows), "--to", str(tmp_path / "x.json")]
    )
    assert isinstance(wrong.exception, StudyError)
