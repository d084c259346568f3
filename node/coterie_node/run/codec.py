"""From a payload to the bytes in the store and back, with every check that bytes from a peer must pass.

The way out: payload, stamp and canonical bytes, compression, seal to the step's readers. The way in checks, in this
order:

    check                       why here
    size in the record          before any byte is fetched: a record can declare anything
    CID, SHA-256                before any byte is parsed: from here on these are the bytes on record
    seal                        readers alone go on; for all others the post is `Sealed`
    bounded decompression       a small payload can unpack to a large one
    canonical form              one value has one encoding, so equal digests mean equal values
    stamp                       the bytes belong to this study, topic, site and attempt, and are no replay of others
    finite values, form         the learner's arithmetic may rely on both
    announced key               others must be able to seal to it
    flag `converged`            the contract ends the loop by the record's flag, so it must be the payload's

A server's post is stored uncompressed: its digest must not depend on the version of a compression library, because
every site recomputes it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np

from coterie_chain.errors import BlobCorrupt, BlobMissing, BlobUnusable
from coterie_chain.keys.envelopes import is_sealed, unseal_with
from coterie_chain.keys.site_keys import SiteKeys, is_usable_key
from coterie_chain.ledger.protocol import Post, Record
from coterie_chain.store.protocol import MAX_BLOB, BlobStore
from coterie_learners.core import payload as pay
from coterie_learners.core.payload import Payload, Stamp
from coterie_learners.core.protocol import Sealed, Step
from coterie_learners.errors import ProtocolError
from coterie_learners.study.document import Study
from coterie_node.errors import PayloadCorrupt, PayloadMissing, PayloadTooLarge

CODECS = {"zstd": pay.SHUFFLE_ZSTD, "deflate": pay.DEFLATE}
# The most bytes of a payload that the contracts take, that a store returns, and that a reader unpacks.
MAX_PAYLOAD_BYTES = MAX_BLOB
MALFORMED_ENVELOPE, SEALED_TO_ANOTHER = "CO-C221", "CO-C222"


@dataclass(frozen=True)
class PayloadCodec:
    """One reader's and writer's view of a study: its keys and the sealing keys of all sites.

    `own` are this site's keys for this run; they count after the sites have announced theirs. `view` opens single
    payloads for an auditor: the keys of their bodies, by SHA-256 of the stored bytes, as readers have granted them.
    `limit` is the most bytes that this site posts at once, before and after compression.
    """

    study: Study
    name: str
    keys: SiteKeys | None
    directory: Mapping[str, bytes]
    own: SiteKeys | None = None
    view: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    limit: int = MAX_PAYLOAD_BYTES

    def with_announced_keys(self, posts: Mapping[str, Payload]) -> PayloadCodec:
        """The codec after the sites have announced their sealing keys for this run."""
        directory = {site: np.asarray(post["sealing"]).tobytes() for site, post in posts.items()}
        return replace(self, keys=self.own or self.keys, directory={**self.directory, **directory})

    def write(self, step: Step, attempt: int, payload: Payload) -> bytes:
        """The bytes to store for a payload that this site posts at a step; PayloadTooLarge if nobody could read them.

        The size is measured here, before anything is stored or recorded: the contract would refuse the record, and a
        reader that trusted the record's size would blame this site for it.
        """
        # The arrays first: compression of a payload that is too large takes seconds.
        self._check_size(step, sum(np.asarray(value).nbytes for value in payload.values()))
        blob = self.seal(step, pack(self.study, step, self.name, attempt, payload))
        self._check_size(step, len(blob))
        return blob

    def _check_size(self, step: Step, size: int) -> None:
        if size > self.limit:
            message = f"{self.name}'s payload for {step.topic!r} has {size} bytes; a payload may have {self.limit}"
            remedy = "Propose the study with fewer rows or covariates, or with a learner's option that sends less"
            raise PayloadTooLarge("CO-R303", f"{message}. Nothing of it was recorded. {remedy}.")

    def seal(self, step: Step, blob: bytes) -> bytes:
        """The bytes sealed to the step's readers and to this site itself, if the step is sealed at all."""
        if step.readers is None or self.keys is None:
            return blob
        readers = {name: self.directory[name] for name in {*step.readers, self.name}}
        return self.keys.seal(blob, readers, _context(self.study, step.topic, self.name))

    def read(self, step: Step, record: Record, blobs: BlobStore) -> Payload | Sealed:
        """The payload behind a record, checked; ProtocolError or BlobCorrupt name the site and the topic.

        The post that only ends the study counts as empty, whatever is behind it.
        """
        if step.concludes:
            return {}
        try:
            return self._read(step, record, blobs)
        except ProtocolError as error:
            message = f"{record.site} posted a bad {step.topic!r} (record {record.seq}): {error.message}"
            raise ProtocolError(error.code, message, record.site, step.topic) from error
        except BlobCorrupt as error:
            message = (
                f"The payload of {record.site} for {step.topic!r} (record {record.seq}) is damaged: {error.message}"
            )
            raise PayloadCorrupt(error.code, message, record.site, step.topic) from error
        except BlobMissing as error:
            message = f"The payload of {record.site} for {step.topic!r} (record {record.seq}) is out of reach"
            raise PayloadMissing(error.code, f"{message}: {error.message}", record.site, step.topic) from error

    def _read(self, step: Step, record: Record, blobs: BlobStore) -> Payload | Sealed:
        blob = _load(record.post, blobs)
        known = _DECODED.find(record.post.sha256)
        if known is not None and known.was_accepted(self.study, step, record, blob):
            return dict(known.payload)
        sent = blob
        _check_bytes(record.post, blob)
        if step.readers is not None or is_sealed(blob):
            unsealed = self._unseal(step, record, blob)
            if unsealed is None:
                self._check_shut_out(step)
                return Sealed(record.site, step.topic, record.post.converged)
            blob = unsealed
        # The bytes are those on record. Their author is a peer, so everything below is still bounded and checked.
        decoded = _DECODED.decode(blob)
        stamp, payload = decoded.stamp, dict(decoded.payload)
        wanted = Stamp(self.study.hash.hex(), step.topic, record.site, record.post.attempt)
        if stamp != wanted:
            raise ProtocolError(
                "CO-P110",
                f"The payload was made for {_describe_stamp(stamp)}, not for {_describe_stamp(wanted)}."
                " Ask that site to check its node.",
            )
        decoded.check(step.expects)
        if step.announces and not is_usable_key(np.asarray(payload["sealing"]).tobytes()):
            raise ProtocolError("CO-P553", "The sealing key that it announces is no X25519 key that can be used.")
        if ("converged" in payload and bool(np.all(payload["converged"]))) != record.post.converged:
            message = (
                f"The record says converged={record.post.converged}, which is not what its payload says."
                " Ask that site to check its node."
            )
            raise ProtocolError("CO-P116", message)
        if blob is sent:
            decoded.accept(self.study, step, record, blob)
        return payload

    def _unseal(self, step: Step, record: Record, blob: bytes) -> bytes | None:
        if step.readers is None or not is_sealed(blob):
            raise ProtocolError(
                "CO-P111",
                "The payload is sealed where it must be open, or open where it must be sealed."
                " Ask that site to check its version.",
            )
        try:
            return self._open(record, blob, _context(self.study, step.topic, record.site))
        except BlobCorrupt as error:
            # The bytes are those on record, so who sealed them is at fault, unless this site has lost its key.
            if error.code != MALFORMED_ENVELOPE and not (error.code == SEALED_TO_ANOTHER and self._has_own_key()):
                raise
            raise ProtocolError(error.code, error.message) from error

    def _check_shut_out(self, step: Step) -> None:
        """ProtocolError if this site is a reader of the step that the envelope leaves out."""
        if self.keys is not None and step.readers is not None and self.name in step.readers:
            message = f"The envelope does not name {self.name}, which is a reader of this step"
            raise ProtocolError("CO-P117", f"{message}. Ask that site to check its version.")

    def _has_own_key(self) -> bool:
        """Whether this site's key is the one that others seal to."""
        return self.keys is not None and self.directory.get(self.name) == self.keys.sealing

    def _open(self, record: Record, blob: bytes, context: bytes) -> bytes | None:
        # A grant counts before the keys: an auditor has no keys, and a site's keys may be destroyed.
        if record.post.sha256 in self.view:
            return unseal_with(blob, self.view[record.post.sha256], context)
        return None if self.keys is None else self.keys.unseal(blob, self.name, context)


@dataclass
class DecodedPost:
    """A payload's stamp and arrays, which take `size` bytes of memory; the last form that it was found to have.

    Its arrays cannot be written to, so the checks of their values and form by one reader in this process hold for all
    readers.
    """

    stamp: Stamp
    payload: Payload
    size: int
    _finite: bool = False
    _form: pay.Schema | None = None
    _accepted: tuple[bytes, str, bool, pay.Schema | None, Record, bytes] | None = None

    def accept(self, study: Study, step: Step, record: Record, blob: bytes) -> None:
        """Note that all checks of an open post have passed: of these bytes, behind this record, at this step."""
        if type(blob) is bytes:
            self._accepted = study.hash, step.topic, step.announces, step.expects, record, blob

    def was_accepted(self, study: Study, step: Step, record: Record, blob: bytes) -> bool:
        """Whether another reader has made all checks of an open post that this one would make, on the same objects.

        Each reader compares the study, the step with its form, the record and the bytes with those that were checked.
        A sealed step, and a form with a learner's own check, are for each reader to check again.
        """
        if self._accepted is None or step.readers is not None:
            return False
        hash_, topic, announces, form, known_record, known_blob = self._accepted
        same_place = record is known_record and study.hash == hash_ and step.topic == topic
        same_form = step.announces == announces and (form is None or form.check is None) and step.expects == form
        return blob is known_blob and same_place and same_form

    def check(self, form: pay.Schema | None) -> None:
        """ProtocolError for values that are not finite, or a payload of another form; a learner's own check is made
        each time.
        """
        if not self._finite:
            pay.check_finite(self.payload)
            self._finite = True
        if form is None:
            return
        if form.check is None and form == self._form:
            return
        pay.check(dict(self.payload), form)
        self._form = form


class Digests:
    """SHA-256 of byte strings, computed once for each object: its bytes cannot change while it is kept here.

    Readers in one process get the same objects from a store in memory. `size`: bytes kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._known: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._limit, self.size = max_bytes, 0
        self._lock = Lock()

    def compute(self, blob: bytes) -> bytes:
        """The digest of these bytes."""
        known = self._known.get(id(blob))
        if known is not None and known[0] is blob:
            return known[1]
        digest = hashlib.sha256(blob).digest()
        if type(blob) is bytes and len(blob) <= self._limit:
            with self._lock:
                self._keep(blob, digest)
        return digest

    def _keep(self, blob: bytes, digest: bytes) -> None:
        if id(blob) not in self._known:
            self._known[id(blob)] = blob, digest
            self.size += len(blob) + _DIGEST_BYTES
        while self.size > self._limit:
            _, (oldest, _) = self._known.popitem(last=False)
            self.size -= len(oldest) + _DIGEST_BYTES


class DecodedPosts:
    """The last payloads that this process has decoded, by the SHA-256 of their open bytes.

    Many readers in one process meet the same posts. Decoding is a function of the bytes alone, and its arrays cannot be
    written to; every check that depends on the reader is made again by each. `size`: bytes of memory kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._posts: OrderedDict[bytes, DecodedPost] = OrderedDict()
        self._limit, self.size = max_bytes, 0
        self._lock = Lock()

    def decode(self, blob: bytes) -> DecodedPost:
        """The payload in packed bytes; ProtocolError for bytes without one."""
        digest = _DIGESTS.compute(blob)
        with self._lock:
            known = self._posts.get(digest)
            if known is not None:
                self._posts.move_to_end(digest)
                return known
        raw = pay.unpack(blob)
        stamp, payload = pay.decode(raw)
        post = DecodedPost(stamp, payload, len(raw) + len(blob) + _POST_BYTES + _ARRAY_BYTES * len(payload))
        with self._lock:
            self._keep(digest, post)
        return post

    def find(self, digest: bytes) -> DecodedPost | None:
        """The decoded post whose open bytes have this SHA-256, if it is kept."""
        return self._posts.get(digest)

    def forget(self, study: str) -> None:
        """Let the posts of the study with this hash (hex) leave memory."""
        with self._lock:
            for digest in [digest for digest, post in self._posts.items() if post.stamp.study == study]:
                self.size -= self._posts.pop(digest).size

    def _keep(self, digest: bytes, post: DecodedPost) -> None:
        if digest in self._posts or post.size > self._limit:
            return
        self._posts[digest] = post
        self.size += post.size
        while self.size > self._limit:
            _, oldest = self._posts.popitem(last=False)
            self.size -= oldest.size


# Memory that Python needs for an entry besides its bytes: for a digest, for a post, and for each of its arrays.
_DIGEST_BYTES, _POST_BYTES, _ARRAY_BYTES = 512, 1024, 256
# The posts of some rounds of two hundred sites.
_DIGESTS = Digests(1 << 22)
# Some thousand posts of a study of ten columns, or the posts of one round of a large one.
_DECODED = DecodedPosts(1 << 25)


def forget_posts(study: bytes) -> None:
    """Let the decoded posts of a study (its hash) leave memory: the study is over."""
    _DECODED.forget(study.hex())


def pack(study: Study, step: Step, site: str, attempt: int, payload: Payload) -> bytes:
    """A payload's compressed bytes, before any seal."""
    raw = pay.encode(Stamp(study.hash.hex(), step.topic, site, attempt), payload)
    # All sites must get the same bytes for a server's post. And a length must not show anything of the content.
    stored = step.public or not step.compress
    return pay.pack(raw, pay.STORED if stored else CODECS[study.ledger.compression])


def fetch(post: Post, blobs: BlobStore) -> bytes:
    """The stored bytes of a post, checked against its size, CID and SHA-256."""
    blob = _load(post, blobs)
    _check_bytes(post, blob)
    return blob


def _load(post: Post, blobs: BlobStore) -> bytes:
    """The stored bytes of a post, as the store has checked them against the CID."""
    if not 0 < post.size <= MAX_PAYLOAD_BYTES:
        raise ProtocolError(
            "CO-P112",
            f"The record declares {post.size} bytes; the limit is {MAX_PAYLOAD_BYTES}."
            " Ask that site to check its node.",
        )
    try:
        return blobs.get(post.cid, post.size)
    except BlobUnusable as error:  # no store has altered the bytes: they are what the site recorded
        message = f"The bytes behind {post.cid} do not match the record's size and form: {error.message}"
        raise ProtocolError("CO-P113", message) from error


def _check_bytes(post: Post, blob: bytes) -> None:
    """ProtocolError for bytes that have another size or SHA-256 than the record."""
    if len(blob) != post.size or _DIGESTS.compute(blob) != post.sha256:
        raise ProtocolError(
            "CO-P113",
            f"The bytes behind {post.cid} do not match the record's size and SHA-256."
            " Ask that site to check its store.",
        )


def _context(study: Study, topic: str, site: str) -> bytes:
    return f"{study.hash.hex()}/{topic}/{site}".encode()


def _describe_stamp(stamp: Stamp) -> str:
    return f"{stamp.topic!r} of {stamp.site!r}, attempt {stamp.attempt}, study {stamp.study[:8]}"
