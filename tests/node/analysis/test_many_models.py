"""Several models of one study on files: against R's fits of each, through replay, and as they are printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.learners import cohorts, many_models, pooled
from support.learners.r_stays import STAYS, largest_differences, references, write_site_files
from typer.testing import CliRunner

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.model_card import make_model_card
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.anova import assess_models
from coterie_node.analysis.compare import compare_results
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.analysis.predict import open_predictor
from coterie_node.audit.publication import check_publication, pick_model, read_publication, read_published_model
from coterie_node.audit.replay import replay
from coterie_node.audit.result import Cost, Result
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError
from coterie_node.run.simulate import simulate

X = "age + ward + frail"
# R's name of a model (tests/golden/r/weights.R), its formula and options.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "prior_logit": (f"readmit ~ {X}", {"weights": "w"}),
    "prior_poisson_offset": (f"infections ~ {X} + offset(logdays)", {"family": "poisson", "weights": "w"}),
    "prior_gamma": (f"stay ~ {X}", {"family": "gamma", "link": "log", "weights": "w"}),
    "frequency_linear": (f"stay ~ {X}", {"family": "gaussian", "weights": "f", "weight_kind": "frequency"}),
    "sampling_poisson": (f"infections ~ {X}", {"family": "poisson", "weights": "w", "weight_kind": "sampling"}),
    "hc1_logit": (f"readmit ~ {X}", {"robust": "HC1"}),
    "hc3_logit": (f"readmit ~ {X}", {"robust": "HC3"}),
    "hc2_linear": (f"stay ~ {X}", {"family": "gaussian", "robust": "HC2"}),
}
BY_PATIENT: dict[str, tuple[str, dict[str, Any]]] = {
    "patient_logit": (f"readmit ~ {X}", {"robust": "patient"}),
    "patient_poisson": (f"infections ~ {X}", {"family": "poisson", "robust": "patient"}),
    "patient_linear": (f"stay ~ {X}", {"family": "gaussian", "robust": "patient"}),
}
ESTIMATES, ERRORS = 1e-8, 1e-7


def fit_stays(
    folder: Path, count: int, models: dict[str, tuple[str, dict[str, Any]]], aggregation: str, **keys: Any
) -> Result:
    files = write_site_files("stays", count, folder)
    plain = {
        "name": "reference",
        "sites": list(files),
        "models": [{"name": name, "formula": formula, **options} for name, (formula, options) in models.items()],
        "learner": {"name": "glore", "aggregation": aggregation},
        "rows": {"constant": "allow", "collinear": "allow"},
        "disclosure": {"cell": 0, "rows": 1},
        "variables": STAYS,
        **keys,
    }
    return analyse(complete_study(Study.model_validate(plain)), dict(files))


def compare_with_r(result: Result, models: dict[str, tuple[str, dict[str, Any]]]) -> None:
    assert result.replay is not None
    assert result.replay.grade == "identical"
    assert list(result.fit.models) == list(models)
    for name, fit in result.fit.models.items():
        estimates, errors = largest_differences(replace(result, fit=fit), references("weights")[name])
        assert estimates <= ESTIMATES, name
        assert errors <= ERRORS, name


@pytest.mark.parametrize(
    ("count", "aggregation"),
    [(5, "masked"), (2, "plain"), pytest.param(3, "masked", marks=pytest.mark.long)],
)
def test_each_of_several_models_is_that_of_r(tmp_path: Path, count: int, aggregation: str) -> None:
    """In the clear the gate keeps eight models back, as they would be too many equations on these rows."""
    names = MODELS if aggregation == "masked" else ("prior_logit", "prior_gamma", "hc3_logit")
    models = {name: MODELS[name] for name in names}
    compare_with_r(fit_stays(tmp_path, count, models, aggregation), models)


def test_models_by_patient_are_those_of_r(tmp_path: Path) -> None:
    compare_with_r(fit_stays(tmp_path, 3, BY_PATIENT, "masked", patient="patient"), BY_PATIENT)


@pytest.mark.parametrize("aggregation", ["masked", pytest.param("plain", marks=pytest.mark.long)])
def test_a_study_of_several_models_has_every_property_of_a_learner(aggregation: str) -> None:
    """Equal to the pooled fits, replayed, the same under restarts at each step and in another order of the sites."""
    models = {
        "probit": {"formula": f"died ~ {cohorts.FULL}", "link": "probit"},
        "full": {"formula": f"died ~ {cohorts.FULL}"},
        "linear": {"formula": f"score ~ {cohorts.FULL}", "family": "gaussian"},
    }
    study, codes = many_models.study(models, options={"aggregation": aggregation}), cohorts.draw(90)
    terms: dict[str, tuple[float, float]] = {}
    for name, part in study.by_model.items():
        want = pooled.fit(part, codes)
        pairs = zip(want.estimates.tolist(), want.std_errors.tolist(), strict=True)
        terms |= dict(zip((f"{name}: {term}" for term in Design(part).names), pairs, strict=True))
    reference = Reference({t: pair[0] for t, pair in terms.items()}, {t: pair[1] for t, pair in terms.items()})
    report = check_learner(study, many_models.split(study, codes), reference)
    assert report.estimate_difference < 1e-10
    assert report.restarts == report.records


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of two nested models and one of another outcome, as --json prints it."""
    folder = tmp_path_factory.mktemp("many")
    models = {
        "small": ("readmit ~ age", {}),
        "large": (f"readmit ~ {X}", {}),
        "stays": (f"stay ~ {X}", {"family": "gaussian"}),
    }
    fitted = fit_stays(folder, 3, models, "masked")
    path = folder / "result.json"
    path.write_text(json.dumps(fitted.as_dict()))
    (folder / "result.csv").write_text(fitted.csv())
    (folder / "result.md").write_text(fitted.table("markdown"))
    (folder / "result.txt").write_text(fitted.text())
    return path


def test_a_model_of_a_result_is_read_by_its_name(result: Path) -> None:
    large = read_published_model(result, "large")
    assert large["study"] == "reference/large"
    assert large["model"]["formula"] == f"readmit ~ {X}"
    assert open_predictor(large, "result").design.names[0] == "(Intercept)"
    for name in (None, "other"):
        with pytest.raises(ConfigError) as caught:
            read_published_model(result, name)
        assert caught.value.code == "CO-F380"
        assert "--model small or large or stays" in caught.value.message


def test_models_of_one_study_are_compared(result: Path) -> None:
    published = read_publication(result)
    small, large, stays = (pick_model(published, name, "r") for name in ("small", "large", "stays"))
    comparison = compare_results(small, large)
    assert comparison.names == ("reference/small", "reference/large")
    assert comparison.test is not None
    assert comparison.test.added == ("ward[surgical]", "ward[intensive]", "frail")
    assert assess_models([small, large])[-1].p == pytest.approx(comparison.test.p, rel=1e-12)
    with pytest.raises(ConfigError) as caught:
        compare_results(large, stays)
    assert caught.value.code == "CO-F349"


def test_every_format_names_each_model(result: Path) -> None:
    csv = result.with_suffix(".csv").read_text().splitlines()
    assert csv[0].startswith("model,term,estimate")
    assert [line.split(",")[0] for line in csv[1:]] == ["small"] * 2 + ["large"] * 5 + ["stays"] * 5
    table = result.with_suffix(".md").read_text()
    assert [name for name in ("small", "large", "stays") if f"\n| {name} |" in table] == ["small", "large", "stays"]
    text = result.with_suffix(".txt").read_text()
    assert text.count("GLORE, binomial (logit)    study reference, model ") == 2
    assert "GLORE, gaussian (identity)    study reference, model stays" in text


def test_commands_take_models_by_name(result: Path) -> None:
    def run(*words: str) -> str:
        answer = CliRunner().invoke(app, ["study", *words])
        assert answer.exit_code == 0, answer.output
        return answer.output

    compared = run("compare", str(result), "--model", "small", "--model", "large")
    assert "reference/small" in compared
    assert "ward[surgical], ward[intensive], frail: chi-squared" in compared
    assert "reference/large" in run("anova", str(result), "--model", "small", "--model", "large")
    assert "ward" in run("anova", str(result), "--model", "large")
    assert "10*age" in run("contrast", str(result), "--model", "stays", "10*age")
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(app, ["study", "compare", str(result)], catch_exceptions=False)
    assert caught.value.code == "CO-F380"


def test_a_published_result_is_compared_model_by_model() -> None:
    models = {"one": {"formula": "died ~ male"}, "two": {"formula": "score ~ age", "family": "gaussian"}}
    study = many_models.study(models)
    world, runners, _ = simulate(study, many_models.split(study, cohorts.draw(120)))
    outcome = replay(world.ledger(), world.blobs, world.number)
    fit = runners["north"].machine.result
    card = make_model_card(study)
    published = Result(study.name, study.sites, fit, Cost(0, 0, None, {}), None, card).as_dict()
    assert check_publication(published, "r.json", outcome).verdict == "PASS"
    published["models"]["two"]["terms"][1]["estimate"] *= 1.001
    verdict = check_publication(published, "r.json", outcome)
    assert (verdict.code, "estimate of age" in verdict.problem) == ("CO-A110", True)
    del published["models"]
    assert check_publication(published, "r.json", outcome).code == "CO-A110"
