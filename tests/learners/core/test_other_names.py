"""Who writes what other programs call a thing reads what to write here."""

from __future__ import annotations

import re

import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import StudyError, reword_fault
from coterie_learners.study.document import Study

GROUND = """
name = "other"
sites = ["north", "south", "west"]
formula = "falls ~ arm + age"
[learner]
name = "glore"
family = "poisson"
[variables.falls]
type = "count"
range = [0, 50]
[variables.age]
type = "number"
range = [18, 110]
[variables.arm]
type = "category"
levels = ["usual", "new"]
[variables.days]
type = "number"
range = [1, 400]
"""


def refuse(old: str, new: str) -> str:
    """What is said of the study with one text in place of another."""
    assert old in GROUND
    with pytest.raises(StudyError) as refused:
        complete_study(Study.from_toml(GROUND.replace(old, new)))
    return f"{refused.value.code} {refused.value.message}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"glore"', '"glm"', "CO-S401 .*Write 'glore'"),
        ('"glore"', '"tableone"', "CO-S401 .*Write 'table_one'"),
        ('"poisson"', '"normal"', "CO-S303 There is no family 'normal' here.*Write 'gaussian'"),
        ('"poisson"', '"Poisson"', "CO-S303 .*Write 'poisson'"),
        ('"poisson"', '"poisson"\nlink = "Log"', "CO-S303 .*its links are log, identity, sqrt. Write 'log'"),
        (
            '"poisson"',
            '"poisson"\ncluster = "ward"',
            "CO-S404 .*no option 'cluster'. Clusters are the rows of a patient",
        ),
        ('"poisson"', '"poisson"\nlambda = 1', "CO-S404 .*no option 'lambda'. Write ridge"),
        ('"poisson"', '"poisson"\noffset = "days"', r"CO-S404 .*Write offset\(variable\) into the formula"),
        ('"poisson"', '"poisson"\nrobust = "ward"', "CO-S404 .*'robust': it takes true or false, or it takes 'HC0'"),
        ('"poisson"', '"poisson"\nmax_rounds = "many"', "CO-S404 .*'max_rounds': it takes a whole number"),
        ("age]\n", "age]\nmin = 1\n", r"CO-S102 .*variables.age.min: there is no such key here; write range = \["),
        ("falls ~ arm + age", "falls ~ arm + (1|ward)", "CO-S201 .*there are no random effects.*site_intercepts"),
        ("falls ~ arm", "Surv(days, falls) ~ arm", "CO-S201 .*name `time` and `event` in .learner. of cox"),
        ("arm + age", "arm + offset(log(days))", r"CO-S201 .*log_time = 'log\(days\)' under \[derive\]"),
        ("arm + age", "arm + age:offset(days)", r"CO-S201 .*once, and no part of a product\. Write it as"),
        ('"falls ~ arm + age"', "falls ~ arm", "CO-S101 .*put a text into quotation marks"),
    ],
)
def test_a_name_of_another_program_is_answered_with_the_name_here(old: str, new: str, said: str) -> None:
    text = refuse(old, new)
    assert re.search(said, text), text


def test_the_derived_offset_that_a_message_advises_is_a_study() -> None:
    """What the message of `offset(log(days))` says works as it stands there."""
    text = GROUND.replace("arm + age", "arm + age + offset(log_time)") + "[derive]\nlog_time = 'log(days)'\n"
    assert complete_study(Study.from_toml(text)).learner.name == "glore"


def test_a_time_without_a_unit_is_said_to_have_none() -> None:
    grid = 'time = "days"\nevent = "died"\ntime_grid = { width = 10, horizon = 360, unit = "days" }'
    died = '[variables.died]\ntype = "binary"\n[variables.falls]'
    text = GROUND.replace('"glore"\nfamily = "poisson"', f'"survival_curves"\n{grid}')
    text = text.replace("[variables.falls]", died).replace("falls ~ arm + age", "died ~ 1")
    with pytest.raises(StudyError, match=r'declared without a unit\. Write unit = "days" into \[variables\.days\]'):
        complete_study(Study.from_toml(text))


def test_a_category_as_treatment_is_answered_with_a_derived_one_that_works() -> None:
    text = GROUND.replace('"glore"\nfamily = "poisson"', '"propensity"\ntreatment = "arm"')
    with pytest.raises(StudyError, match=r"""treated = 'arm == "new"' under \[derive\]"""):
        complete_study(Study.from_toml(text))
    derived = text.replace('"arm"', '"treated"').replace("falls ~ arm", "falls ~ treated")
    assert complete_study(Study.from_toml(derived + "[derive]\ntreated = 'arm == \"new\"'\n")).derive


def test_a_fault_that_is_plain_already_stays_as_it_is() -> None:
    assert reword_fault("greater_than", "cell", "Input should be greater than 0") == "Input should be greater than 0"
    assert reword_fault("value_error", "x", "Value error, a word is both yes and no") == "a word is both yes and no"
