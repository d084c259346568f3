"""What a site gained by joining a study: its own fit beside the joint one, on its rows; nothing leaves this machine.

The own fit is that of the study's formula on this site's rows alone. If the study holds rows out, both models are
compared on this site's held-out rows, patient by patient; neither model has seen these rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.core.protocol import Site
from coterie_learners.errors import DataError, LearnerError, StudyError, pluralise
from coterie_learners.evaluate.discrimination import measure_area
from coterie_learners.evaluate.parts import IN_MEMORY, OwnParts
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import normal_quantile, t_quantile
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Block, CodedBlocks, CodedRows, Data, Rows, join_blocks
from coterie_learners.sums.families import all_families, choose_family
from coterie_node.analysis.certificate import fit_pooled_rows
from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.errors import NodeError

_NOTHING = "NA"


@dataclass(frozen=True)
class TermGain:
    """One coefficient of both fits with the widths of their intervals; NaN where this site alone has none."""

    term: str
    own: float
    own_width: float
    joint: float
    joint_width: float

    @property
    def times(self) -> float:
        """How many times the own interval is as wide as the joint one."""
        return self.own_width / self.joint_width if self.joint_width > 0.0 else math.nan


@dataclass(frozen=True)
class HeldOutGain:
    """Both models on this site's held-out rows: their number, events, and areas under the ROC curve."""

    n: int
    events: int
    own_area: Mapping[str, float] | None
    joint_area: Mapping[str, float] | None


@dataclass(frozen=True)
class Gain:
    """What a site gained by joining. `why`: why this site alone has no fit; `held_out` None without held-out rows."""

    study: str
    site: str
    n: int
    joint_n: int
    terms: tuple[TermGain, ...]
    held_out: HeldOutGain | None
    why: str = ""

    @property
    def times(self) -> float:
        """The median of how many times own intervals are as wide; NaN without an own fit."""
        times = [term.times for term in self.terms if math.isfinite(term.times)]
        return float(np.median(times)) if times else math.nan

    @property
    def sentence(self) -> str:
        """The gain in one sentence."""
        if not math.isfinite(self.times):
            return f"Joining: {self.site} alone has no fit of this model ({self.why or 'no standard errors'})."
        more = "" if self.held_out is None else _compare_areas(self.held_out)
        return (
            f"Joining: with {self.joint_n} rows in place of {self.n}, intervals are {self.times:.2f} times as narrow "
            f"(median of {pluralise(len(self.terms), 'coefficient')}){more}."
        )

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        terms = [asdict(term) | {"times": term.times} for term in self.terms]
        return {**asdict(self), "terms": terms, "times": self.times, "sentence": self.sentence}

    def text(self) -> str:
        """The gain for a terminal."""
        head = ("", "own", "own width", "joint", "joint width", "times as narrow")
        lines = tuple(_print_term(term) for term in self.terms)
        note = "Computed from this site's own rows; nothing of it leaves this machine."
        return "\n".join([*PrintedTable(head, lines).text_lines(), "", self.sentence, note])


def _print_term(term: TermGain) -> tuple[str, ...]:
    values = (term.own, term.own_width, term.joint, term.joint_width, term.times)
    return (term.term, *(_NOTHING if value != value else f"{value:.4g}" for value in values))


def _compare_areas(rows: HeldOutGain) -> str:
    if rows.own_area is None or rows.joint_area is None:
        return f"; {rows.n} held-out rows are too few for areas under the curve"
    joint, own = rows.joint_area["value"], rows.own_area["value"]
    return f"; on {rows.n} held-out rows here the AUC is {joint:.3f}, alone {own:.3f}"


def measure_gain(site: Site, fit: Fit) -> Gain:
    """The gain of a site with its rows, from the joint fit.

    StudyError (CO-S365) where rows are not split or the model is none of a certified family; DataError (CO-D143) for
    more rows than this machine's memory should hold.
    """
    study, design = site.study, Design(site.study)
    _check_study(study, fit)
    parts = OwnParts(site, design, by_rows=True) if study.evaluate.apart else None
    block = _read_block(site, design, None if parts is None else parts.fitted)
    own, why = _fit_alone(study, design, block)
    joint = _read_joint(fit)
    terms = tuple(
        TermGain(name, *(own or {}).get(name, (math.nan, math.nan)), *joint.get(name, (math.nan, math.nan)))
        for name in design.names
    )
    held_out = None if parts is None else _compare_held_out(site, design, parts, own, fit)
    return Gain(study.name, site.name, len(block), fit.n, terms, held_out, why)


def describe_gain(site: Site, result: object) -> str:
    """The gain in one sentence; empty for a study that has none, or whose rows cannot be read any more."""
    if site.data is None or not isinstance(result, Fit):
        return ""
    try:
        return measure_gain(site, result).sentence
    except (LearnerError, NodeError):
        return ""


def _check_study(study: Study, fit: Fit) -> None:
    family = all_families().get(fit.family)
    if study.columns or family is None or not family.certified or fit.covariance is None or fit.equations > 1:
        message = f"The study {study.name!r} ends with no regression on rows that a site could fit alone"
        raise StudyError("CO-S365", f"{message}. Ask for the gain of a generalised linear model.")
    other = [name for name in ("weights", "robust", "firth") if study.learner.options.get(name)]
    if other:
        message = f"The study {study.name!r} has {' and '.join(other)}, which the fit of one site's rows leaves out"
        raise StudyError("CO-S365", f"{message}: its intervals are no match. Ask for the gain of a study without.")


def _read_block(site: Site, design: Design, rows: Data | None) -> Block:
    """All rows of the fit at this site."""
    data = site.data if rows is None else rows
    made = CodedBlocks(design, data) if isinstance(data, CodedRows) else site.rows if rows is None else cast(Rows, rows)
    if made.n * len(design.columns) * 8 > IN_MEMORY:
        raise DataError("CO-D143", f"{site.name} has {made.n} rows, too many to fit in memory. Fit a part of them.")
    return join_blocks(made)


def _fit_alone(study: Study, design: Design, block: Block) -> tuple[dict[str, tuple[float, float]] | None, str]:
    """Estimate and width by term of this site's own fit, or why there is none."""
    try:
        with np.errstate(all="ignore"):
            beta, errors = fit_pooled_rows(study, design, [block])
    except (np.linalg.LinAlgError, LearnerError) as fault:
        return None, str(fault)
    if not np.all(np.isfinite(beta)) or not np.all(np.isfinite(errors)) or np.any(errors > 1e3 * (1 + np.abs(beta))):
        return None, "a coefficient is not finite here"
    widths = 2.0 * _find_quantile(study, len(block) - len(beta)) * errors
    return dict(zip(design.names, zip(beta.tolist(), widths.tolist(), strict=True), strict=True)), ""


def _find_quantile(study: Study, freedom: int) -> float:
    options, upper = study.learner.options, 0.5 + LEVEL / 2
    family = choose_family(options.get("family", "binomial"), options.get("link"))
    return normal_quantile(upper) if family.dispersion == "known" else t_quantile(upper, freedom)


def _read_joint(fit: Fit) -> dict[str, tuple[float, float]]:
    upper = 0.5 + LEVEL / 2
    quantile = normal_quantile(upper) if fit.dispersion_known else t_quantile(upper, fit.df_residual or fit.n)
    widths = 2.0 * quantile * fit.std_errors
    return dict(zip(fit.terms, zip(fit.estimates.tolist(), widths.tolist(), strict=True), strict=True))


def _compare_held_out(
    site: Site, design: Design, parts: OwnParts, own: Mapping[str, tuple[float, float]] | None, fit: Fit
) -> HeldOutGain:
    """Both models on the rows that neither has seen."""
    rows = parts.to_evaluate(site).codes
    block = join_blocks(CodedBlocks(design, rows)) if rows.n else Block(np.zeros((0, len(design.names))), np.zeros(0))
    joint = {name: estimate for name, (estimate, _) in _read_joint(fit).items()}
    alone = None if own is None else {name: estimate for name, (estimate, _) in own.items()}
    areas = [None if beta is None else _measure_area(block, design, beta) for beta in (alone, joint)]
    return HeldOutGain(len(block), int(block.y.sum()), *areas)


def _measure_area(block: Block, design: Design, beta: Mapping[str, float]) -> Mapping[str, float] | None:
    """The area of each row's own score, with DeLong's limits."""
    score: Array = block.x @ np.array([beta[name] for name in design.names])
    score = score if block.offset is None else score + block.offset
    _, place = np.unique(score, return_inverse=True)
    counts = np.zeros((int(place.max(initial=-1)) + 1, 2))
    np.add.at(counts, (place.ravel(), block.y.astype(int)), 1.0)
    area = measure_area(counts)
    return None if area is None else area.as_dict()
