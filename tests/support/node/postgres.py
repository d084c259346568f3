"""A PostgreSQL server of Debian in a temporary folder, for tests of SQL sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.node.servers import PASSWORD, PATIENCE, await_answer, choose_user, make_folder, prepare

from coterie_chain.network.programs.ports import find_free_port


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


def _connect(programs: Path, port: int) -> None:
    """OSError until the server takes statements: its port is open before."""
    words = [f"{programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    if subprocess.run(words, check=False, timeout=PATIENCE).returncode != 0:
        raise ConnectionRefusedError


@contextmanager
def start_postgres(programs: Path) -> Iterator[Postgres]:
    """Start a server on a free port of this machine, and end it; as the user postgres where the tests run as root."""
    user = choose_user("postgres")
    folder, port = make_folder("coterie-pg-", user), find_free_port()
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    if os.getuid() == 0:
        shutil.chown(secret, user)
    owner = user if os.getuid() == 0 else None
    words = f"{programs}/initdb -D {folder}/data -U admin -A scram-sha-256 --pwfile {secret} -N"
    prepare(words.split(), user=owner, cwd=folder)
    words = f"{programs}/postgres -D {folder}/data -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        [*words.split(), "-c", "listen_addresses=127.0.0.1"], stdout=quiet, stderr=quiet, user=owner, cwd=folder
    )
    try:
        await_answer(lambda: _connect(programs, port), "PostgreSQL")
        yield Postgres(f"postgresql://admin@127.0.0.1:{port}/postgres", folder, user)
    finally:
        server.terminate()
        server.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)
