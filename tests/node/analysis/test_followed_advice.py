"""What an error or a warning tells people to set is an option of the study's own learner, and leads to a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts, strata, vertical
from support.learners.cohorts import Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core import model_warnings as advice
from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data


def separate_sex(codes: Codes) -> Codes:
    """Nobody of male = 1 has an event of any kind."""
    kept = codes["male"] == 0.0
    return {**codes, "died": codes["died"] * kept, "visits": codes["visits"] * kept}


def separate_nearly(codes: Codes) -> Codes:
    """Two patients keep age from deciding the outcome, as near-separated data have it."""
    died = (codes["age"] > 0.3).astype(float)
    below, above = codes["age"][died == 0.0].max(), codes["age"][died == 1.0].min()
    turned = np.isin(codes["age"], [below, above])
    died[turned] = 1.0 - died[turned]
    return {**codes, "died": died}


def disperse(codes: Codes) -> Codes:
    """Counts that vary more than Poisson's."""
    factor = np.random.default_rng(1).choice([0.2, 3.0], len(codes["visits"]))
    return {**codes, "visits": np.floor(codes["visits"] * factor)}


def make_rare(codes: Codes) -> Codes:
    """Twelve events, which no column decides."""
    died = np.zeros(len(codes["died"]))
    died[np.random.default_rng(2).permutation(len(died))[:12]] = 1.0
    return {**codes, "died": died}


def keep(codes: Codes) -> Codes:
    return codes


@dataclass(frozen=True)
class Trouble:
    """A study with its rows, the word of the trouble, and what the message tells to set, as the options say it."""

    study: Study
    spoil: Callable[[Codes], Codes]
    trouble: str
    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    formula: str = ""


def table(scheme: str = "", **options: Any) -> Study:
    """A study of counted patterns."""
    if not scheme:
        return strata.study("died ~ male + smoker", **options)
    return strata.study("died ~ male + smoker", learner="secure_cola", scheme=scheme, **options)


SPLIT = {"north": ("died", "a1"), "south": ("b1", "q1"), "east": ("c1",)}

TROUBLES = {
    "glore, separated: ridge": Trouble(
        cohorts.study("died ~ age + male"), separate_sex, "CO-N302", "set a ridge", {"ridge": 1.0}
    ),
    "glore, separated: leave the term out": Trouble(
        cohorts.study("died ~ age + male"), separate_sex, "CO-N302", "leave the term out", formula="died ~ age"
    ),
    "glore probit, separated: ridge": Trouble(
        cohorts.study("died ~ age + male", link="probit"), separate_sex, "CO-N302", "set a ridge", {"ridge": 1.0}
    ),
    "glore poisson, separated: ridge": Trouble(
        cohorts.study("visits ~ age + male", family="poisson"), separate_sex, "CO-N302", "set a ridge", {"ridge": 1.0}
    ),
    "cola, separated: firth": Trouble(table(), separate_sex, "CO-N302", "set firth = true", {"firth": True}),
    "cola, separated: leave the term out": Trouble(
        table(), separate_sex, "CO-N302", "leave the term out", formula="died ~ smoker"
    ),
    "masked table, separated: firth": Trouble(
        table("masks"), separate_sex, "CO-N302", "set firth = true", {"firth": True}
    ),
    "newton, separated: leave the term out": Trouble(
        table("newton"), separate_sex, "CO-N302", "leave the term out", formula="died ~ smoker"
    ),
    "valoris, separated: ridge": Trouble(
        vertical.study(SPLIT, "valoris"), lambda c: {**c, "died": c["q1"]}, "CO-N302", "set a ridge", {"ridge": 1.0}
    ),
    "vertigo, separated: ridge": Trouble(
        vertical.study(SPLIT, "vertigo"), lambda c: {**c, "died": c["q1"]}, "CO-N302", "set a ridge", {"ridge": 1.0}
    ),
    "glore, rounds": Trouble(
        cohorts.study("died ~ age + male", max_rounds=2), keep, "CO-N101", "Raise max_rounds", {"max_rounds": 25}
    ),
    "vertigo, rounds": Trouble(
        vertical.study(SPLIT, "vertigo", max_rounds=2), keep, "CO-N101", "Raise max_rounds", {"max_rounds": 40}
    ),
    "valoris, rounds": Trouble(
        vertical.study(SPLIT, "valoris", max_rounds=2), keep, "CO-N101", "Raise max_rounds", {"max_rounds": 40}
    ),
    "cola, steps": Trouble(
        table(max_iterations=1), keep, "CO-N103", "raise max_iterations", {"max_iterations": 500}
    ),
    "glore, nearly separated: ridge": Trouble(
        cohorts.study("died ~ age", max_rounds=60), separate_nearly, "nearly separated", "set a ridge", {"ridge": 1.0}
    ),
    "glore, overdispersed": Trouble(
        cohorts.study("visits ~ age", family="poisson"), disperse, "Overdispersion", 'Set family = "quasipoisson"',
        {"family": "quasipoisson"},
    ),
    "glore, few events": Trouble(
        cohorts.study("died ~ age + crp"), make_rare, "fewer than 10 for each", "set a ridge", {"ridge": 1.0}
    ),
    "cola, few events": Trouble(
        table(), make_rare, "fewer than 10 for each", "set firth = true", {"firth": True}
    ),
}  # fmt: skip


def change(study: Study, options: Mapping[str, Any], formula: str) -> Study:
    """The study with the option set, or with the shorter formula."""
    plain = study.model_dump()
    plain["learner"] |= options
    return complete_study(Study.model_validate({**plain, "formula": formula or study.formula}))


def draw(study: Study, spoil: Callable[[Codes], Codes]) -> Mapping[str, Data]:
    """The rows of the sites of a study."""
    if study.columns:
        return dict(vertical.split(study, spoil(vertical.draw(400, columns_by_site=SPLIT))))
    if learner_of(study).reads == "codes":
        return dict(strata.split(study, spoil(strata.draw(600))))
    return dict(cohorts.split(study, spoil(cohorts.draw(600, seed=9))))


def run(study: Study, spoil: Callable[[Codes], Codes]) -> tuple[list[Fit], str]:
    """The fits of a study, and all that they warn of, or the message of its end."""
    try:
        ends = MemoryProtocol(learner_of(study).script, study, draw(study, spoil)).play()
    except LearnerError as error:
        return [], f"{error.code}: {error.message}"
    fits = [fit for fit in ends.values() if isinstance(fit, Fit)]
    return fits, " ".join(text for fit in fits for text in fit.warnings)


@pytest.mark.parametrize("name", TROUBLES)
def test_what_a_message_tells_to_do_leads_to_a_fit(name: str) -> None:
    trouble = TROUBLES[name]
    _, message = run(trouble.study, trouble.spoil)
    assert trouble.trouble in message
    assert trouble.words in message
    fits, more = run(change(trouble.study, trouble.options, trouble.formula), trouble.spoil)
    assert fits, more
    assert all(fit.converged and np.all(np.isfinite(fit.estimates)) for fit in fits)
    assert trouble.trouble not in more or "ridge" in trouble.options or "firth" in trouble.options


STUDIES: Mapping[str, Callable[[], Study]] = {
    "glore": lambda: cohorts.study("died ~ age"),
    "glore probit": lambda: cohorts.study("died ~ age", link="probit"),
    "glore poisson": lambda: cohorts.study("visits ~ age", family="poisson"),
    "cola": table,
    "cola robust": lambda: table(robust=True),
    "cola probit": lambda: table(link="probit"),
    "cola poisson": lambda: strata.study("visits ~ male", family="poisson"),
    "cola multinomial": lambda: strata.study("went ~ male", family="multinomial"),
    "masks": lambda: table("masks"),
    "newton": lambda: table("newton"),
    "valoris": lambda: vertical.study(SPLIT, "valoris"),
    "vertigo": lambda: vertical.study(SPLIT, "vertigo"),
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {"set firth = true": {"firth": True}, "set a ridge": {"ridge": 1.0}}
ADVICE = (
    advice.advise_on_separation,
    advice.advise_on_few_events,
    advice.advise_on_near_separation,
)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("advise", ADVICE)
def test_no_study_is_advised_to_set_what_its_learner_refuses(name: str, advise: Callable[[Study], str]) -> None:
    study = STUDIES[name]()
    for words, options in SETTINGS.items():
        if words in advise(study):
            assert change(study, options, "").learner.options.items() >= options.items()
    firth = name in ("cola", "masks")
    assert ("firth" in advise(study)) == firth


def test_a_newton_study_is_not_advised_of_a_family_that_it_cannot_fit() -> None:
    study = strata.study("visits ~ male", learner="secure_cola", scheme="newton", family="poisson")
    assert "quasi" not in advice.advise_on_overdispersion(study, "quasipoisson")
