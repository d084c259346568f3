"""The protocols of the other papers in miniature: the shapes that a learner may have, with the truth they must reach.

Enough mathematics to equal the pooled fit, and nothing of what makes those protocols safe. `SHAPES` are run by the
machines alone (test_protocol) and by runners over the ledger's rules (test_runner).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from support.learners.cohorts import Array

from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Channel, Posts, Script, Site, each, interactive, only, server
from coterie_learners.study.document import LearnerChoice, Schedule, Study, Variable
from coterie_learners.study.rows import ArrayRows, Rows, join_blocks

TOLERANCE = 1e-12


@dataclass(frozen=True)
class ScriptCase:
    """A script with its schedule, rows, and what `pick` of all sites' results must be."""

    script: Callable[[Site], Script]
    schedule: Schedule
    rows: Mapping[str, Rows]
    pick: Callable[[Mapping[str, Any]], Array]
    truth: Array


def study(sites: tuple[str, ...]) -> Study:
    """A study of these sites; the scripts here look at nothing else in it."""
    return Study(
        name="shape",
        sites=sites,
        formula="y ~ 1",
        variables={"y": Variable(type="binary")},
        learner=LearnerChoice(name="shape", version="1"),
    )


def pooled(x: Array, y: Array) -> Array:
    """Logistic regression by Newton's method on all rows."""
    beta = np.zeros(x.shape[1])
    for _ in range(40):
        mu = 1 / (1 + np.exp(-(x @ beta)))
        beta = beta + np.linalg.solve((x.T * (mu * (1 - mu))) @ x, x.T @ (y - mu))
    return beta


def newton(z: Array, y: Array, gamma: Array) -> tuple[Array, bool]:
    mu = 1 / (1 + np.exp(-(z @ gamma)))
    move = np.linalg.solve((z.T * (mu * (1 - mu))) @ z, z.T @ (y - mu))
    return gamma + move, bool(np.abs(move).max() < TOLERANCE)


# VERTIGO: thin factors once, dual rounds by the server alone, each site ends with its own part


def vertigo(site: Site) -> Script:
    factors = yield from each("factor", factor)
    state = yield from server("start", start, factors)
    for t in range(20):
        state = yield from server(f"dual/{t}", dual, factors, state)
        if state["converged"]:
            break
    parts = yield from each("part", part, factors, state)
    return np.concatenate([p["beta"] for p in parts.values()])


def factor(site: Site) -> Payload:
    block = join_blocks(site.rows)
    return {"q": np.linalg.qr(block.x)[0], "y": block.y}


def start(factors: Posts) -> Payload:
    return {"gamma": np.zeros(sum(f["q"].shape[1] for f in factors.values()))}


def dual(factors: Posts, state: Payload) -> Payload:
    z = np.hstack([f["q"] for f in factors.values()])
    gamma, converged = newton(z, next(iter(factors.values()))["y"], state["gamma"])
    return {"gamma": gamma, "converged": np.bool_(converged)}


def part(site: Site, factors: Posts, state: Payload) -> Payload:
    at = 0
    for name, f in factors.items():
        width = f["q"].shape[1]
        if name == site.name:
            r = np.linalg.qr(join_blocks(site.rows).x)[1]
            return {"beta": np.linalg.solve(r, state["gamma"][at : at + width])}
        at += width
    raise AssertionError(site.name)


# VALORIS: factors sealed to the response node, answers sealed to each covariate node


def valoris(site: Site) -> Script:
    response, *covariate = site.study.sites
    factors = {}
    for name in covariate:
        factors[name] = yield from only(name, f"factor/{name}", factor, readers=(response,))
    answers = {}
    for name in covariate:
        answers[name] = yield from only(response, f"answer/{name}", answer, factors, name, readers=(name,))
    if site.name not in answers or site.data is None:
        return None
    return np.linalg.solve(np.linalg.qr(join_blocks(site.rows).x)[1], answers[site.name]["gamma"])


def answer(site: Site, factors: Posts, name: str) -> Payload:
    z = np.hstack([f["q"] for f in factors.values()])
    gamma, converged = np.zeros(z.shape[1]), False
    while not converged:
        gamma, converged = newton(z, join_blocks(site.rows).y, gamma)
    at = 0
    for other, f in factors.items():
        if other == name:
            return {"gamma": gamma[at : at + f["q"].shape[1]]}
        at += f["q"].shape[1]
    raise AssertionError(name)


# COLA: one table each, one fit; and its secure form, with a key holder


def cola(site: Site) -> Script:
    tables = yield from each("table", table)
    fitted = yield from server("fit", lambda t: fit(sum(p["n"] for p in t.values()), sum_of(t, "s")), tables)
    return fitted["beta"]


def secure_cola(site: Site) -> Script:
    holder = site.study.sites[1]
    yield from only(holder, "commitment", commitment)
    ciphers = yield from each("cipher", cipher, holder)
    summed = yield from server("sum", lambda c: {"c": sum_of(c, "c")}, ciphers)
    opened = yield from only(holder, "opened", opening, summed)
    fitted = yield from server("fit", lambda o: fit(o["t"][:8], o["t"][8:]), opened)
    return fitted["beta"]


def sum_of(posts: Posts, name: str) -> Array:
    return np.asarray(np.sum([p[name] for p in posts.values()], axis=0))


def table(site: Site) -> Payload:
    block = join_blocks(site.rows)
    code = (block.x[:, 1:] @ [1, 2, 4]).astype(int)
    return {"n": np.bincount(code, minlength=8), "s": np.bincount(code, block.y, minlength=8).astype(np.int64)}


def fit(n: Array, s: Array) -> Payload:
    x = np.c_[np.ones(8), (np.arange(8)[:, None] >> np.arange(3)) & 1].astype(float)
    beta = np.zeros(4)
    for _ in range(40):
        mu = 1 / (1 + np.exp(-(x @ beta)))
        beta = beta + np.linalg.solve((x.T * (n * mu * (1 - mu))) @ x, x.T @ (s - n * mu))
    return {"beta": beta}


def commitment(site: Site) -> Payload:
    """The holder's lasting secret, from its private memory, and what it commits to."""
    secret = site.keep("pad", lambda: site.stream("pad", 128))
    return {"c": np.frombuffer(hmac.digest(secret, b"commit", "sha256"), np.uint8)}


def cipher(site: Site, holder: str) -> Payload:
    own = table(site)
    values = np.concatenate([own["n"], own["s"]]).astype(np.uint64)
    if site.name == holder:
        return {"c": values + np.frombuffer(site.keep("pad", lambda: b""), np.uint64)}
    return {"c": values + pad(site, holder)}


def pad(site: Site, peer: str) -> Array:
    return np.frombuffer(site.mask(peer, "cipher", 128), np.uint64)


def opening(site: Site, summed: Payload) -> Payload:
    total = summed["c"] - np.frombuffer(site.keep("pad", lambda: b""), np.uint64)
    for peer in site.parties:
        if peer != site.name:
            total = total - pad(site, peer)
    return {"t": total.astype(np.int64)}


# A secure join: tags sealed to a helper, matches sealed back, and a product computed off the ledger


def join(site: Site) -> Script:
    a, b, helper = site.study.sites
    tags_a = yield from only(a, "tags/a", tags, b, readers=(helper,))
    tags_b = yield from only(b, "tags/b", tags, a, readers=(helper,))
    match_a = yield from only(helper, "match/a", matches, tags_a, tags_b, readers=(a,))
    match_b = yield from only(helper, "match/b", matches, tags_b, tags_a, readers=(b,))
    mine = {a: match_a, b: match_b}.get(site.name)
    opened = yield from interactive("product", product, mine)
    return opened["product"]


def tags(site: Site, peer: str) -> Payload:
    ids = join_blocks(site.rows).x[:, 0].astype(int).tolist()
    return {"tag": np.array([hmac.digest(site.shared[peer], str(i).encode(), "sha256")[:16].hex() for i in ids], "S32")}


def matches(site: Site, own: Payload, other: Payload) -> Payload:
    where = {tag: k for k, tag in enumerate(own["tag"].tolist())}
    common = sorted(where.keys() & set(other["tag"].tolist()))
    return {"rows": np.array([where[tag] for tag in common], np.int64)}


def product(site: Site, channel: Channel, match: Payload | None) -> Payload:
    """Toy product with a helper's triple (Beaver 1991); shares modulo 2^64."""
    a, b, helper = site.study.sites
    if site.name == helper:
        size = int.from_bytes(channel.receive(a), "little")
        u, v, w = (words(site.stream(f"triple/{k}", 8 * size)) for k in range(3))
        channel.send(a, u.tobytes() + w.tobytes())
        channel.send(b, v.tobytes() + (u * v - w).tobytes())
        return {"product": words(channel.receive(a)).astype(np.int64)}
    assert match is not None
    x = join_blocks(site.rows).x[match["rows"], 1].astype(np.int64).astype(np.uint64)
    other = b if site.name == a else a
    if site.name == a:
        channel.send(helper, len(x).to_bytes(8, "little"))
    got = words(channel.receive(helper))
    u, w = got[: len(x)], got[len(x) :]
    channel.send(other, (x - u).tobytes())
    e = words(channel.receive(other))
    share = (w + u * e + ((x - u) * e if site.name == a else np.uint64(0))).sum(dtype=np.uint64)
    channel.send(other, share.tobytes())
    opened = words(share.tobytes()) + words(channel.receive(other))
    if site.name == a:
        channel.send(helper, opened.tobytes())
    return {"product": opened.astype(np.int64)}


def words(data: bytes) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.frombuffer(data, np.uint64)


# Their rows


def _vertical() -> tuple[Array, Array]:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(150, 6))
    return z, (rng.random(150) < 1 / (1 + np.exp(-(z @ [0.5, -0.4, 0.3, 0.2, -0.6, 0.1])))).astype(float)


def _binary() -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x = np.c_[np.ones(300), rng.integers(0, 2, (300, 3))].astype(float)
    return x, (rng.random(300) < 1 / (1 + np.exp(-(x @ [-0.5, 0.8, -0.6, 0.4])))).astype(float)


def _ids(seed: int, count: int) -> Array:
    ids = np.random.default_rng(seed).permutation(60)[:count]
    return np.column_stack([ids, ids * 7 - 100]).astype(float)


Z, YZ = _vertical()
X, Y = _binary()
LEFT, RIGHT = _ids(1, 40), _ids(2, 35)
COMMON = np.intersect1d(LEFT[:, 0], RIGHT[:, 0])
EMPTY = ArrayRows(np.zeros((1, 1)), np.zeros(1))
THIRDS = {name: ArrayRows(X[k::3], Y[k::3]) for k, name in enumerate("abc")}

SCRIPT_CASES = {
    "vertigo": ScriptCase(
        vertigo,
        Schedule(opening=("each", "server"), loop=("server",), closing=("each",), max_rounds=20),
        {"a": ArrayRows(Z[:, :2], YZ), "b": ArrayRows(Z[:, 2:5], YZ), "c": ArrayRows(Z[:, 5:], YZ)},
        lambda results: np.asarray(results["b"]),
        pooled(Z, YZ),
    ),
    "valoris": ScriptCase(
        valoris,
        Schedule(opening=("only:a", "only:b", "only:r", "only:r")),
        {"r": ArrayRows(np.zeros((150, 1)), YZ), "a": ArrayRows(Z[:, :3], YZ), "b": ArrayRows(Z[:, 3:], YZ)},
        lambda results: np.concatenate([results["a"], results["b"]]),
        pooled(Z, YZ),
    ),
    "cola": ScriptCase(
        cola, Schedule(opening=("each", "server")), THIRDS, lambda results: np.asarray(results["c"]), pooled(X, Y)
    ),
    "secure cola": ScriptCase(
        secure_cola,
        Schedule(opening=("only:b", "each", "server", "only:b", "server")),
        THIRDS,
        lambda results: np.asarray(results["a"]),
        pooled(X, Y),
    ),
    "join": ScriptCase(
        join,
        Schedule(opening=("only:a", "only:b", "only:h", "only:h", "each")),
        {"a": ArrayRows(LEFT, np.zeros(40)), "b": ArrayRows(RIGHT, np.zeros(35)), "h": EMPTY},
        lambda results: np.asarray(results["h"], float),
        np.array([float(((COMMON * 7 - 100) ** 2).sum())]),
    ),
}
