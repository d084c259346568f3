"""Secure Lasso: an elastic net on a table that nobody has, computed on shares by three parties.

After van Egmond et al., "Privacy-preserving dataset combination and Lasso regression for healthcare predictions", BMC
Med Inform Decis Mak 2021;21:266 (doi:10.1186/s12911-021-01582-y), with the objective of its code, which is that of
scikit-learn: |y - b - Xw|^2 / (2n) + alpha (r |w|_1 + (1 - r) |w|^2 / 2). Where columns are split, owners and a helper
first join their tables (linkage.py); where rows are split, each site supplies its own sums and there is no join.

Beyond the paper: the Gram matrix is computed once on shares, so that nothing afterwards depends on the number of rows;
exact centring; standardisation on the joined cohort, as a preconditioner and where the study penalises standardised
coefficients; FISTA with a secret step; all penalties and folds at once; figures of quality without anybody's rows.

What leaves a site: an owner's rows under masks (linkage.py), or the shares of its rows or sums, which are uniform
to any one party. What is opened, to all: the number of joint patients, if they are enough; the coefficients with their
intercept (of the best penalty only, after cross-validation, unless the study shows the path); the mean squared errors
and the outcome's variance; the mean absolute errors and the scores of cross-validation where asked for; how many
iterations it took (in steps of `check_every`). Semi-honest parties, no two of which collude.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coterie_learners import linkage, paillier
from coterie_learners.errors import NotConverged, ProtocolError, StudyError
from coterie_learners.field import Elements
from coterie_learners.learner import Learner
from coterie_learners.linkage import Joined, Link
from coterie_learners.payload import Field, Payload, Schema, Stamp, decode, encode
from coterie_learners.protocol import Channel, Posts, Script, Site, each, together
from coterie_learners.rows import Array, whole
from coterie_learners.secure_model import fit
from coterie_learners.secure_plan import COMPUTING, MAX_ROWS, Plan, SecureLassoOptions
from coterie_learners.secure_result import accounted, fit_of, posted, result_form
from coterie_learners.session import Keystream, Randomness, Session, open_session
from coterie_learners.shared_moments import INPUT, Sums, with_ones
from coterie_learners.study import Schedule, Study
from coterie_learners.trio import Trio, supply

VERSION = "2"
TOPIC = "fit"
# In place of a result's size: why there is none.
TOO_FEW, UNSETTLED = (1 << 64) - 1, (1 << 64) - 2


def secure_lasso(site: Site) -> Script:
    """Join the columns, or commit to the rows; then compute together and open the result."""
    plan = Plan.of(site.study)
    if plan.joins:
        posts = yield from linkage.join(plan.link, lambda here: questions_left(here, plan))
    else:
        terms = yield from each("terms", commit_rows, plan, expects=COMMITMENT, reveals=linkage.terms_reveal)
        posts = Joined(terms, {}, {})
    result = yield from together(TOPIC, compute, plan, posts, expects=result_form(plan))
    fit = fit_of(plan, result)
    if not plan.joins or site.data is None:
        return fit
    return replace(fit, notes=(*fit.notes, linkage.linkage_report(site, plan.link, posts)))


# Rows split over sites: each site's own sums

COMMITMENT = Schema({"commitment": Field("|u1", (32,))})


def commit_rows(site: Site, plan: Plan) -> Payload:
    """SHA-256 of a secret salt and this site's rows."""
    questions_left(site, plan)
    held = np.ascontiguousarray(table_of(site, plan), dtype="<f8").tobytes()
    salt = site.stream("commitment", 32)
    return {"commitment": np.frombuffer(hashlib.sha256(salt + held).digest(), np.uint8)}


def table_of(site: Site, plan: Plan) -> Array:
    """This site's rows (n, m + 1) in [-1, 1], the outcome last."""
    block = whole(site.rows)
    centre, scale = plan.outcome
    return linkage.in_range(np.column_stack([block.x[:, 1:], (block.y - centre) / scale]), site.name)


def local_sums(site: Site, plan: Plan) -> Elements:
    """This site's sums as one vector (groups * (c (c + 1) / 2 + c + 1)); its rows are dealt to groups at random."""
    values = table_of(site, plan)
    values = values[linkage.permutation(Keystream(site.stream("groups", 32)), len(values))]
    cuts = plan.cuts(len(values))
    upper = np.triu_indices(plan.m + 1)
    parts = []
    for a, b in itertools.pairwise(cuts):
        group = plan.numbers.encode(values[a:b], INPUT)
        parts += [plan.numbers.gram(group)[upper], group.sum(axis=0), np.array([b - a], dtype=object)]
    return np.asarray(np.concatenate(parts) % plan.numbers.p)


def summed(trio: Trio, plan: Plan, shares: Elements) -> Sums:
    """The sites' sums (groups, ...) as shares, with the counts opened; StudyError below the floor."""
    c = plan.m + 1
    size = c * (c + 1) // 2
    apart = shares.reshape(-1, size + c + 1)
    counts = tuple(int(n) for n in trio.open(apart[:, -1], exact=True))
    linkage.require(sum(counts) >= plan.floor, plan.floor)
    _check_counts(plan, counts)
    gram = np.zeros((len(apart), c, c), dtype=object)
    rows, columns = np.triu_indices(c)
    gram[:, rows, columns] = gram[:, columns, rows] = apart[:, :size]
    totals = apart[:, size:-1]
    return Sums(counts, with_ones(trio, gram, totals, counts), totals)


def _check_counts(plan: Plan, counts: Sequence[int]) -> None:
    if sum(counts) > MAX_ROWS:
        raise StudyError("CO-N242", f"{sum(counts)} rows are more than the {MAX_ROWS} that the numbers are made for.")
    if min(counts) < 2:
        told = f"{sum(counts)} rows in {len(counts)} groups leave a fold, or the rows held out, with {min(counts)}"
        raise StudyError("CO-N203", f"{told}. Take fewer folds.")


# Columns split over sites: the joined rows


def joined_rows(site: Site, plan: Plan, posts: Joined, trio: Trio, n: int) -> Elements:
    """Shares (n, m + 1) of the joined table, the outcome last."""
    link = plan.link
    table = np.zeros((n, plan.m + 1), dtype=object)
    helper = trio.me == COMPUTING - 1
    places = linkage.matched_places(site, link, posts.rows) if helper else None
    for owner in link.owners:
        shape = (n, link.widths[owner])
        mine = None if places is None else linkage.summand_of_helper(site, link, posts, owner, places)
        total = trio.deal(COMPUTING - 1, mine, shape)
        total = total + _other_summand(site, plan, posts, trio, owner, shape)
        table[:, plan.order_of(owner)] = total % plan.numbers.p
    return table


def _other_summand(site: Site, plan: Plan, posts: Joined, trio: Trio, owner: str, shape: tuple[int, int]) -> Elements:
    """Shares of the second summand of an owner's rows, from whoever has it."""
    dealer = summand_holder(plan.link, owner)
    if dealer not in plan.computing:
        return trio.gather(dealer, shape)
    mine = linkage.summand_of_owner(site, plan.link, posts)[1] if dealer == site.name else None
    return trio.deal(plan.computing.index(dealer), mine, shape)


def summand_holder(link: Link, owner: str) -> str:
    """The site that has the second summand of an owner's matched rows."""
    if link.sealed_by_key:
        return owner
    return link.owners[(link.owners.index(owner) + 1) % len(link.owners)]


def row_sums(trio: Trio, plan: Plan, rows: Elements) -> tuple[Sums, list[Elements]]:
    """Sums of the joined rows by group, on shares without a message; and the rows fitted and held out."""
    cuts = plan.cuts(len(rows))
    groups = [rows[a:b] for a, b in itertools.pairwise(cuts)]
    counts = tuple(len(group) for group in groups)
    _check_counts(plan, counts)
    totals = np.stack([group.sum(axis=0) % plan.numbers.p for group in groups])
    gram = np.stack([plan.numbers.gram(group) for group in groups])
    fitted = len(rows) - (counts[-1] if plan.options.held_out else 0)
    parts = [rows[:fitted], rows[fitted:]] if plan.options.held_out else [rows]
    return Sums(counts, with_ones(trio, gram, totals, counts), totals), parts


# The interactive step


def compute(site: Site, channel: Channel | None, plan: Plan, posts: Joined) -> Payload:
    """One site's part: greet, compute or supply, compare what was said, return what was opened."""
    assert channel is not None
    n = linkage.joint_patients(site, plan.link, posts) if plan.joins else 0
    if plan.joins:
        linkage.counts_of_match(site, plan.link, posts).check(site.study.most_spellings)
    spend_question(site, plan)
    terms = repr((plan.computing, plan.numbers.bits, n, VERSION)).encode() + _digest(posts.terms)
    session, randomness = open_session(site, channel, TOPIC, terms)
    if site.name in plan.computing:
        opened = _as_party(site, plan, posts, session, randomness, n)
    else:
        opened = _as_supplier(site, plan, posts, session, randomness)
    return {**opened, **accounted(session.account())}


def questions_left(site: Site, plan: Plan) -> None:
    """StudyError if this site has answered enough studies on these patients; counts nothing yet."""
    _asked(site, plan)


def spend_question(site: Site, plan: Plan) -> None:
    """Count this study among those that this site has answered on its patients, before anything of it is opened."""
    label, kept, this = _asked(site, plan)
    if label and this not in kept:
        site.vault[label] = b"".join([*kept, this])


def _asked(site: Site, plan: Plan) -> tuple[str, list[bytes], bytes]:
    """Where this site keeps the studies answered on these patients, those studies, and this one."""
    this = hashlib.sha256(f"{site.session}/{site.study.hash.hex()}".encode()).digest()
    if site.data is None:
        return "", [], this
    patients = linkage.cohort(site) if plan.joins else _digest_of(table_of(site, plan))
    label = f"questions/{patients.hex()}"
    raw = site.vault.get(label, b"")
    kept = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    if this not in kept and len(kept) >= plan.options.questions:
        told = f"{site.name} has answered {len(kept)} studies on these patients, and this study allows"
        more = "The difference of two fits can tell of single patients. Agree on `questions` if that is wanted"
        raise StudyError("CO-N243", f"{told} {plan.options.questions} in all. {more}.")
    return label, kept, this


def _as_party(site: Site, plan: Plan, posts: Joined, session: Session, randomness: Randomness, n: int) -> Payload:
    """Compute with the two other parties, then tell the suppliers the result, or why there is none."""
    trio = Trio(plan.numbers, session, plan.computing, randomness)
    suppliers = [name for name in site.study.sites if name not in plan.computing]
    try:
        opened = _computed(site, plan, posts, trio, n)
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


def _computed(site: Site, plan: Plan, posts: Joined, trio: Trio, n: int) -> Payload:
    if plan.joins:
        rows = joined_rows(site, plan, posts, trio, n)
        sums, parts = row_sums(trio, plan, rows)
        return posted(plan, sums, fit(trio, sums, parts if plan.options.absolute_error else [], plan.target))
    vector = local_sums(site, plan)
    total: Elements | int = 0
    for name in site.study.sites:
        total = total + _dealt(trio, plan, name, vector)
    sums = summed(trio, plan, np.asarray(total % plan.numbers.p))
    return posted(plan, sums, fit(trio, sums, [], plan.target))


def _dealt(trio: Trio, plan: Plan, name: str, mine: Elements) -> Elements:
    if name not in plan.computing:
        return trio.gather(name, mine.shape)
    return trio.deal(plan.computing.index(name), mine, mine.shape)


def _as_supplier(site: Site, plan: Plan, posts: Joined, session: Session, randomness: Randomness) -> Payload:
    """Share what this site has among the three, and hear the result from each of them."""
    values = linkage.summand_of_owner(site, plan.link, posts)[1] if plan.joins else local_sums(site, plan)
    supply(plan.numbers, session, plan.computing, values, randomness)
    heard = {name: _heard(session, name, plan) for name in plan.computing}
    results = set(heard.values())
    if len(results) != 1:
        told = f"{' and '.join(plan.computing)} told {site.name} different results."
        raise ProtocolError("CO-P646", told, topic=TOPIC)
    return decode(results.pop())[1]


def _heard(session: Session, name: str, plan: Plan) -> bytes:
    size = int.from_bytes(session.receive(name, 8), "little")
    if size == TOO_FEW:
        linkage.require(False, plan.floor)
    if size == UNSETTLED:
        raise NotConverged("CO-N141", "The computing parties ran out of iterations; nothing was opened.")
    if size > 1 << 24:
        raise ProtocolError("CO-P641", f"{name} announced a result of {size} bytes.", name, TOPIC)
    return session.receive(name, size)


def _stamp(site: Site) -> Stamp:
    return Stamp(site.study.hash.hex(), TOPIC, "", site.attempt)


def _digest(posts: Posts) -> bytes:
    parts = [bytes(np.asarray(post["commitment"])) for post in posts.values()]
    return hashlib.sha256(b"".join(parts)).digest()


def _digest_of(values: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).digest()


# The study


def check_study(study: Study) -> None:
    """StudyError for a study that Secure Lasso cannot run."""
    plan = Plan.of(study)
    formula = plan.design.formula
    if not formula.intercept or formula.offset or plan.m < 1:
        raise StudyError("CO-S541", "Secure Lasso fits an intercept and at least one column, and has no offset.")
    if plan.design.outcome.type == "category":
        raise StudyError("CO-S301", f"The outcome {formula.outcome!r} must be a number, a count or binary.")
    if study.ledger.silent_site == "exclude":
        told = "The parties of a secure computation cannot go on without one of them"
        raise StudyError("CO-S542", f'{told}. Set silent_site to "wait" or "abort".')
    if len(study.sites) < COMPUTING or (plan.joins and len(plan.helpers) != 1):
        told = "Three sites compute on shares: two or more that hold columns and exactly one helper without"
        raise StudyError("CO-S543", f"{told}, or three or more that hold rows.")
    _check_options(plan)


def _check_options(plan: Plan) -> None:
    o = plan.options
    if not plan.joins and o.absolute_error:
        raise StudyError("CO-S544", "absolute_error needs columns split over sites: sums tell no absolute error.")
    if o.linkage == "paillier" and plan.joins:
        paillier.library()
    _ = plan.numbers
    if plan.joins:
        _ = plan.link


def schedule(study: Study) -> Schedule:
    """The join (or the commitments), then one interactive step."""
    plan = Plan.of(study)
    return Schedule(opening=linkage.schedule(plan.link) if plan.joins else ("each",), closing=("each",))


def trust(study: Study) -> str:
    """What each party learns, and who must not collude: for their people to read before they consent."""
    plan = Plan.of(study)
    joined = linkage.sentences(plan.link) if plan.joins else ()
    o = plan.options
    several = f"{len(o.alpha)} penalties" if len(o.alpha) > 1 else "1 penalty"
    shown = several if o.show == "path" or not o.folds else "the best penalty"
    extra = ", the scores of cross-validation" * (o.folds > 0) + ", those of rows held out" * (o.held_out > 0)
    public = (
        f"Everybody learns the coefficients of {shown}, the number of rows, the outcome's variance, "
        f"the mean errors{extra}, and the number of iterations.",
        f"No two of {', '.join(plan.computing)} may collude: together they could read every row that they compute on.",
    )
    return " ".join((*joined, *public))


SECURE_LASSO = Learner(
    "secure_lasso",
    VERSION,
    SecureLassoOptions,
    check_study,
    schedule,
    secure_lasso,
    splits=("rows", "columns"),
    trust=trust,
    talks=True,
)
