"""Every form in which releases of Coterie meet: its version here, and what another version of it leads to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import get_args

from coterie_chain.ethereum.abi import CONTRACT_NAMES, load_artifact
from coterie_chain.ethereum.entries.entry_file import FORMAT as HISTORY_FORMAT
from coterie_chain.keys.envelopes import MAGIC as ENVELOPE
from coterie_chain.keys.journal import MIGRATIONS
from coterie_learners.core.payload import MAGIC as PAYLOAD
from coterie_learners.core.registry import find_learner, list_learners
from coterie_learners.study.document import Study
from coterie_node.audit.bundle import Manifest
from coterie_node.audit.index import FORMAT as INDEX_FORMAT
from coterie_node.peers.transport import MAGIC as TALK
from coterie_node.site.invitation import Invitation


@dataclass(frozen=True)
class Form:
    """A form: its version in this release, which versions this release reads, and what it does with any other.

    `code` is the error of another version; empty where it is no error.
    """

    name: str
    version: str
    reads: str
    otherwise: str
    code: str = ""

    def as_dict(self) -> dict[str, str]:
        """The stable JSON keys."""
        return {"name": self.name, "version": self.version, "reads": self.reads, "otherwise": self.otherwise} | (
            {"code": self.code} if self.code else {}
        )


def list_forms() -> tuple[Form, ...]:
    """The forms of this release, in the order in which a study meets them."""
    journal = str(1 + len(MIGRATIONS))
    same, study, version = "the same", _literal(Study), "not joined; an audit says NOT CHECKED"
    return (
        Form("study document", study, same, "refused, also for a key that this release does not know", "CO-S102"),
        *(Form(f"learner {name}", find_learner(name).version, same, version, "CO-S402") for name in list_learners()),
        Form("payload", PAYLOAD.decode(), same, "refused as a post of its site", "CO-P101"),
        Form("sealed payload", ENVELOPE.decode().strip(), same, "refused as a post of its site", "CO-C221"),
        Form("interactive step", TALK.decode().strip(), same, "the sites do not meet", "CO-P662"),
        Form("contracts", digest_contracts(), same, "not joined", "CO-C317"),
        Form("journal", journal, f"1 to {journal}", "older: brought forward; newer: refused", "CO-C324"),
        Form("copy of the history", str(HISTORY_FORMAT), same, "read from the chain again"),
        Form("index of an audit", str(INDEX_FORMAT), same, "refused; delete it", "CO-F207"),
        Form("bundle", _literal(Manifest), same, "refused", "CO-A202"),
        Form("backup", "1", same, "refused", "CO-F504"),
        Form("invitation", _literal(Invitation), same, "refused", "CO-F324"),
    )


def digest_contracts() -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the code of the contracts."""
    code = b"".join(load_artifact(name).bytecode for name in CONTRACT_NAMES)
    return hashlib.sha256(code).hexdigest()[:16]


def _literal(model: type[Study | Manifest | Invitation]) -> str:
    """The one value of a document's field `format`."""
    (value,) = get_args(model.model_fields["format"].annotation)
    return str(value)
