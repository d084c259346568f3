"""A study with all that proves it in one zip or folder, for an auditor without node, keys, data or network.

An RO-Crate (https://w3id.org/ro/crate/1.1): `ro-crate-metadata.json` for an archive, `bundle.json` for us, the
chain's evidence under `chain/`, every payload and the study's document under `payloads/`, one block a file by CID.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.ethereum.headers import Header
from coterie_chain.ethereum.network import Network
from coterie_chain.ledger.protocol import Event, Ledger, Record, State
from coterie_chain.proof.evidence import BODIES, CODES, HEADERS, STATE, Evidence
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_chain.store.cid import MAX_BLOCK, RAW, Cid, parse_cid, write_blocks
from coterie_chain.store.protocol import BlobStore, MemoryBlobs
from coterie_learners.study.document import Study
from coterie_node.audit.approvals.signatures import list_statement_cids
from coterie_node.audit.archive import check_sizes, read_archive, write_archive
from coterie_node.audit.release_file import ReleaseFile, find_release_file
from coterie_node.audit.replay import list_unusable
from coterie_node.audit.rulings import list_rulings
from coterie_node.errors import AuditFailed
from coterie_node.persons.approval_statement import MAX_STATEMENT_BYTES
from coterie_node.run.codec import MAX_PAYLOAD_BYTES
from coterie_node.run.study_files import read_predecessor, study_of, study_on_ledger
from coterie_node.site.statements.ended_studies import MAX_REASON_BYTES, list_reason_cids

METADATA, MANIFEST, GUIDE, CERTIFICATE = "ro-crate-metadata.json", "bundle.json", "README.md", "certificate.json"
RULINGS = "rulings.json"
PAYLOADS = "payloads/"
LIMITS = {
    **dict.fromkeys((MANIFEST, GUIDE, CERTIFICATE), 1 << 20),
    **dict.fromkeys((METADATA, RULINGS), 1 << 24),
    **dict.fromkeys((HEADERS, BODIES, STATE), 1 << 29),
    CODES: 1 << 20,
}
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]

GUIDE_TEXT = """\
# How to check this bundle

{install}    coterie audit verify THIS-FOLDER-OR-ZIP --genesis {genesis} \\
      --catalog {catalog}

No network, node, key or data is needed. Take the hash after `--genesis` and the address after `--catalog` from one of
the study's sites and not from here: they are what everything else in the bundle rests on. Exit status
0 means PASS: every server step was computed again. 25 means RECORD INTACT: nothing on record is wrong, and the model
was not computed again. `rulings.json` has what each site's release gate ruled.
"""


class ManifestPart(BaseModel):
    """Base of the manifest's parts: immutable, and refusing keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]


class NetworkPart(ManifestPart):
    """Which network: its chain id, its Catalog, hash of block 0; the first block in it, and the last one's hash."""

    chain_id: Annotated[int, Field(ge=0, lt=1 << 256)]
    catalog: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
    genesis: Hash
    first: Annotated[int, Field(ge=0, lt=1 << 63)]
    last: Hash


class StudyPart(ManifestPart):
    """Which study: its number on the ledger, the hash of its document."""

    number: Annotated[int, Field(ge=1, lt=1 << 64)]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CodePart(ManifestPart):
    """What made the bundle, from which file it was installed (if from a wheel), and the learner that the study pins."""

    coterie: Annotated[str, Field(max_length=100)]
    learner: Annotated[str, Field(max_length=100)]
    wheel: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_.+-]+$")]
    wheel_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class Manifest(ManifestPart):
    """What `bundle.json` holds."""

    format: Literal["coterie-bundle/1"] = "coterie-bundle/1"
    network: NetworkPart
    study: StudyPart
    code: CodePart


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest, the chain's evidence, and the blocks of its payloads by CID."""

    manifest: Manifest
    evidence: Evidence
    blocks: Mapping[str, bytes]
    certificate: bytes | None = None
    rulings: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def blobs(self) -> BlobStore:
        """The payloads as a store, which verifies every block that is asked for."""
        store = MemoryBlobs("The bundle is not whole: ask another site for one.")
        store.blocks.update(self.blocks)
        return store


def collect(
    network: Network,
    evidence: Evidence,
    ledger: VerifiedLedger,
    blobs: BlobStore,
    number: int,
    certificate: bytes | None = None,
) -> Bundle:
    """The bundle of one study; BlobMissing if the store has lost a payload of it that the sites could use."""
    study = study_on_ledger(ledger.view(number), blobs)
    blocks = collect_blocks(study, ledger, blobs, number)
    release = find_release_file()
    code = CodePart(
        coterie=version("coterie"),
        learner=f"{study.learner.name} {study.learner.version}",
        wheel=release.wheel,
        wheel_sha256=release.sha256,
    )
    manifest = Manifest(
        network=NetworkPart(
            chain_id=network.chain_id,
            catalog=network.catalog,
            genesis=network.genesis,
            first=ledger.anchor.first,
            last=ledger.anchor.last_hash,
        ),
        study=StudyPart(number=number, hash=study.hash.hex()),
        code=code,
    )
    return Bundle(manifest, evidence, blocks, certificate, encode_rulings(study, ledger.history(number)))


def collect_blocks(study: Study, ledger: Ledger, blobs: BlobStore, number: int) -> dict[str, bytes]:
    """The blocks of a study by CID: its document, all payloads, why it was superseded, and who signed approvals."""
    blocks: dict[str, bytes] = {}
    amended = read_predecessor(study, blobs)
    documents = (study.document,) if amended is None else (study.document, amended.document)
    texts = *_list_reasons(ledger, blobs, number), *_list_statements(ledger, blobs, number)
    for blob in (*documents, *read_payloads(ledger, blobs, number), *texts):
        write_blocks(blob, blocks.__setitem__)
    return blocks


def write_guide(manifest: Manifest) -> bytes:
    """The text of `README.md`."""
    install = ReleaseFile(manifest.code.wheel, manifest.code.wheel_sha256).guide
    network = manifest.network
    return GUIDE_TEXT.format(install=install, genesis=network.genesis, catalog=network.catalog).encode()


def encode_rulings(study: Study, entries: Iterable[Record | Event]) -> bytes:
    """The text of `rulings.json`."""
    return _json(list_rulings(study, (entry for entry in entries if isinstance(entry, Record))))


def read_payloads(ledger: Ledger, blobs: BlobStore, number: int) -> Iterator[bytes]:
    """The stored bytes of every record of a study; of one that no step uses, or that is unusable, if they are there.

    No step uses what concludes a completed study: nobody reads it.
    """
    entries = list(ledger.history(number))
    records = [entry for entry in entries if isinstance(entry, Record)]
    last = max((record.post.position for record in records), default=-1)
    needed = range(last if ledger.view(number).state == State.COMPLETED else last + 1)
    finished = [ledger.read_finished(number, position) or () for position in needed]
    used = {(record.site, record.post.position, record.post.attempt) for step in finished for record in step}
    used -= list_unusable(entries)
    for record in records:
        try:
            yield blobs.get(record.post.cid, min(max(record.post.size, 1), MAX_PAYLOAD_BYTES))
        except (BlobMissing, BlobCorrupt):
            if (record.site, record.post.position, record.post.attempt) in used:
                raise


def _list_reasons(ledger: Ledger, blobs: BlobStore, number: int) -> Iterator[bytes]:
    """The reasons for which the study's result was superseded, as far as the store has them."""
    for cid in list_reason_cids(ledger.history(number), number):
        if blobs.has(cid):
            yield blobs.get(cid, MAX_REASON_BYTES)


def _list_statements(ledger: Ledger, blobs: BlobStore, number: int) -> Iterator[bytes]:
    """What the sites published of their persons' signatures, as far as a store within reach has it."""
    for cid in list_statement_cids(ledger.history(number), number):
        with suppress(BlobMissing, BlobCorrupt):
            yield blobs.get(cid, MAX_STATEMENT_BYTES)


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle to a new zip or folder; AuditFailed (CO-A209) if nobody could read it."""
    files = files_of(bundle)
    check_sizes(files, find_file_limit)
    write_archive(path, files)


def files_of(bundle: Bundle) -> dict[str, bytes]:
    """A bundle's files by name, in the order in which a zip has them."""
    content = {
        MANIFEST: _json(bundle.manifest.model_dump()),
        GUIDE: write_guide(bundle.manifest),
        RULINGS: bundle.rulings,
        **bundle.evidence.files(),
    }
    if bundle.certificate is not None:
        content[CERTIFICATE] = bundle.certificate
    content |= {PAYLOADS + cid: block for cid, block in sorted(bundle.blocks.items())}
    study = study_of(bundle.blobs().get(str(Cid(1, RAW, bytes.fromhex(bundle.manifest.study.hash)))), MANIFEST)
    return {METADATA: _json(crate(bundle, study, content)), **content}


def load_bundle(path: Path) -> Bundle:
    """Read a bundle; AuditFailed (CO-A201, CO-A202) for another file. Its content is not checked yet."""
    files = read_archive(path, find_file_limit)
    manifest = _manifest(files)
    network = manifest.network
    evidence = Evidence.of_files(network.chain_id, network.catalog, files)
    blocks = {name.removeprefix(PAYLOADS): block for name, block in files.items() if name.startswith(PAYLOADS)}
    return Bundle(manifest, evidence, blocks, files.get(CERTIFICATE), files.get(RULINGS, b""), files)


def find_file_limit(name: str) -> int:
    """How many bytes a bundle's file of this name may have; 0 if there is no such file."""
    if name in LIMITS:
        return LIMITS[name]
    try:
        cid = name.removeprefix(PAYLOADS)
        return MAX_BLOCK if name.startswith(PAYLOADS) and str(parse_cid(cid)) == cid else 0
    except BlobCorrupt:
        return 0


def check_crate(bundle: Bundle) -> None:
    """AuditFailed (CO-A205) if the crate's list of files is not what the bundle holds: for those who file it."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in bundle.files.items() if name != METADATA}
    try:
        graph = from_json(bundle.files.get(METADATA, b""))["@graph"]
        listed_digests = {str(e["@id"]): str(e["sha256"]) for e in graph if e.get("@type") == "File"}
        (named,) = (str(e["identifier"]) for e in graph if e.get("@id") == "./")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AuditFailed("CO-A205", f"{METADATA} is not the description of an RO-Crate.") from None
    if named != bundle.manifest.study.hash:
        raise AuditFailed("CO-A205", f"{METADATA} is about study {named[:16]}, not {bundle.manifest.study.hash[:16]}.")
    wrong = sorted(
        name for name in digests.keys() | listed_digests.keys() if digests.get(name) != listed_digests.get(name)
    )
    if wrong:
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        message = f"{METADATA} does not describe {wrong[0]}{others} as it is here: it was changed, added or left out"
        raise AuditFailed("CO-A205", f"{message}. Ask another site for a bundle of the study.")


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    try:
        return Manifest.model_validate(from_json(files[MANIFEST]))
    except KeyError:
        raise AuditFailed("CO-A202", f"There is no {MANIFEST}; this is not a bundle of Coterie.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AuditFailed(
            "CO-A202", f"{MANIFEST} does not have this version's form at {where!r}: {first['msg']}."
        ) from None
    except ValueError:
        raise AuditFailed("CO-A202", f"{MANIFEST} is not JSON.") from None


# The crate


def crate(bundle: Bundle, study: Study, content: Mapping[str, bytes]) -> dict[str, Any]:
    """The description of a bundle as RO-Crate asks for it."""
    last = Header.decode(bundle.evidence.headers[-1])
    time_text = datetime.fromtimestamp(last.time, UTC).isoformat()
    return {"@context": CONTEXT, "@graph": [*_roots(bundle, study, content, time_text), *_files(content)]}


def _roots(bundle: Bundle, study: Study, content: Mapping[str, bytes], time_text: str) -> list[dict[str, Any]]:
    manifest = bundle.manifest
    about = f"Ledger evidence and payloads of study {study.name} ({manifest.study.hash}), for coterie audit verify."
    tool = {"@id": f"#coterie-{manifest.code.coterie}"}
    wheel = {"name": manifest.code.wheel} | (
        {"sha256": manifest.code.wheel_sha256} if manifest.code.wheel_sha256 else {}
    )
    return [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": study.title or study.name,
            "description": about,
            "datePublished": time_text,
            "license": "All rights reserved by the sites of the study.",
            "identifier": manifest.study.hash,
            "hasPart": [{"@id": name} for name in content],
            "mentions": {"@id": "#run"},
        },
        {
            "@id": "#run",
            "@type": "CreateAction",
            "name": f"{manifest.code.learner} on {len(study.sites)} sites",
            "endTime": time_text,
            "instrument": tool,
            "agent": [{"@id": f"#site-{name}"} for name in study.sites],
            "result": {"@id": "./"},
        },
        {**tool, "@type": "SoftwareApplication", "softwareVersion": manifest.code.coterie, **wheel},
        *({"@id": f"#site-{name}", "@type": "Organization", "name": name} for name in study.sites),
    ]


def _files(content: Mapping[str, bytes]) -> Iterable[dict[str, Any]]:
    kinds = {".json": "application/json", ".md": "text/markdown"}
    for name, raw in content.items():
        yield {
            "@id": name,
            "@type": "File",
            "contentSize": str(len(raw)),
            "encodingFormat": kinds.get(Path(name).suffix, "application/octet-stream"),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
