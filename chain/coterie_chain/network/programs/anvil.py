"""Anvil: a development chain of one process, without consensus.

Everybody who reaches its port can write anything, so it proves nothing between sites. It is for demos, tests and kept
chains. Blocks are mined as transactions arrive, gas costs nothing and accounts need no ether.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pydantic_core import from_json

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.ethereum.rpc import Rpc, read_newest_block
from coterie_chain.network.programs.ports import LOOPBACK, find_free_port, read_ports, reserve_ports
from coterie_chain.network.programs.service import Service, explain_early_end

_CHAIN_ID = 20240
BINARY = "COTERIE_ANVIL"
# State snapshots, not blocks or logs: without the limit Anvil spills them into the user's home.
SNAPSHOTS = "128"
OPTIONS = ("--hardfork", "london", "--base-fee", "0", "--gas-price", "0", "--silent", "--prune-history", SNAPSHOTS)
_READY_TIMEOUT = 20.0
_STOP_TIMEOUT = 30.0
_ATTEMPTS = 3
COPIES = 10


class Anvil:
    """A running Anvil at `url`, ended by `close` or at the end of a `with` block.

    With `state` the chain is kept in that file: read at the start if it exists, written every second and at the end.
    With `frozen` it is only read, and whatever is written to the chain is lost.
    """

    def __init__(
        self,
        state: str | Path | None = None,
        *,
        frozen: bool = False,
        port: int | None = None,
        block_time: float | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self._binary = find_anvil()
        self._scratch = Path(tempfile.mkdtemp(prefix="coterie-anvil-"))
        block_time_options = ("--block-time", str(block_time)) if block_time else ()
        try:
            arguments = (
                *OPTIONS,
                "--chain-id",
                str(_CHAIN_ID),
                *block_time_options,
                *self._build_state_options(state, frozen),
                *options,
            )
            self._process, self.url = self._start(arguments, port)
            if "--timestamp" in arguments:
                _set_clock(self.url)
        except BaseException:
            shutil.rmtree(self._scratch)
            raise
        # Nobody else would end a process that was never closed.
        self._finish = weakref.finalize(self, _finish, self._process, self._scratch)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def kill(self) -> None:
        """End the process as a power cut would: nothing more is written."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and wait until a kept chain is in its file."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _build_state_options(self, state: str | Path | None, frozen: bool) -> tuple[str, ...]:
        if state is None:
            return ()
        if not frozen:
            _restore(Path(state))
            return ("--state", str(state), "--state-interval", "1", *_build_genesis_option(Path(state)))
        # Anvil gets a copy, so that the file cannot be changed and may belong to a running chain.
        copy = self._scratch / "state.json"
        _copy_readable(Path(state), copy)
        return ("--load-state", str(copy), *_build_genesis_option(copy))

    def _start(self, arguments: tuple[str, ...], port: int | None) -> tuple[subprocess.Popen[bytes], str]:
        for attempt in range(_ATTEMPTS):
            chosen = find_free_port(port or 0)
            command: list[str | Path] = [self._binary, "--host", LOOPBACK, "--port", str(chosen), *arguments]
            with (self._scratch / f"stderr-{attempt}").open("w+b") as log:
                # A session of its own: Ctrl-C at the terminal reaches the sites first, which then end this process.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
                url = f"http://{LOOPBACK}:{chosen}"
                if _await_ready(process, url):
                    return process, url
                log_text = _read_log(log)
            # Another process may have taken the port since it was found free.
            if port is not None or "address already in use" not in log_text.lower():
                break
        raise LedgerUnreachable("CO-C332", f"Anvil ended (code {process.poll()}) before it answered: {log_text}")


class AnvilChain:
    """The chain of a development network as one Anvil for all sites; a Launcher of `devnet`."""

    note = "Anvil is a development chain: one process with public powers, not tamper-evident between sites."
    confirmations = 0

    def __init__(self, root: Path, sites: Sequence[str], period: int | None = None, sleep: bool = False) -> None:
        if sleep:
            raise StoreFault(
                "CO-C338", "Anvil makes blocks on demand, and has no sealer that sleeps. Leave out --sleep."
            )
        self._folder, self._state = root / "chain", root / "chain" / "state.json"
        self._period = period

    def prepare(self, funded: Sequence[str]) -> None:
        """Nothing: on Anvil gas costs nothing, and blocks come at once."""

    def start(self) -> None:
        """Start Anvil unless it runs, on the port that it had or another one."""
        if (service := self._build_service(self._read_port())).pid is not None:
            return
        _restore(self._state)
        port = reserve_ports(self._ports, ("rpc",))["rpc"]
        service = self._build_service(port)
        service.start()
        with Rpc(self.url(""), timeout=_READY_TIMEOUT) as rpc:
            _await_answer(service, rpc)
        if _build_genesis_option(self._state):
            _set_clock(self.url(""))

    def stop(self) -> None:
        """End Anvil; the chain stays in its file."""
        self._build_service(self._read_port()).stop()

    def services(self) -> dict[str, Service]:
        """The one process of all sites."""
        return {"all": self._build_service(self._read_port())}

    def url(self, site: str) -> str:
        """Address of the chain's node, the same for every site."""
        return f"http://{LOOPBACK}:{self._read_port()}"

    def facts(self, site: str) -> dict[str, int]:
        """The newest block."""
        return read_newest_block(self.url(site))

    @contextmanager
    def open_reader(self) -> Iterator[str]:
        """Address of a node that holds the chain as it is in its file, and takes nothing."""
        with Anvil(self._state, frozen=True) as anvil:
            yield anvil.url

    @property
    def _ports(self) -> Path:
        return self._folder / "ports.json"

    def _read_port(self) -> int:
        return read_ports(self._ports).get("rpc", 0)

    def _build_service(self, port: int) -> Service:
        state_options = ("--state", str(self._state), "--state-interval", "1", *_build_genesis_option(self._state))
        paced = ("--block-time", str(self._period)) if self._period else ()
        own = ("--host", LOOPBACK, "--port", str(port), "--chain-id", str(_CHAIN_ID))
        return Service("anvil", self._folder, find_anvil, (*own, *OPTIONS, *state_options, *paced))


def _await_answer(service: Service, rpc: Rpc) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT
    while True:
        try:
            rpc.call("eth_chainId")
            return
        except LedgerUnreachable:
            if service.pid is None or time.monotonic() > deadline:
                raise explain_early_end(service) from None
            time.sleep(0.02)


def _restore(state: Path) -> None:
    """Anvil rewrites its file in place: after a power cut in mid-write, the chain is what it was at its last start."""
    backup = state.with_name(state.name + ".bak")
    if not state.exists():
        state.parent.mkdir(parents=True, exist_ok=True)
    elif _is_readable(state):
        shutil.copyfile(state, backup)
    elif _is_readable(backup):
        shutil.copyfile(backup, state)
    else:
        raise _explain_damage(state)


def _copy_readable(state: Path, copy: Path) -> None:
    for _ in range(COPIES):
        try:
            shutil.copyfile(state, copy)
        except OSError as e:
            raise StoreFault(
                "CO-C331", f"Cannot read the kept chain {state}: {e.strerror or e}. Check its permissions."
            ) from e
        if _is_readable(copy):
            return
        # its owner is writing it
        time.sleep(0.1)
    raise _explain_damage(state)


def _is_readable(state: Path) -> bool:
    return _read(state) is not None


def _read(state: Path) -> dict[str, Any] | None:
    try:
        document = from_json(state.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _build_genesis_option(state: Path) -> tuple[str, ...]:
    """The option that gives a kept chain the first block that it had; Anvil would make another one at each start."""
    document = _read(state) or {}
    headers = [block["header"] for block in document.get("blocks", ())]
    times = [int(header["timestamp"], 16) for header in headers if int(header["number"], 16) == 0]
    return ("--timestamp", str(min(times))) if times else ()


def _set_clock(url: str) -> None:
    """Go by this machine's clock again, which Anvil starts at the first block's time; never back."""
    with Rpc(url) as rpc:
        last = int(rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        rpc.call("evm_setTime", max(int(time.time()), last))


def _explain_damage(state: Path) -> StoreFault:
    return StoreFault(
        "CO-C331", f"The kept chain {state} is damaged or something else. Delete it to begin a new development chain."
    )


def find_anvil() -> Path:
    """Anvil's program: $COTERIE_ANVIL, on the PATH, or where `make setup` puts it in a checkout."""
    named = os.environ.get(BINARY)
    if named:
        if not os.access(named, os.X_OK):
            raise StoreFault("CO-C330", f"{BINARY} does not name a program: {named}. Correct the variable.")
        return Path(named)
    on_path = shutil.which("anvil")
    executable = Path(on_path) if on_path else next((p for p in _list_checkout_binaries() if p.is_file()), None)
    if executable is None:
        raise StoreFault("CO-C330", f"Anvil is not installed. Run `make setup` in a checkout, or set {BINARY}.")
    return executable


def _list_checkout_binaries() -> list[Path]:
    system = {"windows": "win32"}.get(platform.system().lower(), platform.system().lower())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    name = "anvil.exe" if system == "win32" else "anvil"
    inside = Path("contracts", "node_modules", "@foundry-rs", f"anvil-{system}-{machine}", "bin", name)
    here, there = Path(__file__).resolve(), Path.cwd()
    return [folder / inside for folder in (*here.parents, there, *there.parents)]


def _await_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _READY_TIMEOUT
    with Rpc(url, timeout=_READY_TIMEOUT) as rpc:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                rpc.call("eth_chainId")
            except LedgerUnreachable:
                time.sleep(0.005)
            else:
                return process.poll() is None
    _stop_process(process)
    return False


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _finish(process: subprocess.Popen[bytes], scratch: Path) -> None:
    _stop_process(process)
    shutil.rmtree(scratch, ignore_errors=True)


def _read_log(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read(2000).decode(errors="replace").strip() or "it said nothing"
