"""What a study can set about a trouble, from the options of its own learner: nothing that the learner would refuse.

The options are those of a completed study, which has all that its learner knows.
"""

from __future__ import annotations

from coterie_learners.study.document import Study


def advise_on_separation(study: Study) -> str:
    """What to do about an outcome that columns predict without error."""
    return _join(["Merge rare levels", "leave the term out", *_penalties(study)])


def advise_on_few_events(study: Study) -> str:
    """What to do about few events for the coefficients."""
    return _join(["Leave terms out", *_penalties(study)])


def advise_on_near_separation(study: Study) -> str:
    """What to do about fitted means at an end of their range."""
    return _join(["Look for a column that all but decides the outcome", "merge rare levels", *_penalties(study)])


def advise_on_overdispersion(study: Study, quasi: str) -> str:
    """What to do about more variation than a family has that `quasi` has room for."""
    if study.learner.options.get("scheme") == "newton":
        return "Look for a covariate that explains it."
    return f'Set family = "{quasi}".'


def _penalties(study: Study) -> list[str]:
    """The penalties that keep estimates finite, as the study's learner takes them."""
    options = study.learner.options
    out = ["set firth = true"] if _takes_firth(study) else []
    return [*out, "set a ridge"] if "ridge" in options and not options.get("robust") else out


def _takes_firth(study: Study) -> bool:
    options = study.learner.options
    logit = (options.get("family"), options.get("link") or "logit") == ("binomial", "logit")
    return "firth" in options and logit and not options.get("robust") and options.get("scheme") != "newton"


def _join(parts: list[str]) -> str:
    """The parts as one sentence."""
    return f"{', '.join(parts[:-1])}, or {parts[-1]}." if len(parts) > 2 else f"{' or '.join(parts)}."
