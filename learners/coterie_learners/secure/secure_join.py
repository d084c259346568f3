"""Secure inner join: rows of the same patients come together as shares, and nobody learns who matched.

N owners of columns, and a helper without data. On the ledger:

| step | from -> to | what | the reader learns |
|---|---|---|---|
| `terms` | each -> all | commitment to the input; a part of the key, wrapped for each other owner | - |
| `rows/<owner>` | owner -> helper, sealed | tags in a secret order; digests of rows under masks | numbers of rows |
| `match/<owner>` | helper -> owner, sealed | places of matched rows of the owner before it | how many matched |

The rows under masks follow in the interactive step, owner -> helper, block by block (masked_rows.py), and only if
enough patients match.

The key of tags and masks is the hash of all owners' parts; the helper never sees it. Masks are uniform modulo the
field's prime; the masks of one owner's rows are made again by the next owner, who sees of them only k places in a list
whose order it does not know: a uniformly random k-tuple, whatever the data. So the masked rows (helper) and their masks
(next owner) are an additive sharing of the joined table, dealt at once into the shares of the computing parties.

Nobody learns who matched if no two parties collude. Helper and one owner together could read tags by guessing
identifiers (as in TNO's protocol), and unmask the rows of the owner before it, also those
without a match. `mode = "paillier"` (paillier.py) keeps these under their owner's own key, at some 100 times the cost.

Every length follows from the numbers of rows, columns and matches alone.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.intervals import INTERVALS, Intervals, check_spread, find_intervals
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, each, only
from coterie_learners.errors import DataError, ProtocolError, StudyError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.secure import identifier_tags, masked_rows, paillier
from coterie_learners.secure.identifier_tags import Deal, LinkagePass
from coterie_learners.secure.masked_rows import Packed
from coterie_learners.secure.moments import INPUT
from coterie_learners.shares.field import Elements
from coterie_learners.shares.field import PrimeField as Numbers
from coterie_learners.shares.session import Keystream
from coterie_learners.study import identifiers
from coterie_learners.study.document import Study
from coterie_learners.study.identifiers import (
    WORD,
    SpellingCounts,
    Spellings,
    compare_spellings,
    hash_spellings,
    normalise_rows,
)

_KEY = 32
# Owners' values lie in [-1, 1]; rounding may carry them over the edge by this.
EDGE = 1e-9


@dataclass(frozen=True)
class JoinPlan:
    """The facts about a join that all sites know.

    `owners` in order and the `helper`; `widths`: each owner's number of columns; the `passes` over identifiers and the
    number of `identifying` columns; the least number of matches (`floor`); the field of the shares; the mode; middle
    and half-width of the outcome's range; how a seed deals the patients to groups, if the study has one; the largest
    magnitude of an `offset`.
    """

    owners: tuple[str, ...]
    helper: str
    widths: Mapping[str, int]
    passes: tuple[LinkagePass, ...]
    identifying: int
    floor: int
    numbers: Numbers
    mode: str
    outcome: tuple[float, float]
    deal: Deal | None = None
    offset: float = 1.0

    def before(self, owner: str) -> str:
        """The owner whose masks this owner makes again."""
        return self.owners[self.owners.index(owner) - 1]

    def row_bytes(self, owner: str) -> int:
        """Bytes of a row of an owner as residues."""
        return self.widths[owner] * self.numbers.width

    @property
    def block_rows(self) -> int:
        """Rows that are sent and shared at once."""
        return masked_rows.count_block_rows(sum(self.widths.values()))

    @property
    def sealed_by_key(self) -> bool:
        """Whether rows leave their owner under Paillier's encryption."""
        return self.mode == "paillier"


@dataclass(frozen=True)
class JoinPosts:
    """The posts of a join: what the parties need to share the joined table."""

    terms: Posts
    rows: Mapping[str, Payload]
    matches: Mapping[str, Payload]


def join(link: JoinPlan, allowed: Callable[[Site], None], refine: Callable[[Posts], JoinPlan]) -> Script:
    """Sites post tags to the helper, which posts matches; returns the posts, sealed ones unread.

    `allowed(site)` raises before anything leaves a site that may not take part; `refine` gives the plan of the join
    once the first step's posts say where the columns lie in their ranges.
    """
    terms = yield from each("terms", commit, link, allowed, expects=terms_form(link), reveals=expose_terms)
    link = refine(terms)
    rows, matches = {}, {}
    for owner in link.owners:
        form, revealed = rows_form(link, owner), partial(expose_rows, link)
        rows[owner] = yield from only(
            owner,
            f"rows/{owner}",
            hide_rows,
            link,
            terms,
            expects=form,
            readers=(link.helper,),
            reveals=revealed,
            compress=False,
        )
    for owner in link.owners:
        revealed = partial(expose_matches, rows)
        matches[owner] = yield from only(
            link.helper,
            f"match/{owner}",
            match_rows,
            link,
            rows,
            owner,
            expects=match_form(link),
            readers=(owner,),
            reveals=revealed,
            compress=False,
        )
    return JoinPosts(terms, rows, matches)


def schedule_join(link: JoinPlan) -> tuple[str, ...]:
    """The join's step kinds for the ledger."""
    return ("each", *(f"only:{o}" for o in link.owners), *(f"only:{link.helper}" for _ in link.owners))


# First step: commitments and the owners' key


def terms_form(link: JoinPlan) -> Schema:
    """Form of a site's post in the first step."""
    wrapped = Field("|u1", (len(link.owners), _KEY))
    return Schema({"commitment": Field("|u1", (32,)), "rules": Field("|u1", (32,)), "key": wrapped, **INTERVALS})


def commit(site: Site, link: JoinPlan, allowed: Callable[[Site], None]) -> Payload:
    """SHA-256 of a secret salt and the whole input; how this site normalises; its part of the key for each owner.

    It also has the places of its columns in their ranges.
    """
    allowed(site)
    salt, own = site.stream("commitment", _KEY), Intervals.of_ranges(0)
    if site.name != link.helper:
        values = site_inputs(site, link)
        own = find_intervals(values)
        check_spread(own.place(values), site.name)
    committed = b"" if site.name == link.helper else _input(site, link)
    return {
        "commitment": _bytes(hashlib.sha256(salt + committed).digest()),
        "rules": _bytes(identifiers.digest_forms()),
        "key": np.stack([_bytes(_wrap_key_share(site, link, peer)) for peer in link.owners]),
        **own.payload(),
    }


def _wrap_key_share(site: Site, link: JoinPlan, peer: str) -> bytes:
    """This owner's part of the key under a pad that only it and the peer can make; zeros where there is none."""
    if site.name == link.helper or peer == site.name:
        return bytes(_KEY)
    return _xor(site.stream("key", _KEY), site.mask(peer, f"key/{site.name}", _KEY))


def derive_owners_key(site: Site, link: JoinPlan, terms: Posts, use: str) -> bytes:
    """A key that all owners can make and the helper cannot, for one use; ProtocolError if normalisers differ."""
    place, parts = link.owners.index(site.name), []
    for owner in link.owners:
        if bytes(terms[owner]["rules"]) != identifiers.digest_forms():
            message = f"{owner} normalises identifiers in another way than {site.name}"
            raise ProtocolError(
                "CO-P651", f"{message}. Install the same version of Python at all owners.", owner, "terms"
            )
        wrapped = bytes(terms[owner]["key"][place])
        own = owner == site.name
        parts.append(site.stream("key", _KEY) if own else _xor(wrapped, site.mask(owner, f"key/{owner}", _KEY)))
    label = f"{site.session}/{site.study.hash.hex()}/{use}".encode()
    return hashlib.sha256(b"coterie/1 linkage" + b"".join(parts) + label).digest()


# Second step: tags and digests of masked rows


def rows_form(link: JoinPlan, owner: str) -> Schema:
    """Form of an owner's tags with the digests of its masked rows, or with its encrypted rows."""
    if link.sealed_by_key:
        return paillier.form_encrypted_rows(link)
    return Schema(
        {
            "tags": Field("|u1", (len(link.passes), None, identifier_tags.TAG)),
            **spellings_form(link),
            "group": DEALT,
            "masked_blocks": masked_rows.BLOCKS,
        }
    )


# The group that the study's seed deals each row of the first owner to; zeros at the other owners, or without a seed.
DEALT = Field("|u1", (None,))


def spellings_form(link: JoinPlan) -> dict[str, Field]:
    """Form of the hashes of how identifying values are written."""
    return {name: Field("|u1", (None, link.identifying, WORD)) for name in ("written", "strict")}


def hide_rows(site: Site, link: JoinPlan, terms: Posts) -> Payload:
    """This owner's tags in an order that nobody else knows, and its rows encrypted or as digests of masked blocks."""
    order = _own_order(site)
    named = _name_rows(site, link, terms, order)
    if link.sealed_by_key:
        shuffled = link.numbers.encode(_place_values(site, link)[order], INPUT)
        return {**named, **paillier.encrypt_rows(site, link.numbers, shuffled)}
    return {**named, "masked_blocks": masked_rows.digest_blocks(mask_own_rows(site, link, terms))}


def _name_rows(site: Site, link: JoinPlan, terms: Posts, order: NDArray[np.int64]) -> Payload:
    """Tags, groups and spellings of this owner's rows in an order."""
    forms = normalise_rows(site.study, site.name, site.columns.identifiers)
    noise = site.stream("tags", len(link.passes) * len(forms) * identifier_tags.TAG)
    key = derive_owners_key(site, link, terms, "tags")
    tags = identifier_tags.make_tags(key, site.study, site.name, link.passes, forms, noise)
    group = _deal_rows(site, link, forms)[order]
    spellings = hash_written_values(site, derive_owners_key(site, link, terms, "spellings"), tags, order)
    return {"tags": tags[:, order], "group": group, **spellings}


def mask_own_rows(site: Site, link: JoinPlan, terms: Posts) -> Iterator[bytes]:
    """This owner's rows under masks, block by block, in the order of its tags."""
    key = derive_owners_key(site, link, terms, f"masks/{site.name}")
    return masked_rows.mask_rows(link, key, _place_values(site, link), _own_order(site))


def _own_order(site: Site) -> NDArray[np.int64]:
    """The order of this owner's rows that nobody else knows."""
    return permutation(Keystream(site.stream("order", _KEY)), site.columns.n)


def _place_values(site: Site, link: JoinPlan) -> Array:
    """This owner's columns (n, c) in [-1, 1] of the intervals that its values lie in."""
    declared = site_inputs(site, link)
    return find_intervals(declared).place(declared)


def _deal_rows(site: Site, link: JoinPlan, forms: Sequence[identifiers.Values]) -> NDArray[np.uint8]:
    if link.deal is None or site.name != link.owners[0]:
        return np.zeros(len(forms), np.uint8)
    return link.deal.assign(forms)


def hash_written_values(site: Site, key: bytes, tags: identifier_tags.TagArray, order: NDArray[np.int64]) -> Payload:
    """Hashes of how each row's identifying values are written, salted with the row's first tag under the owners' key.

    Tags of one file differ, so that the helper sees equal hashes only where two owners' rows match.
    """
    salts = (hmac.digest(key, bytes(tag), "sha256") for tag in tags[0])
    own = hash_spellings(site.study, site.columns.identifiers, salts)
    return {"written": own.written[order], "strict": own.strict[order]}


def site_inputs(site: Site, link: JoinPlan) -> Array:
    """This owner's columns (n, c) in [-1, 1] of their declared ranges, then the offset and the outcome if here.

    DataError for a value out of range.
    """
    columns, (centre, scale) = site.columns, link.outcome
    offset = [] if columns.offset is None else [columns.offset / link.offset]
    outcome = [] if columns.y is None else [(columns.y - centre) / scale]
    return check_range(np.column_stack([columns.x, *offset, *outcome]), site.name)


def check_range(values: Array, name: str) -> Array:
    """The values, none of which may leave [-1, 1]: beyond it the field's numbers could overflow unseen."""
    if not np.all(np.abs(values) <= 1.0 + EDGE):
        worst = float(np.max(np.abs(values)))
        message = f"{name}: a value lies {worst:.6g} half-widths from the middle of its declared range"
        raise DataError(
            "CO-D343", f"{message}; the secure computation takes at most 1. Correct the value or the range."
        )
    return np.clip(values, -1.0, 1.0)


# Third step: matches

# The helper's post besides the places: whether enough rows match, and how many are spelled differently or doubtfully.
# It also has the number of matches that a seed dealt to each group.
SAID = {
    "enough": Field("|b1"),
    "different": Field("<i8", (None,)),
    "doubtful": Field("<i8"),
    "groups": Field("<i8", (None,)),
}


def match_form(link: JoinPlan) -> Schema:
    """Form of the helper's post for an owner."""
    if link.sealed_by_key:
        return paillier.form_encrypted_match(link)
    return Schema({"places": Field("<i8", (None,)), **SAID})


def match_rows(site: Site, link: JoinPlan, rows: Mapping[str, Payload], owner: str) -> Payload:
    """The helper's post for one owner: the matched places in the list before it, or that there are too few."""
    places = find_matched_places(site, link, rows)
    enough = places.shape[1] >= link.floor
    chosen = places if enough else places[:, :0]
    counts = count_spellings(site.study, link, rows, chosen)
    different = np.array([counts.different, *counts.columns.values()], dtype=np.int64)
    groups = np.array(count_groups(link, rows, chosen), dtype=np.int64)
    said = {"enough": np.array(enough), "different": different, "doubtful": np.array(counts.doubtful), "groups": groups}
    if link.sealed_by_key:
        mine = chosen[link.owners.index(owner)]
        return {**said, **paillier.blind_rows(site, rows[owner], mine, owner)}
    return {**said, "places": chosen[link.owners.index(link.before(owner))]}


def count_groups(link: JoinPlan, rows: Mapping[str, Payload], places: NDArray[np.int64]) -> tuple[int, ...]:
    """How many matched rows the seed dealt to each group; empty without a seed."""
    if link.deal is None:
        return ()
    groups = np.asarray(rows[link.owners[0]]["group"])[places[0]]
    return tuple(np.bincount(groups, minlength=link.deal.count)[: link.deal.count].tolist())


def read_groups(site: Site, link: JoinPlan, posts: JoinPosts) -> tuple[int, ...]:
    """The same, as this site computes it or hears it from the helper; ProtocolError for groups that cannot be."""
    if site.name == link.helper:
        return count_groups(link, posts.rows, find_matched_places(site, link, posts.rows))
    groups = tuple(int(count) for count in np.asarray(posts.matches[site.name]["groups"]).tolist())
    wanted = 0 if link.deal is None else link.deal.count
    matches = count_joint_patients(site, link, posts)
    if len(groups) != wanted or (groups and (min(groups) < 0 or sum(groups) != matches)):
        what = f"{link.helper} deals {matches} matches to groups of {', '.join(map(str, groups)) or 'nobody'}"
        raise ProtocolError("CO-P652", f"{what}.", link.helper, f"match/{site.name}")
    return groups


def count_spellings(
    study: Study, link: JoinPlan, rows: Mapping[str, Payload], places: NDArray[np.int64]
) -> SpellingCounts:
    """Counts of the owners' spellings of the identifiers that the first pass matched."""
    tags = [np.asarray(rows[owner]["tags"])[0, own] for owner, own in zip(link.owners, places, strict=True)]
    first = np.all([np.all(tag == tags[0], axis=1) for tag in tags], axis=0)
    sites = [
        Spellings(*(np.asarray(rows[owner][name])[own[first]] for name in ("written", "strict")))
        for owner, own in zip(link.owners, places, strict=True)
    ]
    return compare_spellings(study, int(first.sum()), list(itertools.combinations(sites, 2)))


def read_spelling_counts(site: Site, link: JoinPlan, posts: JoinPosts) -> SpellingCounts:
    """How the owners spell the matched identifiers, as this site computes it or hears it from the helper."""
    if site.name == link.helper:
        return count_spellings(site.study, link, posts.rows, find_matched_places(site, link, posts.rows))
    said, matches = posts.matches[site.name], count_joint_patients(site, link, posts)
    different = np.asarray(said["different"]).tolist()
    if len(different) != 1 + link.identifying or not all(
        0 <= k <= matches for k in (*different, int(said["doubtful"]))
    ):
        what = f"{link.helper} counts other spellings of {matches} matches than there can be"
        raise ProtocolError("CO-P652", f"{what}.", link.helper, f"match/{site.name}")
    columns = dict(zip(site.study.identifying, different[1:], strict=True))
    return SpellingCounts(matches, different[0], int(said["doubtful"]), columns)


def describe_linkage(site: Site, link: JoinPlan, posts: JoinPosts) -> str:
    """An owner's linkage report in sentences; of the other owners' rows it says nothing."""
    counts, n = read_spelling_counts(site, link, posts), site.columns.n
    forms = normalise_rows(site.study, site.name, site.columns.identifiers)
    first, *others = [way.encode(forms) for way in link.passes]
    repeated = Counter(text for text in first if text is not None)
    doubled = sum(count for count in repeated.values() if count > 1)
    unidentified = sum(not any(texts) for texts in zip(first, *others, strict=True))
    lost = [f"{pluralise(unidentified, 'row lacks', 'rows lack')} an identifier."] if unidentified else []
    lost += [f"{pluralise(doubled, 'row is', 'rows are')} doubled."] if doubled else []
    matches = f"Linkage: of {pluralise(n, 'row')} of {site.name}, {pluralise(counts.matches, 'has', 'have')} a match."
    return " ".join(filter(None, (matches, *lost, counts.words)))


def find_matched_places(site: Site, link: JoinPlan, rows: Mapping[str, Payload]) -> NDArray[np.int64]:
    """Places of the matched rows in each owner's list (owners, k), in a random order that only the helper knows.

    If a seed deals the rows to groups, they come group by group.
    """
    matched_rows = identifier_tags.match_tags([np.asarray(rows[owner]["tags"]) for owner in link.owners])
    shuffled = matched_rows[:, permutation(Keystream(site.stream("matches", _KEY)), matched_rows.shape[1])]
    if link.deal is None:
        return shuffled
    return shuffled[:, np.argsort(np.asarray(rows[link.owners[0]]["group"])[shuffled[0]], kind="stable")]


def require_patients(enough: bool, floor: int) -> None:
    """StudyError, before anything is opened, if there are too few patients."""
    if not enough:
        message = f"Fewer than {floor} patients are at all owners, which is the study's least cohort"
        effect = "Nothing was computed or opened, and no site learned their number"
        raise StudyError("CO-N241", f"{message}. {effect}. Find more patients.")


# The joined table as summands


def find_joint_patients(site: Site, link: JoinPlan, posts: JoinPosts) -> tuple[NDArray[np.int64] | None, int]:
    """The helper's matches (owners, k), None at an owner, and how many there are; StudyError if there are too few."""
    if site.name == link.helper:
        places = find_matched_places(site, link, posts.rows)
        require_patients(places.shape[1] >= link.floor, link.floor)
        return places, int(places.shape[1])
    answer = posts.matches[site.name]
    require_patients(bool(answer["enough"]), link.floor)
    return None, len(answer["ciphers" if link.sealed_by_key else "places"])


def count_joint_patients(site: Site, link: JoinPlan, posts: JoinPosts) -> int:
    """How many patients are at all owners; StudyError if there are too few."""
    return find_joint_patients(site, link, posts)[1]


def blinding_of_helper(site: Site, link: JoinPlan, owner: str, count: int) -> Packed:
    """The helper's summand (k, bytes of a row) of one owner's matched rows, where these come encrypted."""
    summand = paillier.blinding_summand(site, link.numbers, owner, count, link.widths[owner])
    return _pack_summand(link, owner, summand)


def summand_of_owner(site: Site, link: JoinPlan, posts: JoinPosts) -> tuple[str, Packed]:
    """The owner to whose matched rows this owner has the other summand (k, bytes of a row), and that summand."""
    answer = posts.matches[site.name]
    if link.sealed_by_key:
        summand = paillier.decrypt_summand(site, link.numbers, answer, link.widths[site.name])
        return site.name, _pack_summand(link, site.name, summand)
    source = link.before(site.name)
    places = np.asarray(answer["places"])
    if len(np.unique(places)) != len(places) or np.any(places < 0) or len(places) < link.floor:
        message = f"{link.helper} sent {site.name} {len(places)} matches, which are not different places of a list"
        raise ProtocolError("CO-P652", f"{message} or fewer than {link.floor}.", link.helper, f"match/{site.name}")
    key = derive_owners_key(site, link, posts.terms, f"masks/{source}")
    return source, masked_rows.pick_masks(link, key, places, source)


def _pack_summand(link: JoinPlan, owner: str, summand: Elements) -> Packed:
    return _bytes(link.numbers.pack(summand)).reshape(-1, link.row_bytes(owner))


def permutation(stream: Keystream, n: int) -> NDArray[np.int64]:
    """A uniformly random order of n things: by random keys of 128 bits."""
    keys = np.frombuffer(stream.take(16 * n), "<u8").reshape(n, 2)
    return np.lexsort((keys[:, 0], keys[:, 1])).astype(np.int64)


def cohort_digest(site: Site) -> bytes:
    """SHA-256 of an owner's list of patients, whatever its order: what a budget of questions is counted for."""
    rows = sorted(map(identifiers.encode_parts, normalise_rows(site.study, site.name, site.columns.identifiers)))
    return hashlib.sha256(b"".join(len(row).to_bytes(4, "big") + row for row in rows)).digest()


# What the release gate reads


def expose_terms(site: Site, payload: Payload) -> Exposure:
    """Nothing of any patient: a salted digest, and a key's part under pads."""
    rows = sys.maxsize if site.data is None else site.data.n
    return Exposure("A commitment and a wrapped part of the owners' key", rows)


def expose_rows(link: JoinPlan, site: Site, payload: Payload) -> Exposure:
    """Keyed tags, and rows that are uniform to the helper (under the masks whose digests these are, or encrypted).

    Readers learn only how many there are.
    """
    how = "encrypted" if link.sealed_by_key else "masked"
    return Exposure(f"{site.name}'s rows, {how} and with keyed tags in a secret order,", site.columns.n)


def expose_matches(rows: Mapping[str, Payload], site: Site, payload: Payload) -> Exposure:
    """Random places in a list of unknown order, or blinded ciphertexts: only how many matched, if enough did."""
    return Exposure("The number of matches", sum(post["tags"].shape[1] for post in rows.values()))


def _input(site: Site, link: JoinPlan) -> bytes:
    columns = site.columns
    named = b"".join(identifiers.encode_parts(row) for row in columns.identifiers)
    return named + np.ascontiguousarray(site_inputs(site, link), dtype="<f8").tobytes()


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _bytes(raw: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8)
