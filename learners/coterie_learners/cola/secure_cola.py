"""secure-COLA-GLM: COLA-GLM in which only the sum of the sites' tables ever exists in the clear.

Wu et al., npj Digit Med 2025;8:442 (doi:10.1038/s41746-025-01781-1), section on secure-COLA-GLM. The paper gives every
site a copy of one secret key and encrypts without masks, so that anybody with a copy and a ciphertext
reads that site's table, and a ledger shows ciphertexts to all. Here masks lie below the encryption.

Every site makes its table over the whole grid (which patterns it has says something already) and hides it under
pairwise masks. By `scheme`:

- masks: the masked tables are posted; adding them up is all there is. Everyone learns the sum, nobody a site's table.
- bfv (default): the masked words are encrypted under the holder's public key and posted; the server of the turn adds
  the ciphertexts; the holder decrypts the sum, leaves out patterns with fewer rows, over all sites, than the study's
  floor (`[disclosure] cell`), and posts the rest; everybody refits and compares. The holder alone sees the whole sum; a
  single upload that it decrypts shows uniform words.
- ckks: the same with the paper's scheme, which is approximate: sums are rounded to whole words before they are shown.
- newton: for tables that nobody may see, not even as a sum: masked sums of score, information and deviance in every
  Newton round, as in masked GLORE, made from each site's own table.

What leaves a site: uniformly distributed words, or their encryption, and nothing else; with masks, bfv and ckks once,
with newton once a round. Known afterwards: the sum over the sites (`masks`: whole; bfv, ckks: what lies at or above
the floor; newton: the sums of every round), and what follows from it. Parties that could learn more by breaking the
rules, and what no scheme prevents: secure_cola_disclosure.py. At least three sites; each site excluded from a step
makes the others post again under fresh masks, and that is on the ledger.

Every site fits the sum of the tables by itself. At that fit one more masked sum tests whether the sites agree
(`sums.agreement`), and the server's post has both. A site that leaves between its table and that sum stays in the
model: a sum without it would show its table. The result then says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field as Within

from coterie_learners.cola import cola, encryption, masked_words, table_agreement, table_disclosure
from coterie_learners.cola.checks import check_table, form_of
from coterie_learners.cola.cola import CountedTable, build_table, pack_table, table_statistics
from coterie_learners.cola.plan import TableOptions, TablePlan, check_plan
from coterie_learners.cola.result import add_diagnostics, build_table_fit
from coterie_learners.cola.secure_cola_disclosure import disclose_secure_cola
from coterie_learners.cola.suitability import MAX_DENSE_PATTERNS, assess_secure_cola
from coterie_learners.cola.tables.pattern_counts import Counts, count_patterns
from coterie_learners.cola.tables.patterns import Keys
from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.profile import Profile
from coterie_learners.core.protocol import Posts, Reveals, Script, Site, conclude, each, only, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.glore import glore
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Name, Schedule, Study
from coterie_learners.study.rows import CodedBlocks, Rows, WeightedRows
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.opening.counts import Opening, PooledCounts, describe_pool
from coterie_learners.sums.opening.steps import OpeningMode, check_opening, open_pool, schedule_opening

_VERSION = "5"
# A table of the whole grid: 22 MB of BFV ciphertexts, 16 MB of masked words.
_TOPIC, _TEST_TOPIC = "table", "agreement"
_SINGLE = ("saturated", "constant")

_Shapes = Mapping[str, tuple[int, ...]]


class SecureOptions(TableOptions):
    """The learner section of a study.

    `holder`: the site whose key the tables are encrypted under (bfv, ckks); the first if none is named. `suppress`:
    whether the holder leaves out patterns of the sum with fewer rows than the study's floor. No `site_intercepts`: they
    would take a table of each site. `max_rounds`: of newton. `opening`: whether the pool's counts of levels, or bits
    on them, come before its sums; without either release gates refuse.
    """

    scheme: Literal["masks", "bfv", "ckks", "newton"] = "bfv"
    holder: Name | None = None
    opening: OpeningMode = "counts"
    suppress: Literal["drop", "none"] = "drop"
    site_intercepts: Literal[False] = False
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 50


def plan_secure_table(study: Study) -> TablePlan:
    """The plan of a study; if everybody or nobody sees the sum, it is not compared with a floor."""
    plan = TablePlan.of(study, SecureOptions)
    if secure_options(plan).scheme in ("bfv", "ckks"):
        return plan
    return replace(plan, options=plan.options.model_copy(update={"suppress": "none"}))


def secure_options(plan: TablePlan) -> SecureOptions:
    """The options of a plan made for this learner."""
    assert isinstance(plan.options, SecureOptions)
    return plan.options


def holder_of(plan: TablePlan) -> str:
    """The site that holds the key."""
    return secure_options(plan).holder or plan.study.sites[0]


def secure_cola(site: Site) -> Script:
    """The scheme that the study names."""
    plan = plan_secure_table(site.study)
    pooled = (yield from open_pool(build_opening(plan))) if secure_options(plan).opening != "none" else None
    return (yield from SCRIPTS[secure_options(plan).scheme](plan, site, pooled))


def build_opening(plan: TablePlan) -> Opening:
    """The opening step: levels of the grid's numbers too."""
    grids = {name: tuple(values) for name, values in plan.options.grids.items()}
    rows_of = remember_rows(partial(pattern_rows, plan))
    bits, floor = secure_options(plan).opening == "bits", plan.study.disclosure.cell
    return Opening(plan.design, floor, plan.family.whole, rows_of, grids, least=plan.floor, by_bits=bits)


def run_masks(plan: TablePlan, site: Site, pooled: PooledCounts | None) -> Script:
    """Masked tables, and the fit of their sum."""
    expects = Schema({"masked": masked_sum.form_masked_field(shapes_of(plan))})
    hidden, bare = expose_nothing(pooled, "The masked table"), partial(dense_table, plan)
    tables = yield from each(_TOPIC, mask_table, plan, expects=expects, reveals=hidden, bare=bare)
    return (yield from run_test(plan, site, tables, unmask_tables(plan, tables), pooled))


def run_ciphertexts(plan: TablePlan, site: Site, pooled: PooledCounts | None) -> Script:
    """The holder's public key, encrypted masked tables, their sum, what the holder opens of it, and the fit."""
    holder = holder_of(plan)
    form = Schema({"key": Field("|u1", (None,))})
    key = yield from only(holder, "key", public_key, plan, expects=form, reveals=expose_public_key)
    hidden = expose_nothing(pooled, "The masked and encrypted table", plan.floor)
    bare = partial(dense_table, plan)
    uploads = yield from each(_TOPIC, encrypt_table, plan, key, expects=CIPHERTEXTS, reveals=hidden, bare=bare)
    total = yield from server("sum", add_uploads, plan, key, uploads, expects=CIPHERTEXTS)
    form, message = form_of(plan), partial(cola.expose_posted_table, plan)
    opened = yield from only(holder, "opened", open_sum, plan, total, expects=form, reveals=message)
    return (yield from run_test(plan, site, uploads, opened, pooled))


def run_test(plan: TablePlan, site: Site, tables: Posts, total: Payload, pooled: PooledCounts | None) -> Script:
    """The fit of the `total` of the tables, and one masked sum there, which tests whether the sites agree."""
    if not tests_agreement(plan.study):
        model = yield from server("fit", cola.fit_tables, plan, {"sum": total})
        fit = build_table_fit(plan, model, "secure_cola", ())
        whole = add_diagnostics(plan, fit, {"sum": total}, {"complete": np.False_})
        yield from conclude()
        return whole
    model = cola.fit_tables(plan, {"sum": total})
    form = Schema({"masked": masked_sum.form_masked_field(table_agreement.shapes_of_part(plan))})
    hidden = expose_nothing(pooled, "Masked part of the test whether the sites agree")
    parts = yield from each(_TEST_TOPIC, mask_part, plan, model, total, expects=form, reveals=hidden)
    end = yield from server("fit", add_parts, plan, model, tables, parts)
    fit = build_table_fit(plan, end, "secure_cola", ())
    whole = add_diagnostics(plan, fit, {"sum": total}, end)
    yield from conclude()
    return replace(whole, own=describe_table_distance(plan, site, fit, total))


def tests_agreement(study: Study) -> bool:
    """Whether the sites test their agreement after the fit.

    A site that the ledger excludes in that step would still be in the fit. So a study that excludes has no test.
    """
    return study.ledger.silent_site != "exclude"


def run_newton(plan: TablePlan, site: Site, pooled: PooledCounts | None) -> Script:
    """Masked sums of every Newton round, each site's made from its own patterns, counted once."""
    return (yield from glore.fit_rounds(newton_plan(plan, pooled), site))


def expose_nothing(pooled: PooledCounts | None, what: str, least: int = 0) -> Reveals:
    """Nothing of this site alone can be solved from what it posts; the sum over the parties can be known.

    Patterns of fewer than `least` rows are left out of it.
    """

    def expose(site: Site, _: Payload) -> Exposure:
        exposure = table_disclosure.expose_masked_table(what, site, site.codes.n)
        return describe_pool(replace(exposure, least_pattern=least), pooled)

    return expose


def expose_public_key(site: Site, key: Payload) -> Exposure:
    """A public key is made without a look at the rows."""
    return Exposure(what="The public key", rows=site.codes.n)


SCRIPTS = {"masks": run_masks, "bfv": run_ciphertexts, "ckks": run_ciphertexts, "newton": run_newton}
CIPHERTEXTS = Schema({"bytes": Field("|u1", (None,)), "lengths": Field("<i8", (None,))})


# What a table holds


def sums_by_pattern(plan: TablePlan) -> bool:
    """Whether every measure is summed per pattern: the model asks for it, or patterns may be left out of the sum."""
    return plan.cells or plan.floor > 0


def build_whole_shapes(plan: TablePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of the numbers of a dense table that are whole and below 2^32."""
    size = (plan.grid.size,)
    if not sums_by_pattern(plan):
        return {} if plan.tally.exposure else {"n": size}
    outcomes = [name for name in plan.tally.measures if name == "s" or name[1:].isdigit()]
    return dict.fromkeys(["n", *(outcomes if plan.family.whole else [])], size)


def fraction_shapes(plan: TablePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of the numbers of a dense table that may be fractional, or large."""
    size, levels = (plan.grid.size,), (plan.levels,) if plan.levels else ()
    if sums_by_pattern(plan):
        return {name: size for name in plan.tally.measures if name not in build_whole_shapes(plan)}
    out: dict[str, tuple[int, ...]] = {"exposure": size} if plan.tally.exposure else {}
    out |= {n: () for n in ("rows", *plan.family.whole_sums) if n in plan.fields}
    out |= {"cross": (*levels, plan.p), "outcome": levels}
    return out | {f"{name}_low": out[name] for name in ("cross", "outcome") if plan.family.pairs}


def shapes_of(plan: TablePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of all numbers of a dense table."""
    return build_whole_shapes(plan) | fraction_shapes(plan)


def dense_table(plan: TablePlan, site: Site) -> dict[str, Array]:
    """A site's table over the whole grid, by field; StudyError for a table counted elsewhere."""
    if isinstance(site.codes, CountedTable):
        raise StudyError("CO-S327", "A table of counts and X'y cannot take part in a secure sum; count the rows here.")
    counts = count_patterns(plan.tally, site.codes)
    found = counts.sums if sums_by_pattern(plan) else table_statistics(plan, counts)
    return {name: _spread(plan, name, found[name], counts.keys) for name in shapes_of(plan)}


def _spread(plan: TablePlan, name: str, values: Array, keys: Keys) -> Array:
    if name not in (*plan.tally.measures, "exposure") or (name in _SINGLE and not sums_by_pattern(plan)):
        return np.asarray(values, dtype=np.float64)
    out = np.zeros(plan.grid.size)
    out[keys] = values
    return out


def sparse_table(plan: TablePlan, dense: Mapping[str, Array]) -> Payload:
    """The sum of dense tables as COLA-GLM posts a table, without the patterns below the floor."""
    if sums_by_pattern(plan):
        keys = np.flatnonzero(dense["n"] > 0)
        return build_table(plan, Counts(keys, {name: dense[name][keys] for name in plan.tally.measures}))
    counted = "exposure" if plan.tally.exposure else "n"
    keys = np.flatnonzero(dense[counted] > 0)
    return pack_table({**dense, "keys": keys, counted: dense[counted][keys]}, plan.fields)


# masks


def mask_table(site: Site, plan: TablePlan) -> Payload:
    """This site's dense table under masks."""
    return masked_sum.mask_sums(site, _TOPIC, dense_table(plan, site))


def unmask_tables(plan: TablePlan, tables: Mapping[str, Payload]) -> Payload:
    """The sum of masked tables; ProtocolError if no rows could have it."""
    table = sparse_table(plan, masked_sum.unmask_sums(tables, shapes_of(plan)))
    check_table(plan, table)
    return table


# The test whether the sites agree


def mask_part(site: Site, plan: TablePlan, model: Payload, pooled: Payload) -> Payload:
    """This site's part of the test, from the rows of the fit, under masks."""
    table = own_table(plan, site, pooled)
    part = table_agreement.measure_tables(plan, {"sum": pooled}, model["estimates"], {site.name: table})[0]
    return masked_sum.mask_sums(site, _TEST_TOPIC, part)


def describe_table_distance(plan: TablePlan, site: Site, fit: Fit, pooled: Payload) -> tuple[str, ...]:
    """The distance of this site from the others, for its own people; nothing at an auditor."""
    if site.data is None:
        return ()
    return table_agreement.describe_distance(plan, fit, {"sum": pooled}, own_table(plan, site, pooled))


def own_table(plan: TablePlan, site: Site, pooled: Payload) -> Payload:
    """This site's table, without the patterns that are not in the pooled one."""
    counts = count_patterns(plan.tally, site.codes)
    at = np.isin(counts.keys, pooled["keys"])
    shared = Counts(counts.keys[at], {name: values[at] for name, values in counts.sums.items()})
    return pack_table({**table_statistics(plan, shared), "suppressed": np.zeros(2)}, plan.fields)


def add_parts(plan: TablePlan, model: Payload, tables: Posts, parts: Posts) -> Payload:
    """The fit with the sums of the test; without them if a site whose table is in the sum left before."""
    if set(parts) != set(tables):
        return {**model, "complete": np.False_}
    return {**model, "complete": np.True_, **masked_sum.unmask_sums(parts, table_agreement.shapes_of_part(plan))}


# bfv and ckks


def scheme_of(plan: TablePlan) -> encryption.Scheme:
    """The homomorphic scheme of a plan that has one."""
    scheme = secure_options(plan).scheme
    assert scheme in ("bfv", "ckks")
    return scheme


def secret_key(site: Site, plan: TablePlan) -> bytes:
    """The holder's key, made once and kept."""
    label = f"secure_cola/{site.session}/{site.study.hash.hex()}"
    return site.keep(label, lambda: encryption.make_key(scheme_of(plan)))


def public_key(site: Site, plan: TablePlan) -> Payload:
    """The holder's post of its public key."""
    return {"key": _octets(encryption.public_part(secret_key(site, plan)))}


def encrypt_table(site: Site, plan: TablePlan, key: Payload) -> Payload:
    """This site's dense table, masked and then encrypted."""
    table = dense_table(plan, site)
    whole, fractions = (_flatten(table, shapes) for shapes in (build_whole_shapes(plan), fraction_shapes(plan)))
    words = masked_words.mask_words(site, _TOPIC, whole, fractions)
    return _bundle(encryption.encrypt(scheme_of(plan), key["key"].tobytes(), words))


def add_uploads(plan: TablePlan, key: Payload, uploads: Mapping[str, Payload]) -> Payload:
    """The sum of the ciphertexts; the same bytes at every site that adds them."""
    parts = [_unbundle(plan, upload, name) for name, upload in uploads.items()]
    return _bundle(encryption.add_ciphertexts(scheme_of(plan), key["key"].tobytes(), parts))


def open_sum(site: Site, plan: TablePlan, total: Payload) -> Payload:
    """The holder's post of the decrypted sum; ProtocolError if no tables can add up to it."""
    whole, fractions = build_whole_shapes(plan), fraction_shapes(plan)
    wide, narrow = masked_sum.size_of(fractions), masked_sum.size_of(whole)
    parts = _unbundle(plan, total, "the sum")
    words = narrow + masked_words.PER_FRACTION * wide
    sums = encryption.decrypt(scheme_of(plan), secret_key(site, plan), parts, words)
    first, second = masked_words.unmask_words(sums, narrow)
    table = sparse_table(plan, _name_values(first, whole) | _name_values(second, fractions))
    check_table(plan, table)
    return table


def _flatten(table: Mapping[str, Array], shapes: _Shapes) -> Array:
    return np.concatenate([np.zeros(0), *(np.ravel(table[name]) for name in shapes)])


def _name_values(values: Array, shapes: _Shapes) -> dict[str, Array]:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    parts = np.split(values, ends) if shapes else []
    return {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def _octets(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, dtype=np.uint8)


def _bundle(parts: list[bytes]) -> Payload:
    return {"bytes": _octets(b"".join(parts)), "lengths": np.array([len(part) for part in parts], dtype=np.int64)}


def _unbundle(plan: TablePlan, upload: Payload, whose: str) -> list[bytes]:
    lengths, data = upload["lengths"].tolist(), upload["bytes"].tobytes()
    wide, narrow = masked_sum.size_of(fraction_shapes(plan)), masked_sum.size_of(build_whole_shapes(plan))
    expected = -(-(narrow + masked_words.PER_FRACTION * wide) // encryption.RINGS[scheme_of(plan)].slots)
    if len(lengths) != expected or min(lengths) < 1 or sum(lengths) != len(data):
        raise ProtocolError("CO-P551", f"The upload of {whose} is not {expected} ciphertexts.", whose, _TOPIC)
    ends = np.cumsum(lengths).tolist()
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]


# newton


def newton_plan(plan: TablePlan, pooled: PooledCounts | None = None) -> glore.GlorePlan:
    """GLORE's plan for the same model: its rounds, its server's step, its checks."""
    o = secure_options(plan)
    options = glore.GloreOptions.model_validate(
        {
            "family": o.family,
            "link": o.link,
            "aggregation": "masked",
            "opening": "none",  # the pool is open by then
            "max_rounds": o.max_rounds,
            "tolerance": o.tolerance,
        }
    )
    family, rows_of = choose_family(o.family, o.link, tabled=True), remember_rows(partial(pattern_rows, plan))
    return glore.GlorePlan(plan.study, plan.design, options, family, True, "secure_cola", rows_of, pooled=pooled)


def remember_rows(count: Callable[[Site], Rows]) -> Callable[[Site], Rows]:
    """A site's rows, counted once."""
    own_counts: dict[str, Rows] = {}

    def rows_of(site: Site) -> Rows:
        if site.name not in own_counts:
            own_counts[site.name] = count(site)
        return own_counts[site.name]

    return rows_of


def pattern_rows(plan: TablePlan, site: Site) -> Rows:
    """A site's rows; of a binary outcome one row for each pattern with the event and one without, with their counts."""
    if isinstance(site.codes, CountedTable):
        raise StudyError("CO-S327", "A table of counts and X'y cannot take part in a secure sum; count the rows here.")
    if not plan.family.has_events:
        return CodedBlocks(plan.design, site.codes)
    counts = count_patterns(plan.tally, site.codes)
    x = plan.grid.raw(plan.design, counts.keys)
    events, rows = counts.sums["s"], counts.sums["n"]
    y = np.repeat([1.0, 0.0], len(x))
    return WeightedRows(np.concatenate([x, x]), y, np.concatenate([events, rows - events]))


# Which studies it can run


def check_secure_study(study: Study) -> None:
    """StudyError for a study that secure-COLA-GLM cannot run."""
    plan = plan_secure_table(study)
    check_plan(plan)
    check_opening(study, secure_options(plan).opening, bool(plan.design.formula.offset))
    o = secure_options(plan)
    if not (plan.family.whole or plan.family.linear):
        raise StudyError("CO-S308", f"A secure table has no {plan.family.name} model. Choose GLORE, which masks sums.")
    if len(study.sites) < masked_sum.MIN_PARTIES:
        message = f"A sum over {len(study.sites)} sites would give each the other's share"
        raise StudyError("CO-S305", f"{message}. Take part with three sites or more.")
    if o.scheme != "newton" and plan.grid.size > MAX_DENSE_PATTERNS:
        message = f"The grid has {plan.grid.size} patterns; a table of all of them may have {MAX_DENSE_PATTERNS}"
        raise StudyError("CO-S328", f'{message}. Merge levels, or choose scheme = "newton" or GLORE.')
    if holder_of(plan) not in study.sites:
        raise StudyError("CO-S329", f"The holder {o.holder!r} is no site of the study.")
    if o.scheme == "newton":
        _check_newton(plan)
    if o.scheme in ("bfv", "ckks"):
        encryption.check_installed()


def _check_newton(plan: TablePlan) -> None:
    o = plan.options
    if o.firth or o.robust or o.cells or plan.levels or plan.family.dispersion == "pearson":
        message = 'scheme = "newton" fits binomial, Poisson and Gaussian models as they are'
        raise StudyError("CO-S329", f"{message}: no firth, robust, cells, quasi families or multinomial outcome.")


def _schedule(study: Study) -> Schedule:
    """By scheme: one table and the fit; key, tables, sum, opened, fit; the test before each fit; or rounds."""
    plan = plan_secure_table(study)
    o, opening = secure_options(plan), schedule_opening(secure_options(plan).opening, build_opening(plan))
    end = ("each", "server", "server") if tests_agreement(study) else ("server", "server")
    if o.scheme == "masks":
        return Schedule(opening=(*opening, "each", *end))
    if o.scheme == "newton":
        rounds = glore.schedule_rounds(newton_plan(plan))
        return rounds.model_copy(update={"opening": opening})
    holder = f"only:{holder_of(plan)}"
    return Schedule(opening=(*opening, holder, "each", "server", holder, *end))


def _discloses(study: Study) -> Disclosure:
    """What a study discloses."""
    plan = plan_secure_table(study)
    return disclose_secure_cola(plan, secure_options(plan).scheme, holder_of(plan), secure_options(plan).opening)


SECURE_COLA = Learner(
    "secure_cola",
    _VERSION,
    SecureOptions,
    check_secure_study,
    _schedule,
    secure_cola,
    _discloses,
    reads="codes",
    by_blocks=lambda study: secure_options(plan_secure_table(study)).family == "binomial",
    talks_if=lambda study: secure_options(plan_secure_table(study)).opening == "bits",
    profile=Profile(
        assess_secure_cola,
        alternatives=({"scheme": "newton"},),
        examples=({"scheme": "masks"}, {"scheme": "bfv"}, {"scheme": "ckks"}, {"scheme": "newton"}),
        equals_pooled=True,
    ),
)
