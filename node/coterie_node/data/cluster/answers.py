"""What workers answer, checked before the node counts on it: as much as was asked for, and of the kind asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie_learners.errors import DataError, pluralise
from coterie_learners.study.design import Design
from coterie_node.data.cluster.parts import PartSummary
from coterie_node.data.cluster.spans import Span
from coterie_node.data.findings import FileOrigin, Origin, quote

_DIGEST = 32
_TODO = "Look at the workers' programs and their memory, and start again."


def check_paths(origin: Origin, answer: object) -> list[str]:
    """Paths of parts; DataError (CO-D186) for anything else."""
    if isinstance(answer, list) and all(isinstance(path, str) for path in answer) and answer == sorted(set(answer)):
        return answer
    raise _refuse(origin, "The list of parts that a worker gave is no list of paths")


def check_summary(site: str, path: str, design: Design, answer: object) -> PartSummary:
    """The summary of a part; DataError (CO-D186) for counts, ranges or a digest that no part can have."""
    origin = FileOrigin.of(site, Path(path))
    if not isinstance(answer, PartSummary):
        raise _refuse(origin, f"A worker answered with {quote(type(answer).__name__)}, not with the part's counts")
    wrong = [what for what, holds in _list_rules(path, design, answer).items() if not holds]
    if wrong:
        counts = f"{answer.whole} rows, {answer.read} of them by the conditions, {answer.n} complete"
        raise _refuse(origin, f"A worker counted {counts}; {wrong[0]} cannot be")
    return answer


def _list_rules(path: str, design: Design, answer: PartSummary) -> dict[str, bool]:
    counts = (answer.whole, answer.read, answer.n, answer.events, *answer.missing.values())
    ranges = (*answer.low.values(), *answer.high.values())
    whole = all(type(count) is int for count in counts)
    return {
        "these numbers": whole and 0 <= answer.events <= answer.n <= answer.read <= answer.whole,
        "its count of missing values": set(answer.missing) == set(design.used)
        and all(0 <= count <= answer.read for count in answer.missing.values()),
        "its ranges": answer.low.keys() == answer.high.keys() and all(map(math.isfinite, ranges)),
        "its path": answer.path == path,
        "its digest": isinstance(answer.digest, bytes) and len(answer.digest) == _DIGEST,
    }


def check_digest(site: str, path: str, answer: object) -> bytes:
    """A file's digest; DataError (CO-D186) for anything else."""
    if isinstance(answer, bytes) and len(answer) == _DIGEST:
        return answer
    raise _refuse(FileOrigin.of(site, Path(path)), "What a worker gave as the part's digest is none")


def check_list(origin: Origin, span: Span, answer: Any, blocks: int) -> list[Any]:
    """One answer for each block of a span; DataError (CO-D186) for fewer or more."""
    if isinstance(answer, list) and len(answer) == blocks:
        return answer
    found = f"{len(answer)} sums" if isinstance(answer, list) else quote(type(answer).__name__)
    cut = span.cuts[0]
    where = f"{Path(cut.path).name} from complete row {cut.start + 1} on"
    raise _refuse(origin, f"For {pluralise(blocks, 'block')} of {span.n} rows ({where}) a worker answered with {found}")


def check_leaves(origin: Origin, leaves: Sequence[Any], count: int) -> list[bytes]:
    """The snapshot's leaves; DataError (CO-D186) if they are not so many digests."""
    if len(leaves) == count and all(isinstance(leaf, bytes) and len(leaf) == _DIGEST for leaf in leaves):
        return list(leaves)
    raise _refuse(
        origin, f"The workers gave {len(leaves)} leaves of the snapshot for {count} runs of rows, or other bytes"
    )


def _refuse(origin: Origin, what: str) -> DataError:
    return origin.error("CO-D186", f"{what}. {_TODO}")
