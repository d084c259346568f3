"""A MariaDB server of Debian in a temporary folder, for tests of SQL sources."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pymysql
from support.node.servers import PASSWORD, PATIENCE, await_answer, choose_user, make_folder, prepare

from coterie_chain.network.programs.ports import find_free_port


def find_mariadb() -> Path | None:
    """The server's program, if Debian's server is installed."""
    path = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    return None if path is None or shutil.which("mariadb-install-db") is None else Path(path)


@dataclass(frozen=True)
class MariaDb:
    """A running server: its address without a password, and its socket."""

    address: str
    port: int
    socket: Path

    def run(self, script: str) -> None:
        """Run statements as the administrator of the database of the tests."""
        with pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True) as connection:
            for statement in script.split(";"):
                if statement.strip():
                    connection.cursor().execute(statement)


@contextmanager
def start_mariadb(program: Path) -> Iterator[MariaDb]:
    """Start a server on a free port of this machine, and end it; as the user mysql where the tests run as root."""
    user = choose_user("mysql")
    folder, port = make_folder("coterie-my-", user), find_free_port()
    common = ["--no-defaults", f"--datadir={folder}/data"]
    owner = ["--auth-root-authentication-method=normal", f"--user={user}", "--skip-test-db"]
    prepare(["mariadb-install-db", *common, *owner])
    words = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/s", f"--user={user}"]
    cheap = [
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-log-bin",
        "--innodb-log-file-size=4M",
        f"--pid-file={folder}/p",
    ]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([str(program), *common, *words, *cheap], stdout=quiet, stderr=quiet)
    try:
        await_answer(lambda: _connect(folder / "s"), "MariaDB")
        running = MariaDb(f"mariadb://reader@127.0.0.1:{port}/hospital", port, folder / "s")
        running.run("CREATE DATABASE hospital")
        running.run(f"CREATE USER reader@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        running.run("GRANT ALL PRIVILEGES ON *.* TO reader@'127.0.0.1'")
        yield running
    finally:
        # Nothing of it is kept, so that it need not end in order.
        server.kill()
        server.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
