"""Firth's penalty for a binary outcome with the logit link, where rows never leave their sites.

Firth, Biometrika 1993;80:27-38; Heinze and Schemper, Stat Med 2002;21:2409-2419. The penalised score adds h (1/2 - mu)
to each residual, h being the row's leverage w v x' I^-1 x. The pooled information I is known to all: each site computes
the leverages of its own rows. So each step takes two rounds at the same coefficients: in the first the sites sum I.
"""

from __future__ import annotations

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.rounds import Model


def correct_score(model: Model, rows: Rows, frame: Frame, last: Payload) -> Array:
    """What the penalty adds to a site's score (p,) at the coefficients of a server's post; nothing before the first."""
    out = np.zeros(model.p)
    if not (last.get("fresh", False) or last.get("rests", False)):
        return out
    inverse = np.linalg.inv(symmetric(last["information"], model.p))

    def correct_block(block: Block) -> Array:
        here = model.weigh(frame.block(block))
        eta = here.x @ last["beta"] if here.offset is None else here.x @ last["beta"] + here.offset
        parts = model.family.parts(eta, here.y)
        own = np.ones(len(here)) if here.weight is None else here.weight
        leverage = own * parts.weight * np.sum((here.x @ inverse) * here.x, axis=1)
        return np.asarray(here.x.T @ (leverage * (0.5 - parts.mean)))

    for part in over_blocks(correct_block, rows):
        out = out + part
    return out
