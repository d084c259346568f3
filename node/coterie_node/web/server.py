"""The page's own process: its follower of the ledger, its accounts, and the server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import uvicorn

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_node.site.config import LOOPBACK_HOSTS, WebPart
from coterie_node.site.folder import SiteFolder
from coterie_node.site.watch.log import Log
from coterie_node.web.access import PagePart
from coterie_node.web.app import build_app
from coterie_node.web.file_accounts import ACCOUNTS, FileAccounts
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.rendering import make_templates
from coterie_node.web.services import PageServices
from coterie_node.web.sessions import MemorySessions

if TYPE_CHECKING:
    from coterie_node.web.accounts import Accounts

# Requests that are answered at a time, viewers of live parts among them; seconds to end them at a stop.
MOST_REQUESTS, STOP_SECONDS = 512, 3


def make_services(folder: SiteFolder, ledger: EthereumLedger, accounts: Accounts) -> PageServices:
    """What the page of a node works with."""
    settings = folder.config.web or WebPart()
    reader = SiteReader(folder, ledger, folder.blobs(), lambda: ledger.newest)
    sessions = MemorySessions(settings.idle_minutes * 60, settings.session_hours * 3600)
    return PageServices(reader, accounts, sessions, make_templates(), settings)


def serve_page(folder: SiteFolder, log: Log, parts: Sequence[PagePart] = ()) -> None:
    """Answer until a signal; the ledger is only read."""
    with ExitStack() as stack:
        ledger = stack.enter_context(EthereumLedger(folder.network(), None, sleeps=folder.config.chain.sleep))
        services = make_services(folder, ledger, FileAccounts(folder.root / ACCOUNTS))
        part = services.settings
        if part.host not in LOOPBACK_HOSTS:
            log.tell("page is open to other machines", level="warning", address=part.host)
        log.tell("page", address=part.host, port=part.port)
        config = uvicorn.Config(
            build_app(services, parts),
            host=part.host,
            port=part.port,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_REQUESTS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        uvicorn.Server(config).run()
