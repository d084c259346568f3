"""The columns of single sites: what each posts in the clear where the study asks for it and the floors allow it.

A site's column has its own counts, means and squares of all its patients, without groups, of what the table shows. All
of it has passed the floor at every site before (`site_floors`), with the same bins. The pooled counts bind the columns:
they must add up to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.masked_sum import SiteSums, check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Site
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.table_one.shown_items import Shown
from coterie_learners.table_one.site_tally import sum_squares, tally_rows


def form_site_column(columns: Shown) -> SiteSums:
    """The form of one site's column, which is never masked."""
    return SiteSums({**columns.shapes, "squares": columns.shapes["sums"]}, False)


def share_column(site: Site, columns: Shown, form: SiteSums) -> Payload:
    """This site's counts, sums, and squares about its own means."""
    tally = tally_rows(columns.plan, site.codes)
    own = {"counts": columns.pack_counts(tally), "sums": columns.pack_sums(tally)}
    squares = sum_squares(columns.plan, site.codes, columns.find_means(own))
    return form.post(site, "columns", {**own, "squares": columns.pack_squares(squares)})


def expose_column(columns: Shown, site: Site, payload: Payload) -> Exposure:
    """What readers learn of this site: each count."""
    what = "This site's own column: counts by level, bin and missing value, means and standard deviations"
    cells, kinds = columns.list_cells(np.asarray(payload["counts"]))
    return Exposure(what=what, rows=site.codes.n, cells=cells, kinds=kinds)


def check_columns(shown: Shown, columns: Shown, pooled: Mapping[str, Any], posts: Posts) -> None:
    """ProtocolError for a column that no patients can give, or for columns that do not add up to the table."""
    for name, post in posts.items():
        check_patient_counts("counts", np.asarray(post["counts"]))
        columns.check(post)
        if np.any(np.asarray(post["squares"]) < 0.0):
            raise ProtocolError("CO-P502", f"A sum of squares of {name} is negative.")
    whole = shown.read_counts(np.asarray(pooled["counts"]))
    total: Array = np.sum([np.asarray(post["counts"]) for post in posts.values()], axis=0)
    for (kind, name), counts in columns.read_counts(total).items():
        if not np.array_equal(counts.sum(axis=0), whole[kind, name].sum(axis=0)):
            message = f"The sites' own counts of {name or 'patients'} do not add up to those of the table"
            raise ProtocolError("CO-P508", f"{message}, which no patients can give.")
