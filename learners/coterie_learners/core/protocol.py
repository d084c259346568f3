"""The learner contract: a protocol is a generator that yields Steps and is sent the posts. No I/O here.

Four verbs say who posts: `each` (every participant), `server` (the site whose turn it is), `only` (one named site),
`interactive` (the participants talk off the ledger, then each posts the opened result). Whose turn it is, who was
skipped or excluded, and which attempt a step is in, is the ledger's business: scripts never name a turn.

Theory of operation. All sites run the same script, so all yield the same steps in the same order. A Machine drives the
script of one site. The runner moves it with the posts that the ledger has recorded:

    state     `awaits`   call                 next state
    open      a Step     draft                open: a draft does not move the script
    open      a Step     advance              open at the next step, or ended
    open      a Step     advance, wrong post  open at the same step; WrongPost names the server
    open      a Step     accept               open at the next step, or ended; nothing is checked
    ended     None       any of these         ended; ProtocolError CO-P303

Two invariants carry the protocol. A script reads nothing but its site and the posts that it is sent, so that the same
posts give the same steps at a restart, in a look-ahead and in a replay. A script never sees a public post that differs
from this site's own computation: the check comes before the script goes on. If the script itself raises, its machine
is of no further use; `copy_initial` gives another one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Field, Payload, Schema, canonical
from coterie_learners.errors import ProtocolError, SealedInput, WrongPost
from coterie_learners.study.document import Study
from coterie_learners.study.rows import CodedRows, Data, OwnColumns, Rows

Posts = Mapping[str, Payload]
SEALING_KEY = 32


class Channel(Protocol):
    """What the parties of an interactive step talk over; every wait has a deadline and names the silent peer."""

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party."""

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party."""


@runtime_checkable
class ReportingChannel(Channel, Protocol):
    """A channel that also shows people at this site how far its party has come; nothing of it is sent."""

    def report(self, what: str, done: int, total: int) -> None:
        """So many of so many parts of something are done."""


class Sealed(Mapping[str, Any]):
    """A post that this site may not read. A script can pass it on; reading its arrays raises SealedInput.

    Whether the loop has converged stands in the record on the ledger, so that may be read of a sealed post too.
    """

    def __init__(self, site: str, topic: str, converged: bool = False) -> None:
        self.site = site
        self.topic = topic
        self.converged = converged

    def _refuse(self) -> SealedInput:
        return SealedInput(
            "CO-P301", f"{self.topic!r} of {self.site} is sealed to other readers. Ask one of them for a grant."
        )

    def __getitem__(self, key: str) -> Any:
        if key == "converged":
            return self.converged
        raise self._refuse()

    def __iter__(self) -> Iterator[str]:
        raise self._refuse()

    def __len__(self) -> int:
        raise self._refuse()


@dataclass(frozen=True)
class Site:
    """What a learner sees of its own site.

    `secret` (32 bytes) never leaves; `shared` holds a key per peer; `vault` is durable private memory. `session` names
    this run of the study among all that these keys will ever see: one pad in two runs would disclose the difference of
    their posts. `sealing` is the public key that others seal to in this run. `parties` and `attempt` are those of the
    open step. `label_rows` gives this site's keyed labels (8 bytes) of its rows by raw column, where its node keeps
    them; `own_floor` is the least count of patients that its own policy lets out, however low the study's floor is;
    `read_patients` the identifier of each row, or None where rows are taken for patients; `bind` makes both of a
    site with other data. `derive` makes a pad from a shared key, a label and a size. An auditor is a Site without rows.
    """

    study: Study
    name: str
    data: Data | None = None
    secret: bytes = field(default=b"", repr=False)
    shared: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    vault: MutableMapping[str, bytes] = field(default_factory=dict, repr=False)
    session: str = ""
    sealing: bytes = b""
    parties: tuple[str, ...] = ()
    attempt: int = 0
    label_rows: Callable[[], Mapping[str, bytes]] = field(default=dict, repr=False)
    own_floor: int = 0
    read_patients: Callable[[], Sequence[str] | None] = field(default=lambda: None, repr=False)
    bind: Callable[[Site], Site] = field(default=lambda site: site, repr=False)
    derive: Callable[[bytes, str, int], bytes] = field(default=lambda *pad: derive_pad(*pad), repr=False)

    def stand_on(self, data: Data | None, use: str = "") -> Site:
        """This site on a part of its data; with a `use`, in a run of its own, which has the use in its name."""
        return self.bind(replace(self, data=data, session=f"{self.session}/{use}" if use else self.session))

    @property
    def rows(self) -> Rows:
        """This site's rows; ProtocolError for an auditor, who has none."""
        return cast(Rows, self._require_data())

    @property
    def codes(self) -> CodedRows:
        """This site's rows as values of the variables; ProtocolError for an auditor, who has none."""
        return cast(CodedRows, self._require_data())

    @property
    def columns(self) -> OwnColumns:
        """This site's own columns; ProtocolError for an auditor or a helper, who have none."""
        return cast(OwnColumns, self._require_data())

    def _require_data(self) -> Data:
        if self.data is None:
            raise ProtocolError("CO-P302", f"{self.name} has no rows. Name a file of rows for this site.", self.name)
        return self.data

    def stream(self, label: str, size: int) -> bytes:
        """`size` secret pseudo-random bytes of this site; the same label gives the same bytes after a restart."""
        return derive_pad(self.secret, self._label(label), size)

    def mask(self, peer: str, label: str, size: int) -> bytes:
        """`size` pseudo-random bytes that only this site and `peer` can make; ProtocolError if its key makes none.

        The names of both are part of the label. A member can take another's public key for its own: two pads under one
        shared key would cancel, and the post between them would be bare.
        """
        if peer not in self.shared:
            message = f"The key of {peer} in the Catalog makes no secret with {self.name}"
            raise ProtocolError("CO-P402", f"{message}. Propose the study without {peer}, or with its new key.", peer)
        pair = f"{self.name}/{peer}" if self.name < peer else f"{peer}/{self.name}"
        return self.derive(self.shared[peer], f"{self._label(label)}/{pair}", size)

    def keep(self, label: str, make: Callable[[], bytes]) -> bytes:
        """make() once, then the same value for ever: for secrets that cannot be derived again."""
        if label not in self.vault:
            self.vault[label] = make()
        return self.vault[label]

    def _label(self, label: str) -> str:
        # The attempt is part of the label: another attempt can have other parties, so its sums need other pads.
        return f"coterie/{self.session}/{self.study.hash.hex()}/{label}/{self.attempt}"


def derive_pad(key: bytes, label: str, size: int) -> bytes:
    """`size` pseudo-random bytes of a secret key and a label (HKDF-SHA256, then ChaCha20)."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode()).derive(key)
    # A key serves one label only, so a constant nonce never repeats under it.
    cipher = Cipher(algorithms.ChaCha20(derived, bytes(16)), mode=None)
    return cipher.encryptor().update(bytes(size))


Reveals = Callable[[Site, Payload], Exposure]
Bare = Callable[[Site], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """One position of a protocol: who posts there, and what.

    `who` is "each", "server" or "only:<site>", as in the ledger's schedule. `public`: anybody with the earlier posts
    can recompute it. `readers` seals the post to these sites (None: nobody is shut out). `talks`: the parties need a
    channel. `agree`: all posts must be equal. `expects` is the form of the payload. `reveals`: what readers can solve
    from a payload that this site made here; the site's release gate asks before it leaves. `bare`: the numbers that
    this site's masks hide, by name; they are for its own people and never leave. `announces`: each post holds its
    poster's sealing key for this run (`sealing`, 32 bytes), to which all later sealed posts are sealed.
    `compress=False` stores the post as it is, so that its length shows nothing of its content. `concludes`: nobody
    reads what is posted here; it only ends the study. `select` gives the site on the part of its data that stands
    behind the post; by default all of them do.
    """

    topic: str
    who: str
    make: Callable[[Site, Channel | None], Payload]
    public: bool = False
    readers: tuple[str, ...] | None = None
    talks: bool = False
    agree: bool = False
    expects: Schema | None = None
    reveals: Reveals | None = None
    bare: Bare | None = None
    announces: bool = False
    compress: bool = True
    concludes: bool = False
    select: Callable[[Site], Site] = lambda site: site


Script = Generator[Step, Posts, Any]


def each(
    topic: str,
    f: Callable[..., Payload],
    *args: Any,
    expects: Schema | None = None,
    readers: tuple[str, ...] | None = None,
    reveals: Reveals | None = None,
    bare: Bare | None = None,
) -> Generator[Step, Posts, Posts]:
    """Every participant posts f(site, *args), computed on its own rows; only that site can recompute it."""
    make = _own(f, args)
    return (yield Step(topic, "each", make, expects=expects, readers=readers, reveals=reveals, bare=bare))


def server(
    topic: str,
    f: Callable[..., Payload],
    *args: Any,
    expects: Schema | None = None,
    readers: tuple[str, ...] | None = None,
) -> Generator[Step, Posts, Payload]:
    """The site whose turn it is posts f(*args), computed from earlier posts alone; all who read those recompute it."""
    posts = yield Step(topic, "server", lambda *_: f(*args), public=True, expects=expects, readers=readers)
    return next(iter(posts.values()))


def only(
    name: str,
    topic: str,
    f: Callable[..., Payload],
    *args: Any,
    expects: Schema | None = None,
    readers: tuple[str, ...] | None = None,
    reveals: Reveals | None = None,
    bare: Bare | None = None,
    compress: bool = True,
) -> Generator[Step, Posts, Payload]:
    """One named site posts f(site, *args), computed with what only it has."""
    make, who = _own(f, args), f"only:{name}"
    posts = yield Step(
        topic, who, make, expects=expects, readers=readers, reveals=reveals, bare=bare, compress=compress
    )
    return posts[name]


def announce() -> Generator[Step, Posts, Posts]:
    """Every participant posts its sealing key for this run alone; what is sealed after that is sealed to these keys."""
    form = Schema({"sealing": Field("|u1", (SEALING_KEY,))})
    return (yield Step("keys", "each", _sealing_key, expects=form, announces=True))


def conclude() -> Generator[Step, Posts, None]:
    """One more server post, which nobody reads: for a script whose last step is a server's, so that another site posts.

    Most sites can vote that a post cannot be used, but only while the study runs. So the last post that counts must not
    be the one that completes the study. A site concludes it when it has read all posts that it may read.
    """
    yield replace(_CONCLUSION, who="server", public=True)


def acknowledge() -> Generator[Step, Posts, None]:
    """Every participant posts once more, nothing: for a script whose last step is a post of a named site, or of all.

    The study is complete when each reader has read what is sealed to it alone. Nobody else could say so.
    """
    yield _CONCLUSION


def _post_nothing(site: Site, channel: Channel | None) -> Payload:
    return {}


_CONCLUSION = Step("conclusion", "each", _post_nothing, expects=Schema({}), concludes=True)


def _sealing_key(site: Site, channel: Channel | None) -> Payload:
    return {"sealing": np.frombuffer(site.sealing or bytes(SEALING_KEY), np.uint8)}


def interactive(
    topic: str, program: Callable[..., Payload], *args: Any, expects: Schema | None = None
) -> Generator[Step, Posts, Payload]:
    """All participants run program(site, channel, *args) with each other; all post the same opened result."""
    posts = yield Step(
        topic, "each", lambda site, channel: program(site, channel, *args), talks=True, agree=True, expects=expects
    )
    return next(iter(posts.values()))


def _own(f: Callable[..., Payload], args: tuple[Any, ...]) -> Callable[[Site, Channel | None], Payload]:
    return lambda site, _: f(site, *args)


class Machine:
    """One learner at one site as a message-driven state machine: awaits -> draft / advance -> result.

    `tolerance` is the largest difference at which a recomputed server post still passes: 0 asks for the same bits.
    Counters for the auditor: `checked` and `unchecked` public steps, `opened` results that the sites computed together
    (nobody can recompute those), `difference` (largest one seen).
    """

    def __init__(self, script: Callable[[Site], Script], site: Site, tolerance: float = 0.0) -> None:
        self.site = site
        self.awaits: Step | None = None
        self.result: Any = None
        self.checked = 0
        self.unchecked = 0
        self.opened = 0
        self.difference = 0.0
        self._tolerance = tolerance
        self._program = script
        self._drafted: tuple[Step, Payload] | None = None
        self._seated = site
        self._script = script(site)
        self._resume(None)

    def copy_initial(self) -> Machine:
        """The same learner at the same site, before its first step."""
        return Machine(self._program, self.site, self._tolerance)

    def draft(self, parties: tuple[str, ...], attempt: int, channel: Channel | None = None) -> Payload:
        """What this site would post at the open step, for the parties of that attempt."""
        step = self._open()
        payload = step.make(step.select(self.seat(parties, attempt)), channel)
        if step.public:  # this site will be asked for the same once more when the posts come back
            self._drafted = step, payload
        return payload

    def seat(self, parties: tuple[str, ...], attempt: int) -> Site:
        """This site as a step sees it, with the parties of one attempt."""
        if (self._seated.parties, self._seated.attempt) != (parties, attempt):
            self._seated = replace(self.site, parties=parties, attempt=attempt)
        return self._seated

    def advance(self, posts: Posts) -> None:
        """Go on with the posts of a finished step, in the study's site order; WrongPost if a server erred."""
        step = self._open()
        # All checks come before the script moves: after an error the machine is still at this step.
        if step.public and not step.concludes:
            self._recompute(step, posts)
        if step.agree:
            self._compare(step, posts)
        self.opened += step.agree
        self._resume(posts)

    def accept(self, posts: Posts) -> None:
        """Go on with a public post that this machine computed itself: nothing about it needs a check."""
        self.checked += not self._open().concludes
        self._resume(posts)

    def _open(self) -> Step:
        if self.awaits is None:
            raise ProtocolError("CO-P303", "The protocol has ended; there is no open step.", self.site.name)
        return self.awaits

    def _compare(self, step: Step, posts: Posts) -> None:
        """ProtocolError if the sites posted different results; it names the first that differs from this site's."""
        own = posts.get(self.site.name, next(iter(posts.values())))
        differing = [name for name, post in posts.items() if canonical(post) != canonical(own)]
        if differing:
            message = f"The sites opened different results at {step.topic!r}"
            culprit = differing[0] if self.site.name in posts else ""
            names = f": {', '.join(differing)} not that of {self.site.name}" if culprit else ""
            remedy = "Compare their versions, then propose the study again."
            raise ProtocolError("CO-P202", f"{message}{names}. {remedy}", culprit, step.topic)

    def _recompute(self, step: Step, posts: Posts) -> None:
        # A site that cannot read the post, or what it was computed from, counts the step as unchecked. The readers
        # check it.
        if any(isinstance(peer_posts, Sealed) for peer_posts in posts.values()):
            self.unchecked += 1
            return
        try:
            own_post = self._own_draft(step)
        except SealedInput:
            self.unchecked += 1
            return
        self.checked += 1
        for name, peer_posts in posts.items():
            difference = largest_difference(own_post, peer_posts)
            if not difference <= self._tolerance:  # a NaN is a difference as well
                raise WrongPost(name, step.topic, difference, own_post)
            self.difference = max(self.difference, difference)

    def _own_draft(self, step: Step) -> Payload:
        # A draft serves one check of the step that it was made for; it must not outlive that step.
        drafted, self._drafted = self._drafted, None
        return drafted[1] if drafted is not None and drafted[0] is step else step.make(self.site, None)

    def _resume(self, posts: Posts | None) -> None:
        try:
            self.awaits = next(self._script) if posts is None else self._script.send(posts)
        except StopIteration as stop:
            self.awaits, self.result = None, stop.value


def largest_difference(a: Payload, b: Payload) -> float:
    """0 for the same bits, infinity for other names, shapes or types, else the largest absolute difference."""
    if a.keys() == b.keys() and all(_has_same_bits(np.asarray(a[k]), np.asarray(b[k])) for k in a):
        return 0.0
    if canonical(a) == canonical(b):
        return 0.0
    if a.keys() != b.keys() or any(np.shape(a[k]) != np.shape(b[k]) for k in a):
        return float("inf")
    if any(np.asarray(a[k]).dtype.kind not in "fiub" or np.asarray(b[k]).dtype.kind not in "fiub" for k in a):
        return float("inf")
    return max(_gap(np.asarray(a[k], float), np.asarray(b[k], float)) for k in a) or float("inf")


def _has_same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Whether two arrays are the same as they stand; some that are not have the same canonical form."""
    return not a.dtype.hasobject and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _gap(a: np.ndarray[Any, np.dtype[np.float64]], b: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.max(np.abs(a - b), initial=0.0))
