"""The same patients in the same order at every site that holds columns of them, by keyed hashes of their identifiers.

Opening steps of a learner: `align` is a script used with `yield from`. The sites announce sealing keys for this run,
agree on a key (each seals 32 bytes to all the others; HKDF over the study makes one key of them), and each seals to the
others the HMAC-SHA-256 of each of its identifiers, cut to 128 bits, in the order of the hashes. The common set is the
intersection, its order that of the hashes: it says nothing about the order of any file.

Identifiers are compared in the normal form of their declared kinds (`identifiers`). Once the common patients are known,
and before anything else leaves, each site reports on them: how their identifiers are written, as hashes salted with the
patients' own tags, so that the sites count matches that rest on different spellings; and how many of its rows identify
nobody, or were left out because others carry the same identifier.

Leaves a site: the hashes, sealed to the study's sites. Each site learns which of its own patients each other site
holds, and how many there are elsewhere; whoever lacks the key (the store, the ledger, an auditor) learns the number of
rows at most. Hiding even membership from the sites is what a secure join is for.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from coterie_learners.disclosure import Exposure
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.identifiers import (
    WORD,
    Patients,
    SpellingCounts,
    Spellings,
    compare_spellings,
    hash_spellings,
    identify,
)
from coterie_learners.payload import Field, Payload, Schema
from coterie_learners.protocol import Posts, Script, Site, announce, each
from coterie_learners.study import Study

KEY, TAG = 32, 16
# Kinds of the four steps, for the schedule of whoever uses `align`.
STEPS = ("each", "each", "each", "each")

Tags = NDArray[np.bytes_]


def align(site: Site) -> Script:
    """Agree on a key, exchange hashes; returns the Alignment (to whoever may not read the hashes, one that says so)."""
    readers = site.study.sites
    yield from announce()
    form = Schema({"share": Field("|u1", (KEY,))})
    keys = yield from each("align/key", key_share, expects=form, readers=readers, reveals=randomness)
    form, own = Schema({"tag": Field("|u1", (None, TAG))}, check=check_tags), Identifiers(site, keys)
    tags = yield from each("align/tags", tags_of_site, own, expects=form, readers=readers, reveals=hashes)
    matches = Matches(site.study, own, tags)
    form = report_form(site.study)
    reports = yield from each("align/report", report, matches, expects=form, readers=readers, reveals=counts_of_rows)
    return Alignment(matches, reports)


def key_share(site: Site) -> Payload:
    """This site's part of the key."""
    return {"share": np.frombuffer(site.stream("align/key", KEY), np.uint8)}


def randomness(site: Site, payload: Payload) -> Exposure:
    """What random bytes give away: nothing of any patient."""
    return Exposure("A random number", site.columns.n)


def hashes(site: Site, payload: Payload) -> Exposure:
    """What the hashes give away to those who have the key: who of their own patients is here too."""
    return Exposure("Keyed hashes of its patients' identifiers", len(payload["tag"]))


def group_key(study: Study, keys: Posts) -> bytes:
    """The key (32 bytes) that all shares together give, whatever the order of the sites."""
    shares = b"".join(keys[name]["share"].tobytes() for name in sorted(keys))
    return HKDF(SHA256(), KEY, salt=None, info=b"coterie/1 alignment" + study.hash).derive(shares)


@dataclass(frozen=True, eq=False)
class Identifiers:
    """This site's identifiers under the common key. Computed when asked for, and once."""

    site: Site
    keys: Posts

    @cached_property
    def key(self) -> bytes:
        """The common key."""
        return group_key(self.site.study, self.keys)

    @cached_property
    def patients(self) -> Patients:
        """The patients of this site's rows."""
        return identify(self.site.study, self.site.name, self.site.columns)

    @cached_property
    def tags(self) -> NDArray[np.uint8]:
        """Hashes (n, 16) of this site's patients, in the order of its rows."""
        return _hashes(self.key, self.patients.identifiers)


def tags_of_site(site: Site, own: Identifiers) -> Payload:
    """Hashes of this site's identifiers, sorted."""
    return {"tag": own.tags[np.argsort(_words(own.tags))]}


def check_tags(payload: Payload) -> None:
    """ProtocolError unless the hashes are sorted and different."""
    tags = _words(payload["tag"])
    if not np.array_equal(np.unique(tags), tags):
        raise ProtocolError("CO-P542", "The hashes are not sorted, or some occur twice.")


@dataclass(frozen=True, eq=False)
class Matches:
    """The patients whom all sites have in common, from the sites' hashes.

    Everything but the posts themselves is computed when asked for, so that who may not read them can carry it.
    """

    study: Study
    own: Identifiers
    tags: Posts

    @cached_property
    def common(self) -> Tags:
        """Hashes of the common patients, sorted: their order at every site."""
        common = _words(self.tags[self.study.sites[0]]["tag"])
        for name in self.study.sites[1:]:
            theirs = _words(self.tags[name]["tag"])
            common = common[np.isin(common, theirs, assume_unique=True)]
        return common

    @property
    def n(self) -> int:
        """Number of common patients."""
        return len(self.common)

    @property
    def sizes(self) -> dict[str, int]:
        """How many patients each site has."""
        return {name: len(self.tags[name]["tag"]) for name in self.study.sites}

    @property
    def words(self) -> str:
        """The counts in a sentence."""
        unmatched = ", ".join(f"{name} {k - self.n} of {k}" for name, k in self.sizes.items() if k > self.n)
        return f"{self.n} patients are at every site; without a match: {unmatched or 'none'}."

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers (n,) of the common patients in this site's own data; StudyError if they are too few."""
        if self.n < self.study.rows.minimum:
            what = f"The sites have {self.n} patients in common; the study wants at least {self.study.rows.minimum}"
            raise StudyError("CO-N205", f"{what}. {self.words} Do all files identify patients by the same code?")
        mine = _words(self.own.tags)
        order = np.argsort(mine)
        return self.own.patients.rows[order[np.searchsorted(mine, self.common, sorter=order)]]


# The linkage report


def report_form(study: Study) -> Schema:
    """Form of a site's report: hashes of spellings, and rows that identify nobody or were left out as doubled."""
    words = Field("|u1", (None, len(study.identifying), WORD))
    return Schema({"written": words, "strict": words, "unidentified": Field("<i8"), "doubled": Field("<i8")})


def report(site: Site, matches: Matches) -> Payload:
    """This site's report on the common patients; StudyError if they are too few."""
    identifiers = [site.columns.identifiers[row] for row in matches.rows]
    own = hash_spellings(site.study, identifiers, [bytes(tag).ljust(TAG, b"\0") for tag in matches.common])
    patients = matches.own.patients
    counts = {"unidentified": np.array(patients.unidentified), "doubled": np.array(patients.doubled)}
    return {"written": own.written, "strict": own.strict, **counts}


def counts_of_rows(site: Site, payload: Payload) -> Exposure:
    """What a report gives away: how the common patients' identifiers are written, and how many rows did not link."""
    return Exposure("The linkage report (spellings of common patients, rows without a patient)", len(payload["strict"]))


@dataclass(frozen=True, eq=False)
class Alignment:
    """The common patients with the sites' reports on them. Computed when asked for, as in `Matches`."""

    matches: Matches
    reports: Posts

    @property
    def n(self) -> int:
        """Number of common patients."""
        return self.matches.n

    def order(self) -> NDArray[np.int64]:
        """Row numbers (n,) of the common patients in this site's own data.

        StudyError if they are too few, or if more of them than the study allows are spelled differently.
        """
        rows = self.matches.rows
        self.spellings.check(self.matches.study.most_spellings)
        return rows

    @cached_property
    def spellings(self) -> SpellingCounts:
        """How the sites spell the common patients' identifiers; ProtocolError for reports on other patients."""
        study, sites = self.matches.study, []
        for name in study.sites:
            post = self.reports[name]
            if not len(post["written"]) == len(post["strict"]) == self.n:
                what = f"{name} reports on {len(post['written'])} patients; the sites have {self.n} in common."
                raise ProtocolError("CO-P541", what, name, "align/report")
            sites.append(Spellings(np.asarray(post["written"]), np.asarray(post["strict"])))
        return compare_spellings(study, sites)

    @cached_property
    def counts(self) -> Mapping[str, Any]:
        """The linkage report as stable JSON keys: patients in common, and by site rows that did not link and why."""
        sizes, reports = self.matches.sizes, self.reports
        return {
            "common": self.n,
            "rows": sizes,
            "unmatched": {name: size - self.n for name, size in sizes.items()},
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
        return tuple(filter(None, (f"Alignment: {self.matches.words}", *lost, self.spellings.words)))


def _hashes(key: bytes, identifiers: Sequence[bytes]) -> NDArray[np.uint8]:
    """HMAC of each identifier (n, 16)."""
    keyed = hmac.new(key, digestmod="sha256")
    out = bytearray()
    for identifier in identifiers:
        stamp = keyed.copy()
        stamp.update(identifier)
        out += stamp.digest()[:TAG]
    return np.frombuffer(bytes(out), np.uint8).reshape(-1, TAG)


def _words(tags: NDArray[np.uint8]) -> Tags:
    """Rows of bytes as strings that can be sorted and compared; being of one length, they differ as their bytes do."""
    words: Tags = np.ascontiguousarray(tags).view(f"S{TAG}")[:, 0]
    return words
