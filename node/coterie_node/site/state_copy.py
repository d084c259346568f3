"""A copy of the journal and of the privacy log as of one moment, for a backup.

One process holds the journal. If that is the daemon, the command leaves a request in the site's folder, and the daemon
makes the copy between two moves, when neither file changes. The request's removal says that the daemon has answered. If
it could not write the copy, there is none.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from coterie_chain.errors import StoreFault
from coterie_chain.keys.journal import Journal
from coterie_node.errors import ConfigError
from coterie_node.privacy.storage import FolderStorage
from coterie_node.site.folder import SiteFolder

STATE_COPY, REQUEST = "state-copy", "state-copy.wanted"
_PAUSE_SECONDS = 0.1


def copy_state(home: SiteFolder, journal: Journal) -> None:
    """Copy journal and privacy log into the site's folder `state-copy`, whole or not at all; a former one is replaced.

    StoreFault where the copy cannot be written (CO-C204, CO-C322).
    """
    copy = home.root / STATE_COPY
    shutil.rmtree(copy, ignore_errors=True)
    try:
        _write_copy(home, journal, copy)
    except OSError as error:
        shutil.rmtree(copy, ignore_errors=True)
        message = f"The copy of the state of {home.name} cannot be written to {copy}: {error.strerror or error}"
        raise StoreFault("CO-C204", f"{message}. Check the free space, and that this user may write there.") from None
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _write_copy(home: SiteFolder, journal: Journal, copy: Path) -> None:
    copy.mkdir(mode=0o700)
    if not home.privacy.is_dir():
        journal.copy_to(copy / home.journal.name)
        return
    with FolderStorage(home.privacy).hold():
        journal.copy_to(copy / home.journal.name)
        shutil.copytree(home.privacy, copy / home.privacy.name, ignore=shutil.ignore_patterns(".*.part"))


def answer_request(home: SiteFolder, journal: Journal) -> bool:
    """Make the copy that a command asked for; whether one did. A request whose copy fails is over, too."""
    request = home.root / REQUEST
    if not request.exists():
        return False
    try:
        copy_state(home, journal)
    finally:
        waits = request.exists()
        request.unlink(missing_ok=True)
        if not waits:  # the command has given up, and nobody else would take the copy away
            shutil.rmtree(home.root / STATE_COPY, ignore_errors=True)
    return True


def request_copy(home: SiteFolder, seconds: float) -> None:
    """Ask the daemon for the copy and wait for it; ConfigError (CO-F503) if it does not come in time."""
    request = home.root / REQUEST
    request.touch(mode=0o600)
    deadline = time.monotonic() + seconds
    try:
        while request.exists():
            if time.monotonic() > deadline:
                message = f"The daemon of {home.name} holds the journal and made no copy within {seconds:.0f} s"
                raise ConfigError("CO-F503", f"{message}. It may be in a long step: try again, or stop it first.")
            time.sleep(_PAUSE_SECONDS)
    finally:
        request.unlink(missing_ok=True)
    if not (home.root / STATE_COPY / home.journal.name).exists():
        message = f"The daemon of {home.name} was asked for a copy of its state and made none"
        raise ConfigError("CO-F503", f"{message}. Its log says why: often the disk of {home.root} is full.")
