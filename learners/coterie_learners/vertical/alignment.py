"""The same patients in the same order at every site that holds columns of them, by keyed hashes of their identifiers.

Opening steps of a learner: `align` is a script used with `yield from`. The sites announce sealing keys for this run,
agree on a key (each seals 32 bytes to all the others; HKDF over the study makes one key of them), and each seals to the
others the HMAC-SHA-256 of each of its identifiers, cut to 128 bits, in the order of the hashes. The common set is the
intersection, its order that of the hashes: it says nothing about the order of any file.

Identifiers are compared in normal form: Unicode NFKC, case folded, without blanks and punctuation, numbers without
leading zeros. A second hash, of the identifier as it is written, counts those that two sites write differently.

Leaves a site: the hashes, sealed to the study's sites. Each site learns which of its own patients each other site
holds, and how many there are elsewhere; whoever lacks the key (the store, the ledger, an auditor) learns the number of
rows at most. Hiding even membership from the sites is what a secure join is for.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, announce, each
from coterie_learners.errors import DataError, ProtocolError, StudyError
from coterie_learners.study.document import Study

KEY, TAG = 32, 16
NO_LETTER, LEADING_ZEROS = re.compile(r"[\W_]+"), re.compile(r"(?<!\d)0+(?=\d)")
# Kinds of the three steps, for the schedule of whoever uses `align`.
STEPS = ("each", "each", "each")

_Tags = NDArray[np.bytes_]


def align(site: Site) -> Script:
    """Agree on a key, exchange hashes; returns the Alignment (to whoever may not read the hashes, one that says so)."""
    readers = site.study.sites
    yield from announce()
    form = Schema({"share": Field("|u1", (KEY,))})
    keys = yield from each("align/key", draw_key_share, expects=form, readers=readers, reveals=expose_randomness)
    form = Schema({"tag": Field("|u1", (None, TAG)), "spelling": Field("|u1", (None, TAG))}, check=check_tags)
    own = Identifiers(site, keys)
    tags = yield from each("align/tags", post_tags, own, expects=form, readers=readers, reveals=expose_hashes)
    return Alignment(site.study, own, tags)


def draw_key_share(site: Site) -> Payload:
    """This site's part of the key."""
    return {"share": np.frombuffer(site.stream("align/key", KEY), np.uint8)}


def expose_randomness(site: Site, payload: Payload) -> Exposure:
    """What random bytes give away: nothing of any patient."""
    return Exposure("A random number", site.columns.n)


def expose_hashes(site: Site, payload: Payload) -> Exposure:
    """What the hashes give away to those who have the key: who of their own patients is here too."""
    return Exposure("Keyed hashes of its patients' identifiers", len(payload["tag"]))


def derive_group_key(study: Study, keys: Posts) -> bytes:
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
        return derive_group_key(self.site.study, self.keys)

    @cached_property
    def normal(self) -> NDArray[np.uint8]:
        """Hashes (n, 16) of the identifiers in normal form, in the order of this site's rows."""
        return _hashes(
            self.key, b"normal", [tuple(map(normalise_identifier, one)) for one in self.site.columns.identifiers]
        )

    @property
    def as_written(self) -> NDArray[np.uint8]:
        """Hashes (n, 16) of the identifiers as they are written."""
        return _hashes(self.key, b"written", self.site.columns.identifiers)


def post_tags(site: Site, own: Identifiers) -> Payload:
    """Hashes of this site's identifiers, normal and as written, sorted by the first; DataError counts duplicates."""
    _check_different(site.name, own.normal)
    order = np.argsort(_words(own.normal))
    return {"tag": own.normal[order], "spelling": own.as_written[order]}


def normalise_identifier(text: str) -> str:
    """An identifier without what people write differently: case, blanks, punctuation, leading zeros."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return LEADING_ZEROS.sub("", NO_LETTER.sub("", folded.casefold()))


def check_tags(payload: Payload) -> None:
    """ProtocolError unless the hashes are as many as their spellings, sorted and different."""
    tags = _words(payload["tag"])
    if len(tags) != len(payload["spelling"]):
        raise ProtocolError("CO-P541", "There are other numbers of hashes and of spellings.")
    if not np.array_equal(np.unique(tags), tags):
        raise ProtocolError("CO-P542", "The hashes are not sorted, or some occur twice.")


@dataclass(frozen=True, eq=False)
class Alignment:
    """The patients whom all sites have in common, from the sites' hashes.

    Everything but the posts themselves is computed when asked for, so that who may not read them can carry it.
    """

    study: Study
    own: Identifiers
    tags: Posts

    @cached_property
    def common(self) -> _Tags:
        """Hashes of the common patients, sorted: their order at every site."""
        common = _words(self.tags[self.study.sites[0]]["tag"])
        for name in self.study.sites[1:]:
            peer_tags = _words(self.tags[name]["tag"])
            common = common[np.isin(common, peer_tags, assume_unique=True)]
        return common

    @property
    def n(self) -> int:
        """Number of common patients."""
        return len(self.common)

    def order(self) -> NDArray[np.int64]:
        """Row numbers (n,) of the common patients in this site's own data; StudyError if they are too few."""
        if self.n < self.study.rows.minimum:
            raise StudyError(
                "CO-N205",
                f"The sites have {self.n} patients in common; the study wants at least {self.study.rows.minimum}. "
                f"{' '.join(self.notes)} Do all files identify patients by the same code?",
            )
        own_tags = _words(self.own.normal)
        order = np.argsort(own_tags)
        return order[np.searchsorted(own_tags, self.common, sorter=order)]

    @cached_property
    def counts(self) -> Mapping[str, Any]:
        """Patients in common; for each site its rows, and those unmatched; identifiers that sites write differently."""
        spellings = [self._spellings(name) for name in self.study.sites]
        differently = np.any([s != spellings[0] for s in spellings], axis=0) if self.n else np.zeros(0)
        return {
            "common": self.n,
            "rows": {name: len(self.tags[name]["tag"]) for name in self.study.sites},
            "unmatched": {name: len(self.tags[name]["tag"]) - self.n for name in self.study.sites},
            "written_differently": int(np.sum(differently)),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """The counts in sentences."""
        counts = self.counts
        unmatched = ", ".join(f"{name} {k} of {counts['rows'][name]}" for name, k in counts["unmatched"].items() if k)
        sentences = [f"Alignment: {self.n} patients are at every site; without a match: {unmatched or 'none'}."]
        if counts["written_differently"]:
            sentences.append(
                f"{counts['written_differently']} of their identifiers are written differently at some site."
            )
        return tuple(sentences)

    def _spellings(self, name: str) -> _Tags:
        post = self.tags[name]
        where = np.searchsorted(_words(post["tag"]), self.common)
        return _words(post["spelling"])[where]


def _hashes(key: bytes, label: bytes, identifiers: Sequence[tuple[str, ...]]) -> NDArray[np.uint8]:
    """HMAC of each identifier (n, 16); lengths are hashed too, so that no two identifiers read as one."""
    derived = HKDF(SHA256(), KEY, salt=None, info=b"coterie/1 identifiers " + label).derive(key)
    digests = b"".join(hmac.digest(derived, _bytes(row), "sha256")[:TAG] for row in identifiers)
    return np.frombuffer(digests, np.uint8).reshape(-1, TAG)


def _bytes(identifier: tuple[str, ...]) -> bytes:
    parts = [part.encode() for part in identifier]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _words(tags: NDArray[np.uint8]) -> _Tags:
    """Rows of bytes as strings that can be sorted and compared; being of one length, they differ as their bytes do."""
    words: _Tags = np.ascontiguousarray(tags).view(f"S{TAG}")[:, 0]
    return words


def _check_different(site: str, tags: NDArray[np.uint8]) -> None:
    unique = len(np.unique(_words(tags)))
    if unique != len(tags):
        raise DataError(
            "CO-D133",
            f"{site}: {len(tags)} rows carry {unique} different identifiers (case, blanks, punctuation and leading "
            "zeros aside). One row per patient, please: leave out or merge the others.",
        )
