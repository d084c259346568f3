"""Learners of a third party: one that obeys, and one for each way not to. All estimate the mean of the outcome.

They do what the example `learner_mean` does, but for what each does wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from learner_mean import SUMS, describe, divide, sum_rows

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, each, only, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure
from coterie_learners.errors import NotConverged
from coterie_learners.study.document import Frozen, Schedule, Study

FORM, sums = SUMS, sum_rows


def mean(posts: Posts) -> Payload:
    return divide(posts)


def fit(model: Payload, shift: float = 0.0) -> Fit:
    plain = describe(model)
    return replace(plain, estimates=plain.estimates + shift, log_likelihood=0.0)


def honest(site: Site) -> Script:
    """What leaves a site: its number of rows, the sum of the outcome and of its square."""
    posts = yield from each("sums", sums, expects=FORM)
    model = yield from server("mean", mean, posts)
    return fit(model)


def biased(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    model = yield from server("mean", mean, posts)
    return fit(model, shift=1e-6)


def partial_to_the_first(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    shift = 0.0 if next(iter(posts)) == "north" else 1e-3
    model = yield from server("mean", mean, posts)
    return fit(model, shift)


def forgetful(site: Site) -> Script:
    memory: dict[str, int] = {}

    def remember(site: Site) -> Payload:
        memory["n"] = site.rows.n
        return sums(site)

    posts = yield from each("sums", remember, expects=FORM)
    counts = yield from each("counts", lambda site: {"n": memory.get("n", 0)}, expects=Schema({"n": Field("<i8")}))
    model = yield from server("mean", lambda: {**mean(posts), "n": sum(int(p["n"]) for p in counts.values())})
    return fit(model)


def random(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    model = yield from server("mean", lambda: {**mean(posts), "noise": next(NOISE)})
    return fit(model)


NOISE = itertools.count()


def two_faced(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    model = yield from server("mean", mean, posts)
    return fit(model, shift=0.0 if site.data is not None else 1e-9)


def quarrelling(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    model = yield from server("mean", mean, posts)
    return fit(model, shift=1e-12 * len(site.name))


def undeclared(site: Site) -> Script:
    posts = yield from each("sums", sums)
    model = yield from server("mean", mean, posts)
    return fit(model)


def talkative(site: Site) -> Script:
    posts = yield from each("sums", lambda site: {**sums(site), "patients": np.arange(3)}, expects=FORM)
    model = yield from server("mean", mean, posts)
    return fit(model)


def unwritable(site: Site) -> Script:
    posts = yield from each("sums", lambda site: {**sums(site), "phase": 1j}, expects=FORM)
    model = yield from server("mean", mean, posts)
    return fit(model)


def fitless(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    model = yield from server("mean", mean, posts)
    return {"mean": float(model["mean"])}


def desperate(site: Site) -> Script:
    yield from each("sums", sums, expects=FORM)
    yield from server("mean", dict)
    raise NotConverged("CO-N101", "No luck today.")


def hasty(site: Site) -> Script:
    posts = yield from each("sums", sums, expects=FORM)
    return fit(mean(posts))


def discreet(site: Site) -> Script:
    """The sums are sealed to one site, which posts the mean; nobody else can recompute it."""
    reader = site.study.sites[0]
    posts = yield from each("sums", sums, expects=FORM, readers=(reader,))
    form = Schema({"mean": Field("<f8"), "variance": Field("<f8"), "n": Field("<i8")})
    opened = yield from only(reader, "mean", lambda site: mean(posts), expects=form)
    model = yield from server("model", lambda: dict(opened))
    return fit(model)


def counted(site: Site) -> Script:
    """Whole numbers only: sums of them are exact, so not one bit may depend on the order."""
    posts = yield from each("counts", integer_sums, expects=Schema({n: Field("<i8") for n in FORM.fields}))
    model = yield from server("mean", mean, posts)
    return fit(model, shift=0.0 if next(iter(posts)) == "north" else float(model["mean"]) * 2.0**-52)


def integer_sums(site: Site) -> Payload:
    return {name: int(value) for name, value in sums(site).items()}


def disclose_sums(study: Study) -> Disclosure:
    steps = (StepDisclosure("sums", "each", "Sums"), StepDisclosure("mean", "server", "Mean"))
    return Disclosure(steps, ("No site has to be trusted not to collude.",), ("Everybody learns all sums.",))


def disclose_sealed_sums(study: Study) -> Disclosure:
    """The sums are for the first site only, which posts the mean."""
    first = study.sites[0]
    steps = (
        StepDisclosure("sums", "each", "Sums", (first,)),
        StepDisclosure("mean", f"only:{first}", "Mean"),
        StepDisclosure("model", "server", "Model"),
    )
    return Disclosure(steps, (), ("Everybody learns the mean.",))


def secretive(site: Site) -> Script:
    """Honest, but of what it discloses not one reader is right."""
    return (yield from honest(site))


def countable(site: Site) -> Script:
    """Honest, and it states that its readers can count the events."""
    posts = yield from each("sums", sums, expects=FORM, reveals=expose_events)
    model = yield from server("mean", mean, posts)
    return fit(model)


def expose_events(site: Site, payload: Payload) -> Exposure:
    return Exposure("Sums", int(payload["n"]), cells={"events": int(payload["sum"])})


def lie(**claims: StepDisclosure | None) -> Callable[[Study], Disclosure]:
    """What `disclose_sums` discloses, with other claims by topic; None leaves a topic out."""

    def disclose(study: Study) -> Disclosure:
        true = disclose_sums(study)
        steps = {step.topic: step for step in true.steps} | claims
        return replace(true, steps=tuple(step for step in steps.values() if step is not None))

    return disclose


def _learner(
    script: Callable[[Site], Script], *opening: str, check: Callable[[Study], Any] = lambda study: None
) -> Learner:
    steps = opening or ("each", "server")
    name = script.__name__.replace("_", "-")
    return Learner(name, "1", Frozen, check, lambda study: Schedule(opening=steps), script, disclose_sums)


HONEST = _learner(honest)
BIASED = _learner(biased)
PARTIAL = _learner(partial_to_the_first)
FORGETFUL = _learner(forgetful, "each", "each", "server")
RANDOM = _learner(random)
TWO_FACED = _learner(two_faced)
QUARRELLING = _learner(quarrelling)
UNDECLARED = _learner(undeclared)
TALKATIVE = _learner(talkative)
UNWRITABLE = _learner(unwritable)
FITLESS = _learner(fitless)
DESPERATE = _learner(desperate)
HASTY = _learner(hasty)
MISTIMED = _learner(honest, "each", "each")
DISCREET = Learner(
    "discreet",
    "1",
    Frozen,
    lambda study: None,
    lambda study: Schedule(opening=("each", f"only:{study.sites[0]}", "server")),
    discreet,
    disclose_sealed_sums,
)
COUNTED = _learner(counted)
SECRETIVE = replace(_learner(secretive), discloses=disclose_sealed_sums)
# Learners whose scripts obey and whose words do not.
_SUMS = StepDisclosure("sums", "each", "Sums")
_LIES: dict[str, dict[str, StepDisclosure | None]] = {
    "silent-on-a-step": {"mean": None},
    "inventive": {"extra": StepDisclosure("extra", "each", "More sums")},
    "mistaken-in-posters": {"mean": StepDisclosure("mean", "each", "Mean")},
    "unmasked": {"sums": replace(_SUMS, protection="masked")},
    "unblinded": {"sums": replace(_SUMS, protection="blinded")},
    "two-tongued": {"su*": StepDisclosure("su*", "each", "Sums", ("north",))},
    "not-talking": {"sums": replace(_SUMS, talks=True)},
}


def _lying(name: str) -> Learner:
    return replace(_learner(honest), name=name, discloses=lie(**_LIES[name]))


SILENT_ON_A_STEP = _lying("silent-on-a-step")
INVENTIVE = _lying("inventive")
MISTAKEN_IN_POSTERS = _lying("mistaken-in-posters")
UNMASKED = _lying("unmasked")
UNBLINDED = _lying("unblinded")
TWO_TONGUED = _lying("two-tongued")
NOT_TALKING = _lying("not-talking")
COUNTABLE = _learner(countable)
