"""A PostgreSQL server of Debian in a temporary folder, for tests of SQL sources."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "not a secret: of a test"
PATIENCE = 60.0


def find_programs() -> Path | None:
    """The folder with initdb and postgres, if Debian's server is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@dataclass(frozen=True)
class Postgres:
    """A running server: its address without a password, and the folder of its sockets."""

    address: str
    folder: Path
    user: str

    def run(self, script: str) -> None:
        """Run statements as the administrator."""
        words = ["psql", "-v", "ON_ERROR_STOP=1", "-q", self.address]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run(
            words, input=script, text=True, check=True, env=environment, capture_output=True, timeout=PATIENCE
        )


@contextmanager
def start_postgres(programs: Path) -> Iterator[Postgres]:
    """Start a server on a free port of this machine, and end it; as the user postgres where the tests run as root."""
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="coterie-pg-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    if os.getuid() == 0:
        shutil.chown(folder, user)
        shutil.chown(secret, user)
    owner = user if os.getuid() == 0 else None
    words = f"{programs}/initdb -D {folder}/data -U admin -A scram-sha-256 --pwfile {secret} -N"
    subprocess.run(words.split(), check=True, capture_output=True, timeout=PATIENCE, user=owner, cwd=folder)
    words = f"{programs}/postgres -D {folder}/data -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        [*words.split(), "-c", "listen_addresses=127.0.0.1"], stdout=quiet, stderr=quiet, user=owner, cwd=folder
    )
    try:
        _await_server(port)
        yield Postgres(f"postgresql://admin@127.0.0.1:{port}/postgres", folder, user)
    finally:
        server.terminate()
        server.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


def _await_server(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)
        else:
            return
