"""The paper's own inner join (Paillier) on simulated rows: run by `make bench-mpc` with the pinned packages' Python.

    python tno_join.py 50 3

Three parties as processes of this machine, over the package's own HTTP. Prints one line: wall seconds of the slowest.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

import numpy as np
from tno.mpc.communication import Pool
from tno.mpc.encryption_schemes.paillier import Paillier
from tno.mpc.protocols.secure_inner_join import DatabaseOwner, Helper

PORTS = {"alice": 61_401, "bob": 61_402, "henri": 61_403}


def pool_of(me: str) -> Any:
    pool = Pool()
    pool.add_http_server(port=PORTS[me])
    for name, port in PORTS.items():
        if name != me:
            pool.add_http_client(name, "127.0.0.1", port)
    return pool


async def play(me: str, n: int, m: int) -> None:
    pool = pool_of(me)
    if me == "henri":
        await Helper(me, pool).run_protocol()
    else:
        rng = np.random.default_rng(PORTS[me])
        names = np.array([[f"P{k:06d}"] for k in range(n)], dtype=object)
        owner = DatabaseOwner(
            identifier=me,
            pool=pool,
            identifiers=names,
            data=rng.normal(size=(n, m)).round(4),
            feature_names=tuple(f"{me}{j}" for j in range(m)),
            paillier_scheme=Paillier.from_security_parameter(key_length=2048, precision=8),
        )
        await owner.run_protocol()


def party(me: str, n: int, m: int, done: Any) -> None:
    os.setsid()  # the package starts processes of its own, which end with this group
    start = time.perf_counter()

    async def timed() -> None:
        await play(me, n, m)
        done.put(time.perf_counter() - start)
        await asyncio.sleep(600)  # the package's pools do not end by themselves; the parent ends the process

    asyncio.run(timed())


def main(n: int, m: int) -> None:
    logging.disable()
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    crew = [context.Process(target=party, args=(me, n, m, done)) for me in PORTS]
    for process in crew:
        process.start()
    try:
        seconds = max(done.get(timeout=600) for _ in crew)
        print(f"TNO's inner join with Paillier, {n} x {m} at each of two owners: {seconds:.1f} s wall", flush=True)
    finally:
        for process in crew:
            os.killpg(process.pid or 0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
