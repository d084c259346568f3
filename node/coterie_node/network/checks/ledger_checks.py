"""Checks of the chain: the network, its versions, its blocks, this site's seat and journal, the rows of its studies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import version

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger, State
from coterie_chain.network.programs.ipc import ask_all
from coterie_chain.network.sealer_turns import HEARTBEAT_SECONDS, LATE_HEARTBEAT_SECONDS
from coterie_chain.store.kubo import KuboBlobs
from coterie_learners.errors import pluralise
from coterie_learners.study.document import Study
from coterie_node.data.findings import printable
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError
from coterie_node.network.checks.check_result import CheckResult, run_check
from coterie_node.run.study_files import study_of, study_on_ledger
from coterie_node.site.cards import REVOKED
from coterie_node.site.decisions import DecisionFolder
from coterie_node.site.folder import SiteFolder

MAX_CLOCK_SKEW = 60
# Seconds between two heartbeats of a chain that sleeps, and what a heartbeat may be late.
MAX_SLEEP = HEARTBEAT_SECONDS + LATE_HEARTBEAT_SECONDS


def check_ledger_of(home: SiteFolder, ledger: EthereumLedger) -> Iterator[CheckResult]:
    """All checks that need the chain and no key of this site."""
    yield run_check("versions", lambda: _list_versions(home, ledger))
    yield run_check("clock", lambda: _check_clock(home, ledger))
    if home.config.chain.sleep:
        yield run_check("sealer", lambda: _check_sealer(home, ledger))
    yield run_check("finality", lambda: _check_finality(home, ledger))
    if successor := ledger.read_successor():
        cure = "The members voted for new contracts: see docs/upgrade.md."
        yield CheckResult("contracts", False, f"succeeded by the Catalog {successor}", cure)
    if not home.journal.exists():
        yield run_check("journal of records", lambda: check_lost_journal(home, ledger))


def _list_versions(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    blobs = home.blobs()
    store = f", Kubo {blobs.version()}" if isinstance(blobs, KuboBlobs) else ""
    chain = f", {ledger.client}" if ledger.client else ""
    return CheckResult("versions", None, printable(f"coterie {version('coterie')}{chain}{store}"))


def _check_clock(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    skew = time.time() - ledger.block_time
    cure = (
        "Set this machine's clock (NTP). If it is right, the chain has made no block for that long: do its sealers run?"
    )
    # A chain that makes blocks on demand only stands still at rest: its age says nothing, a clock behind it does.
    # A chain that sleeps has a heartbeat, and may be as old as that.
    oldest = MAX_SLEEP if home.config.chain.sleep else MAX_CLOCK_SKEW
    late = skew > oldest and ledger.newest > 0 and not ledger.mines_at_once
    return CheckResult("clock", skew > -MAX_CLOCK_SKEW and not late, f"{skew:+.0f} s against the newest block", cure)


def _check_sealer(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    """Whether the daemon can drive the sealer, and no transaction waits on a chain that stands still."""
    pool, mining = ask_all(home.ipc, [("txpool_status", ()), ("eth_mining", ())])
    pending = int(str(pool["pending"]), 16)
    cure = "Transactions wait and no block comes: do a majority of the sites' chain nodes and daemons run?"
    still = pending > 0 and time.time() - ledger.block_time > MAX_CLOCK_SKEW
    return CheckResult(
        "sealer",
        not still,
        f"{'awake' if mining else 'asleep'}, {pluralise(pending, 'transaction waits', 'transactions wait')}",
        cure,
    )


def _check_finality(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    """Whether a result counts only once its blocks cannot be replaced any more."""
    waits, needed = home.config.chain.confirmations, ledger.final_after
    cure = f"Set confirmations = {needed} under [chain] in node.toml: blocks with fewer on them may be replaced yet."
    return CheckResult(
        "finality", waits >= needed, f"results wait for {pluralise(waits, 'block')}; needed: {needed}", cure
    )


def check_lost_journal(home: SiteFolder, ledger: Ledger) -> CheckResult:
    """A site that has recorded steps had a journal: a folder without one is a wrong or an incomplete copy."""
    head = ledger.heads().get(home.name)
    if head is None or head.seq == 0:
        return CheckResult("journal of records", True, "this site has recorded nothing yet")
    cure = (
        "The journal holds what this site must not forget. Restore it: coterie restore FILE. If there is no backup, "
        "decline the studies that run, and start the daemon: it makes a new one."
    )
    return CheckResult(
        "journal of records", False, f"{pluralise(head.seq, 'record')} on the ledger, and no journal here", cure
    )


def examine_seat(home: SiteFolder, keys: SiteKeys, ledger: Ledger) -> CheckResult:
    """Whether the Catalog lists this site with the keys that are here."""
    name = home.config.site
    seat = next((s for s in ledger.sites() if s.name == name), None)
    if seat is None:
        cure = f"The Catalog has no site {name}: send card.json to the sites, which vote with `coterie site admit`."
        return CheckResult("seat", False, "no seat in the Catalog", cure)
    if not seat.active:
        return CheckResult("seat", False, "revoked", f"The sites revoked the seat of {name}. {REVOKED}")
    if (seat.address, seat.sealing) != (keys.address, keys.sealing):
        cure = (
            f"The Catalog lists other keys for {name} than those here: {seat.address}. Restore the keys from the copy; "
            "if they are lost, the sites vote with `coterie site recover` on the card.json of new ones."
        )
        return CheckResult("seat", False, seat.address, cure)
    return CheckResult("seat", True, f"{name} is site {seat.id} of {len(ledger.sites())}")


def check_studies(home: SiteFolder, ledger: EthereumLedger) -> Iterator[CheckResult]:
    """The rows against each study that this site's people approved or propose and that has not ended."""
    decisions = DecisionFolder(home.root / "decisions")
    listed = {ledger.view(number).terms.hash for number in ledger.studies()}
    for proposed in decisions.proposals():
        if proposed not in listed:
            yield run_check("rows of a proposal", lambda study=proposed: _check_proposal(home, decisions, study))  # type: ignore[misc]
    for number in ledger.studies():
        view = ledger.view(number)
        decision = decisions.latest(view.terms.hash)
        if decision is None or not decision.takes_part or view.state in (State.COMPLETED, State.ABORTED):
            continue

        def look(number: int = number, data: str = decision.data) -> CheckResult:
            study = study_on_ledger(ledger.view(number), home.blobs())
            return _check_rows_of(home, study, data, f"rows of study {number}")

        yield run_check(f"rows of study {number}", look)


def _check_proposal(home: SiteFolder, decisions: DecisionFolder, proposed: bytes) -> CheckResult:
    decision, study = decisions.latest(proposed), study_of(decisions.read_document(proposed), "The proposed study")
    return _check_rows_of(home, study, decision.data if decision else "", "rows of a proposal")


def _check_rows_of(home: SiteFolder, study: Study, data: str, check: str) -> CheckResult:
    """Whether this site could take part: its seat in the study, its policy, its address for peers, its rows."""
    if home.config.site not in study.sites:
        raise ConfigError(
            "CO-F302",
            f"{home.config.site!r} takes no part in study {study.name!r}."
            " Check the name of the study, or ask its proposer.",
        )
    home.config.policy.check(study, home.config.site)
    home.config.talk.check(study, home.config.site)
    address = home.locate_rows(data)
    rows = load_site(address, study, home.config.site, home.exclude)
    return CheckResult(check, True, f"{address.name}: {pluralise(rows.n if rows else 0, 'row')}")
