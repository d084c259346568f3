"""Runs of one process that have sessions of their own, as studies on a ledger have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from coterie_learners.core.protocol import Site
from coterie_node.run import simulate as simulation


@contextmanager
def run_in_own_session(name: object) -> Iterator[None]:
    """Everything that is simulated inside is a session of this name."""
    make_site = simulation.site_of

    def make_new_site(*args: Any) -> Site:
        of, site, rows, keys, entries, session, *more = args
        return make_site(of, site, rows, keys, entries, f"{session}/{name}", *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "site_of", make_new_site)
        yield
