"""RabbitMQ and Redis on free ports of this machine's loopback, for the time of an experiment.

They are the programs of Debian's packages rabbitmq-server and redis-server, as this user, in a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.programs.ports import find_free_port

# Debian's wrapper in /usr/sbin changes the user; this is the program itself.
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
# Erlang and its applications start in two to ten seconds.
_START = 90.0


@contextmanager
def run_redis_server() -> Iterator[str]:
    """A Redis server that keeps nothing on the disk; its address."""
    _require(shutil.which("redis-server"), "redis-server")
    port = find_free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder, _run(command, Path(folder), {}):
        _await_port(port, "redis-server")
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def run_rabbitmq() -> Iterator[str]:
    """A RabbitMQ server with a port mapper of its own; its address."""
    _require(RABBITMQ.exists(), "rabbitmq-server")
    port, mapper, distribution = find_free_port(), find_free_port(), find_free_port()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        settings = {
            "HOME": text,
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"coterie{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": text,
            "RABBITMQ_LOG_BASE": text,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        }
        (folder / "plugins").write_text("[].\n")
        with _run(["epmd", "-address", "127.0.0.1", "-port", str(mapper)], folder, {}):
            _await_port(mapper, "epmd")
            with _run([str(RABBITMQ)], folder, settings):
                _await_port(port, "rabbitmq-server")
                yield f"amqp://127.0.0.1:{port}"


@contextmanager
def _run(command: list[str], folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | settings)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _require(program: object, package: str) -> None:
    if not program:
        remedy = f"Install Debian's package {package}, or name a broker's address"
        raise LedgerUnreachable("CO-C363", f"There is no {package} on this machine. {remedy}.")


def _await_port(port: int, name: str) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise LedgerUnreachable("CO-C364", f"{name} does not answer at port {port} within {_START:.0f} s. Look at its log.")
