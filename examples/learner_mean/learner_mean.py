"""The mean of an outcome over all sites, as an example of a learner.

Each site posts three sums of its own rows; the server of the turn divides, and every site divides again and compares.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coterie.sdk import (
    Disclosure,
    Exposure,
    Field,
    Fit,
    Frozen,
    Learner,
    Payload,
    Schedule,
    Schema,
    Script,
    Site,
    StepDisclosure,
    Study,
    conclude,
    conclude_disclosure,
    each,
    join_blocks,
    server,
)

SUMS = Schema({"n": Field("<i8"), "sum": Field("<f8"), "square": Field("<f8")})
WHAT = "The number of rows, the sum of the outcome, and the sum of its squares"


def mean(site: Site) -> Script:
    """The protocol, from the first step to the result."""
    posts = yield from each("sums", sum_rows, expects=SUMS, reveals=expose)
    model = yield from server("mean", divide, posts)
    yield from conclude()
    return describe(model)


def sum_rows(site: Site) -> Payload:
    """What leaves a site."""
    y = join_blocks(site.rows).y
    return {"n": len(y), "sum": float(y.sum()), "square": float(y @ y)}


def expose(site: Site, payload: Payload) -> Exposure:
    """What its readers can solve from it: of an outcome of 0 and 1 the sum counts patients."""
    n, total = int(payload["n"]), float(payload["sum"])
    cells = {"events": round(total), "others": n - round(total)} if total == float(payload["square"]) else {}
    return Exposure(WHAT, rows=n, cells=cells, kinds=dict.fromkeys(cells, "patients by outcome"))


def divide(posts: Mapping[str, Payload]) -> Payload:
    """What the server posts: the pooled mean and the variance of it."""
    n, total, square = (sum(post[name] for post in posts.values()) for name in ("n", "sum", "square"))
    return {"mean": total / n, "variance": (square / n - (total / n) ** 2) / n, "n": n}


def describe(model: Payload) -> Fit:
    """The result as every learner gives it."""
    return Fit(
        learner="mean",
        family="gaussian",
        link="identity",
        terms=("mean",),
        estimates=np.array([float(model["mean"])]),
        covariance=np.array([[float(model["variance"])]]),
        n=int(model["n"]),
        events=None,
        rounds=1,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=0.0,
        null_deviance=None,
        log_likelihood=None,
    )


def disclose(study: Study) -> Disclosure:
    """Who reads what, and what everybody learns."""
    mean_step = StepDisclosure("mean", "server", "The pooled mean")
    steps = (StepDisclosure("sums", "each", WHAT), mean_step, conclude_disclosure())
    return Disclosure(steps, (), ("Everybody learns the mean of the outcome, and its standard error.",))


MEAN = Learner(
    name="mean",
    version="1.0.0",
    options=Frozen,
    check=lambda study: None,
    schedule=lambda study: Schedule(opening=("each", "server"), closing=("server",)),
    script=mean,
    discloses=disclose,
)
