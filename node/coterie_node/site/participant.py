"""One site as a process of its own: join the study that its people approved, then take turns until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from coterie_chain.errors import ChainError, PostRejected
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import Journal, SqliteJournal
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import ZERO, Ledger, PipelinedLedger, State
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.fit import fit_to_json
from coterie_learners.core.protocol import Machine
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.data.commitment import commit
from coterie_node.data.load import Loaded, load_site
from coterie_node.data.source import check_unchanged
from coterie_node.errors import ConfigError, DeadlinePassed
from coterie_node.peers.interactive_session import Exchange
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.approval import ApprovalFolder
from coterie_node.release.gate import Consent, Gate, refuse_all
from coterie_node.release.policy import Policy
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.follower import Progress
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import site_of
from coterie_node.run.study_files import check_permit, load_study, study_on_ledger, study_terms
from coterie_node.run.study_keys import check_sealing_keys, study_keys
from coterie_node.run.supervisor import Supervisor
from coterie_node.site.folder import SiteFolder
from coterie_node.site.run_folder import RunFolder
from coterie_node.site.statements.joining import Joining, read_own_release

# How long to wait for news of the ledger; and while this site's part of an interactive step may end at any time.
POLL_SECONDS, SHORT_POLL_SECONDS = 0.5, 0.02


@dataclass(frozen=True)
class Node:
    """Everything one site's process works with; `approvals` is the digest of its persons' signatures.

    `epoch` is the time in seconds since 1970, by which the study's data permit ends.
    """

    study: Study
    name: str
    rows: Loaded | None
    keys: SiteKeys
    network: Network
    ledger: Ledger
    blobs: BlobStore
    journal: Journal
    policy: Policy = field(default_factory=Policy)
    consent: Consent = refuse_all
    observe: Callable[[Progress], None] = lambda _: None
    exchange: Exchange | None = None
    ahead: PipelinedLedger | None = None
    log: PrivacyLog = field(default_factory=PrivacyLog)
    approvals: bytes = ZERO
    epoch: Callable[[], int] = lambda: int(time.time())

    def check_permit(self) -> None:
        """StudyError (CO-S506) after the last day of the study's data permit."""
        check_permit(self.study, self.epoch())


def open_node(
    place: RunFolder,
    name: str,
    approved: str,
    observe: Callable[[Progress], None] = lambda _: None,
) -> Node:
    """Open a site of a run; its rows are checked before the ledger is touched."""
    study = load_study(place.study)
    if study.hash.hex() != approved:
        message = f"{name}'s people approved study {approved[:16]}, but {place.study} is study {study.hash.hex()[:16]}."
        raise ConfigError("CO-F301", f"{message} Read it and approve it again.")
    _check_takes_part(study, name)
    check_permit(study, int(time.time()))
    folder = place.site(name)
    folder.config.policy.check(study, name)
    folder.decisions.save_document(study.hash, study.document)
    rows = load_site(folder.locate_rows(""), study, name, folder.exclude)
    keys, journal, network = folder.load_keys(), SqliteJournal(folder.journal), folder.network()
    most = folder.config.chain.max_gas_price
    ledger = EthereumLedger(network, keys.signer, journal, sleeps=place.settings().sleep, max_gas_price=most)
    return Node(
        study,
        name,
        rows,
        keys,
        network,
        ledger,
        folder.blobs(),
        journal,
        folder.config.policy,
        ApprovalFolder.of_study(folder.releases, study.hash).consent,
        observe,
        open_exchange(place, name, keys, ledger, network),
        ledger.pipelined,
        PrivacyLog(FolderStorage(folder.privacy), journal.vault),
    )


@contextmanager
def open_inspection(folder: SiteFolder, ledger: Ledger, number: int) -> Iterator[Node]:
    """A site as it stands to a study of the ledger, to look at and not to take part: nothing is signed or posted."""
    view, blobs = ledger.view(number), folder.open_archive()
    study = study_on_ledger(view, blobs)
    _check_takes_part(study, folder.name)
    rows = load_site(folder.find_rows(study.hash), study, folder.name, folder.exclude)
    with SqliteJournal(folder.journal) as journal:
        log = PrivacyLog(FolderStorage(folder.privacy), journal.vault)
        yield Node(study, folder.name, rows, folder.load_keys(), folder.network(), ledger, blobs, journal, log=log)


def _check_takes_part(study: Study, name: str) -> None:
    if name not in study.sites:
        message = f"{name!r} takes no part in study {study.name!r}; its sites are {', '.join(study.sites)}"
        raise ConfigError("CO-F302", f"{message}. Name a study of this site.")


def open_exchange(place: RunFolder, name: str, keys: SiteKeys, ledger: Ledger, network: Network) -> Exchange | None:
    """The transport of this site in interactive steps; None where the run's folder names no addresses."""
    addresses = place.addresses()
    if addresses is None:
        return None
    if name not in addresses:
        raise ConfigError("CO-F342", f"{place.talk} lacks the address of {name}. Add it.")
    from coterie_node.peers.tls import TlsExchange  # certificates take long to import, and few studies talk

    entries = {entry.name: entry.sealing for entry in ledger.sites()}
    return TlsExchange(name, addresses, lambda peer: keys.derive_shared_secret(entries[peer]), network.scope)


def enter(node: Node) -> int:
    """Join the study once it is on the ledger (its first site proposes it); returns its number there."""

    def late() -> DeadlinePassed:
        message = f"{node.study.sites[0]} has not proposed study {node.study.hash.hex()[:16]} within its deadline."
        return DeadlinePassed("CO-R201", f"{message} Ask that site whether its node runs.")

    return _insist(node, lambda: _register(node), late)


def _insist(node: Node, ask: Callable[[], int | None], late: Callable[[], DeadlinePassed]) -> int:
    """Ask until there is an answer, or until a step's deadline; a fault that may pass is retried."""
    deadline = time.monotonic() + node.study.ledger.step_seconds
    while True:
        try:
            answer = ask()
            if answer is not None:
                return answer
            node.ledger.wait(POLL_SECONDS)
        except ChainError as error:
            # A reorganisation may take a proposal back until it is in a block again.
            if not error.retry and getattr(error, "name", "") != "BadState":
                raise
            time.sleep(POLL_SECONDS)
        if time.monotonic() > deadline:
            raise late()


def _register(node: Node) -> int | None:
    number = _number(node)
    if number is not None:
        join(node, number)
    return number


def make_site_runner(node: Node, number: int, observe: Callable[[Progress], None] | None = None) -> Runner:
    """This site's runner for a study that it has joined."""
    pin_rows(node, number)
    entries = node.ledger.sites()
    data = None if node.rows is None else node.rows.rows
    session = f"{node.network.scope}/{number}"
    own = study_keys(node.keys, node.journal.vault, session)
    site = site_of(node.study, node.name, data, node.keys, entries, session)
    gate = Gate(node.study, node.policy, node.log, node.consent, vault=node.journal.vault)
    seat = gate.seat(replace(site, vault=node.journal.vault, sealing=own.sealing))
    machine = Machine(learner_of(node.study).script, seat)
    codec = PayloadCodec(node.study, node.name, node.keys, {e.name: e.sealing for e in entries}, own)
    return Runner(
        machine,
        node.ledger,
        node.blobs,
        number,
        codec,
        gate=gate,
        exchange=node.exchange,
        observe=observe or node.observe,
        ahead=node.ahead,
        terms=study_terms(node.study),
    )


def take_part(node: Node, number: int) -> Runner:
    """Take turns until the protocol has ended; returns the runner with the result.

    StudyError (CO-S506) before the first turn after the last day of the data permit.
    """
    attendance = Supervisor(lambda: make_site_runner(node, number))
    while not attendance.done:
        node.check_permit()
        if not attendance.tick():
            attendance.pause(node.ledger.wait, SHORT_POLL_SECONDS if attendance.talking else POLL_SECONDS)
    assert attendance.runner is not None
    return attendance.runner


def await_start(node: Node, number: int) -> None:
    """Wait until every participant has joined; Overdue names those who have not."""
    missing = ", ".join(node.study.sites)

    def read_start() -> int | None:
        nonlocal missing
        view = node.ledger.view(number)
        missing = ", ".join(s for s in node.study.sites if s not in view.joined)
        return None if view.state == State.PROPOSED else number

    def late() -> DeadlinePassed:
        message = f"Study {number} waits for {missing} to join."
        return DeadlinePassed("CO-R202", f"{message} Ask them whether they approve it.")

    _insist(node, read_start, late)


def report(node: Node, number: int, runner: Runner) -> dict[str, Any]:
    """What a site's process reports when it is done."""
    return {
        "site": node.name,
        "study": number,
        "seconds": dict(runner.seconds),
        "payload_bytes": runner.payload_bytes,
        "gas": getattr(node.ledger, "gas_used", 0),
        "fit": None if runner.machine.result is None else fit_to_json(runner.machine.result),
    }


def pin_rows(node: Node, number: int) -> None:
    """Hold a study to the rows that it began with; DataError if they are others since.

    Masks are derived, not drawn: two posts of one step over different rows would disclose their difference.
    """
    if node.rows is None:
        return
    source, digest = node.rows.source, node.rows.source.digest()
    label = f"rows/{node.network.scope}/{number}"
    if node.journal.vault.get(label, digest) != digest:
        message = f"{node.name}: study {number} began here with another {source.origin.kind} than {source.origin.name}."
        raise DataError("CO-D131", f"{message} Put that one back, or have the study aborted and propose it again.")
    if node.rows.before is not None:
        check_unchanged(source, node.rows.before)  # or it is not the one that was read
    node.journal.vault.setdefault(label, digest)


def _number(node: Node) -> int | None:
    proposer, terms = node.study.sites[0], study_terms(node.study)
    for number in reversed(node.ledger.studies()):
        view = node.ledger.view(number)
        # The same document with other terms, or of another proposer, is another study: nobody here approved it.
        if view.terms == terms and view.proposer == proposer:
            return number
    if node.name != proposer:
        return None
    # The document is one raw block whose digest is the study's hash: every reader of the ledger can find it.
    node.blobs.put(node.study.document)
    return node.ledger.propose(study_terms(node.study), *prepare_joining(node))


def prepare_joining(node: Node) -> Joining:
    """What this site puts on the ledger when it joins: the digest of its rows, of its approvals, and its release.

    KeyFault for a study in which a site's key is of no use; StudyError (CO-S506) after the end of its data permit.
    """
    node.check_permit()
    check_sealing_keys(node.study, node.ledger.sites())
    snapshot = commit(node.rows, node.study, node.network.scope, node.journal.vault)
    return Joining(snapshot, node.approvals, read_own_release())


def join(node: Node, number: int) -> None:
    """Join a proposed study, if this site has not."""
    view = node.ledger.view(number)
    if view.state != State.PROPOSED or node.name in view.joined:
        return
    try:
        node.ledger.join(number, node.study.hash, *prepare_joining(node))
    except PostRejected as error:
        if error.name != "AlreadyVoted":  # a join sent before a crash has arrived since
            raise
