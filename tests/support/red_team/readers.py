"""Every parser of bytes from outside, by name: what it reads, as the product reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from support.chain.http_answers import serve_answers
from support.node.worlds import keys_of

from coterie_chain.ethereum.decode import Decoder
from coterie_chain.ethereum.network import Network, discover, verify
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.store.cid import compute_raw_cid
from coterie_chain.store.kubo import KuboBlobs
from coterie_learners.core import payload as pay
from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.formula import parse_formula
from coterie_node.audit.publication import read_publication
from coterie_node.audit.verify import verify as verify_bundle
from coterie_node.data.load import load_site
from coterie_node.errors import AuditFailed, CoterieError
from coterie_node.network.founding import FounderCard
from coterie_node.release.policy import Policy
from coterie_node.run.study_files import load_study
from coterie_node.run.view_grants import load_grants
from coterie_node.site.cards import SeatCard
from coterie_node.site.config import load_config
from coterie_node.site.decisions import DecisionFolder
from coterie_node.site.invitation import Invitation

STUDY = """
name = "stroke"
sites = ["north"]
formula = "died ~ age + sex"
[learner]
name = "glore"
[rows]
minimum = 1
[variables.died]
type = "binary"
[variables.age]
type = "number"
range = [18, 110]
[variables.sex]
type = "category"
levels = ["f", "m"]
"""
NETWORK = Network("http://127.0.0.1:1", 20240, "0x" + "12" * 20, "0x" + "34" * 32, 1)
Reader = Callable[[Path], object]


def read_formula(path: Path) -> object:
    text = path.read_text(errors="replace")
    study = Study.from_toml(STUDY)
    parse_formula(text)
    return Design(study.model_copy(update={"formula": text})).columns


def read_payload(path: Path) -> object:
    return pay.decode(pay.unpack(path.read_bytes()))


def read_bundle(path: Path) -> object:
    verdict = verify_bundle(path).verdict
    if not verdict.intact:
        raise AuditFailed(verdict.code, verdict.problem)
    return verdict


def read_decision(path: Path) -> object:
    study = bytes(32)
    place = path.with_name(f"{study.hex()}.0001.json")
    place.write_bytes(path.read_bytes())
    return DecisionFolder(path.parent).latest(study)


def read_rows(path: Path) -> object:
    return load_site(path, complete_study(Study.from_toml(STUDY)), "north")


def read_grant(path: Path) -> object:
    return load_grants([path], bytes(32), keys_of("an auditor"))


def serve_answer(path: Path) -> AbstractContextManager[str]:
    """A server that gives one answer to everything."""
    answer = path.read_bytes()
    return serve_answers(lambda _: answer)


def read_chain_answer(path: Path) -> object:
    """What a chain node answers to every request, however it is asked."""
    with serve_answer(path) as url, Rpc(url, timeout=5.0) as rpc:
        decoder = Decoder(NETWORK.catalog)
        return read_each(
            lambda: rpc.call_quantity("eth_blockNumber"),
            lambda: verify(NETWORK, rpc),
            lambda: discover(url, NETWORK.catalog),
            lambda: decoder.entries(rpc.call("eth_getLogs"), lambda _: 0),
        )


def read_store_answer(path: Path) -> object:
    """What a Kubo answers to every request."""
    cid = compute_raw_cid(b"a payload")
    with serve_answer(path) as url:
        store = KuboBlobs(url, timeout=5.0)
        return read_each(
            lambda: store.get(cid),
            lambda: store.put(b"a payload"),
            lambda: store.has(cid),
            lambda: store.pin(cid),
        )


def read_each(*readings: Callable[[], object]) -> tuple[str, ...]:
    """What came of each reading."""
    return tuple(map(try_reading, readings))


READERS: Mapping[str, tuple[str, Reader]] = {
    "study": ("study.toml", load_study),
    "document": ("study.json", load_study),
    "formula": ("formula.txt", read_formula),
    "payload": ("payload.bin", read_payload),
    "bundle": ("study.zip", read_bundle),
    "invitation": ("invitation.json", Invitation.load),
    "card": ("card.json", SeatCard.load),
    "founder": ("founder.json", FounderCard.read),
    "decision": ("decision.txt", read_decision),
    "node.toml": ("node.toml", load_config),
    "policy": ("policy.toml", Policy.load),
    "network": ("network.json", lambda path: Network.from_json(path.read_text(errors="replace"))),
    "result": ("result.json", read_publication),
    "grant": ("grant.txt", read_grant),
    "csv": ("rows.csv", read_rows),
    "parquet": ("rows.parquet", read_rows),
    "chain": ("answer.json", read_chain_answer),
    "store": ("answer.json", read_store_answer),
}


def try_reading(read: Callable[[], object]) -> str:
    """The code of the error with which reading ends, or "accepted"; anything but an error of ours passes through."""
    try:
        read()
    except CoterieError as error:
        return str(error.code)
    return "accepted"
