"""The same patients in the same order at every site that holds columns of them, by a private set intersection.

Patients whose rows lack a value are listed too: only so can the sites count who of the patients in common is no
complete case, and at which site. Each site reports, for each patient in common, a random number if that patient's row
lacks a value there and 0 if not, under pairwise masks: the sum is 0 for the complete cases, and says of another patient
neither where a value is missing nor at how many sites (of two sites each knows it of the other). Beside that each
counts its own, unless they are fewer than the floor on cells.

Opening steps of a learner: `align` is a script used with `yield from`. Each site has a secret exponent for this run. It
hashes its identifiers into a group of prime order (`blind_points`), raises them, and posts them in the order of these
numbers, which says nothing about its file. Then every list goes round: in each further step a site raises the list
that the site before it posted. After as many steps as there are sites every list has all exponents, and equal
identifiers are equal numbers, since the order of the exponents does not matter (Meadows 1986; Huberman, Franklin and
Hogg 1999). The common set is the intersection, its order that of the numbers.

A number can be made of an identifier only by all sites together. So no site can try identifiers that are not in its own
list, however few possible ones there are; the list's length is seen by all, does not change on its way, and stays below
`linkage.most`; a site raises one list in each step and no second, whatever a reorganisation of the ledger brings.

Identifiers are compared in the normal form of their declared kinds (`identifiers`). Once the common patients are known,
and before anything else leaves, each site reports on them: how their identifiers are written, as hashes that only each
pair of sites can make, so that the sites count matches that rest on different spellings; and how many of its rows
identify nobody, or were left out because others carry the same identifier.

Leaves a site: the numbers and the report, sealed to the study's sites. Each site learns which of its own patients each
other site has, and how many others are there. A reader without an exponent (the store, the ledger, an auditor with a
view key) learns how many rows there are and how many match; no identifier can be tried against them. Sites that are all
but one and share their exponents can still test nothing without the last one. Parties follow the protocol: a site that
raises a list wrongly spoils the match, and a site that lists patients of other sites learns which of them are
elsewhere. A secure join hides membership from the sites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.blind_points import POINT_BYTES, NoPoint, Points, hash_to_points, raise_points
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, announce, each
from coterie_learners.core.shared_patients import site_before
from coterie_learners.errors import DataError, ProtocolError, StudyError, pluralise
from coterie_learners.study.document import Study
from coterie_learners.study.identifiers import (
    WORD,
    Patients,
    SpellingCounts,
    Spellings,
    compare_spellings,
    digest_forms,
    hash_spellings,
    identify,
)

_KEY = 32

_Tags = NDArray[np.bytes_]


def list_steps(study: Study) -> tuple[str, ...]:
    """Kinds of the opening steps of a learner with `align`: keys, a step for each site, the report."""
    return ("each",) * (len(study.sites) + 2)


def align(site: Site) -> Script:
    """Find the common patients; returns the Alignment (a site that may not read the posts gets one that says so)."""
    readers, own = site.study.sites, OwnPoints(site)
    yield from announce()
    form = Schema({"points": Field("|u1", (None, POINT_BYTES)), "rules": Field("|u1", (32,))}, check=check_points)
    first = yield from each("align/points", post_points, own, expects=form, readers=readers, reveals=expose_points)
    rounds, form = [first], Schema({"points": Field("|u1", (None, POINT_BYTES))}, check=check_points)
    for number in range(1, len(readers)):
        topic = f"align/raise/{number}"
        posts = yield from each(
            topic, raise_list, own, tuple(rounds), expects=form, readers=readers, reveals=expose_points
        )
        rounds.append(posts)
    matches = Matches(site.study, own, tuple(rounds))
    form = report_form(site.study)
    reports = yield from each(
        "align/report", post_report, matches, expects=form, readers=readers, reveals=expose_report
    )
    return Alignment(matches, reports)


# Points of identifiers


@dataclass(frozen=True, eq=False)
class OwnPoints:
    """This site's patients as elements of the group, under its own exponent. Computed when asked for, and once.

    The exponent is the same in all attempts of a step, as the lists that it raises are.
    """

    site: Site

    @cached_property
    def exponent(self) -> bytes:
        """This site's secret exponent in this run."""
        return self.site.stream("align/exponent", _KEY)

    @cached_property
    def patients(self) -> Patients:
        """The patients of this site's rows, then those whose rows lack a value.

        StudyError if they are more than the study takes of a site.
        """
        patients = identify(self.site.study, self.site.name, self.site.columns)
        n, most = patients.n + len(patients.incomplete), self.site.study.linkage.most
        if n > most:
            what = f"{self.site.name} has {n} patients; the study takes at most {most} of a site"
            raise StudyError("CO-N252", f"{what}. Agree on a larger linkage.most.")
        return patients

    @cached_property
    def points(self) -> Points:
        """The patients' elements (n, 32), raised, in the order of the rows."""
        domain = b"coterie/2 alignment" + self.site.study.hash
        return raise_points(self.exponent, hash_to_points(domain, self.patients.everybody))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Places of the patients in the order in which they are posted: that of the raised elements."""
        return np.argsort(_words(self.points))


def post_points(site: Site, own: OwnPoints) -> Payload:
    """This site's raised elements, sorted, and how it normalises identifiers."""
    return {"points": own.points[own.order], "rules": np.frombuffer(digest_forms(), np.uint8)}


def raise_list(site: Site, own: OwnPoints, rounds: tuple[Posts, ...]) -> Payload:
    """The list that the site before this one posted, raised by this site's exponent.

    ProtocolError for a list that is too long, or longer than when it began its way; for a second list in one step; and
    for elements that are not in the group.
    """
    study, number = site.study, len(rounds)
    topic, source = f"align/raise/{number}", site_before(study, site.name, 1)
    points = np.asarray(rounds[-1][source]["points"])
    check_length(study, rounds, site_before(study, site.name, number), number - 1)
    digest = hashlib.sha256(points.tobytes()).digest()
    if own.site.keep(f"{topic}/{site.session}/{study.hash.hex()}", lambda: digest) != digest:
        what = f"{source} posts another list of identifiers than {site.name} raised before a reorganisation"
        more = "A second one could be tried against it. Propose the study again."
        raise ProtocolError("CO-P549", f"{what}. {more}", source, topic)
    try:
        return {"points": raise_points(own.exponent, points)}
    except NoPoint as fault:
        raise ProtocolError("CO-P550", f"{source} posted a list in which {fault}.", source, topic) from None


def check_length(study: Study, rounds: Sequence[Posts], name: str, number: int) -> None:
    """ProtocolError if the list of a site is too long, or has another length after so many rounds."""
    length, holder = len(rounds[0][name]["points"]), site_before(study, name, -number)
    if length > study.linkage.most:
        what = f"{name} lists {length} patients; the study takes at most {study.linkage.most} of a site."
        raise ProtocolError("CO-P548", what, name, "align/points")
    here = len(rounds[number][holder]["points"])
    if here != length:
        what = f"{holder} made {here} of the {length} identifiers of {name}."
        raise ProtocolError("CO-P541", what, holder, f"align/raise/{number}")


def check_points(payload: Payload) -> None:
    """ProtocolError if an element occurs twice: one patient would match two."""
    if len(np.unique(_words(payload["points"]))) != len(payload["points"]):
        raise ProtocolError(
            "CO-P542",
            "Some elements of a list of identifiers occur twice. Ask that site to check its node and version.",
        )


def expose_points(site: Site, payload: Payload) -> Exposure:
    """What raised elements disclose: which of the readers' own patients are listed, once all sites have raised them."""
    return Exposure("A list of patients' identifiers under secret exponents", len(payload["points"]))


@dataclass(frozen=True, eq=False)
class Matches:
    """The patients that all sites have in common, complete or not, from the lists that all sites have raised.

    Everything but the posts themselves is computed when asked for, so that who may not read them can carry it.
    """

    study: Study
    own: OwnPoints
    rounds: tuple[Posts, ...]

    @cached_property
    def tags(self) -> dict[str, _Tags]:
        """Each site's patients under all exponents, in the order of its own list.

        ProtocolError for a list that changed its length on its way, or for sites that normalise otherwise.
        """
        return {name: self._tags_of(name) for name in self.study.sites}

    def _tags_of(self, name: str) -> _Tags:
        if bytes(np.asarray(self.rounds[0][name]["rules"])) != digest_forms():
            what = f"{name} normalises identifiers in another way than {self.own.site.name}"
            raise ProtocolError("CO-P651", f"{what}. Install the same version of Python at all sites.", name)
        last = len(self.rounds) - 1
        check_length(self.study, self.rounds, name, last)
        return _words(self.rounds[-1][site_before(self.study, name, -last)]["points"])

    @cached_property
    def common(self) -> _Tags:
        """Tags of the common patients, sorted: their order at every site."""
        first, *others = self.tags.values()
        common = np.sort(first)
        for tags in others:
            common = common[np.isin(common, tags, assume_unique=True)]
        return common

    @property
    def n(self) -> int:
        """Number of common patients."""
        return len(self.common)

    @property
    def sizes(self) -> dict[str, int]:
        """How many patients each site has."""
        return {name: len(tags) for name, tags in self.tags.items()}

    @property
    def words(self) -> str:
        """The counts in a sentence."""
        unmatched = ", ".join(f"{name} {k - self.n} of {k}" for name, k in self.sizes.items() if k > self.n)
        return (
            f"{pluralise(self.n, 'patient is', 'patients are')} at every site; without a match: {unmatched or 'none'}."
        )

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Places (n,) of the common patients among this site's own; StudyError if they are too few."""
        if self.n < self.study.rows.minimum:
            what = f"The sites have {pluralise(self.n, 'patient')} in common"
            need = f"the study wants at least {self.study.rows.minimum}"
            raise StudyError(
                "CO-N205", f"{what}; {need}. {self.words} Do all files identify patients by the same code?"
            )
        own_tags = self.tags[self.own.site.name]
        if len(own_tags) != len(self.own.order):
            what = (
                f"This site posted {pluralise(len(own_tags), 'patient')}, and its rows have {len(self.own.order)} now"
            )
            raise DataError("CO-D131", f"{what}. Put the file back that the study began with.")
        order = np.argsort(own_tags)
        places = order[np.searchsorted(own_tags, self.common, sorter=order)]
        return np.asarray(self.own.order[places])

    @cached_property
    def is_incomplete(self) -> NDArray[np.bool_]:
        """Whether this site's row of a common patient (n,) lacks a value."""
        return np.asarray(self.places >= self.own.patients.n)


# The linkage report


def report_form(study: Study) -> Schema:
    """Form of a site's report: for each site hashes of spellings; rows that identify nobody, or are doubled."""
    words = Field("|u1", (len(study.sites), None, len(study.identifying), WORD))
    counts = {name: Field("<i8") for name in ("unidentified", "doubled", "incomplete")}
    return Schema({"written": words, "strict": words, "lacking": Field("<u8", (None,)), **counts})


def post_report(site: Site, matches: Matches) -> Payload:
    """This site's report on the common patients; StudyError if they are too few."""
    identifiers = [matches.own.patients.written(site.columns)[place] for place in matches.places]
    nobody = np.zeros((len(identifiers), len(site.study.identifying), WORD), np.uint8)
    written, strict = [], []
    for peer in site.study.sites:
        own = Spellings(nobody, nobody)
        if peer != site.name:
            key = matches.own.site.mask(peer, "align/spellings", _KEY)
            salts = [hashlib.blake2b(bytes(tag), key=key).digest() for tag in matches.common]
            own = hash_spellings(site.study, identifiers, salts)
        written.append(own.written)
        strict.append(own.strict)
    patients = matches.own.patients
    incomplete = count_incomplete(int(np.sum(matches.is_incomplete)), site.study.disclosure.cell)
    counts = {"unidentified": patients.unidentified, "doubled": patients.doubled, "incomplete": incomplete}
    lacking = {"lacking": mask_lacking(matches)}
    return {"written": np.stack(written), "strict": np.stack(strict), **lacking, **counts}


def count_incomplete(count: int, floor: int) -> int:
    """How many of the common patients lack a value at a site, -1 for a count from 1 to below the floor on cells."""
    return -1 if 0 < count < floor else count


def mask_lacking(matches: Matches) -> NDArray[np.uint64]:
    """For each common patient (n,) a random word if this site's row lacks a value and 0 if not, under pairwise masks.

    The words of all sites add up to 0 for a complete case; for others the chance of it is 2^-64.
    """
    site, size = matches.own.site, 8 * matches.n
    # For other patients, as after a reorganisation, the words and masks are different.
    topic = f"align/lacking/{hashlib.sha256(matches.common.tobytes()).hexdigest()}"
    random = np.frombuffer(site.stream(topic, size), "<u8")
    total = np.where(matches.is_incomplete, random, np.uint64(0))
    for peer in matches.study.sites:
        if peer != site.name:
            pad = np.frombuffer(site.mask(peer, topic, size), "<u8")
            total = total + pad if site.name < peer else total - pad
    return total


def expose_report(site: Site, payload: Payload) -> Exposure:
    """What a report discloses: how the common patients' identifiers are written, and how many rows did not link."""
    count = int(payload["incomplete"])
    name = "patients in common who lack a value here"
    return Exposure(
        "The linkage report (spellings of common patients, rows without a patient or a value)",
        payload["strict"].shape[1],
        cells={name: count} if count > 0 else {},
        kinds={name: name},
    )


@dataclass(frozen=True, eq=False)
class Alignment:
    """The common patients with the sites' reports on them. Computed when asked for, as in `Matches`."""

    matches: Matches
    reports: Posts

    @property
    def n(self) -> int:
        """Number of complete cases."""
        return int(np.sum(self.complete))

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """Which of the common patients lack no value at any site.

        ProtocolError for a report on other patients, and for one that says otherwise than this site's own rows.
        """
        total = np.zeros(self.matches.n, dtype=np.uint64)
        for name, report in self.reports.items():
            if len(report["lacking"]) != self.matches.n:
                patients = pluralise(len(report["lacking"]), "patient")
                what = f"{name} reports on {patients}; the sites have {self.matches.n} in common."
                raise ProtocolError("CO-P541", what, name, "align/report")
            total = total + np.asarray(report["lacking"])
        return np.asarray(total == 0)

    def order(self) -> NDArray[np.int64]:
        """Row numbers (n,) of the complete cases in this site's own data.

        StudyError if they are too few, or if more of the patients than the study allows are spelled differently.
        """
        study, places = self.matches.study, self.matches.places[self.complete]
        self.spellings.check(study.most_spellings)
        if self.n < study.rows.minimum:
            what = f"The sites have {pluralise(self.n, 'complete case')} in common"
            need = f"the study wants at least {study.rows.minimum}"
            raise StudyError(
                "CO-N205", f"{what}; {need}. {self.words_on_values} Fill in values, or shorten the formula."
            )
        return self.matches.own.patients.rows[places]

    @property
    def words_on_values(self) -> str:
        """The complete cases, and how many of the common patients lack a value at each site, in a sentence."""
        if self.n == self.matches.n:
            return f"All {self.n} of them are complete cases."
        floor = self.matches.study.disclosure.cell
        counts = ", ".join(
            f"{name} {f'1 to {floor - 1}' if k < 0 else k}" for name, k in self.counts["incomplete"].items() if k
        )
        return f"Complete cases: {self.n} of {self.matches.n} patients; without a value at {counts}."

    @cached_property
    def spellings(self) -> SpellingCounts:
        """How other sites spell the common patients' identifiers than this one.

        ProtocolError for a report on other patients.
        """
        study, me = self.matches.study, self.matches.own.site.name
        pairs = []
        for peer in study.sites:
            post = self.reports[peer]
            if not post["written"].shape[1] == post["strict"].shape[1] == self.matches.n:
                n = self.matches.n
                what = (
                    f"{peer} reports on {pluralise(post['written'].shape[1], 'patient')}; the sites have {n} in common."
                )
                raise ProtocolError("CO-P541", what, peer, "align/report")
            if peer != me:
                pairs.append((_select_spellings(study, self.reports[me], peer), _select_spellings(study, post, me)))
        return compare_spellings(study, self.matches.n, pairs)

    @cached_property
    def counts(self) -> Mapping[str, Any]:
        """The linkage report as stable JSON keys: patients in common, and by site rows that did not link and why."""
        sizes, reports = self.matches.sizes, self.reports
        return {
            "common": self.matches.n,
            "complete": self.n,
            "incomplete": {name: int(reports[name]["incomplete"]) for name in sizes},
            "rows": sizes,
            "unmatched": {name: size - self.matches.n for name, size in sizes.items()},
            "unidentified": {name: int(reports[name]["unidentified"]) for name in sizes},
            "doubled": {name: int(reports[name]["doubled"]) for name in sizes},
            "written_differently": self.spellings.different,
            "written_differently_by_column": dict(self.spellings.columns),
            "doubtful_spellings": self.spellings.doubtful,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """The linkage report in sentences."""
        lost = []
        for kind, words in (("unidentified", "without an identifier"), ("doubled", "doubled and left out")):
            counts = ", ".join(f"{name} {k}" for name, k in self.counts[kind].items() if k)
            lost += [f"Rows {words}: {counts}."] if counts else []
        words = f"Alignment: {self.matches.words} {self.words_on_values}"
        return tuple(filter(None, (words, *lost, self.spellings.words)))


def _select_spellings(study: Study, post: Payload, reader: str) -> Spellings:
    place = study.sites.index(reader)
    return Spellings(np.asarray(post["written"])[place], np.asarray(post["strict"])[place])


def _words(points: Points) -> _Tags:
    """Rows of bytes as strings that can be sorted and compared; being of one length, they differ as their bytes do."""
    words: _Tags = np.ascontiguousarray(points).view(f"S{POINT_BYTES}")[:, 0]
    return words
