"""What the pages work with: the site they read, who may sign in, the sessions, and the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coterie_node.site.config import WebPart
from coterie_node.web.accounts import Accounts
from coterie_node.web.sessions import PageSessions
from coterie_node.web.site_reader import SiteReader

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class PageServices:
    """The seams are the site's ledger and store (in `site`), the accounts and the sessions."""

    site: SiteReader
    accounts: Accounts
    sessions: PageSessions
    templates: Environment
    settings: WebPart

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers share cookies between the ports of a host, and a host may run several sites."""
        return f"coterie_{self.site.name.replace('-', '_')}"
