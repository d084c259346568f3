"""How many patients each two sites have in common, where rows are split: a private set intersection that only counts.

Opening steps before a learner's own, in studies that ask for them (`[rows] shared_patients`). Each site hashes its
patients' identifiers into a group of prime order (`blind_points`), adds synthetic elements up to a power of two, raises
all by a secret exponent and posts them sorted. Then every list goes round: a site raises the list that the site before
it posted and sorts it again, so that no place in a list leads back to a row. After as many steps as there are sites all
lists have all exponents, equal identifiers are equal numbers (Meadows 1986; Huberman, Franklin and Hogg 1999), and a
server posts how many each pair of lists has in common. Nobody learns which patients these are.

Everybody who can read the store sees these numbers, and the power of two above each site's patients. Parties follow the
protocol; a site that lists patients of other sites learns how many of them are there. Sites that are all but one and
share their exponents can still test nothing without the last one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.blind_points import POINT_BYTES, NoPoint, Points, hash_to_points, raise_points
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, each, server
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure
from coterie_learners.errors import DataError, ProtocolError, StudyError, pluralise
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.identifiers import encode_parts, normalise

if TYPE_CHECKING:
    from coterie_learners.core.registry import Learner

_POINTS, _RAISE, _COUNTS = "shared/points", "shared/raise", "shared/counts"
_MOST = 1 << 20
# With a larger share of its patients at another site, a site takes the two files for one.
SAME_FILE = 0.5
_KEY = 32


def count_first(learner: Learner) -> Learner:
    """The learner with these steps before its own."""

    def script(site: Site) -> Script:
        pairs = yield from count_shared_patients(site)
        fit = yield from learner.script(site)
        return describe_shared_patients(site.study, fit, pairs)

    def schedule(study: Study) -> Schedule:
        rest = learner.schedule(study)
        opening = (*("each",) * len(study.sites), "server", *rest.opening)
        return rest.model_copy(update={"opening": opening})

    def disclose(study: Study) -> Disclosure:
        rest = learner.discloses(study)
        return replace(rest, steps=(*disclose_shared_patients(study), *rest.steps))

    return replace(learner, script=script, schedule=schedule, discloses=disclose)


def count_shared_patients(site: Site) -> Script:
    """Counts (k, k) of patients that each two sites have in common.

    StudyError if more than half of this site's patients are at another site, or if the study refuses any.
    """
    study, own = site.study, OwnPatients(site)
    form = Schema({"points": Field("|u1", (None, POINT_BYTES))}, check=check_list)
    judged = partial(expose_list, own)
    rounds = [(yield from each(_POINTS, post_patients, own, expects=form, reveals=judged))]
    for number in range(1, len(study.sites)):
        topic = f"{_RAISE}/{number}"
        posts = yield from each(
            topic, raise_patients, own, tuple(rounds), expects=form, reveals=partial(expose_list, own)
        )
        rounds.append(posts)
    counts = Schema({"pairs": Field("<i8", (len(study.sites), len(study.sites)))})
    post = yield from server(_COUNTS, count_pairs, study, tuple(rounds), expects=counts)
    pairs = np.asarray(post["pairs"])
    check_pairs(site, own, pairs)
    return pairs


@dataclass(frozen=True, eq=False)
class OwnPatients:
    """This site's patients as elements of the group, under its own exponent. Computed when asked for, and once."""

    site: Site

    @cached_property
    def exponent(self) -> bytes:
        """This site's secret exponent in this run; the same in all attempts of a step."""
        return replace(self.site, attempt=0).stream("shared/exponent", _KEY)

    @cached_property
    def identifiers(self) -> tuple[bytes, ...]:
        """The different patients of this site's rows; DataError where its node gives none."""
        values = self.site.read_patients()
        if values is None:
            what = f"{self.site.name} cannot name the patients of its rows, which the study counts"
            raise DataError("CO-D136", f"{what}. Load the rows by a node, with the column that `patient` names.")
        forms = {encode_parts([form]) for value in values if (form := normalise("code", value))}
        if len(forms) > _MOST:
            what = f"{self.site.name} has {len(forms)} patients, and {_MOST} at most can be counted"
            raise StudyError("CO-N252", f'{what}. Agree on shared_patients = "ignore".')
        return tuple(sorted(forms))

    @cached_property
    def points(self) -> Points:
        """The patients' elements and synthetic ones, raised and sorted."""
        count = 1 << max(len(self.identifiers) - 1, 0).bit_length()
        spare = count - len(self.identifiers)
        raw = replace(self.site, attempt=0).stream("shared/synthetic", _KEY * spare)
        synthetic = [raw[at : at + _KEY] for at in range(0, len(raw), _KEY)]
        domain = b"coterie/1 shared patients" + self.site.study.hash
        elements = hash_to_points(domain, self.identifiers), hash_to_points(domain + b" synthetic", synthetic)
        return _sort(raise_points(self.exponent, np.concatenate(elements)))


def post_patients(site: Site, own: OwnPatients) -> Payload:
    """This site's raised elements, sorted."""
    return {"points": own.points}


def raise_patients(site: Site, own: OwnPatients, rounds: tuple[Posts, ...]) -> Payload:
    """The list that the site before this one posted, raised by this site's exponent and sorted again.

    ProtocolError for a list whose length no site can have or that changed on its way, for a second list in one step,
    and for elements that are not in the group.
    """
    study, number = site.study, len(rounds)
    source, topic = site_before(study, site.name, 1), f"{_RAISE}/{number}"
    points, origin = np.asarray(rounds[-1][source]["points"]), site_before(study, site.name, number)
    check_way(study, rounds, origin, number - 1)
    digest, label = hashlib.sha256(points.tobytes()).digest(), f"{topic}/{site.session}/{study.hash.hex()}"
    if own.site.keep(label, lambda: digest) != digest:
        what = f"{source} posts another list of identifiers than {site.name} raised before a reorganisation"
        more = "A second one could be tried against it. Propose the study again."
        raise ProtocolError("CO-P549", f"{what}. {more}", source, topic)
    try:
        return {"points": _sort(raise_points(own.exponent, points))}
    except NoPoint as fault:
        raise ProtocolError("CO-P550", f"{source} posted a list in which {fault}.", source, topic) from None


def check_list(payload: Payload) -> None:
    """ProtocolError for a list that no site makes: of another length than a power of two, or with one element twice."""
    points = payload["points"]
    size = len(points)
    if not 1 <= size <= _MOST or size & (size - 1):
        raise ProtocolError("CO-P548", f"A list of {size} elements has no length that a site makes (a power of two).")
    if len(np.unique(_words(points))) != size:
        raise ProtocolError(
            "CO-P542",
            "Some elements of a list of identifiers occur twice. Ask that site to check its node and version.",
        )


def check_way(study: Study, rounds: tuple[Posts, ...], name: str, number: int) -> None:
    """ProtocolError if the list of a site has another length after so many rounds."""
    holder, length = site_before(study, name, -number), len(rounds[0][name]["points"])
    here = len(rounds[number][holder]["points"])
    if here != length:
        raise ProtocolError("CO-P541", f"{holder} made {here} of the {length} identifiers of {name}.", holder, _RAISE)


def site_before(study: Study, name: str, steps_back: int) -> str:
    """The site so many places before one, in the ring of the study's sites."""
    return study.sites[(study.sites.index(name) - steps_back) % len(study.sites)]


def count_pairs(study: Study, rounds: tuple[Posts, ...]) -> Payload:
    """How many elements each two lists have in common once all sites have raised them (k, k), zeros on the diagonal."""
    last, k = len(rounds) - 1, len(study.sites)
    lists = []
    for name in study.sites:
        check_way(study, rounds, name, last)
        lists.append(_words(rounds[last][site_before(study, name, -last)]["points"]))
    pairs = np.zeros((k, k), dtype=np.int64)
    for i, j in itertools.combinations(range(k), 2):
        pairs[i, j] = pairs[j, i] = len(np.intersect1d(lists[i], lists[j], assume_unique=True))
    return {"pairs": pairs}


def check_pairs(site: Site, own: OwnPatients, pairs: NDArray[np.int64]) -> None:
    """StudyError before the fit: if the study refuses shared patients, or two files are one."""
    names, refused = site.study.sites, site.study.rows.shared_patients == "refuse"
    found = _name_pairs(site.study, pairs)
    if found and refused:
        what = "; ".join(f"{a} and {b} have {pluralise(count, 'patient')} in common" for (a, b), count in found.items())
        raise StudyError("CO-N253", f"{what}: each would count twice. {_TODO}")
    if site.data is None or site.name not in names:
        return
    row = pairs[names.index(site.name)]
    other = names[int(np.argmax(row))]
    if int(row.max()) > SAME_FILE * len(own.identifiers):
        what = f"{int(row.max())} of the {len(own.identifiers)} patients of {site.name} are at {other} too"
        raise StudyError("CO-N253", f"{what}: the two files seem to be of the same patients. {_TODO}")


_TODO = "Compare the files, and leave each patient at one site only."


def describe_shared_patients(study: Study, fit: Any, pairs: NDArray[np.int64]) -> Any:
    """The fit with the counts in its details, and a warning where there are any."""
    if not isinstance(fit, Fit):
        return fit
    found = _name_pairs(study, pairs)
    details = {**fit.details, "shared_patients": {f"{a}, {b}": count for (a, b), count in found.items()}}
    if not found:
        note = "No two sites have a patient in common (counted before the fit)."
        return replace(fit, details=details, notes=(*fit.notes, note))
    named = "; ".join(f"{a} and {b} {count}" for (a, b), count in found.items())
    warning = f"Patients at two sites count twice: {named}. {_TODO}"
    return replace(fit, details=details, notes=(*fit.notes, warning), warnings=(*fit.warnings, warning))


def _name_pairs(study: Study, pairs: NDArray[np.int64]) -> Mapping[tuple[str, str], int]:
    """The pairs of sites that have patients in common, with how many."""
    indices = itertools.combinations(range(len(study.sites)), 2)
    return {(study.sites[i], study.sites[j]): int(pairs[i, j]) for i, j in indices if pairs[i, j]}


def expose_list(own: OwnPatients, site: Site, payload: Payload) -> Exposure:
    """What a list discloses: once all sites have raised it, how many of its patients each other site has."""
    return Exposure("A list of patients' identifiers under secret exponents", len(own.identifiers))


def disclose_shared_patients(study: Study) -> tuple[StepDisclosure, ...]:
    """What these steps disclose."""
    learns = (
        "Everybody learns how many patients each two sites have in common, and the power of two above the number of "
        "patients of each site. Nobody learns which patients these are.",
    )
    what = "Patients' identifiers and synthetic ones under a secret exponent, sorted"
    return (
        StepDisclosure(_POINTS, "each", what, protection="blinded"),
        StepDisclosure(f"{_RAISE}/*", "each", "Another site's list, under one more exponent, sorted again",
                       protection="blinded", rebuilds=learns),
        StepDisclosure(_COUNTS, "server", "How many patients each two sites have in common"),
    )  # fmt: skip


def _sort(points: Points) -> Points:
    return points[np.argsort(_words(points))]


def _words(points: Points) -> NDArray[np.bytes_]:
    words: NDArray[np.bytes_] = np.ascontiguousarray(points).view(f"S{POINT_BYTES}")[:, 0]
    return words
