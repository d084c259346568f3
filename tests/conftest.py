"""Shared by all tests: none is timed; with COTERIE_NO_SKIPS a skip is a fault unless this machine cannot run it."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Each core has a worker, and threads of BLAS would wait for each other. Set before anything imports numpy. Tests of
# threads set their own number, in a process of their own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A slow machine is no fault: speed is measured in benchmarks.
settings.register_profile("coterie", deadline=None)
settings.load_profile("coterie")

CANNOT = "cannot run here:"
LONGEST_ID = 60


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A short name for a long value: names of tests go into environment variables and messages between workers."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for skips that hide a test which this machine could run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("COTERIE_NO_SKIPS") or reporter is None:
        return
    hidden = [r for r in reporter.stats.get("skipped", []) if CANNOT not in str(r.longrepr)]
    if hidden:
        reporter.write_line(f"{len(hidden)} tests were skipped that this machine could run:", red=True)
        for report in hidden:
            reporter.write_line(f"  {report.nodeid}: {report.longrepr[-1]}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
