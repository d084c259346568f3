"""Verify a bundle offline: prove the ledger from its evidence, then replay the study as from any other ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie_chain.errors import BlobCorrupt, LedgerMismatch
from coterie_chain.ethereum.network import Network
from coterie_chain.proof.verified_ledger import Anchor, VerifiedLedger
from coterie_node.audit.approvals.signatures import SignedJoin, add_signatures
from coterie_node.audit.bundle import (
    GUIDE,
    PAYLOADS,
    RULINGS,
    Bundle,
    check_crate,
    collect_blocks,
    encode_rulings,
    load_bundle,
    write_guide,
)
from coterie_node.audit.replay import FAIL, Replay, Verdict, failure, replay
from coterie_node.data.findings import printable
from coterie_node.errors import AuditFailed
from coterie_node.persons.acts import ActDomain
from coterie_node.run.follower import Progress
from coterie_node.run.view_grants import View

SEALS = {
    "none": "The chain is a development chain without seals: the site that runs its node can write any block. "
    "This is true even so: every entry is signed by its site's own key.",
    "clique": "Every header is sealed by a signer of the chain (Clique).",
    "qbft": "Every header is sealed by two thirds of the chain's validators (QBFT).",
}


@dataclass(frozen=True)
class Verified:
    """The outcome: the replay's verdict, and what of the chain it rests on (None if the bundle could not be read).

    `known`: the auditor named the first block; `catalog_known`: the Catalog as well; `founders_known`: the founders'
    keys. On one chain anybody can found a Catalog of his own, with sites of the same names. `signed`: which persons
    approved at each site.
    """

    replay: Replay
    anchor: Anchor | None = None
    bundle: Bundle | None = None
    ledger: VerifiedLedger | None = None
    known: bool = False
    catalog_known: bool = False
    founders_known: bool = False
    signed: tuple[SignedJoin, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """PASS, RECORD INTACT, NOT CHECKED or FAIL, with what is wrong."""
        return self.replay.verdict

    def trust(self) -> list[str]:
        """What the verdict rests on, in sentences."""
        if self.anchor is None:
            return []
        a = self.anchor
        block = f"block {a.first}, {a.first_hash}, of chain {a.chain_id}{', as you named it' if self.known else ''}"
        rests = (
            f"It rests on {block}, and on the Catalog {a.catalog}{', as you named it' if self.catalog_known else ''}"
        )
        unnamed = [
            name for name, named in (("the block", self.known), ("the Catalog", self.catalog_known)) if not named
        ]
        asked = f". The bundle names {' and '.join(unnamed)}: compare with a site's network.json" if unnamed else ""
        keys = ", ".join(f"{s.name} {s.address}" for s in self.ledger.sites()) if self.ledger else ""
        return [
            f"{rests}{asked}.",
            *([f"Keys of the sites: {keys}."] if keys else []),
            *(["The founders' keys are those that you named."] if self.founders_known else []),
            f"It reaches to block {a.last}, {a.last_hash}, of {_format_time(a.time)}, and says nothing of later ones.",
            *([] if self.bundle is None else [_describe_code(self.bundle)]),
            SEALS[a.kind] + (f" {a.sealed} seals checked." if a.sealed else ""),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        chain = None if self.anchor is None else {**asdict(self.anchor), "signers": list(self.anchor.signers)}
        catalog = {"catalog_known": self.catalog_known, "founders_known": self.founders_known}
        study = None if self.bundle is None else self.bundle.manifest.study.model_dump()
        return {
            **self.verdict.as_dict(),
            "study": study,
            "chain": chain,
            "known": self.known,
            **catalog,
            "trust": self.trust(),
            "remarks": list(self.replay.remarks),
            "persons": [join.as_dict() for join in self.signed],
        }


def verify(
    path: Path,
    *,
    genesis: str | None = None,
    catalog: str | None = None,
    network: Network | None = None,
    founders: Mapping[str, str] | None = None,
    sealed: bool = False,
    tolerance: float = 0.0,
    observe: Callable[[Progress], None] = lambda _: None,
    grants: Callable[[bytes], View] = lambda _: {},
) -> Verified:
    """Verify a bundle; never raises for what is wrong with it, which is the verdict's business.

    `genesis` is the hash of its first block and `catalog` the Catalog's address, or `network` the whole network, as the
    auditor knows them from a site. `founders`: the founders' keys by name, if the network does not have them.
    `sealed` refuses a chain without seals. `grants`: what the auditor can open of the study with this hash.
    """
    bundle: Bundle | None = None
    anchor: Anchor | None = None
    proved: VerifiedLedger | None = None
    try:
        bundle = load_bundle(path)
        ledger = VerifiedLedger(bundle.evidence, bundle.manifest.study.number)
        anchor, proved = ledger.anchor, ledger
        check_anchor(bundle, anchor, genesis, network, sealed)
        if catalog is not None and catalog.lower() != anchor.catalog.lower():
            raise _network_mismatch("Catalog", anchor.catalog, catalog)
        keys = dict(network.founders) if network is not None and not founders else dict(founders or {})
        check_founders(ledger.founders, keys)
        number, view = _check_number(bundle, ledger), grants(bytes.fromhex(bundle.manifest.study.hash))
        outcome = replay(ledger, bundle.blobs(), number, tolerance=tolerance, observe=observe, granted=view)
        domain = ActDomain(chain_id=anchor.chain_id, catalog=anchor.catalog.lower())
        outcome, signed = add_signatures(outcome, ledger, bundle.blobs(), number, domain)
        if outcome.verdict.verdict != FAIL:
            # last: what is wrong with an entry is reported first, with its site and step
            check_crate(bundle)
            _check_last(bundle, anchor)
        if outcome.verdict.intact:
            _check_learner(bundle, outcome)
            _check_rulings(bundle, outcome, ledger)
            _check_blocks(bundle, outcome, ledger)
        known = (bool(genesis or network), bool(catalog or network), bool(keys))
        return Verified(_add_remarks(outcome, ledger, bundle), anchor, bundle, ledger, *known, signed)
    except (LedgerMismatch, BlobCorrupt, AuditFailed) as error:
        return Verified(Replay(failure(error), None, None), anchor, bundle, proved)


def _describe_code(bundle: Bundle) -> str:
    code = bundle.manifest.code
    return f"Its author says that coterie {printable(code.coterie)} wrote it; no signature covers that."


def _format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def check_anchor(bundle: Bundle, anchor: Anchor, genesis: str | None, network: Network | None, sealed: bool) -> None:
    """AuditFailed (CO-A203, CO-A204) unless the evidence begins where the manifest and the auditor say."""
    declared = bundle.manifest.network
    if anchor.first != declared.first or (anchor.first == 0 and anchor.first_hash != declared.genesis):
        raise _network_mismatch("first block", anchor.first_hash, declared.genesis)
    if network is not None:
        pairs = {"chain id": (anchor.chain_id, network.chain_id), "Catalog": (anchor.catalog, network.catalog)}
        for what, (here, wanted) in {**pairs, "genesis": (declared.genesis, network.genesis)}.items():
            if str(here).lower() != str(wanted).lower():
                raise _network_mismatch(what, here, wanted)
    if genesis is not None and genesis.lower() not in (anchor.first_hash, anchor.first_hash.removeprefix("0x")):
        raise _network_mismatch(f"block {anchor.first}", anchor.first_hash, genesis)
    if anchor.first > 0 and genesis is None:
        cause = f"The evidence begins at block {anchor.first}, {anchor.first_hash}, and not at the chain's first"
        raise AuditFailed("CO-A203", f"{cause}. Compare that hash with a site's node and give it with --genesis.")
    if sealed and anchor.kind == "none":
        raise AuditFailed("CO-A204", f"--sealed asks for block seals, and this chain has none. {SEALS['none']}")


def check_founders(founders: Mapping[str, str], keys: Mapping[str, str]) -> None:
    """AuditFailed (CO-A207) if the ledger's founders have other keys than those named; {} for unknown keys."""
    for name in founders.keys() | keys.keys() if keys else ():
        here, wanted = founders.get(name, "no founder"), keys.get(name, "no founder")
        if here.lower() != wanted.lower():
            message = f"The key of the founder {name} is {here} in the bundle, and {wanted} as you named it"
            raise AuditFailed("CO-A207", f"{message}. Do not rely on the bundle.", name)


def _add_remarks(outcome: Replay, ledger: VerifiedLedger, bundle: Bundle) -> Replay:
    """The replay with what is wrong with other studies' entries and with the guide, and whether there are no seals."""
    unsigned = (f"Study {number} of this ledger: {fault.message}" for number, fault in ledger.spoiled.items())
    foreign = bundle.files.get(GUIDE) != write_guide(bundle.manifest)
    guide = f"{GUIDE} of the bundle is not what this version writes: do not do what it says."
    verdict = replace(outcome.verdict, unsealed=ledger.anchor.kind == "none")
    return replace(outcome, verdict=verdict, remarks=(*outcome.remarks, *unsigned, *([guide] if foreign else [])))


def _check_last(bundle: Bundle, anchor: Anchor) -> None:
    declared = bundle.manifest.network.last
    if anchor.last_hash != declared:
        raise _network_mismatch("last block", anchor.last_hash, declared)


def _check_learner(bundle: Bundle, outcome: Replay) -> None:
    declared = bundle.manifest.code.learner
    pinned = "" if outcome.study is None else f"{outcome.study.learner.name} {outcome.study.learner.version}"
    if declared != pinned:
        raise AuditFailed("CO-A206", f"The bundle names the learner {declared!r}, and its study pins {pinned!r}.")


def _check_rulings(bundle: Bundle, outcome: Replay, ledger: VerifiedLedger) -> None:
    entries = ledger.history(bundle.manifest.study.number)
    if outcome.study is not None and bundle.rulings != encode_rulings(outcome.study, entries):
        raise AuditFailed("CO-A208", f"{RULINGS} is not what the record and the study give. Ask for the bundle again.")


def _check_blocks(bundle: Bundle, outcome: Replay, ledger: VerifiedLedger) -> None:
    """AuditFailed (CO-A205) for a payload that no entry of the study names: nothing vouches for what it says."""
    if outcome.study is not None:
        named = collect_blocks(outcome.study, ledger, bundle.blobs(), bundle.manifest.study.number)
        for cid in sorted(bundle.blocks.keys() - named.keys())[:1]:
            message = f"The bundle holds {PAYLOADS}{cid}, which is no part of study {bundle.manifest.study.number}"
            raise AuditFailed("CO-A205", f"{message}. Ask for the bundle again.")


def _check_number(bundle: Bundle, ledger: VerifiedLedger) -> int:
    declared = bundle.manifest.study
    if declared.number not in ledger.studies():
        raise AuditFailed("CO-A206", f"There is no study {declared.number} on the ledger that the bundle proves.")
    recorded = ledger.view(declared.number).terms.hash.hex()
    if recorded != declared.hash:
        raise AuditFailed(
            "CO-A206", f"Study {declared.number} on the ledger is {recorded[:16]}, not {declared.hash[:16]}."
        )
    return declared.number


def _network_mismatch(what: str, here: object, wanted: object) -> AuditFailed:
    message = f"The bundle is of another network: its {what} is {here}, and must be {wanted}"
    return AuditFailed("CO-A203", f"{message}. It comes from another chain than the one that you know.")
