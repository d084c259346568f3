"""The history: every entry of the ledger with filters, page by page, and what an auditor takes away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlencode

from starlette.responses import Response

from coterie_chain.ledger.protocol import Event, Record, get_study_number
from coterie_node.audit.history import HistoryEntry, to_history_entry
from coterie_node.persons.roles import Role
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.live.site_reader import SiteSnapshot
from coterie_node.web.rendering import render

PAGE_SIZE = 100
FILTER_FIELDS = ("study", "site", "kind", "since", "until")


@dataclass(frozen=True)
class HistoryFilter:
    """Which entries: texts as they were typed; an empty one filters nothing."""

    study: str = ""
    site: str = ""
    kind: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> HistoryFilter:
        """The filter of an address."""
        return cls(**{name: query.get(name, "").strip()[:100] for name in FILTER_FIELDS})

    def takes(self, entry: HistoryEntry) -> bool:
        """Whether an entry fits."""
        names = (entry.what.lower(), entry.kind.lower(), entry.kind.partition(":")[0].lower())
        return (
            self.study in ("", str(entry.study))
            and self.site in ("", entry.site)
            and self.kind.lower() in ("", *names)
            and (not self.since or entry.time >= self.since)
            and (not self.until or entry.time < self.until)
        )

    def address(self, page: int) -> str:
        """The address of a page of what fits."""
        fields = {name: value for name, value in vars(self).items() if value}
        return f"/audit?{urlencode({**fields, 'page': page})}"


def show_history(visit: Visit) -> Response:
    """The newest entries that fit, and further pages."""
    query, snapshot = visit.request.query_params, visit.services.site.read()
    wanted = HistoryFilter.read(query)
    text = query.get("page", "1")
    page = max(int(text), 1) if text.isascii() and text.isdigit() and len(text) < 7 else 1
    first = (page - 1) * PAGE_SIZE
    lines = list(islice(select(list_newest(snapshot, wanted), wanted), first, first + PAGE_SIZE + 1))
    return render(
        visit,
        "history.html.j2",
        wanted=wanted,
        lines=lines[:PAGE_SIZE],
        page=page,
        more=len(lines) > PAGE_SIZE,
        sites=[seat.name for seat in snapshot.sites],
        studies=sorted(snapshot.studies, reverse=True),
        study={str(number): number for number in snapshot.studies}.get(wanted.study),
    )


def list_newest(snapshot: SiteSnapshot, wanted: HistoryFilter) -> Iterator[Record | Event]:
    """The entries of the ledger, or of the one study that is asked for, the newest first."""
    entries: list[Record | Event] = [*snapshot.members]
    for number, look in snapshot.studies.items():
        if wanted.study in ("", str(number)):
            entries += look.entries
    yield from sorted(entries, key=lambda entry: (entry.block, get_study_number(entry)), reverse=True)


def select(entries: Iterable[Record | Event], wanted: HistoryFilter) -> Iterator[HistoryEntry]:
    """The entries that fit, as rows."""
    return (line for line in map(to_history_entry, entries) if wanted.takes(line))


HISTORY_ROUTES = (PageRoute("GET", "/audit", Role.AUDIT, show_history),)
