"""The profile of a site's rows in a study's words: what `data check --against` compares, and what a site may give."""

from __future__ import annotations

from collections import Counter

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study, Variable
from coterie_node.data.coding import code
from coterie_node.data.draft.look import measure_numbers, share_counts
from coterie_node.data.installed_source import RowsAddress
from coterie_node.data.load import open_source
from coterie_node.data.quality.profile import ColumnProfile, SiteProfile, band_missing, round_digits


def profile_study(address: RowsAddress, study: Study, site: str, floor: int = 0) -> SiteProfile:
    """The study's variables at a site; values that the study refuses are part of it. DataError if unreadable."""
    design = Design(study, site)
    source, _ = open_source(address, design, site)
    parts: dict[str, list[Array]] = {name: [] for name in design.used}
    missing = dict.fromkeys(design.used, 0)
    for batch in source.batches():
        for name in design.used:
            coded = code(batch[name], study.variables[name])
            parts[name].append(coded.values[~np.isnan(coded.values)])
            missing[name] += int(np.count_nonzero(coded.missing))
    values = {name: np.concatenate(chunks) for name, chunks in parts.items()}
    rows = max((len(column) + missing[name] for name, column in values.items()), default=0)
    columns = [
        _profile_variable(name, study.variables[name], column, band_missing(missing[name], rows), floor)
        for name, column in values.items()
    ]
    return SiteProfile(
        site=site, floor=floor, rows=int(round_digits(float(rows))) if floor else rows, columns=tuple(columns)
    )


def _profile_variable(name: str, variable: Variable, values: Array, missing: str, floor: int) -> ColumnProfile:
    counts = dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
    plain = ColumnProfile(name=name, variable=name, kind=variable.type, unit=variable.unit, missing=missing)
    if variable.type in ("number", "count"):
        return plain.model_copy(update=measure_numbers(counts, floor))
    levels = variable.levels or ("0", "1")
    known = Counter({levels[int(k)]: count for k, count in counts.items() if k in range(len(levels))})
    return plain.model_copy(update={"levels": share_counts(known, floor)})
