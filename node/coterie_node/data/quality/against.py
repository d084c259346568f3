"""A site's rows against the profiles of the others: a unit that may be another, a label that may be turned.

Hospitals differ. What is named here is so far from the others that a person should look before the study runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coterie_node.data.draft.merge import explain_ratio
from coterie_node.data.draft.vocabulary import load_vocabulary, name_level
from coterie_node.data.quality.profile import ColumnProfile, SiteProfile

# A median beyond so many quartile distances from the others' quartiles is odd.
INNER_FENCE = 1.5
# Shares that differ by more are odd where exchanging two levels would bring them together.
TURN = 0.3


def compare_with_profiles(own: SiteProfile, others: Sequence[SiteProfile]) -> tuple[str, ...]:
    """What is odd about a site beside the others, a sentence each; `own` is in the study's words."""
    out: list[str] = []
    for column in own.columns:
        peers = {p.site: look for p in others if p.site != own.site and (look := p.find(column.variable)) is not None}
        lacking = [p.site for p in others if p.site != own.site and p.site not in peers]
        if lacking:
            out.append(f"{column.variable}: {', '.join(lacking)} has no such column in its profile")
        if not peers:
            continue
        if column.kind in ("number", "count"):
            out += _compare_numbers(column, list(peers.values()))
        else:
            out += _compare_levels(column, list(peers.values()))
    return tuple(out)


def _compare_numbers(column: ColumnProfile, peers: Sequence[ColumnProfile]) -> list[str]:
    known = [peer for peer in peers if peer.quarters is not None and _same_unit(column, peer)]
    if column.quarters is None or not known:
        return []
    out = _compare_medians(column, known)
    lows = [peer.low for peer in known if peer.low is not None]
    highs = [peer.high for peer in known if peer.high is not None]
    width = max(highs) - min(lows) if lows else 0.0
    if lows and column.low is not None and column.low < min(lows) - width:
        out.append(f"{column.variable} begins at {column.low:.6g}, elsewhere at {min(lows):.6g}: perhaps a code")
    if highs and column.high is not None and column.high > max(highs) + width:
        out.append(f"{column.variable} goes up to {column.high:.6g}, elsewhere to {max(highs):.6g}: perhaps a code")
    return out


def _same_unit(column: ColumnProfile, peer: ColumnProfile) -> bool:
    return not column.unit or not peer.unit or column.unit == peer.unit


def _compare_medians(column: ColumnProfile, peers: Sequence[ColumnProfile]) -> list[str]:
    quarters = [peer.quarters for peer in peers if peer.quarters is not None]
    assert column.quarters is not None
    own, middle = column.quarters[1], sorted(q[1] for q in quarters)[len(quarters) // 2]
    width = max(q[2] - q[0] for q in quarters)
    low, high = min(q[0] for q in quarters) - INNER_FENCE * width, max(q[2] for q in quarters) + INNER_FENCE * width
    ratio = own / middle if middle and own / middle > 0.0 else 1.0
    reason = explain_ratio(column.variable, ratio)
    odd = not low <= own <= high or (reason.startswith("perhaps") and not 0.4 < ratio < 2.5)
    if not odd:
        return []
    return [f"{column.variable} has the median {own:.4g} here, elsewhere about {middle:.4g}: {reason}"]


def _compare_levels(column: ColumnProfile, peers: Sequence[ColumnProfile]) -> list[str]:
    own = _share_by_level(column)
    theirs = [_share_by_level(peer) for peer in peers]
    levels = sorted({level for shares in theirs for level in shares})
    typical = {level: sum(shares.get(level, 0.0) for shares in theirs) / len(theirs) for level in levels}
    strange = sorted(set(own) - set(levels))
    out = [f"{column.variable}: no other site has {', '.join(strange)}"] if strange else []
    gone = [level for level in levels if level not in own and typical[level] >= 0.1]
    out += [f"{column.variable}: other sites have {', '.join(gone)}, and this site has not"] if gone else []
    turned = _find_turn(own, typical)
    if turned:
        a, b = turned
        text = f"{own.get(a, 0.0):.0%} here, elsewhere {typical.get(a, 0.0):.0%}"
        out.append(f"{column.variable}: {a} has {text}; perhaps {a} and {b} are exchanged")
    return out


def _find_turn(own: Mapping[str, float], typical: Mapping[str, float]) -> tuple[str, str] | None:
    """Two levels whose exchange would bring this site's shares near the others'; None if there are none."""
    levels = sorted(set(own) & set(typical), key=lambda level: -abs(own[level] - typical[level]))
    for a in levels[:1]:
        for b in levels[1:]:
            apart = abs(own[a] - typical[a]) + abs(own[b] - typical[b])
            exchanged = abs(own[a] - typical[b]) + abs(own[b] - typical[a])
            if apart > 2 * TURN and exchanged < 0.5 * apart:
                return a, b
    return None


def _share_by_level(column: ColumnProfile) -> dict[str, float]:
    """Shares by the study's words: yes and no of a binary variable are 1 and 0."""
    words = load_vocabulary()
    out: dict[str, float] = {}
    for level in column.levels:
        name = name_level(level.word)
        if column.kind == "binary":
            folded = level.word.casefold()
            name = "1" if folded in words["yes"]["words"] else "0" if folded in words["no"]["words"] else name
        out[name] = out.get(name, 0.0) + level.share
    return out
