"""Ports of this machine for the programs of a development network."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from coterie_chain.errors import LedgerUnreachable

LOOPBACK = "127.0.0.1"
# Below are ports of well-known services; and so many draws before the system chooses.
_LEAST, _DRAWS = 10240, 64
# The first and the last port of outgoing connections, and what Linux has by itself.
_OUTGOING, _USUAL = Path("/proc/sys/net/ipv4/ip_local_port_range"), 32768


def find_free_port(wanted: int = 0) -> int:
    """A port of the loopback address on which nobody listens; LedgerUnreachable if the wanted one is taken."""
    with _bind(wanted) if wanted else _draw() as probe:
        return int(probe.getsockname()[1])


def reserve_ports(path: Path, names: Sequence[str]) -> dict[str, int]:
    """The ports that a file holds, by name; new ones, written to it, if it is not there or one of them is taken."""
    return reserve_for_all((path,), names)[0]


def reserve_for_all(paths: Sequence[Path], names: Sequence[str]) -> list[dict[str, int]]:
    """The same for the files of several sites, none of which gets a port of another one.

    Of 100 ports that are drawn one site after the other, two may be equal.
    """
    with ExitStack() as stack:
        probes: dict[int, socket.socket] = {}
        return [_reserve(path, names, probes, stack) for path in paths]


def _reserve(path: Path, names: Sequence[str], probes: dict[int, socket.socket], stack: ExitStack) -> dict[str, int]:
    """One file's ports; each is kept bound in `probes`, so that no other file gets it."""
    old_ports = read_ports(path)
    if set(old_ports) == set(names) and all(port not in probes and _is_free(port) for port in old_ports.values()):
        probes.update({port: stack.enter_context(_bind(port)) for port in old_ports.values()})
        return old_ports
    bound = [stack.enter_context(_draw()) for _ in names]
    new_ports = {name: int(probe.getsockname()[1]) for name, probe in zip(names, bound, strict=True)}
    probes.update(zip(new_ports.values(), bound, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new_ports, indent=2) + "\n")
    return new_ports


def read_ports(path: Path) -> dict[str, int]:
    """The ports that a file holds, by name; none if there is no such file."""
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_free(port: int) -> bool:
    try:
        return find_free_port(port) == port
    except LedgerUnreachable:
        return False


def _draw() -> socket.socket:
    """A socket on a port that no outgoing connection takes, so that its program can start there again."""
    end = _read_first_outgoing_port()
    for _ in range(_DRAWS if end > _LEAST else 0):
        try:
            return _bind(secrets.choice(range(_LEAST, end)), again=False)
        except LedgerUnreachable:
            continue
    return _bind(0)


def _read_first_outgoing_port() -> int:
    """The first port from which this machine makes connections."""
    try:
        return int(_OUTGOING.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL


def _bind(wanted: int, again: bool = True) -> socket.socket:
    """A socket on a port; `again`: also on one that was left a moment ago, or that another such socket is on."""
    probe = socket.socket()
    if again and os.name == "posix":
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((LOOPBACK, wanted))
    except OSError as e:
        probe.close()
        raise LedgerUnreachable(
            "CO-C332", f"Port {wanted} is not free: {e.strerror}. Choose another port, or end the program that uses it."
        ) from None
    return probe
