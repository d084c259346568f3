"""An inspection at a site, with its data: do the rows at hand make the posts that the site recorded?

The replay of an auditor without data takes a site's posts as given; here the site computes each of its own again, from
its files, keys and journal, and the rows are compared with the snapshot that it committed to when it joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from coterie_chain.ledger.protocol import Event, Ledger, Record, State, StudyView
from coterie_learners.core.payload import canonical
from coterie_learners.core.protocol import Machine, Step, largest_difference
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import DataError
from coterie_node.data.commitment import find_snapshot, make_snapshot
from coterie_node.errors import ConfigError
from coterie_node.release.gate import Gate
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.simulate import site_of
from coterie_node.run.study_keys import study_keys
from coterie_node.site.folder import SiteFolder
from coterie_node.site.participant import Node
from coterie_node.site.statements.ended_studies import VERDICT_WORDS, Attestation, InspectionVerdict
from coterie_node.site.votes import Ballot, BallotBox


@dataclass(frozen=True)
class RecomputedPost:
    """One post of this site: "equal", "differs" by the largest absolute difference, or "not repeatable" and why."""

    topic: str
    position: int
    outcome: str
    difference: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Inspection:
    """All posts of a site computed again, and whether its rows are those that it committed to.

    `digest` is that of the rows at hand, as a joining would put it on the ledger; empty if the site committed to none.
    """

    site: str
    snapshot: str
    posts: tuple[RecomputedPost, ...]
    digest: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return self.snapshot in ("equal", "none") and all(post.outcome != "differs" for post in self.posts)

    @property
    def verdict(self) -> InspectionVerdict:
        """What goes on the ledger if the site signs the inspection."""
        if not self.passed:
            return InspectionVerdict.FAILED
        repeated = all(post.outcome == "equal" for post in self.posts)
        return InspectionVerdict.PASSED if repeated else InspectionVerdict.PASSED_IN_PART

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {"verdict": "PASS" if self.passed else "FAIL", **asdict(self)}

    def text(self) -> str:
        """The same for a terminal."""
        lines = [f"{self.site}: its rows against the snapshot on the ledger: {self.snapshot}."]
        for post in self.posts:
            off = f" by {post.difference:.3g}" if post.outcome == "differs" else f" ({post.why})" if post.why else ""
            lines.append(f"  {post.topic}: {post.outcome}{off}")
        return "\n".join([*lines, "PASS" if self.passed else "FAIL"])


def inspect(node: Node, number: int) -> Inspection:
    """Compute every `each` and `only` post of this site in a study again, and compare."""
    posts = tuple(_compare_posts(node, number))
    return Inspection(node.name, _compare_snapshot(node, number), posts, _digest_rows(node))


def _digest_rows(node: Node) -> str:
    """The digest of the rows at hand, under the salt of this site's commitment; "" where there is none."""
    snapshot = find_snapshot(node.study, node.network.scope, node.journal.vault)
    if snapshot is None or node.rows is None:
        return ""
    return make_snapshot(node.rows, bytes.fromhex(snapshot.salt)).digest.hex()


def _compare_snapshot(node: Node, number: int) -> str:
    """Whether the rows at hand, the snapshot kept here and the digest on the ledger agree."""
    recorded = find_commitment(node.ledger, number, node.name)
    snapshot = find_snapshot(node.study, node.network.scope, node.journal.vault)
    if recorded is None or node.rows is None:
        return "none"
    if snapshot is None or snapshot.digest != recorded:
        return "differs: the snapshot kept here is not the one on the ledger"
    now = make_snapshot(node.rows, bytes.fromhex(snapshot.salt))
    differing = [name for name, value in asdict(now).items() if value != asdict(snapshot)[name]]
    return f"differs in {', '.join(differing)}" if differing else "equal"


def sign_inspection(folder: SiteFolder, view: StudyView, inspection: Inspection) -> str:
    """Write down that the daemon puts an inspection on the ledger; returns what that is in a sentence.

    ConfigError (CO-F333) for a study that has not ended, or rows to which the site never committed.
    """
    if view.state not in (State.COMPLETED, State.ABORTED):
        message = f"Study {view.id} is {view.state.name.lower()}; an inspection is signed once it has ended"
        raise ConfigError("CO-F333", f"{message}. Look at `coterie study status {view.id}`.")
    if not inspection.digest:
        message = f"{inspection.site} committed to no rows in study {view.id}, so there are none to sign for"
        raise ConfigError("CO-F333", f"{message}. Leave out --sign.")
    statement = Attestation(study=view.id, snapshot=inspection.digest, verdict=inspection.verdict)
    BallotBox(folder.root / "ballots").record(Ballot(motion="attest", subject=str(view.id), statement=statement))
    words = VERDICT_WORDS[inspection.verdict]
    return f"{inspection.site} signs: {words}. The daemon (coterie serve) puts it on the ledger."


def find_commitment(ledger: Ledger, number: int, site: str) -> bytes | None:
    """The digest to which a site committed when it joined; None if it committed to no rows."""
    for entry in ledger.history(number):
        if isinstance(entry, Event) and (entry.name, entry.site) == ("StudyJoined", site):
            digest = bytes.fromhex(str(dict(entry.details)["snapshot"])[2:])
            return digest if any(digest) else None
    return None


def _compare_posts(node: Node, number: int) -> Iterator[RecomputedPost]:
    entries = node.ledger.sites()
    data = None if node.rows is None else node.rows.rows
    session = f"{node.network.scope}/{number}"
    own = study_keys(node.keys, node.journal.vault, session)
    site = site_of(node.study, node.name, data, node.keys, entries, session)
    seat = Gate(node.study, log=node.log).seat(replace(site, vault=dict(node.journal.vault), sealing=own.sealing))
    machine = Machine(learner_of(node.study).script, seat)
    codec = PayloadCodec(node.study, node.name, node.keys, {e.name: e.sealing for e in entries}, own)
    position = 0
    while machine.awaits is not None and (records := node.ledger.read_finished(number, position)) is not None:
        step = machine.awaits
        posts = {r.site: codec.read(step, r, node.blobs) for r in records}
        if node.name in posts and not step.public:
            yield _compare(machine, step, records, posts[node.name])
        if step.announces:
            codec = codec.with_announced_keys(posts)
        try:
            machine.advance(posts)
        except DataError:  # these rows lead to no further step; the posts so far say where they differ
            return
        position += 1


def _compare(machine: Machine, step: Step, records: tuple[Record, ...], posted: Mapping[str, Any]) -> RecomputedPost:
    place = (step.topic, records[0].post.position)
    if step.talks:
        return RecomputedPost(*place, "not repeatable", why="the sites computed it with each other")
    parties = tuple(r.site for r in records)
    try:
        drafts = [machine.draft(parties, records[0].post.attempt) for _ in range(2)]
    except DataError as error:
        return RecomputedPost(*place, "differs", why=f"{error.code}: {error.message}")
    if canonical(drafts[0]) == canonical(posted):
        return RecomputedPost(*place, "equal")
    if canonical(drafts[0]) != canonical(drafts[1]):
        return RecomputedPost(*place, "not repeatable", why="it draws fresh randomness each time")
    return RecomputedPost(*place, "differs", largest_difference(drafts[0], posted))
