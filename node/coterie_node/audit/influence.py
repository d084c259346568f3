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

from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.heterogeneity import Heterogeneity, Share, compare_sites
from coterie_learners.core.payload import Payload
from coterie_learners.glore.category_plan import has_levels
from coterie_learners.glore.glore import GlorePlan
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.study.document import Study
from coterie_learners.sums.newton import begin, kind_of
from coterie_node.errors import AuditFailed
from coterie_node.run.recorded_steps import Done, steps
from coterie_node.run.study_files import study_on_ledger

# A site is named when its estimate is this unlikely beside the others' (shared out over the sites)...
UNLIKELY = 0.001
# ...and where it moves a coefficient by more than so many standard errors.
LARGE_MOVE = 1.0
HETEROGENEOUS = 0.05


@dataclass(frozen=True)
class Screen:
    """The outcome: `comparison` (None where the ledger lacks each site's own sums) and `statements` in sentences."""

    study: str
    comparison: Heterogeneity | None
    outliers: tuple[str, ...]
    statements: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys; None for what is unknown."""
        plain: dict[str, Any] = {
            "study": self.study,
            "outliers": list(self.outliers),
            "statements": list(self.statements),
        }
        return plain | {"sites": _by_site(self.comparison), "terms": _by_term(self.comparison)}

    def text(self) -> str:
        """The same for a terminal."""
        return "\n".join(
            [*self.statements, *(() if self.comparison is None else ("", *_format_table(self.comparison)))]
        )


def screen(ledger: Ledger, blobs: BlobStore, number: int) -> Screen:
    """Screen a study; AuditFailed (CO-A107) if no site has posted yet. Raises what a replay finds in its record."""
    study = study_on_ledger(ledger.view(number), blobs)
    return screen_steps(study, steps(ledger, blobs, number, study))


def screen_steps(study: Study, done: Iterable[Done]) -> Screen:
    """Screen a study from its finished steps."""
    if study.learner.name != "glore" or has_levels(study.learner.options.get("family")):
        message = f"The ledger of {study.learner.name} does not have the sums that a comparison of its sites needs."
        return Screen(study.name, None, (), (message,))
    if study.models:
        return Screen(study.name, None, (), (SEVERAL,))
    plan = GlorePlan.of(study)
    if plan.masked:
        return Screen(study.name, None, (), (MASKED,))
    model, stats, converged = _find_last_round(plan, done)
    comparison = compare_posts(plan, model, stats)
    return Screen(
        study.name,
        comparison,
        outliers(comparison),
        (*(() if converged else (UNFINISHED,)), *describe_comparison(comparison)),
    )


UNFINISHED = "The study has no fit; its sites are compared at the coefficients of the last round that there is."
SEVERAL = (
    "The study has several models, whose sums at the sites are not compared one by one. Each model's own test says "
    "whether the sites agree on it."
)
MASKED = (
    "The study's sums are masked: only sums over the sites exist, so that nobody can see the part of a single "
    "site, false or true. To compare the sites, agree on a study with plain sums, where the gate lets them."
)


def compare_posts(plan: GlorePlan, model: Payload, stats: Mapping[str, Payload]) -> Heterogeneity:
    """Agreement of the sites at the coefficients of a server's post, from their own posts there."""
    shares = {
        site: Share(int(post["n"]), np.asarray(post["score"]), symmetric(np.asarray(post["information"]), plan.p))
        for site, post in stats.items()
    }
    frame, ridge = plan.frame(model), plan.rules.penalty
    return compare_sites(
        plan.design.names,
        model["beta"],
        shares,
        penalty=ridge.matrix(frame),
        pull=ridge.gradient(frame, model["beta"]),
        back=frame.coefficient_unit * frame.carry,
        origin=frame.coefficient_unit * frame.origin,
        dispersion=_estimate_dispersion(plan, stats),
    )


def _estimate_dispersion(plan: GlorePlan, stats: Mapping[str, Payload]) -> float:
    """From Pearson's residuals where the posts have them, as those of a last round do; else from the deviance."""
    if plan.family.dispersion == "known":
        return 1.0
    pearson = plan.family.dispersion == "pearson" and all("pearson" in post for post in stats.values())
    names = ("n", "pearson" if pearson else "deviance")
    n, left = (sum(float(post[name]) for post in stats.values()) for name in names)
    return left / (n - plan.p)


def outliers(comparison: Heterogeneity) -> tuple[str, ...]:
    """The sites whose own estimates do not go together with the rest's, the farthest apart first."""
    bound = UNLIKELY / len(comparison.sites)
    return tuple(comparison.sites[k] for k in _sort_by_distance(comparison) if comparison.apart_p[k] < bound)


def describe_comparison(comparison: Heterogeneity) -> Iterator[str]:
    """What there is to say, for people."""
    named = outliers(comparison)
    for k in _sort_by_distance(comparison):
        site = comparison.sites[k]
        moves = sorted(zip(comparison.terms, comparison.moved[k].tolist(), strict=True), key=lambda m: -abs(m[1]))
        large = [f"{term} by {move:+.1f} standard errors" for term, move in moves if abs(move) > LARGE_MOVE]
        if site in named:
            chi = f"chi-squared {comparison.apart[k]:.1f} on {comparison.apart_df[k]:.0f} df"
            chi += f", p = {comparison.apart_p[k]:.1e}"
            effect = _join_names(large) or "little"
            yield f"{site} does not go together with the other sites ({chi}); it moves {effect}."
        elif large:
            yield f"{site} moves {_join_names(large)}, which its number of rows can explain."
    differing = [t for t, p in zip(comparison.terms, comparison.q_p.tolist(), strict=True) if p < HETEROGENEOUS]
    if differing:
        tests = int(np.isfinite(comparison.q_p).sum())
        chance = f"of {tests} tests {HETEROGENEOUS * tests:.1g} would have that by chance"
        yield f"Cochran's Q has p < {HETEROGENEOUS} for {_join_names(differing)}; {chance}."
    blind = [s for s, own in zip(comparison.sites, comparison.own, strict=True) if np.isnan(own).any()]
    if blind:
        yield f"{_join_names(blind)} cannot estimate every coefficient alone; no comparison is made there."
    if not named:
        yield "No site stands out against the rest."
    else:
        yield "The screen names sites that disagree; it cannot know which are right. Ask how their data were coded."


def _find_last_round(plan: GlorePlan, done: Iterable[Done]) -> tuple[Payload, Mapping[str, Payload], bool]:
    """The server post of the last round, the sites' posts at its coefficients, and whether it was the last of a fit."""
    model, at, converged = begin(plan.rules), begin(plan.rules), False
    stats: Mapping[str, Any] = {}
    for entry in done:
        if entry.step.public:
            (model,) = entry.posts.values()
            converged = bool(model.get("converged", False))
        elif entry.step.topic.startswith("stats/"):
            at, stats = model, entry.posts
    if not stats or kind_of(at) == "look":
        raise AuditFailed(
            "CO-A107", f"No site has posted its sums in study {plan.study.name!r}. Wait for the first round."
        )
    return at, stats, converged


def _sort_by_distance(comparison: Heterogeneity) -> list[int]:
    return sorted(range(len(comparison.sites)), key=lambda k: -np.nan_to_num(comparison.apart[k]))


def _join_names(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _by_site(comparison: Heterogeneity | None) -> list[dict[str, Any]]:
    if comparison is None:
        return []
    return [
        {
            "site": site,
            "chi2": _number(comparison.apart[k]),
            "df": int(comparison.apart_df[k]),
            "p_value": _number(comparison.apart_p[k]),
            "estimates": list(map(_number, comparison.own[k].tolist())),
            "std_errors": list(map(_number, comparison.own_errors[k].tolist())),
            "without": list(map(_number, comparison.without[k].tolist())),
            "moved": list(map(_number, comparison.moved[k].tolist())),
        }
        for k, site in enumerate(comparison.sites)
    ]


def _by_term(comparison: Heterogeneity | None) -> list[dict[str, Any]]:
    if comparison is None:
        return []
    names = ("estimates", "std_errors", "q", "q_df", "q_p", "i2")
    keys = ("estimate", "std_error", "q", "df", "p_value", "i2")
    columns = [getattr(comparison, name).tolist() for name in names]
    rows = zip(comparison.terms, *columns, strict=True)
    return [{"term": term, **dict(zip(keys, map(_number, values), strict=True))} for term, *values in rows]


def _format_table(comparison: Heterogeneity) -> list[str]:
    head = ["", "Q", "df", "p", "I2", *(f"{site} moves" for site in comparison.sites)]
    body = [
        [
            term,
            f"{comparison.q[j]:.2f}",
            f"{comparison.q_df[j]:.0f}",
            f"{comparison.q_p[j]:.3g}",
            f"{100 * comparison.i2[j]:.0f}%",
            *(f"{comparison.moved[k, j]:+.2f} SE" for k in range(len(comparison.sites))),
        ]
        for j, term in enumerate(comparison.terms)
    ]
    widths = [max(len(row[k]) for row in [head, *body]) for k in range(len(head))]
    return [
        "  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))])
        for r in [head, *body]
    ]
