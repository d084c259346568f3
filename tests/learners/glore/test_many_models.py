"""Several models in shared rounds: each is the fit of a study of it alone, and one that has no fit ends alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts, many_models
from support.learners.table import MemoryProtocol

from coterie_learners.core import masked_sum
from coterie_learners.core.fit import Fit, fit_from_json, fit_to_json
from coterie_learners.core.payload import Payload, check
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError, ProtocolError, Separation, StudyError
from coterie_learners.glore.glore import glore
from coterie_learners.glore.many_models import RunningModel, form_round, next_states, read_states, share_round
from coterie_learners.glore.many_plan import ModelsPlan
from coterie_learners.study.document import Study

CODES = cohorts.draw(240)


def fit(study: Study, codes: cohorts.Codes = CODES) -> Fit:
    result = MemoryProtocol(learner_of(study).script, study, many_models.split(study, codes)).play()
    got = result[study.sites[0]]
    assert isinstance(got, Fit)
    return got


def fit_alone(study: Study, codes: cohorts.Codes = CODES) -> Fit:
    result = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()[study.sites[0]]
    assert isinstance(result, Fit)
    return result


# Each model


@pytest.mark.parametrize(
    ("count", "aggregation"),
    [
        (2, "plain"),
        (3, "masked"),
        *(pytest.param(5, aggregation, marks=pytest.mark.long) for aggregation in ("masked", "plain")),
    ],
)
def test_each_model_is_the_fit_of_a_study_of_it_alone_to_the_bit(count: int, aggregation: str) -> None:
    study = many_models.study(count=count, options={"aggregation": aggregation})
    whole = fit(study)
    assert list(whole.models) == list(many_models.MODELS)
    for name, part in study.by_model.items():
        own, alone = whole.models[name], fit_alone(part)
        np.testing.assert_array_equal(own.estimates, alone.estimates, err_msg=name)
        np.testing.assert_array_equal(own.std_errors, alone.std_errors, err_msg=name)
        assert (own.rounds, own.notes, own.own, own.deviance) == (alone.rounds, alone.notes, alone.own, alone.deviance)


def test_models_share_rounds_and_leave_them_when_they_rest() -> None:
    study = many_models.study(options={"aggregation": "plain"})
    protocol = MemoryProtocol(learner_of(study).script, study, many_models.split(study, CODES))
    whole = protocol.play()[study.sites[0]]
    stats = [topic for topic in protocol.topics if topic.startswith("stats/")]
    assert len(stats) == whole.rounds <= max(own.rounds for own in whole.models.values()) + 1
    sizes = [len(blobs["north"]) for blobs, topic in zip(protocol.log, protocol.topics, strict=True) if topic in stats]
    assert sizes[-1] < sizes[0]


def test_site_intercepts_and_weights_are_those_of_the_models_alone() -> None:
    models: dict[str, dict[str, Any]] = {
        "own": {"formula": "died ~ age + male", "site_intercepts": True},
        "weighed": {"formula": "died ~ age", "weights": "crp", "weight_kind": "sampling"},
    }
    variables = {**cohorts.VARIABLES, "crp": {"type": "number", "range": [0.1, 9]}}
    codes = {**CODES, "crp": np.abs(CODES["crp"]) + 0.1}
    study = many_models.study(models, variables=variables)
    whole = fit(study, codes)
    for name, part in study.by_model.items():
        np.testing.assert_array_equal(whole.models[name].estimates, fit_alone(part, codes).estimates)
        np.testing.assert_array_equal(whole.models[name].std_errors, fit_alone(part, codes).std_errors)


def test_a_level_that_one_site_lacks_changes_no_model() -> None:
    codes = {**CODES, "stage": np.where(np.arange(240) >= 192, 0.0, CODES["stage"])}
    study = many_models.study({name: many_models.MODELS[name] for name in ("adjusted", "firth")}, count=5)
    whole = fit(study, codes)
    for name, part in study.by_model.items():
        np.testing.assert_array_equal(whole.models[name].estimates, fit_alone(part, codes).estimates)


def test_the_fit_of_several_models_goes_through_json() -> None:
    whole = fit(many_models.study())
    back = fit_from_json(fit_to_json(whole))
    assert list(back.models) == list(whole.models)
    np.testing.assert_array_equal(back.models["linear"].estimates, whole.models["linear"].estimates)
    assert "models" not in fit_to_json(whole.models["crude"])


# A model without a fit


def separated() -> cohorts.Codes:
    return {**CODES, "died": np.where(CODES["stage"] == 2, 1.0, CODES["died"])}


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_model_that_separates_ends_alone_and_says_why(aggregation: str) -> None:
    models = {"bad": {"formula": "died ~ stage"}, "good": {"formula": "died ~ age"}}
    study = many_models.study(models, options={"aggregation": aggregation})
    whole = fit(study, separated())
    assert list(whole.models) == ["good"]
    assert "stage[III] grow without bound" in whole.details["ended"]["bad"]
    assert whole.warnings[0].startswith("Model bad has no fit. ")
    np.testing.assert_array_equal(
        whole.models["good"].estimates, fit_alone(study.by_model["good"], separated()).estimates
    )


def test_a_collinear_model_and_one_that_needs_more_rounds_end_alone() -> None:
    codes = {**CODES, "crp": 2.0 * CODES["age"] / 4.0}
    models: dict[str, dict[str, Any]] = {
        "collinear": {"formula": "died ~ age + crp"},
        "slow": {"formula": "died ~ age + stage", "firth": True},
        "good": {"formula": "score ~ age", "family": "gaussian"},
    }
    whole = fit(many_models.study(models, options={"max_rounds": 4}), codes)
    assert list(whole.models) == ["good"]
    assert "combination" in whole.details["ended"]["collinear"]
    assert "No convergence in 4 rounds" in whole.details["ended"]["slow"]


def test_a_study_of_which_no_model_has_a_fit_ends_with_all_their_names() -> None:
    models = {"one": {"formula": "died ~ stage"}, "two": {"formula": "died ~ stage + age"}}
    with pytest.raises(Separation) as caught:
        fit(many_models.study(models), separated())
    assert caught.value.code == "CO-N302"
    assert "Model one: " in caught.value.message
    assert "Model two: " in caught.value.message


# Posts that no rows could have


class Bare(Site):
    """A site under masks of zero."""

    def mask(self, peer: str, label: str, size: int) -> bytes:
        return bytes(size)


def first_round(aggregation: str) -> tuple[ModelsPlan, dict[str, RunningModel], dict[str, Payload]]:
    """A study's first round, with the posts of all sites."""
    study = many_models.study(options={"aggregation": aggregation})
    plan = ModelsPlan.of(study)
    running = {name: RunningModel.begin(own) for name, own in plan.plans.items()}
    sites = [Bare(study, name, rows, parties=study.sites) for name, rows in many_models.split(study, CODES).items()]
    return plan, running, {s.name: share_round(s, ModelsPlan.of(study), "stats/0", running) for s in sites}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda post: post.update(crude=-post["crude"]), "CO-P501"),
        (lambda post: post.update(crude=post["crude"] * 1e200), "CO-P505"),
        (lambda post: post.pop("linear"), "CO-P106"),
        (lambda post: post.update(other=post["crude"]), "CO-P106"),
        (lambda post: post.update(firth=post["firth"][:-1]), "CO-P108"),
    ],
)
def test_a_plain_post_of_which_one_model_is_impossible_is_refused(
    change: Callable[[dict[str, Any]], None], code: str
) -> None:
    plan, running, posts = first_round("plain")
    form, post = form_round(plan, running), dict(posts["north"])
    check(post, form)
    change(post)
    with pytest.raises(ProtocolError) as caught:
        check(post, form)
    assert caught.value.code == code


def test_masked_sums_of_which_one_model_is_impossible_end_the_study() -> None:
    """A site's post is at fault, so that no model ends alone as if nobody were."""
    plan, running, posts = first_round("masked")
    total = masked_sum.decode_fixed_point(np.asarray(posts["north"]["masked"]))
    forged = {**posts, "north": {"masked": masked_sum.encode_fixed_point(-1e3 * total)}}
    next_states(plan, running, posts, some=False)
    with pytest.raises(ProtocolError):
        next_states(plan, running, forged, some=False)


# Documents


def refuse(models: Mapping[str, Mapping[str, Any]], **parts: Any) -> LearnerError:
    with pytest.raises(StudyError) as caught:
        many_models.study(models, **parts)
    return caught.value


def test_options_that_models_have_in_common_are_set_once() -> None:
    error = refuse({"one": {"formula": "died ~ age", "aggregation": "plain"}, "two": {"formula": "died ~ male"}})
    assert (error.code, "Model one sets aggregation" in error.message) == ("CO-S420", True)


def test_a_fault_of_a_model_is_said_with_its_name() -> None:
    error = refuse({"one": {"formula": "died ~ age"}, "two": {"formula": "died ~ age", "family": "poisson"}})
    assert error.message.startswith("Model two: ")
    assert "Model two: " in refuse({"two": {"formula": "died ~ age", "firth": True, "ridge": 1.0}}).message
    assert refuse({"one": {"formula": "died ~ age", "speed": 3}}).code == "CO-S404"
    assert refuse({"one": {"formula": "stage ~ age", "family": "multinomial"}}).code == "CO-S420"
    assert refuse({"one": {"formula": "died ~ age"}}, options={"opening": "bits"}).code == "CO-S420"


def test_all_models_together_have_no_more_columns_than_one_may_have() -> None:
    wide = {f"m{k}": {"formula": "died ~ stage*male*age*crp"} for k in range(90)}
    assert "more than 2000 columns together" in refuse(wide).message


def test_a_learner_that_fits_one_model_refuses_several() -> None:
    models = {"one": {"formula": "died ~ stage"}, "two": {"formula": "died ~ male"}}
    error = refuse(models, learner={"name": "cola"})
    assert (error.code, "cola fits one at a time" in error.message) == ("CO-S420", True)


# A site that leaves


def test_a_model_at_rest_moves_again_if_its_test_lacks_a_site() -> None:
    """HC3 needs the pooled information first, so that its test is a round of its own; another model needs no more."""
    models = {"hc3": {"formula": "died ~ age", "robust": "HC3"}, "plain": {"formula": "died ~ age"}}
    study = many_models.study(models, count=4, options={"aggregation": "plain"})
    plan = ModelsPlan.of(study)
    running = {name: RunningModel.begin(own) for name, own in plan.plans.items()}
    sites = [Site(study, name, rows, parties=study.sites) for name, rows in many_models.split(study, CODES).items()]
    while not running["hc3"].tests:
        posts = {s.name: share_round(s, ModelsPlan.of(study), "stats", running) for s in sites}
        states = read_states(next_states(plan, running, posts, some=True))
        running = {name: m.follow(states[name], frozenset(posts)) for name, m in running.items() if name in states}
        running = {name: model for name, model in running.items() if not model.state.get("converged", False)}
    posts = {s.name: share_round(s, ModelsPlan.of(study), "stats", running) for s in sites}
    fewer = {name: post for name, post in posts.items() if name != "west"}
    ended, resumed = (read_states(next_states(plan, running, some, some=True))["hc3"] for some in (posts, fewer))
    assert bool(ended["converged"])
    assert not bool(resumed["converged"])
    assert not RunningModel(plan.plans["hc3"], resumed).tests


def test_models_of_functions_are_those_of_the_models_alone() -> None:
    models = {
        "cut": {"formula": "died ~ cut(age, c(-Inf, 0, Inf)) + ns(crp, knots = c(0), Boundary.knots = c(-2, 2))"},
        "power": {"formula": "died ~ I(age + crp) + I(age^2) + male"},
        "score": {"formula": "score ~ age", "family": "gaussian"},
    }
    study = many_models.study(models)
    whole = fit(study)
    for name, part in study.by_model.items():
        np.testing.assert_array_equal(whole.models[name].estimates, fit_alone(part).estimates, err_msg=name)


@pytest.mark.parametrize("option", [{"intervals": "profile"}, {"standardise": "male"}])
def test_what_has_rounds_of_its_own_goes_with_one_model(option: dict[str, str]) -> None:
    assert refuse({"one": {"formula": "died ~ male + age", **option}}).code == "CO-S420"
