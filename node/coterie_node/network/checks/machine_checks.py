"""Checks of this machine: the folder, its keys and journal, the disk, the rows, the listener for peers, the daemon."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

from pydantic_core import from_json

from coterie_chain.errors import ChainError
from coterie_chain.http_client import WIRE_FAULTS, HttpClient, Waits
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import check_mode, read_private
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_node.data.arrow import ROWS_EXTRA, find_arrow_version
from coterie_node.network.checks.check_result import CheckResult, run_check
from coterie_node.peers.address import address_of
from coterie_node.site.folder import SiteFolder

MIN_FREE_BYTES = 1 << 30
PROBE = b"coterie doctor"
_WAITS = Waits(connect=2.0, silence=3.0, answer=3.0)
_MAX_ANSWER_BYTES = 1 << 16


def check_machine(home: SiteFolder, *, daemon: bool = True) -> Iterator[CheckResult]:
    """All checks that need neither chain nor store; `daemon`: whether it shall run now."""
    yield run_check("folder", lambda: _check_folder(home))
    yield run_check("API token", lambda: _check_token(home))
    yield run_check("disk", lambda: _check_disk(home))
    yield run_check("key", lambda: _check_key(home))
    yield run_check("journal", lambda: _check_journal(home))
    yield run_check("daemon", lambda: _check_daemon(home, wanted=daemon))
    yield run_check("rows", lambda: _check_rows(home))
    if home.config.notices.wanted:
        yield run_check("notices", lambda: _check_notices(home))
    if home.config.talk.listen is not None:
        yield run_check("talk", lambda: _check_talk(home))


def load_keys(home: SiteFolder) -> SiteKeys:
    """This site's keys; KeyFault where they cannot be opened."""
    return SiteKeys.load(home.keys, read_passphrase(home.passphrase))


def _check_folder(home: SiteFolder) -> CheckResult:
    check_mode(home.root, home.root.stat().st_mode, "the node's folder", "700")
    return CheckResult("folder", True, str(home.root))


def _check_token(home: SiteFolder) -> CheckResult:
    read_private(home.path(home.config.api.token_file), "the API's token file")
    return CheckResult("API token", True, f"{home.config.api.host}:{home.config.api.port}")


def _check_notices(home: SiteFolder) -> CheckResult:
    from coterie_node.notices.certificates import list_certificates
    from coterie_node.notices.ways import check_ways

    part = home.config.notices
    ends = [notice.text for notice in list_certificates(part, home.root, datetime.now(UTC))]
    ways = ", ".join(check_ways(part, home.root))
    return CheckResult("notices", not ends, "; ".join([ways, *ends]), "Renew the certificate that is named.")


def _check_disk(home: SiteFolder) -> CheckResult:
    free = shutil.disk_usage(home.root).free
    cure = f"Make room on the disk of {home.root}: the journal and the store need it."
    return CheckResult("disk", free > MIN_FREE_BYTES, f"{free / (1 << 30):.1f} GiB free", cure)


def _check_key(home: SiteFolder) -> CheckResult:
    return CheckResult("key", True, load_keys(home).address)


def _check_journal(home: SiteFolder) -> CheckResult:
    """Whether the journal can be opened. Looking for it makes no new one: a lost journal must be seen as lost."""
    if not home.journal.exists():
        return CheckResult("journal", None, "missing: the daemon has not run here yet, or the journal is lost")
    try:
        SqliteJournal(home.journal).close()
    except ChainError as error:
        if error.code != "CO-C320":
            raise
        return CheckResult("journal", True, "in use by the running daemon")
    return CheckResult("journal", True, "free: the daemon does not run")


def _check_daemon(home: SiteFolder, *, wanted: bool) -> CheckResult:
    """What the daemon says of itself at its own address, and whether it is of this command's version.

    One that has never run is no fault yet: a site is looked at before its first start.
    """
    api, here = home.config.api, version("coterie")
    if not api.port:
        return CheckResult("daemon", None, "the system chooses its port (port = 0), so it cannot be asked")
    client = HttpClient(f"http://{api.host}:{api.port}", _WAITS, {})
    try:
        body = client.get("/health", limit=_MAX_ANSWER_BYTES).body
    except WIRE_FAULTS:
        failed = False if wanted and home.journal.exists() else None
        cure = "Start it: coterie site start (or coterie serve), and read its log. Stopped on purpose: --no-daemon."
        return CheckResult("daemon", failed, f"no answer at {api.host}:{api.port}", cure)
    finally:
        client.close()
    return _judge_daemon(home, body, here)


def _judge_daemon(home: SiteFolder, body: bytes, here: str) -> CheckResult:
    try:
        said = from_json(body)
        site, running, causes = str(said["site"]), str(said["version"]), [str(c) for c in said["causes"]]
    except (ValueError, KeyError, TypeError):
        cure = "Another program has this port, or a daemon of an older version: look which, and start `coterie serve`."
        return CheckResult("daemon", False, "no answer of a daemon of this version", cure)
    if site != home.name:
        cure = "Two nodes have the same port under [api]: change it in one node.toml, and start that daemon again."
        return CheckResult("daemon", False, f"the daemon of {site} answers at this port", cure)
    if running != here:
        cure = f"This command is {here}: start the daemon again, so that both are of one version."
        return CheckResult("daemon", False, f"runs version {running}", cure)
    return CheckResult("daemon", not causes, "; ".join(causes) or f"well, version {running}", "; ".join(causes))


def _check_rows(home: SiteFolder) -> CheckResult:
    """Whether the file of rows that node.toml names is there; the rows are read when a study wants them."""
    from pathlib import Path

    if find_arrow_version() == "none":
        cure = f"Install it at this site: pip install 'coterie[{ROWS_EXTRA}]'."
        return CheckResult("rows", False, "the package that reads rows, pyarrow, is missing", cure)
    address = home.locate_rows("")
    if not isinstance(address, Path):
        return CheckResult("rows", None, f"{address.name}: the source is asked when a study wants its rows")
    if address.is_file():
        return CheckResult("rows", True, str(address))
    cure = f"node.toml says data = {home.config.data!r}. Put the file there, or name the right one."
    return CheckResult("rows", False, f"{address} is missing", cure)


def _check_talk(home: SiteFolder) -> CheckResult:
    """Whether the address under [talk] is one of this machine."""
    text = str(home.config.talk.listen)
    host, port = address_of(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.bind((host, 0))
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV) and not isinstance(error, socket.gaierror):
            raise
        cure = f"[talk] says listen = {text!r}, and this machine has no such address. Correct it in node.toml."
        return CheckResult("talk", False, f"{host} is not an address of this machine", cure)
    return CheckResult("talk", True, f"{host}:{port}")
