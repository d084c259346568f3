"""The public interface for authors of learners and stores; it keeps to semantic versioning (docs/sdk.md)."""

from coterie_chain.errors import BlobCorrupt, BlobMissing, StoreFault
from coterie_chain.store.cid import read_blocks, write_blocks
from coterie_chain.store.protocol import MAX_BLOB, BlobStore
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Channel, Script, Site, Step, announce, each, interactive, only, server
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.rows import Block, CodedRows, OwnColumns, Rows
from coterie_node.analysis.conformance import check_learner

__all__ = [
    "MAX_BLOB",
    "BlobCorrupt",
    "BlobMissing",
    "BlobStore",
    "Block",
    "Channel",
    "CodedRows",
    "Exposure",
    "Field",
    "Fit",
    "Learner",
    "OwnColumns",
    "Payload",
    "Rows",
    "Schedule",
    "Schema",
    "Script",
    "Site",
    "Step",
    "StoreFault",
    "Study",
    "StudyError",
    "announce",
    "check_learner",
    "each",
    "interactive",
    "only",
    "options_of",
    "read_blocks",
    "server",
    "write_blocks",
]
