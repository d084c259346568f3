"""Secure GLM: logistic regression on rows or columns that nobody has together; only the result is opened.

Two hospitals with a helper without data, three or more hospitals, or owners of columns of the same patients with a
helper (who first join their tables, as in Secure Lasso). Sums over two sites hide nothing: each takes its own off.
Neither do iterates: each gives linear equations in the other's counts. So rows are shared among three parties, and
Newton's method runs on shares with hidden coefficients (shared_newton.py).

What leaves a site: shares of its rows, which are uniform to any one party; or, for a join, its rows under masks. What
is opened, to all: the number of patients, if they are enough; at the end the coefficients, their standard errors, the
residual deviance, and the number of evaluations; the number of events and the covariance only if the study says so.
Semi-honest parties, no two of which collude.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.intervals import Intervals, check_spread, find_intervals
from coterie_learners.core.payload import Payload, Stamp, decode, encode
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Channel, Script, Site, acknowledge, each, interactive
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import Collinear, LearnerError, NotConverged, ProtocolError, StudyError
from coterie_learners.secure import secure_join
from coterie_learners.secure.joined_rows import Summands, exchange_rows, share_joined_rows, supply_joined_rows
from coterie_learners.secure.lasso_plan import MAX_ROWS, check_linkage, check_silence, plan_schedule
from coterie_learners.secure.moments import INPUT
from coterie_learners.secure.secure_join import JoinPosts
from coterie_learners.secure.secure_lasso import (
    COMMITMENT,
    check_questions,
    digest_terms,
    spend_question,
)
from coterie_learners.secure_glm.glm_disclosure import count_cells, disclose_glm
from coterie_learners.secure_glm.glm_plan import LARGEST_OFFSET, MOST_COLUMNS, GlmPlan, SecureGlmOptions
from coterie_learners.secure_glm.glm_result import build_glm_fit, declare_result, pack_outcome
from coterie_learners.secure_glm.shared_newton import SharedRows, fit_shared_glm
from coterie_learners.shares.field import Elements
from coterie_learners.shares.session import Randomness, Session, open_session, pack_account
from coterie_learners.shares.shamir3 import COMPUTING, ThreePartyShamir, supply
from coterie_learners.study.design import Design
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.rows import join_blocks

_VERSION = "2"
_TOPIC = "fit"
_COUNT = 8


def secure_glm(site: Site) -> Script:
    """Join the columns, or commit to the rows; then compute together and open the result."""
    plan = GlmPlan.of(site.study)
    if plan.joins:
        link = plan.link
        posts = yield from secure_join.join(link, lambda here: check_questions(here, plan), lambda terms: link)
    else:
        terms = yield from each(
            "terms", commit_own_rows, plan, expects=COMMITMENT, reveals=partial(expose_commitment, plan)
        )
        posts = JoinPosts(terms, {}, {})
    plan = plan.narrow(posts.terms)
    result = yield from interactive(_TOPIC, compute_together, plan, posts, expects=declare_result(plan))
    fit = build_glm_fit(plan, result)
    yield from acknowledge()
    if not plan.joins or site.data is None:
        return fit
    return replace(fit, notes=(*fit.notes, secure_join.describe_linkage(site, plan.link, posts)))


# The first step, where rows are split


def commit_own_rows(site: Site, plan: GlmPlan) -> Payload:
    """SHA-256 of a secret salt and this site's rows, with where in their ranges its columns lie; a helper has none."""
    check_questions(site, plan)
    salt, own, committed = site.stream("commitment", 32), Intervals.of_ranges(0), b""
    if site.name not in plan.helpers:
        values = plan.tabulate_rows(site)
        own = find_intervals(values[:, : plan.m])
        check_spread(own.place(values[:, : plan.m]), site.name)
        committed = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"commitment": np.frombuffer(hashlib.sha256(salt + committed).digest(), np.uint8), **own.payload()}


def expose_commitment(plan: GlmPlan, site: Site, payload: Payload) -> Exposure:
    """What follows from the study in which this site commits to its rows: counts that its result gives to others."""
    exposure = secure_join.expose_terms(site, payload)
    if site.data is None:
        return exposure
    cells, kinds = count_cells(plan, join_blocks(site.rows))
    events = int(join_blocks(site.rows).y.sum())
    return replace(exposure, events=events, cells=cells, kinds=kinds, instead=_find_remedy(plan))


def _find_remedy(plan: GlmPlan) -> str:
    shown = [name for name in ("null_deviance", "covariance") if getattr(plan.options, name)]
    return f"take the study without {' and '.join(shown)}" if shown else ""


# The interactive step


def compute_together(site: Site, channel: Channel | None, plan: GlmPlan, posts: JoinPosts) -> Payload:
    """One site's part: greet, compute or supply, compare what was said, return what was opened."""
    assert channel is not None
    places, n = secure_join.find_joint_patients(site, plan.link, posts) if plan.joins else (None, 0)
    if plan.joins:
        secure_join.read_spelling_counts(site, plan.link, posts).check(site.study.most_spellings)
    spend_question(site, plan)
    terms = repr((plan.computing, plan.numbers.bits, n, _VERSION)).encode() + digest_terms(posts.terms)
    session, randomness = open_session(site, channel, _TOPIC, terms)
    own = exchange_rows(site, plan.link, posts, session, places) if plan.joins else Summands({})
    if site.name in plan.computing:
        opened = _run_party(site, plan, session, randomness, lambda trio: _share_rows(site, plan, own, trio, n))
    else:
        opened = _run_supplier(site, plan, session, randomness, own, n)
    return {**opened, **pack_account(session.account())}


def _run_party(
    site: Site,
    plan: GlmPlan,
    session: Session,
    randomness: Randomness,
    share: Callable[[ThreePartyShamir], SharedRows],
) -> Payload:
    """Compute with the two other parties, then send the suppliers the result, or the reason why there is none."""
    trio = ThreePartyShamir(plan.numbers, session, plan.computing, randomness)
    suppliers = [name for name in site.study.sites if name not in plan.computing]
    try:
        opened = pack_outcome(fit_shared_glm(trio, share(trio), plan.target))
    except (StudyError, NotConverged, Collinear) as error:
        for name in suppliers:
            session.send(name, _ENDINGS[error.code][0].to_bytes(_COUNT, "little"))
        raise
    raw = encode(Stamp(site.study.hash.hex(), _TOPIC, "", site.attempt), opened)
    for name in suppliers:
        session.send(name, len(raw).to_bytes(_COUNT, "little"))
        session.send(name, raw)
    return opened


def _share_rows(site: Site, plan: GlmPlan, own: Summands, trio: ThreePartyShamir, n: int) -> SharedRows:
    """Shares of all rows, in the form of the fit."""
    if plan.joins:
        packed = b"".join(block for _, block in share_joined_rows(plan, trio, own, [0, n]))
        joined = plan.numbers.integers(packed, plan.numbers.width, (n, plan.width))
        table = _restore_offset(plan, trio, joined)
        # A joined outcome is -1 or 1 with INPUT digits; shares of 0 or 1 follow by the inverse of 2^(INPUT + 1).
        half = trio.field.inverse(1 << INPUT + 1)
        return _arrange_rows(plan, table, (table[:, -1] + (1 << INPUT)) * half % trio.field.p)
    own_values = None if site.data is None else encode_rows(site, plan)
    counts = _exchange_counts(plan, trio, own_values)
    _check_counts(plan, counts)
    parts = [_deal_rows(trio, plan, name, own_values, counts[name]) for name in plan.study.owners]
    table = np.concatenate(parts)
    return _arrange_rows(plan, table, table[:, -1])


def _restore_offset(plan: GlmPlan, trio: ThreePartyShamir, table: Elements) -> Elements:
    """The joined table with an offset in its own units: its owner placed it in an interval of a known range."""
    if plan.design.formula.offset is None:
        return table
    level, place = int(plan.columns.levels[plan.m]), int(plan.columns.places[plan.m])
    # Half a unit of the last digit has a share too: the fit multiplies offsets by a far larger power of two.
    unit = round(LARGEST_OFFSET) * trio.field.inverse(1 << level) % trio.field.p
    table[:, plan.m] = (table[:, plan.m] + (place << INPUT)) * unit % trio.field.p
    return table


def _arrange_rows(plan: GlmPlan, table: Elements, outcome: Elements) -> SharedRows:
    ones = np.full((len(table), 1), 1 << INPUT, dtype=object)
    offset = None if plan.design.formula.offset is None else table[:, plan.m]
    return SharedRows(np.concatenate([ones, table[:, : plan.m]], axis=1), outcome, offset)


def encode_rows(site: Site, plan: GlmPlan) -> Elements:
    """This site's rows (n, width) as elements: all with INPUT digits, but the outcome with none."""
    values = plan.tabulate_rows(site)
    values[:, : plan.m] = plan.columns.place(values[:, : plan.m])
    check_spread(values[:, : plan.m], site.name)
    outcome = plan.numbers.encode(values[:, -1:], 0)
    return np.concatenate([plan.numbers.encode(values[:, :-1], INPUT), outcome], axis=1)


def _exchange_counts(plan: GlmPlan, trio: ThreePartyShamir, own_values: Elements | None) -> Mapping[str, int]:
    """How many rows each owner has: the parties need it to know how many shares will come."""
    session, me = trio.session, plan.computing[trio.me]
    for name in plan.computing:
        if own_values is not None and name != me:
            session.send(name, len(own_values).to_bytes(_COUNT, "little"))
    return {
        name: len(own_values)
        if name == me and own_values is not None
        else int.from_bytes(session.receive(name, _COUNT), "little")
        for name in plan.study.owners
    }


def _check_counts(plan: GlmPlan, counts: Mapping[str, int]) -> None:
    n = sum(counts.values())
    if n > MAX_ROWS:
        raise _ENDINGS["CO-N242"][1](plan)
    if n < plan.floor or min(counts.values()) < 1:
        raise _ENDINGS["CO-N241"][1](plan)


def _deal_rows(trio: ThreePartyShamir, plan: GlmPlan, name: str, own_values: Elements | None, n: int) -> Elements:
    shape = (n, plan.width)
    if name not in plan.computing:
        return trio.gather(name, shape)
    dealer = plan.computing.index(name)
    return trio.deal(dealer, own_values if trio.me == dealer else None, shape)


def _run_supplier(
    site: Site, plan: GlmPlan, session: Session, randomness: Randomness, own: Summands, n: int
) -> Payload:
    """Share what this site has among the three, and hear the result from each of them."""
    if plan.joins:
        supply_joined_rows(plan, session, randomness, own, [0, n])
    else:
        values = encode_rows(site, plan)
        for name in plan.computing:
            session.send(name, len(values).to_bytes(_COUNT, "little"))
        supply(plan.numbers, session, plan.computing, values, randomness)
    results = {_receive_outcome(session, name, plan) for name in plan.computing}
    if len(results) != 1:
        message = f"{' and '.join(plan.computing)} sent {site.name} different results"
        raise ProtocolError("CO-P646", f"{message}. Ask them to check their nodes and versions.", topic=_TOPIC)
    return decode(results.pop())[1]


def _receive_outcome(session: Session, name: str, plan: GlmPlan) -> bytes:
    size = int.from_bytes(session.receive(name, _COUNT), "little")
    for code, make_error in _ENDINGS.values():
        if size == code:
            raise make_error(plan)
    if size > 1 << 24:
        message = f"{name} announced a result of {size} bytes, which is not a result's size"
        raise ProtocolError("CO-P641", f"{message}. Ask that site to check its node and version.", name, _TOPIC)
    return session.receive(name, size)


def _refuse_few(plan: GlmPlan) -> LearnerError:
    message = f"The sites have fewer than {plan.floor} patients together, which is the study's least cohort, or none"
    return StudyError("CO-N241", f"{message} at one of them. Nothing was opened. Find more patients.")


def _refuse_many(plan: GlmPlan) -> LearnerError:
    return StudyError(
        "CO-N242", f"The sites have more than {MAX_ROWS} rows, the limit of the secure numbers. Agree on fewer rows."
    )


def _report_unsettled(plan: GlmPlan) -> LearnerError:
    message = "The computing parties' fit has not settled: separation, or a slow fit"
    return NotConverged("CO-N142", f"{message}. Nothing was opened. Take a ridge, or leave rare levels out.")


def _report_collinear(plan: GlmPlan) -> LearnerError:
    message = "A column is constant over all patients, or a combination of other columns"
    return Collinear("CO-N244", f"{message}. Nothing else was opened. Leave a term out, or take a ridge.")


# Why there is no result, by its code: what suppliers hear in place of its size, and what they raise.
_ENDINGS: Mapping[str, tuple[int, Callable[[GlmPlan], LearnerError]]] = {
    "CO-N241": ((1 << 64) - 1, _refuse_few),
    "CO-N242": ((1 << 64) - 2, _refuse_many),
    "CO-N142": ((1 << 64) - 3, _report_unsettled),
    "CO-N244": ((1 << 64) - 4, _report_collinear),
}


# The study


def _check_study(study: Study) -> None:
    """StudyError for a study that Secure GLM cannot run."""
    plan = GlmPlan.of(study)
    formula = plan.design.formula
    if not formula.intercept or plan.design.outcome.type != "binary":
        message = "Secure GLM fits an intercept and a binary outcome"
        raise StudyError("CO-S551", f"{message}. Correct the formula, or the outcome's type.")
    if plan.m > MOST_COLUMNS:
        raise StudyError("CO-S551", f"Secure GLM takes {MOST_COLUMNS} columns; these are {plan.m}. Leave terms out.")
    check_silence(study)
    if len(study.sites) < COMPUTING or len(plan.helpers) > 1 or (plan.joins and not plan.helpers):
        message = "Three sites compute on shares: two or more with data and one helper without"
        raise StudyError("CO-S543", f"{message}, or three or more with rows. Name one helper.")
    _ = plan.target
    check_linkage(plan)


def _schedule(study: Study) -> Schedule:
    """The schedule of learners on shares."""
    return plan_schedule(GlmPlan.of(study))


def _discloses(study: Study) -> Disclosure:
    """What a study discloses."""
    return disclose_glm(GlmPlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """The one for two sites, once they have a helper; for columns, ahead of learners that show them to readers."""
    if study.split == "columns":
        why = "logistic regression on shares, with a helper site; only the result is opened: no column comes back"
        return Suitability(4, True, f"{why}, and nobody learns who matched.")
    why = "logistic regression on shares of all rows; only the result is opened, no sum of any site"
    if len(study.sites) != COMPUTING - 1 or Design(study).outcome.type != "binary":
        return Suitability(4, True, f"{why}.")
    needs = "a third site without data, in `sites` and in `helpers`"
    return Suitability(4, False, f"{why}. It needs {needs}: any institution that both trust.", needs)


SECURE_GLM = Learner(
    "secure_glm",
    _VERSION,
    SecureGlmOptions,
    _check_study,
    _schedule,
    secure_glm,
    _discloses,
    splits=("rows", "columns"),
    talks=True,
    helpers=True,
    profile=Profile(
        _assess,
        examples=({"null_deviance": False}, {"null_deviance": True, "covariance": True}),
        model=("binomial", "logit"),
    ),
)
