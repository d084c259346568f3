"""The page's own process: its follower of the ledger, its accounts, the HTTP API, and the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import uvicorn

from coterie_chain.errors import ChainError, LedgerUnreachable
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore, MemoryBlobs
from coterie_node.errors import ConfigError
from coterie_node.persons.accounts import LocalAccounts
from coterie_node.site.config import LOOPBACK_HOSTS, WebPart
from coterie_node.site.folder import SiteFolder
from coterie_node.site.watch.log import EventLog
from coterie_node.web.api.part import open_api_part
from coterie_node.web.app import build_app
from coterie_node.web.connections import PromptProtocol
from coterie_node.web.file_accounts import ACCOUNTS, FileAccounts
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.login.part import make_login_part
from coterie_node.web.rendering import make_templates
from coterie_node.web.services import PageServices
from coterie_node.web.sessions import MemorySessions

if TYPE_CHECKING:
    from coterie_node.web.accounts import Accounts

# Requests that are answered at a time, viewers of live parts among them; seconds to end them at a stop.
MOST_REQUESTS, STOP_SECONDS = 512, 3


def find_accounts(folder: SiteFolder) -> Accounts:
    """The accounts of the site's register of persons; at a site without one those of a file."""
    if folder.persons.read_register() is None:
        return FileAccounts(folder.root / ACCOUNTS)
    return LocalAccounts(folder.persons, lambda: int(time.time()))


def serve_page(folder: SiteFolder, log: EventLog) -> None:
    """Answer until a signal; the ledger is only read."""
    with ExitStack() as stack:
        services = make_services(folder, open_reader(stack, folder, log), find_accounts(folder))
        part = services.settings
        if part.host not in LOOPBACK_HOSTS:
            log.tell("page is open to other machines", level="warning", address=part.host)
        log.tell("page", address=part.host, port=part.port)
        config = uvicorn.Config(
            build_app(services, (open_api_part(folder), make_login_part(folder))),
            host=part.host,
            port=part.port,
            log_config=None,
            access_log=False,
            http=PromptProtocol,
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_REQUESTS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        uvicorn.Server(config).run()


def make_services(folder: SiteFolder, reader: SiteReader, accounts: Accounts) -> PageServices:
    """What the page of a node works with."""
    settings = folder.config.web or WebPart()
    sessions = MemorySessions(settings.idle_minutes * 60, settings.session_hours * 3600)
    return PageServices(reader, accounts, sessions, make_templates(), settings)


def open_reader(stack: ExitStack, folder: SiteFolder, log: EventLog) -> SiteReader:
    """The site for reading; without a network or a chain node a page of checks alone, which says what is missing."""
    try:
        ledger = EthereumLedger(folder.network(), None, sleeps=folder.config.chain.sleep)
        blobs = folder.blobs()
    except (ChainError, ConfigError) as error:
        log.fault("page shows the first steps alone", error)
        text = f"{error.message} Start the page again once this is done."
        return make_empty_reader(folder, text)
    stack.callback(ledger.close)
    return SiteReader(folder, ledger, blobs, lambda: ledger.newest)


def make_empty_reader(folder: SiteFolder, problem: str) -> SiteReader:
    """A reader of a ledger without entries, which says why there are none."""

    def refuse() -> int:
        raise LedgerUnreachable("CO-W111", problem)

    ledger: Ledger = MemoryChain([]).ledger(None)
    blobs: BlobStore = MemoryBlobs()
    newest: Callable[[], int] = refuse
    return SiteReader(folder, ledger, blobs, newest)
