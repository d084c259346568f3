"""Do the sites agree, and does one of them pull the model? From the ledger and the store alone.

For learners whose sites post their own sums in the clear (GLORE, plain). A site that disagrees may be poisoned, wrongly
coded, or simply different; the screen names it, its people have to say why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_chain.blobs import BlobStore
from coterie_chain.ledger import Ledger
from coterie_learners.glore import AGREEMENT, Plan
from coterie_learners.heterogeneity import Heterogeneity, Share, heterogeneity
from coterie_learners.linalg import symmetric
from coterie_learners.payload import Payload
from coterie_learners.study import Study
from coterie_learners.sums.newton import begin, kind_of
from coterie_node.audit import study_on_ledger
from coterie_node.errors import AuditFailed
from coterie_node.steps import Done, steps

# A site is named when its estimate is this unlikely beside the others' (shared out over the sites)...
UNLIKELY = 0.001
# ...and where it moves a coefficient by more than so many standard errors.
LARGE_MOVE = 1.0
HETEROGENEOUS = 0.05


@dataclass(frozen=True)
class Screen:
    """The outcome: `found` None where the ledger does not hold each site's own sums, and `told` in sentences."""

    study: str
    found: Heterogeneity | None
    outliers: tuple[str, ...]
    told: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys; None for what cannot be told."""
        plain: dict[str, Any] = {"study": self.study, "outliers": list(self.outliers), "told": list(self.told)}
        return plain | {"sites": _by_site(self.found), "terms": _by_term(self.found)}

    def text(self) -> str:
        """The same for a terminal."""
        return "\n".join([*self.told, *(() if self.found is None else ("", *_table(self.found)))])


def screen(ledger: Ledger, blobs: BlobStore, number: int) -> Screen:
    """Screen a study; AuditFailed (CO-A107) if no site has posted yet. Raises what a replay finds in its record."""
    study = study_on_ledger(ledger.view(number), blobs)
    return screen_steps(study, steps(ledger, blobs, number, study))


def screen_steps(study: Study, done: Iterable[Done]) -> Screen:
    """Screen a study of which the finished steps are at hand."""
    if study.learner.name != "glore":
        told = f"The ledger of {study.learner.name} does not hold the sums that a comparison of its sites needs."
        return Screen(study.name, None, (), (told,))
    plan = Plan.of(study)
    if plan.masked:
        return Screen(study.name, None, (), (MASKED,))
    model, stats, converged = _last(plan, done)
    found = compare(plan, model, stats)
    return Screen(study.name, found, outliers(found), (*(() if converged else (UNFINISHED,)), *sentences(found)))


UNFINISHED = "The study has no fit; its sites are compared at the coefficients of the last round that there is."
MASKED = (
    "The study's sums are masked: only sums over the sites exist, so that nobody can see a single site's part, be it "
    "poisoned or merely different. To compare the sites, agree on a study with plain sums, where the gate lets them."
)


def compare(plan: Plan, model: Payload, stats: Mapping[str, Payload]) -> Heterogeneity:
    """Agreement of the sites at the coefficients of a server's post, from their own posts there."""
    shares = {
        site: Share(int(post["n"]), np.asarray(post["score"]), symmetric(np.asarray(post["information"]), plan.p))
        for site, post in stats.items()
    }
    n, deviance = (sum(float(post[name]) for post in stats.values()) for name in ("n", "deviance"))
    frame, ridge = plan.frame(model), plan.rules.penalty
    return heterogeneity(
        plan.design.names,
        model["beta"],
        shares,
        penalty=ridge.matrix(frame),
        pull=ridge.gradient(frame, model["beta"]),
        back=frame.outcome_scale * frame.carry,
        origin=frame.outcome_scale * frame.origin,
        dispersion=deviance / (n - plan.p) if plan.model.linear else 1.0,
    )


def outliers(found: Heterogeneity) -> tuple[str, ...]:
    """The sites whose own estimates do not go together with the rest's, the farthest apart first."""
    bound = UNLIKELY / len(found.sites)
    return tuple(found.sites[k] for k in _farthest(found) if found.apart_p[k] < bound)


def sentences(found: Heterogeneity) -> Iterator[str]:
    """What there is to say, for people."""
    named = outliers(found)
    for k in _farthest(found):
        site = found.sites[k]
        moves = sorted(zip(found.terms, found.moved[k].tolist(), strict=True), key=lambda m: -abs(m[1]))
        large = [f"{term} by {move:+.1f} standard errors" for term, move in moves if abs(move) > LARGE_MOVE]
        if site in named:
            chi = f"chi-squared {found.apart[k]:.1f} on {found.apart_df[k]:.0f} df, p = {found.apart_p[k]:.1e}"
            yield f"{site} does not go together with the other sites ({chi}); it moves {_listed(large) or 'little'}."
        elif large:
            yield f"{site} moves {_listed(large)}, which its number of rows can explain."
    differing = [t for t, p in zip(found.terms, found.q_p.tolist(), strict=True) if p < HETEROGENEOUS]
    if differing:
        tests = int(np.isfinite(found.q_p).sum())
        chance = f"of {tests} tests {HETEROGENEOUS * tests:.1g} would have that by chance"
        yield f"Cochran's Q has p < {HETEROGENEOUS} for {_listed(differing)}; {chance}."
    blind = [s for s, own in zip(found.sites, found.own, strict=True) if np.isnan(own).any()]
    if blind:
        yield f"{_listed(blind)} cannot estimate every coefficient alone; no comparison is made there."
    if not named:
        yield "No site stands out against the rest."
    else:
        yield "The screen names who disagrees, not who is right: ask these sites for their data's origin and coding."


def _last(plan: Plan, done: Iterable[Done]) -> tuple[Payload, Mapping[str, Payload], bool]:
    """The server post of the last round, the sites' posts at its coefficients, and whether it was the last of a fit."""
    model, at, converged = begin(plan.rules), begin(plan.rules), False
    stats: Mapping[str, Any] = {}
    for one in done:
        if one.step.public:
            (model,) = one.posts.values()
            converged = bool(model["converged"])
        elif one.step.topic != AGREEMENT:
            at, stats = model, one.posts
    if not stats or kind_of(at) == "look":
        raise AuditFailed("CO-A107", f"No site has posted its sums in study {plan.study.name!r}; nothing to compare.")
    return at, stats, converged


def _farthest(found: Heterogeneity) -> list[int]:
    return sorted(range(len(found.sites)), key=lambda k: -np.nan_to_num(found.apart[k]))


def _listed(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _by_site(found: Heterogeneity | None) -> list[dict[str, Any]]:
    if found is None:
        return []
    return [
        {
            "site": site,
            "chi2": _number(found.apart[k]),
            "df": int(found.apart_df[k]),
            "p_value": _number(found.apart_p[k]),
            "estimates": list(map(_number, found.own[k].tolist())),
            "std_errors": list(map(_number, found.own_errors[k].tolist())),
            "without": list(map(_number, found.without[k].tolist())),
            "moved": list(map(_number, found.moved[k].tolist())),
        }
        for k, site in enumerate(found.sites)
    ]


def _by_term(found: Heterogeneity | None) -> list[dict[str, Any]]:
    if found is None:
        return []
    names = ("estimates", "std_errors", "q", "q_df", "q_p", "i2")
    keys = ("estimate", "std_error", "q", "df", "p_value", "i2")
    columns = [getattr(found, name).tolist() for name in names]
    rows = zip(found.terms, *columns, strict=True)
    return [{"term": term, **dict(zip(keys, map(_number, values), strict=True))} for term, *values in rows]


def _table(found: Heterogeneity) -> list[str]:
    head = ["", "Q", "df", "p", "I2", *(f"{site} moves" for site in found.sites)]
    body = [
        [
            term,
            f"{found.q[j]:.2f}",
            f"{found.q_df[j]:.0f}",
            f"{found.q_p[j]:.3g}",
            f"{100 * found.i2[j]:.0f}%",
            *(f"{found.moved[k, j]:+.2f} SE" for k in range(len(found.sites))),
        ]
        for j, term in enumerate(found.terms)
    ]
    widths = [max(len(row[k]) for row in [head, *body]) for k in range(len(head))]
    return [
        "  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))])
        for r in [head, *body]
    ]
