"""Secure Lasso: an elastic net on a table that nobody has, computed on shares by three parties.

After van Egmond et al., "Privacy-preserving dataset combination and Lasso regression for healthcare predictions", BMC
Med Inform Decis Mak 2021;21:266 (doi:10.1186/s12911-021-01582-y), with the objective of its code, which is that of
scikit-learn: |y - b - Xw|^2 / (2n) + alpha (r |w|_1 + (1 - r) |w|^2 / 2). If columns are split, owners and a helper
first join their tables (secure_join.py); where rows are split, each site supplies its own sums and there is no join.

Beyond the paper: the Gram matrix is computed once on shares, so that nothing afterwards depends on the number of rows;
exact centring; standardisation on the joined cohort, as a preconditioner and where the study penalises standardised
coefficients; FISTA with a secret step; all penalties and folds at once; figures of quality without anybody's rows.

What leaves a site: an owner's rows under masks (secure_join.py), or the shares of its rows or sums, which are uniform
to any one party. What is opened, to all: the number of joint patients, if they are enough; the coefficients with their
intercept (of the best penalty only, after cross-validation, unless the study shows the path); the mean squared errors
and the outcome's variance; the mean absolute errors and the scores of cross-validation where asked for; how many
iterations it took (in steps of `check_every`). Semi-honest parties, no two of which collude.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from coterie_learners.core.intervals import INTERVALS, check_spread, find_intervals
from coterie_learners.core.payload import Field, Payload, Schema, Stamp, decode, encode
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Channel, Posts, Script, Site, acknowledge, each, interactive
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import NotConverged, ProtocolError, StudyError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.secure import secure_join
from coterie_learners.secure.joined_rows import (
    FieldSums,
    Summands,
    exchange_rows,
    share_joined_rows,
    sum_in_field,
    supply_joined_rows,
)
from coterie_learners.secure.lasso_disclosure import disclose_lasso
from coterie_learners.secure.lasso_model import fit
from coterie_learners.secure.lasso_plan import (
    MAX_ROWS,
    LassoPlan,
    SecureLassoOptions,
    SharedPlan,
    check_linkage,
    check_silence,
    plan_schedule,
)
from coterie_learners.secure.lasso_result import build_lasso_fit, pack_result, result_form
from coterie_learners.secure.moments import INPUT, SharedSums, add_column_of_ones
from coterie_learners.secure.secure_join import JoinPlan, JoinPosts
from coterie_learners.shares.field import Elements
from coterie_learners.shares.session import Keystream, Randomness, Session, open_session, pack_account
from coterie_learners.shares.shamir3 import COMPUTING, ThreePartyShamir, supply
from coterie_learners.study.document import Schedule, Study

_VERSION = "4"
_TOPIC = "fit"
# Instead of a result's size: the reason why there is no result.
TOO_FEW, UNSETTLED = (1 << 64) - 1, (1 << 64) - 2


def secure_lasso(site: Site) -> Script:
    """Join the columns, or commit to the rows; then compute together and open the result."""
    plan = LassoPlan.of(site.study)
    if plan.joins:
        refine = partial(narrow_link, plan)
        posts = yield from secure_join.join(plan.link, lambda here: check_questions(here, plan), refine)
    else:
        terms = yield from each("terms", commit_rows, plan, expects=COMMITMENT, reveals=secure_join.expose_terms)
        posts = JoinPosts(terms, {}, {})
    plan = plan.narrow(posts.terms)
    result = yield from interactive(_TOPIC, compute, plan, posts, expects=result_form(plan))
    fit = build_lasso_fit(plan, result)
    yield from acknowledge()
    if not plan.joins or site.data is None:
        return fit
    return replace(fit, notes=(*fit.notes, secure_join.describe_linkage(site, plan.link, posts)))


# Rows split over sites: each site's own sums

COMMITMENT = Schema({"commitment": Field("|u1", (32,)), **INTERVALS})


def narrow_link(plan: LassoPlan, terms: Posts) -> JoinPlan:
    """The join of columns in the intervals that their owners posted."""
    return plan.narrow(terms).link


def commit_rows(site: Site, plan: LassoPlan) -> Payload:
    """SHA-256 of a secret salt and this site's rows; and where in their ranges its columns lie."""
    check_questions(site, plan)
    values = plan.tabulate_rows(site)
    salt, own = site.stream("commitment", 32), find_intervals(values)
    check_spread(own.place(values), site.name)
    committed = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"commitment": np.frombuffer(hashlib.sha256(salt + committed).digest(), np.uint8), **own.payload()}


def _group_sums(site: Site, plan: LassoPlan) -> Elements:
    """This site's sums as one vector (groups * (c (c + 1) / 2 + c + 1)).

    Its rows are dealt to groups at random, or by the study's seed in the order of its file.
    """
    values = plan.columns.place(plan.tabulate_rows(site))
    check_spread(values, site.name)
    values = values[secure_join.permutation(Keystream(_dealing_key(site, plan)), len(values))]
    cuts = plan.cuts(len(values))
    upper = np.triu_indices(plan.m + 1)
    parts = []
    for a, b in itertools.pairwise(cuts):
        sums = sum_in_field(plan.numbers, values[a:b], INPUT)
        parts += [sums.gram[upper], sums.total, np.array([b - a], dtype=object)]
    return np.asarray(np.concatenate(parts) % plan.numbers.p)


def _dealing_key(site: Site, plan: LassoPlan) -> bytes:
    seed = plan.options.seed
    if seed is None:
        return site.stream("groups", 32)
    return hashlib.sha256(b"coterie/1 groups" + seed.to_bytes(8, "big") + site.name.encode()).digest()


def add_shares(trio: ThreePartyShamir, plan: LassoPlan, shares: Elements) -> SharedSums:
    """The sites' sums (groups, ...) as shares, with the counts opened; StudyError below the floor."""
    c = plan.m + 1
    size = c * (c + 1) // 2
    apart = shares.reshape(-1, size + c + 1)
    counts = tuple(int(n) for n in trio.open(apart[:, -1], exact=True))
    secure_join.require_patients(sum(counts) >= plan.floor, plan.floor)
    _check_counts(plan, counts)
    gram = np.zeros((len(apart), c, c), dtype=object)
    rows, columns = np.triu_indices(c)
    gram[:, rows, columns] = gram[:, columns, rows] = apart[:, :size]
    totals = apart[:, size:-1]
    return SharedSums(counts, add_column_of_ones(trio, gram, totals, counts), totals)


def _check_counts(plan: LassoPlan, counts: Sequence[int]) -> None:
    if sum(counts) > MAX_ROWS:
        raise StudyError(
            "CO-N242",
            f"{sum(counts)} rows are more than {MAX_ROWS}, the limit of the secure numbers. Agree on fewer rows.",
        )
    if min(counts) < 2:
        message = f"{sum(counts)} rows in {len(counts)} groups leave a fold, or the rows held out, with {min(counts)}"
        raise StudyError("CO-N203", f"{message}. Take fewer folds.")


# Columns split over sites: the joined rows


def add_joined_rows(
    trio: ThreePartyShamir, plan: LassoPlan, blocks: Iterable[tuple[int, bytes]], cuts: Sequence[int]
) -> tuple[SharedSums, list[bytes]]:
    """Sums of the joined rows between the cuts, on shares without a message; and the rows fitted and held out.

    Rows are kept only where the study asks for absolute errors.
    """
    groups = [FieldSums(plan.numbers, plan.m + 1) for _ in cuts[1:]]
    fitted = len(groups) - (plan.options.held_out > 0)
    kept: tuple[list[bytes], list[bytes]] = ([], [])
    for group, packed in blocks:
        groups[group].add(packed)
        if plan.options.absolute_error:
            kept[group >= fitted].append(packed)
    counts = tuple(b - a for a, b in itertools.pairwise(cuts))
    _check_counts(plan, counts)
    totals = np.stack([group.total for group in groups])
    gram = np.stack([group.gram for group in groups])
    rows = [b"".join(part) for part in kept if part]
    return SharedSums(counts, add_column_of_ones(trio, gram, totals, counts), totals), rows


# The interactive step


def compute(site: Site, channel: Channel | None, plan: LassoPlan, posts: JoinPosts) -> Payload:
    """One site's part: greet, compute or supply, compare what was said, return what was opened."""
    assert channel is not None
    places, n = secure_join.find_joint_patients(site, plan.link, posts) if plan.joins else (None, 0)
    if plan.joins:
        secure_join.read_spelling_counts(site, plan.link, posts).check(site.study.most_spellings)
    spend_question(site, plan)
    cuts = _find_cuts(site, plan, posts, n)
    terms = repr((plan.computing, plan.numbers.bits, n, tuple(cuts), _VERSION)).encode() + digest_terms(posts.terms)
    session, randomness = open_session(site, channel, _TOPIC, terms)
    own = exchange_rows(site, plan.link, posts, session, places) if plan.joins else Summands({})
    if site.name in plan.computing:
        opened = _run_party(site, plan, session, randomness, own, cuts)
    else:
        opened = _run_supplier(site, plan, session, randomness, own, cuts)
    return {**opened, **pack_account(session.account())}


def _find_cuts(site: Site, plan: LassoPlan, posts: JoinPosts, n: int) -> list[int]:
    """The places at which joined rows are cut into groups: by the fractions of the study, or as its seed deals them."""
    groups = secure_join.read_groups(site, plan.link, posts) if plan.joins else ()
    return [0, *itertools.accumulate(groups)] if groups else plan.cuts(n)


def check_questions(site: Site, plan: SharedPlan) -> None:
    """StudyError if this site has answered enough studies on these patients; counts nothing yet."""
    _read_questions(site, plan)


def spend_question(site: Site, plan: SharedPlan) -> None:
    """Count this study among those that this site has answered on its patients, before anything of it is opened."""
    label, answered, this = _read_questions(site, plan)
    if label and this not in answered:
        site.vault[label] = b"".join([*answered, this])


def _read_questions(site: Site, plan: SharedPlan) -> tuple[str, list[bytes], bytes]:
    """The label under which this site keeps the studies answered on these patients, those studies, and this one."""
    this = hashlib.sha256(f"{site.session}/{site.study.hash.hex()}".encode()).digest()
    if site.data is None:
        return "", [], this
    patients = secure_join.cohort_digest(site) if plan.joins else _digest_of(plan.tabulate_rows(site))
    label = f"questions/{patients.hex()}"
    raw = site.vault.get(label, b"")
    answered = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    if this not in answered and len(answered) >= plan.questions:
        message = f"{site.name} has answered {pluralise(len(answered), 'study', 'studies')} on these patients"
        reason = (
            "The difference of two fits can disclose single patients. Agree on a larger `questions` if you want that"
        )
        raise StudyError("CO-N243", f"{message}, and this study allows {plan.questions} in all. {reason}.")
    return label, answered, this


def _run_party(
    site: Site, plan: LassoPlan, session: Session, randomness: Randomness, own: Summands, cuts: Sequence[int]
) -> Payload:
    """Compute with the two other parties, then send the suppliers the result, or the reason why there is none."""
    trio = ThreePartyShamir(plan.numbers, session, plan.computing, randomness)
    suppliers = [name for name in site.study.sites if name not in plan.computing]
    try:
        opened = _compute_fit(site, plan, trio, own, cuts)
    except (StudyError, NotConverged) as error:
        code = UNSETTLED if isinstance(error, NotConverged) else TOO_FEW
        for name in suppliers:
            session.send(name, code.to_bytes(8, "little"))
        raise
    raw = encode(_stamp(site), opened)
    for name in suppliers:
        session.send(name, len(raw).to_bytes(8, "little"))
        session.send(name, raw)
    return opened


def _compute_fit(site: Site, plan: LassoPlan, trio: ThreePartyShamir, own: Summands, cuts: Sequence[int]) -> Payload:
    if plan.joins:
        sums, rows = add_joined_rows(trio, plan, share_joined_rows(plan, trio, own, cuts), cuts)
        return pack_result(plan, sums, fit(trio, sums, rows, plan.target))
    vector = _group_sums(site, plan)
    total: Elements | int = 0
    for name in site.study.sites:
        total = total + _deal_columns(trio, plan, name, vector)
    sums = add_shares(trio, plan, np.asarray(total % plan.numbers.p))
    return pack_result(plan, sums, fit(trio, sums, [], plan.target))


def _deal_columns(trio: ThreePartyShamir, plan: LassoPlan, name: str, own_values: Elements) -> Elements:
    if name not in plan.computing:
        return trio.gather(name, own_values.shape)
    return trio.deal(plan.computing.index(name), own_values, own_values.shape)


def _run_supplier(
    site: Site, plan: LassoPlan, session: Session, randomness: Randomness, own: Summands, cuts: Sequence[int]
) -> Payload:
    """Share what this site has among the three, and hear the result from each of them."""
    if plan.joins:
        supply_joined_rows(plan, session, randomness, own, cuts)
    else:
        supply(plan.numbers, session, plan.computing, _group_sums(site, plan), randomness)
    received_results = {name: _receive_result(session, name, plan) for name in plan.computing}
    results = set(received_results.values())
    if len(results) != 1:
        message = (
            f"{' and '.join(plan.computing)} sent {site.name} different results. "
            "Ask them to check their nodes and versions."
        )
        raise ProtocolError("CO-P646", message, topic=_TOPIC)
    return decode(results.pop())[1]


def _receive_result(session: Session, name: str, plan: LassoPlan) -> bytes:
    size = int.from_bytes(session.receive(name, 8), "little")
    if size == TOO_FEW:
        secure_join.require_patients(False, plan.floor)
    if size == UNSETTLED:
        raise NotConverged(
            "CO-N141",
            "The computing parties ran out of iterations. Nothing was opened. "
            "Raise max_iterations, alpha or tolerance.",
        )
    if size > 1 << 24:
        raise ProtocolError(
            "CO-P641",
            f"{name} announced a result of {size} bytes, which is not a result's size. "
            "Ask that site to check its node and version.",
            name,
            _TOPIC,
        )
    return session.receive(name, size)


def _stamp(site: Site) -> Stamp:
    return Stamp(site.study.hash.hex(), _TOPIC, "", site.attempt)


def digest_terms(posts: Posts) -> bytes:
    """One digest of all sites' commitments."""
    parts = [bytes(np.asarray(post["commitment"])) for post in posts.values()]
    return hashlib.sha256(b"".join(parts)).digest()


def _digest_of(values: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).digest()


# The study


def _check_study(study: Study) -> None:
    """StudyError for a study that Secure Lasso cannot run."""
    plan = LassoPlan.of(study)
    formula = plan.design.formula
    if not formula.intercept or formula.offset or plan.m < 1:
        raise StudyError(
            "CO-S541", "Secure Lasso fits an intercept and at least one column, and has no offset. Correct the formula."
        )
    if plan.design.outcome.type == "category":
        raise StudyError(
            "CO-S301", f"The outcome {formula.outcome!r} must be a number, a count or binary. Declare another type."
        )
    check_silence(study)
    if len(study.sites) < COMPUTING or (plan.joins and len(plan.helpers) != 1):
        message = "Three sites compute on shares: two or more that hold columns and exactly one helper without"
        raise StudyError("CO-S543", f"{message}, or three or more that hold rows.")
    _check_options(plan)


def _check_options(plan: LassoPlan) -> None:
    o = plan.options
    if not plan.joins and o.absolute_error:
        raise StudyError(
            "CO-S544", "absolute_error needs columns split over sites: sums do not give it. Remove the option."
        )
    _ = plan.numbers
    check_linkage(plan)


def _schedule(study: Study) -> Schedule:
    """The schedule of learners on shares."""
    return plan_schedule(LassoPlan.of(study))


def _discloses(study: Study) -> Disclosure:
    """What a study discloses."""
    return disclose_lasso(LassoPlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """Behind the learners that give standard errors."""
    if study.split == "rows":
        return Suitability(5, True, "penalised linear regression on shares of each site's sums; no standard errors.")
    why = "patients matched and a penalised linear model fitted without anybody seeing rows, with a helper site; "
    return Suitability(5, True, f"{why}no standard errors.")


SECURE_LASSO = Learner(
    "secure_lasso",
    _VERSION,
    SecureLassoOptions,
    _check_study,
    _schedule,
    secure_lasso,
    _discloses,
    splits=("rows", "columns"),
    talks=True,
    profile=Profile(_assess, examples=({"linkage": "masks"}, {"linkage": "paillier"}), model=("gaussian", "identity")),
)
