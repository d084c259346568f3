"""The public interface for authors of learners, sources, stores and ledgers; versions are semantic (docs/sdk.md)."""

from coterie_chain.errors import BlobCorrupt, BlobMissing, PostRejected, StoreFault
from coterie_chain.ledger.protocol import (
    Event,
    Head,
    Ledger,
    OpenStep,
    Post,
    Record,
    SiteEntry,
    State,
    StudyView,
    Terms,
)
from coterie_chain.store.cid import read_blocks, write_blocks
from coterie_chain.store.protocol import MAX_BLOB, BlobStore
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import (
    Channel,
    Script,
    Site,
    Step,
    acknowledge,
    announce,
    conclude,
    each,
    interactive,
    only,
    server,
)
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Frozen, Schedule, Study
from coterie_learners.study.rows import Block, CodedRows, OwnColumns, Rows, join_blocks
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.data.installed_source import Source

__all__ = [
    "MAX_BLOB",
    "BlobCorrupt",
    "BlobMissing",
    "BlobStore",
    "Block",
    "Channel",
    "CodedRows",
    "DataError",
    "Disclosure",
    "Event",
    "Exposure",
    "Field",
    "Fit",
    "Frozen",
    "Head",
    "Learner",
    "Ledger",
    "OpenStep",
    "OwnColumns",
    "Payload",
    "Post",
    "PostRejected",
    "Profile",
    "Record",
    "Reference",
    "Rows",
    "Schedule",
    "Schema",
    "Script",
    "Site",
    "SiteEntry",
    "Source",
    "State",
    "Step",
    "StepDisclosure",
    "StoreFault",
    "Study",
    "StudyError",
    "StudyView",
    "Suitability",
    "Terms",
    "acknowledge",
    "announce",
    "check_learner",
    "conclude",
    "conclude_disclosure",
    "each",
    "interactive",
    "join_blocks",
    "only",
    "options_of",
    "read_blocks",
    "server",
    "write_blocks",
]
