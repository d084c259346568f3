"""A private Anvil: one process on a free port of this machine, JSON-RPC over HTTP, any address may send."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from coterie_chain.network.programs.ports import find_free_port

ANVIL_CHAIN_ID = 20240
PACKAGES = Path(__file__).resolve().parents[3] / "contracts" / "node_modules" / "@foundry-rs"
OPTIONS = ("--hardfork", "london", "--base-fee", "0", "--gas-price", "0", "--chain-id", str(ANVIL_CHAIN_ID), "--silent")


class RpcError(Exception):
    """Anvil's own no; a transaction that reverts is none."""


class AnvilClient:
    """A running Anvil at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(trust_env=False, timeout=30)

    def rpc(self, method: str, *params: object) -> Any:
        """Answer to one request."""
        return self.batch([(method, params)])[0]

    def batch(self, requests: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        """Answers to requests that do not depend on each other."""
        body = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, (m, p) in enumerate(requests)]
        answers = sorted(self._http.post(self.url, json=body).json(), key=lambda a: a["id"])
        for answer in answers:
            if "error" in answer:
                raise RpcError(answer["error"])
        return [answer["result"] for answer in answers]

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def find_binary() -> Path | None:
    """Anvil as npm installed it for this platform; None before `make setup`."""
    return next(iter(sorted(PACKAGES.glob("anvil-*/bin/anvil*"))), None)


@contextmanager
def run_anvil(program: Path, *options: str) -> Iterator[AnvilClient]:
    """Start Anvil, wait until it answers, and end it afterwards."""
    port = find_free_port()
    process = subprocess.Popen([program, "--host", "127.0.0.1", "--port", str(port), *OPTIONS, *options])
    anvil = AnvilClient(f"http://127.0.0.1:{port}")
    try:
        _await(anvil, process)
        anvil.rpc("anvil_autoImpersonateAccount", True)
        yield anvil
    finally:
        anvil.close()
        process.terminate()
        process.wait()


def _await(anvil: AnvilClient, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        try:
            anvil.rpc("eth_chainId")
            return
        except httpx.TransportError:
            time.sleep(0.01)
    raise RuntimeError(f"Anvil did not start (exit code {process.poll()})")
