"""What the pages work with: the site they read, who may sign in, the sessions, and the templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coterie_node.site.config import WebPart
from coterie_node.web.accounts import Accounts
from coterie_node.web.live.change_watch import ChangeWatch
from coterie_node.web.live.jobs import JobDesk
from coterie_node.web.live.part_cache import PartCache
from coterie_node.web.live.person_watch import PersonWatch
from coterie_node.web.live.places import WorkPlaces
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.login.challenges import Challenges
from coterie_node.web.sessions import PageSessions

if TYPE_CHECKING:
    from jinja2 import Environment

    from coterie_node.web.login.signed_acts import SigningQuestion


# Pages that are open show how much time is left once in so many seconds.
TIME_STEP_SECONDS = 20
# Live parts that are open at a time, in all and of one account; the server answers 512 connections.
MOST_STREAMS, MOST_STREAMS_OF_ONE = 320, 128


@dataclass(frozen=True)
class PageServices:
    """The seams are the site's ledger and store (in `site`), the accounts and the sessions.

    `questions`: acts that wait for a signature. `drafts`: reasons of forms that led to one.
    """

    site: SiteReader
    accounts: Accounts
    sessions: PageSessions
    templates: Environment
    settings: WebPart
    jobs: JobDesk = field(default_factory=JobDesk)
    parts: PartCache = field(default_factory=PartCache)
    changes: ChangeWatch = field(init=False)
    persons: PersonWatch = field(init=False)
    streams: WorkPlaces = field(default_factory=lambda: WorkPlaces(MOST_STREAMS, MOST_STREAMS_OF_ONE, "live parts"))
    questions: Challenges[SigningQuestion] = field(default_factory=Challenges)
    drafts: Challenges[str] = field(default_factory=Challenges)

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", ChangeWatch(lambda: self.version))
        object.__setattr__(self, "persons", PersonWatch(self.accounts.refresh))

    @property
    def version(self) -> tuple[int, ...]:
        """Counts what has changed: on the ledger and in the site's folder, of jobs, and the ledger's time in steps."""
        return self.site.version, self.jobs.version, self.site.read().now // TIME_STEP_SECONDS

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers share cookies between the ports of a host, and a host may run several sites."""
        return f"coterie_{self.site.name.replace('-', '_')}"
