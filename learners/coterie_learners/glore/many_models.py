"""GLORE for a study of several models on one cohort: in each round one record per site has the sums of all that run.

Each model is the fit that a study of it alone gives on the same rows: its look, its rounds, its test whether the sites
agree. A model that rests leaves the rounds; the study ends when all have. A model that separates, is collinear, or does
not converge ends without a fit and with a sentence that says why; the others go on. What nobody can fit at all (no
model is left) ends the study.

A server's post holds the state of each model as the bytes of a payload of its own, under the model's name. A model
without one has ended: everybody finds the reason by computing it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

import numpy as np

from coterie_learners.core import masked_sum
from coterie_learners.core.fit import Fit, join_fits
from coterie_learners.core.payload import Field, Payload, Schema, Stamp, decode_own, encode
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner
from coterie_learners.errors import Collinear, LearnerError, NotConverged, Separation, StudyError
from coterie_learners.glore.glore import (
    GLORE,
    GlorePlan,
    advance_model,
    agreement_shapes,
    compute_local_sums,
    end_model,
    finish_fit,
    measure_agreement,
    resume_model,
    rounds_ran_out,
)
from coterie_learners.glore.many_disclosure import ModelRound, disclose_models, expose_models, merge_pools
from coterie_learners.glore.many_plan import ModelsPlan, check_models, schedule_models
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.sums import newton
from coterie_learners.sums.opening.steps import open_pools

# What ends one model and leaves the others: too few rows for its coefficients is the one StudyError among these.
_TOO_FEW_ROWS = "CO-N203"
# States of models that stay decoded.
_STATES_KEPT = 64


@dataclass(frozen=True)
class RunningModel:
    """The state of one model: its plan, the last state that a server posted, and the views of its sums so far.

    `used`: rounds so far. `sites`: those of the last round, if the next one is to test whether they agree.
    """

    plan: GlorePlan
    state: Payload
    path: tuple[Array | None, ...] = ()
    used: int = 0
    sites: frozenset[str] = frozenset()

    @classmethod
    def begin(cls, plan: GlorePlan) -> RunningModel:
        """Before anything is posted."""
        return cls(plan, newton.begin(plan.rules))

    @cached_property
    def tests(self) -> bool:
        """Whether the next sums are the test whether the sites agree, alone."""
        return bool(self.state["rests"]) and "converged" not in self.state

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its next sums."""
        return agreement_shapes(self.plan) if self.tests else self.plan.shapes(self.state)

    @property
    def size(self) -> int:
        """How many numbers these are."""
        return masked_sum.size_of(self.shapes)

    @cached_property
    def next_path(self) -> tuple[Array | None, ...]:
        """The views with that of the next sums."""
        view = self.plan.frame(self.state).outside(self.state["beta"]) if self.tests else self.plan.view(self.state)
        return (*self.path, view)

    def follow(self, state: Payload, sites: frozenset[str]) -> RunningModel:
        """This model after a round of these sites, with the state that the server posted."""
        path = self.path if self.tests else self.next_path
        return replace(self, state=state, path=path, used=self.used + (not self.tests), sites=sites)


Running = Mapping[str, RunningModel]


@dataclass
class Ends:
    """Models that have ended: fits, or why there is none; and the views of their sums."""

    fits: dict[str, Fit] = field(default_factory=dict)
    reasons: dict[str, LearnerError] = field(default_factory=dict)
    rounds: dict[str, ModelRound] = field(default_factory=dict)


def fit_models(site: Site) -> Script:
    """All models of a study, together in rounds until each has converged or has ended."""
    plan = ModelsPlan.of(site.study)
    if plan.opens:
        plan = plan.with_pools((yield from open_pools(plan.lead, plan.openings, partial(merge_pools, plan))))
    running: Running = {name: RunningModel.begin(own) for name, own in plan.plans.items()}
    ends = Ends()
    for t in range(plan.most_rounds):
        topic = f"stats/{t}"
        posts = yield from each(
            topic, share_round, plan, topic, running, expects=form_round(plan, running),
            reveals=partial(expose_models, plan, list_rounds(running), ends.rounds),
        )  # fmt: skip
        post = yield from server(f"model/{t}", next_states, plan, running, posts, bool(ends.fits))
        running = _sort_out(site, plan, running, posts, post, ends)
        if not running:
            yield from conclude()
            return _join(plan, ends, t + 1)
    raise NotConverged("CO-N101", f"The models {', '.join(running)} have not come to rest. Raise max_rounds.")


def list_rounds(running: Running) -> dict[str, ModelRound]:
    """What the gate needs of the next sums of each model."""
    return {name: (model.plan, model.next_path, model.tests, model.shapes) for name, model in running.items()}


def _sort_out(
    site: Site, plan: ModelsPlan, running: Running, posts: Posts, post: Payload, ends: Ends
) -> dict[str, RunningModel]:
    """The models that go on; those that do not are among the ends."""
    out, sites, rounds, states = {}, frozenset(posts), list_rounds(running), read_states(post)
    for name, model in running.items():
        if name not in states:
            ends.rounds[name] = rounds[name]
            ends.reasons[name] = _explain_end(plan, running, posts, name)
            continue
        following = model.follow(states[name], sites)
        if following.state.get("converged", False):
            own = plan.rows.seat(name, site)
            ends.rounds[name] = rounds[name]
            ends.fits[name] = finish_fit(own, following.plan, following.state, following.used)
        else:
            out[name] = following
    return out


def _explain_end(plan: ModelsPlan, running: Running, posts: Posts, name: str) -> LearnerError:
    """Why a model has ended, which the server's post does not say."""
    state = _try_advance(running[name], pool_round(plan, running, posts)[name], frozenset(posts))
    assert isinstance(state, LearnerError)
    return state


def _join(plan: ModelsPlan, ends: Ends, rounds: int) -> Fit:
    fits = {name: ends.fits[name] for name in plan.plans if name in ends.fits}
    reasons = {name: ends.reasons[name].message for name in plan.plans if name in ends.reasons}
    return join_fits(fits, next(iter(fits.values())).n, rounds, reasons)


# At a site


def share_round(site: Site, plan: ModelsPlan, topic: str, running: Running) -> Payload:
    """What one site posts: the next sums of all models that run, under masks where the study says so."""
    sums = {name: _sum_model(plan.rows.seat(name, site), model) for name, model in running.items()}
    if plan.masked:
        flat = {f"{name}.{key}": value for name, own in sums.items() for key, value in own.items()}
        return masked_sum.mask_sums(site, topic, flat)
    return {name: masked_sum.join_sums(own) for name, own in sums.items()}


def _sum_model(site: Site, model: RunningModel) -> dict[str, Array]:
    if model.tests:
        return measure_agreement(model.plan, site, model.state)
    return compute_local_sums(model.plan, site, model.state)


def form_round(plan: ModelsPlan, running: Running) -> Schema:
    """Form of one site's post of a round."""
    if plan.masked:
        shapes = {f"{name}.{key}": shape for name, model in running.items() for key, shape in model.shapes.items()}
        return Schema({"masked": masked_sum.form_masked_field(shapes)})
    fields = {name: Field("<f8", (model.size,)) for name, model in running.items()}
    return Schema(fields, check=partial(_check_round, running))


def _check_round(running: Running, post: Payload) -> None:
    """ProtocolError if no rows could have the sums of a model."""
    for name, model in running.items():
        if not model.tests:
            sums = masked_sum.split_sums(np.asarray(post[name]), model.shapes)
            model.plan.model.check(newton.kind_of(model.state), sums)


# From the sums of all sites


def next_states(plan: ModelsPlan, running: Running, posts: Posts, some: bool) -> Payload:
    """A server's post: the next state of each model but those that end; `some`: a model has a fit already.

    If no model is left and none has a fit, the error of the first one, which names the others too.
    """
    sums, sites = pool_round(plan, running, posts), frozenset(posts)
    steps = {name: _try_advance(model, sums[name], sites) for name, model in running.items()}
    states = {name: step for name, step in steps.items() if not isinstance(step, LearnerError)}
    if not states and not some:
        raise _no_model_left({name: step for name, step in steps.items() if isinstance(step, LearnerError)})
    done = all(bool(state.get("converged", False)) for state in states.values())
    packed = {name: np.frombuffer(encode(_stamp(name), state), np.uint8) for name, state in states.items()}
    return {**packed, "converged": np.bool_(done)}


def pool_round(plan: ModelsPlan, running: Running, posts: Posts) -> dict[str, Payload]:
    """The sums over all sites by model; ProtocolError if no rows could have them."""
    if not plan.masked:
        totals = {name: linalg.total([np.asarray(post[name]) for post in posts.values()]) for name in running}
        return {name: masked_sum.split_sums(totals[name], model.shapes) for name, model in running.items()}
    shapes = {f"{name}.{key}": shape for name, model in running.items() for key, shape in model.shapes.items()}
    flat = masked_sum.unmask_sums(posts, shapes)
    out: dict[str, Payload] = {}
    for name, model in running.items():
        out[name] = {key: flat[f"{name}.{key}"] for key in model.shapes}
        if not model.tests:
            model.plan.model.check(newton.kind_of(model.state), out[name])
    return out


def _try_advance(model: RunningModel, sums: Payload, sites: frozenset[str]) -> Payload | LearnerError:
    """The next state of a model, or the error that ends it alone."""
    try:
        return _advance(model, sums, sites)
    except (Separation, Collinear, NotConverged) as error:
        return error
    except StudyError as error:
        if error.code != _TOO_FEW_ROWS:
            raise
        return error


def _advance(model: RunningModel, sums: Payload, sites: frozenset[str]) -> Payload:
    plan, last = model.plan, model.state
    if model.tests and sites != model.sites:
        return resume_model(last)
    if model.tests:
        return end_model(plan, last, sums, len(sites))
    state = advance_model(plan, last, sums, len(sites))
    if model.used + 1 >= plan.options.max_rounds and not state["rests"]:
        raise rounds_ran_out(plan, state)
    return state


def _no_model_left(errors: Mapping[str, LearnerError]) -> LearnerError:
    first = next(iter(errors.values()))
    return type(first)(first.code, " ".join(f"Model {name}: {error.message}" for name, error in errors.items()))


def _stamp(name: str) -> Stamp:
    return Stamp("", "", name, 0)


def read_states(post: Payload) -> dict[str, Payload]:
    """The state of each model in a server's post, which a script sees only if its own computation gives the same."""
    packed = {name: np.asarray(value, dtype=np.uint8) for name, value in post.items() if name != "converged"}
    return {name: dict(_decode_state(value.tobytes())) for name, value in packed.items()}


@lru_cache(maxsize=_STATES_KEPT)
def _decode_state(raw: bytes) -> Payload:
    """The state in these bytes, which all parties of one process read; its arrays cannot be written."""
    return decode_own(raw)[1]


GLORE_OF_MANY: Learner = replace(
    GLORE,
    check=check_models,
    schedule=schedule_models,
    script=fit_models,
    discloses=disclose_models,
    reads="codes",
    talks_if=lambda _: False,
    several=None,
)
