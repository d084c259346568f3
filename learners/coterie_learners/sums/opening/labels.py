"""Labels of rows: 8 keyed bytes for each raw column, equal to an earlier study's if and only if the rows are the same.

The sites' gates tell by them which earlier sums could be taken off a masked one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Site, Step, each
from coterie_learners.core.study_disclosure import StepDisclosure

LABEL_BYTES = 8
LABELS = "labels"
# Each party's label (hex) of each raw column's rows.
PostedLabels = Mapping[str, Mapping[str, str]]

_WHAT = "Labels of its rows: 8 keyed bytes for each raw column, equal to an earlier study's if and only if its rows are"
SEEN_IN_LABELS = "Everybody learns from the labels whether a site's rows are those of an earlier study."


def exchange_labels(
    columns: Sequence[str], rows: Callable[[Site], int], by_patient: bool = False, prefix: str = ""
) -> Generator[Step, Posts, PostedLabels]:
    """Every site's label of each raw column's rows; `rows`: how many a site has, `prefix`: of the step's name."""
    form = Schema({"labels": Field("|u1", (len(columns), LABEL_BYTES))})
    reveals = partial(expose_labels, rows, by_patient)
    posts = yield from each(prefix + LABELS, post_labels, columns, expects=form, reveals=reveals)
    return read_labels(columns, posts)


def count_coded_rows(site: Site) -> int:
    """How many rows a site has whose learner reads codes."""
    return site.codes.n


def post_labels(site: Site, columns: Sequence[str]) -> Payload:
    """This site's label of each raw column's rows (k, 8); zero where its node keeps none."""
    known = site.label_rows()
    rows = [known.get(name, bytes(LABEL_BYTES)) for name in columns]
    return {"labels": np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), LABEL_BYTES)}


def read_labels(columns: Sequence[str], posts: Posts) -> PostedLabels:
    """The labels that each party's node keeps, by column."""
    order = tuple(columns)
    return {name: dict(_spell_labels(order, np.asarray(post["labels"]).tobytes())) for name, post in posts.items()}


@lru_cache(maxsize=4096)
def _spell_labels(columns: tuple[str, ...], raw: bytes) -> Mapping[str, str]:
    """One post's labels by column, once for all who read the same bytes in a process."""
    rows = (raw[at : at + LABEL_BYTES] for at in range(0, len(raw), LABEL_BYTES))
    return {name: row.hex() for name, row in zip(columns, rows, strict=True) if any(row)}


def expose_labels(rows: Callable[[Site], int], by_patient: bool, site: Site, payload: Payload) -> Exposure:
    """What the labels reveal: whether a site's rows are those of an earlier study."""
    return Exposure(
        what="Labels of row sets",
        rows=rows(site),
        parties=len(site.parties),
        labels_only=True,
        by_patient=by_patient,
    )


def disclose_labels(prefix: str = "") -> StepDisclosure:
    """What the labels disclose."""
    return StepDisclosure(prefix + LABELS, "each", _WHAT, None, "blinded")
