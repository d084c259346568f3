"""A command says when the daemon that carries it out is of another release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import pytest

from coterie_node.site.config import ApiPart
from coterie_node.site.watch.api import HttpApi
from coterie_node.site.watch.health import Health
from coterie_node.upgrade.running_version import describe_other_release


@contextmanager
def run_api(release: str) -> Iterator[ApiPart]:
    """The health page of a daemon of a release."""
    health = Health("north", release)
    with HttpApi("127.0.0.1", 0, "token", health=lambda: health, metrics=bytes, status=list) as api:
        yield ApiPart(port=api.port)


@pytest.mark.parametrize(("release", "says"), [(version("coterie"), False), ("0.1.9", True), ("9.9.9", True)])
def test_another_release_of_the_running_daemon_is_named(release: str, says: bool) -> None:
    with run_api(release) as api:
        sentence = describe_other_release(api)
    assert bool(sentence) is says
    assert (release in sentence) is says


def test_no_daemon_and_a_port_that_is_free_to_choose_say_nothing() -> None:
    with run_api("0.1.9") as api:
        pass
    assert describe_other_release(api) == ""
    assert describe_other_release(ApiPart(port=0)) == ""
