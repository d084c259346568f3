"""A trial of a study on synthetic rows: what its release gate refuses, and how wide its intervals will be.

Rows are drawn as for the certificate, of so many patients at each site as people expect; the learner, the ledger and
the gate are the real ones. No data are read. What real rows hold may still be refused: rarer levels, smaller sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from coterie_learners.core.fit import LEVEL
from coterie_learners.core.registry import Learner, learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Study
from coterie_learners.sums.families import choose_family
from coterie_node.analysis.certificate import FEWEST_ROWS, ROWS_PER_COEFFICIENT, fit_pooled_rows
from coterie_node.data.synthetic import simulate_cohort
from coterie_node.errors import NodeError
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate

_SEED = 20241
# A site's synthetic rows at the most, and draws that the expected widths are the mean of.
MOST_ROWS = 20_000
DRAWS = 20


@dataclass(frozen=True)
class Width:
    """The expected width of a term's 95 % interval, per standard deviation of a measured column.

    `ratio`: what exp(coefficient) is called, with how many times its upper limit is the lower one; empty and NaN else.
    """

    term: str
    width: float
    ratio: str
    times: float

    @property
    def line(self) -> str:
        """The width for people."""
        more = f"; the upper limit of the {self.ratio} is {self.times:.3g} times the lower" if self.ratio else ""
        return f"{self.term:<24s} {self.width:.3g}{more}"


def guess_sizes(study: Study, rows: Sequence[int]) -> dict[str, int]:
    """Rows of each site: as given by site, one number divided evenly, or enough for the formula."""
    sites = study.owners if not study.columns else study.sites
    if not rows:
        return dict.fromkeys(sites, max(FEWEST_ROWS, ROWS_PER_COEFFICIENT * len(Design(study).columns)))
    if len(rows) == len(sites):
        return dict(zip(sites, rows, strict=True))
    if study.columns:
        return dict.fromkeys(sites, rows[0])
    return {name: rows[0] // len(sites) + (k < rows[0] % len(sites)) for k, name in enumerate(sites)}


def can_try(learner: Learner) -> bool:
    """Whether a run on synthetic rows takes seconds, and a pooled fit is known: an interactive learner is not tried."""
    return learner.profile.equals_pooled and not learner.talks


def try_gate(study: Study, sizes: Mapping[str, int], events: float | None = None) -> str:
    """Why the completed study would be refused on synthetic rows, in words; empty if it runs to its end."""
    if not can_try(learner_of(study)):
        return ""
    limited = {name: min(size, MOST_ROWS) for name, size in sizes.items()}
    try:
        cohort = simulate_cohort(study, limited, np.random.default_rng(_SEED), events)
        simulate(study, cohort.sites, gates={name: Gate(study) for name in study.sites})
    except (LearnerError, NodeError) as error:
        return f"{error.code}: {error.message}"
    return ""


def expect_widths(study: Study, sizes: Mapping[str, int], events: float | None = None) -> tuple[Width, ...]:
    """The mean width of each interval over synthetic cohorts; empty where no pooled fit is known."""
    if study.models:
        return ()
    family = choose_family(study.learner.options.get("family", "binomial"), study.learner.options.get("link"))
    if not family.certified or family.bounded or family.shaped or not (family.whole or family.linear):
        return ()
    design, half = Design(study), float(special.ndtri(0.5 + LEVEL / 2))
    drawn = [_errors(study, design, sizes, events, seed) for seed in range(DRAWS)]
    errors = [values for values in drawn if values is not None]
    if not errors:
        return ()
    widths = 2.0 * half * np.mean(errors, axis=0)
    return tuple(
        Width(term, width, family.ratio, float(np.exp(width)) if family.ratio else float("nan"))
        for term, width in zip(design.names, widths.tolist(), strict=True)
        if term != INTERCEPT
    )


def _errors(study: Study, design: Design, sizes: Mapping[str, int], events: float | None, seed: int) -> Array | None:
    """Standard errors (p,) of one synthetic cohort, per standard deviation of measured columns; None without a fit."""
    limited = {name: min(size, MOST_ROWS) for name, size in sizes.items()}
    blocks = simulate_cohort(study, limited, np.random.default_rng(seed), events).rows
    try:
        _, errors = fit_pooled_rows(study, design, blocks)
    except np.linalg.LinAlgError:
        return None
    raw = np.concatenate([block.x for block in blocks])
    measured = np.array([len(np.unique(column)) > 2 for column in raw.T])
    shrink = np.sqrt(sum(limited.values()) / sum(sizes.values()))
    scaled = errors * np.where(measured, raw.std(axis=0), 1.0) * shrink
    return scaled if bool(np.all(np.isfinite(scaled))) else None
