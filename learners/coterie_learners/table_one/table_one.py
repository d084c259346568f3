"""The table of characteristics of patients at several sites, equal to that of the pooled rows.

What leaves a site. Under masks, labels of its rows (`sums.opening.labels`). Then, for each variable and each way to
show it (by group or for all patients; a number's bins at the declared width or at multiples of it), whether the site's
own patients allow it: each count is 0 or at least `disclosure.cell`, missing values included, and no patient makes up
nearly all of a sum. For each variable the first way is taken in which every site passes; where there is none the
variable is not shown. So even all other sites together see no small count of one. Then, once, the counts by level, bin
and missing value, the sums of numbers and of person time; and the squares of numbers about the pooled means, so that no
digits are lost to the centre.

Masked (the default with three sites or more): only their sums over the sites exist outside a site. Plain: every member
reads each site's. With `by_site` each site then posts a column of its own patients in the clear (`site_columns`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.masked_sum import SiteSums, check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import ProtocolError, Withheld
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Schedule, Study
from coterie_learners.sums.opening.labels import PostedLabels, count_coded_rows, exchange_labels
from coterie_learners.table_one.shown_items import Shown, choose_site_ways, choose_ways
from coterie_learners.table_one.site_columns import check_columns, expose_column, form_site_column, share_column
from coterie_learners.table_one.site_floors import list_passes
from coterie_learners.table_one.site_tally import sum_squares, tally_rows
from coterie_learners.table_one.table_disclosure import disclose_table
from coterie_learners.table_one.table_plan import CharacteristicsOptions, CharacteristicsPlan, check_table_plan
from coterie_learners.table_one.table_result import build_characteristics

_VERSION = "2"


def table_one(site: Site) -> Script:
    """Which ways pass everywhere, the counts and sums, their means, the squares about these, then the table."""
    plan = CharacteristicsPlan.of(site.study)
    labels = (yield from exchange_labels(plan.design.read, count_coded_rows)) if plan.masked else {}
    floors = SiteSums({"passes": (sum(len(item.alternatives) for item in plan.items),)}, plan.masked)
    flags = yield from each(
        "floors", share_floors, plan, floors, expects=floors.form, reveals=partial(expose_floors, plan, labels)
    )
    passing = floors.add(flags)["passes"]
    shown = choose_ways(plan, passing, len(flags))
    if shown.ways[0] is None:
        raise withhold_table(plan)
    counts = SiteSums(shown.shapes, plan.masked)
    posts = yield from each(
        "counts", share_tally, shown, counts, expects=counts.form, reveals=partial(expose_tally, shown, labels)
    )
    means = yield from server("means", pool_tally, shown, counts, posts)
    squares = SiteSums({"squares": shown.shapes["sums"]}, plan.masked)
    posts = yield from each(
        "squares",
        share_squares,
        shown,
        squares,
        means,
        expects=squares.form,
        reveals=partial(expose_squares, plan, labels),
    )
    columns = choose_site_ways(shown, passing, len(flags)) if plan.options.by_site else None
    own = (yield from _exchange_columns(columns)) if columns is not None else {}
    table = yield from server("table", end_table, shown, squares, means, posts, columns, own)
    yield from conclude()
    return build_characteristics(shown, table, columns, own)


def _exchange_columns(columns: Shown) -> Script:
    form = form_site_column(columns)
    reveals = partial(expose_column, columns)
    return (yield from each("columns", share_column, columns, form, expects=form.form, reveals=reveals))


# At a site


def share_floors(site: Site, plan: CharacteristicsPlan, sums: SiteSums) -> Payload:
    """Whether this site's patients allow each way to show each item."""
    return sums.post(site, "floors", {"passes": list_passes(plan, site.codes)})


def share_tally(site: Site, shown: Shown, sums: SiteSums) -> Payload:
    """This site's counts and sums of what is shown."""
    tally = tally_rows(shown.plan, site.codes)
    return sums.post(site, "counts", {"counts": shown.pack_counts(tally), "sums": shown.pack_sums(tally)})


def share_squares(site: Site, shown: Shown, sums: SiteSums, means: Payload) -> Payload:
    """This site's squares about the pooled means."""
    squares = sum_squares(shown.plan, site.codes, shown.find_means(means))
    return sums.post(site, "squares", {"squares": shown.pack_squares(squares)})


# What leaves


def expose_floors(plan: CharacteristicsPlan, labels: PostedLabels, site: Site, payload: Payload) -> Exposure:
    """Which ways pass: bounds on counts, and no count."""
    what = "Which parts of the table pass the floor"
    return Exposure(what=what, rows=site.codes.n, sums_only=plan.masked, parties=len(site.parties), labels=labels)


def expose_tally(shown: Shown, labels: PostedLabels, site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's counts: each count."""
    what, plan = "Counts by level, bin and missing value, and sums of numbers", shown.plan
    whole = Exposure(what=what, rows=site.codes.n, cuts=tuple(shown.list_cuts()))
    if plan.masked:
        return replace(whole, sums_only=True, parties=len(site.parties), labels=labels)
    cells, kinds = shown.list_cells(np.asarray(payload["counts"]))
    return replace(whole, cells=cells, kinds=kinds)


def expose_squares(plan: CharacteristicsPlan, labels: PostedLabels, site: Site, payload: Payload) -> Exposure:
    """Squares of the same patients' numbers: no count."""
    what = "Sums of squares about the pooled means"
    return Exposure(what=what, rows=site.codes.n, sums_only=plan.masked, parties=len(site.parties), labels=labels)


# From the posts of all sites


def withhold_table(plan: CharacteristicsPlan) -> Withheld:
    """Why nothing is counted."""
    message = f"A site has fewer than {plan.floor} patients, so that nothing was counted outside the sites"
    return Withheld("CO-N133", f"{message}. Take part with more patients, or agree on another disclosure.cell.")


def pool_tally(shown: Shown, sums: SiteSums, posts: Posts) -> Payload:
    """What the server posts first: the counts and sums over all sites."""
    pooled = sums.add(posts)
    check_patient_counts("counts", pooled["counts"])
    shown.check(pooled)
    return {**pooled, "converged": np.False_}


def end_table(shown: Shown, sums: SiteSums, means: Payload, posts: Posts, columns: Shown | None, own: Posts) -> Payload:
    """The server's last post: everything that the table needs, once the sites' columns are checked."""
    if columns is not None:
        check_columns(shown, columns, means, own)
    squares: Array = sums.add(posts)["squares"]
    if np.any(squares < 0.0):
        raise ProtocolError("CO-P502", f"A sum of squares of {squares.min():.6g} is negative.")
    return {"counts": means["counts"], "sums": means["sums"], "squares": squares, "converged": np.True_}


# Which studies it can run


def _check_study(study: Study) -> None:
    """StudyError for a study that this learner cannot run."""
    check_table_plan(CharacteristicsPlan.of(study))


def _schedule(study: Study) -> Schedule:
    """The labels of rows under masks, what passes, the counts, their means, the squares, the table."""
    plan = CharacteristicsPlan.of(study)
    labels = ("each",) if plan.masked else ()
    columns = ("each",) if plan.options.by_site else ()
    return Schedule(opening=(*labels, "each", "each", "server", "each", *columns, "server"), closing=("server",))


def _discloses(study: Study) -> Disclosure:
    return disclose_table(CharacteristicsPlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """For studies that ask for it: any formula could be that of a table, and most are those of a model."""
    asked = study.learner.name == "table_one"
    if not asked:
        return Suitability(8, False, "it describes patients and fits no model; ask for it by its name.")
    return Suitability(-1, True, "it makes the table of characteristics in two rounds of counts and sums.")


TABLE_ONE = Learner(
    "table_one",
    _VERSION,
    CharacteristicsOptions,
    _check_study,
    _schedule,
    table_one,
    _discloses,
    reads="values",
    by_blocks=lambda _: True,
    profile=Profile(
        _assess,
        alternatives=({"aggregation": "masked"},),
        examples=({"aggregation": "masked", "by_site": True}, {"aggregation": "plain"}),
        method="table of characteristics, with standardised mean differences,",
    ),
)
