"""One look for changes for all viewers, and accounts that are read again when their file changes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from coterie_node.persons.roles import Person, Role
from coterie_node.web.file_accounts import FileAccounts
from coterie_node.web.live.change_watch import ChangeWatch


class Version:
    """A version that tests set; `reads` counts the looks at it."""

    def __init__(self) -> None:
        self.value, self.reads = (0,), 0

    def read(self) -> tuple[int, ...]:
        self.reads += 1
        return self.value


def test_all_viewers_see_a_change_and_share_the_looks() -> None:
    version = Version()
    watch = ChangeWatch(version.read)

    async def follow() -> int:
        viewers = [asyncio.create_task(watch.wait((0,))) for _ in range(50)]
        await asyncio.sleep(0)
        before = version.reads
        version.value = (1,)
        await asyncio.gather(*viewers)
        return version.reads - before

    assert asyncio.run(follow()) < 5


def test_a_change_before_the_wait_is_seen_at_once_and_one_viewer_leaving_leaves_the_others() -> None:
    version = Version()
    watch = ChangeWatch(version.read)

    async def follow() -> None:
        first, second = (asyncio.create_task(watch.wait((0,))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        version.value = (1,)
        assert await second > 0
        assert await watch.wait((0,)) == 0

    asyncio.run(follow())


def test_viewers_are_called_without_a_change_so_that_sessions_are_looked_at_also_in_another_loop() -> None:
    watch = ChangeWatch(Version().read)
    for _ in range(2):
        assert asyncio.run(watch.wait((0,))) > 0


def test_an_account_that_is_taken_away_or_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    accounts, ada = FileAccounts(path), Person("ada", "Ada", frozenset({Role.READ}))
    accounts.save("ada", "Ada", (Role.READ,), "a long password of hers")
    long_ago = time.time_ns() - 10_000_000_000
    os.utime(path, ns=(long_ago, long_ago))
    for _ in range(2):
        assert accounts.refresh(ada) == ada
    FileAccounts(path).save("ada", "Ada", (Role.AUDIT,), "a long password of hers")
    assert accounts.refresh(ada) == Person("ada", "Ada", frozenset({Role.AUDIT}))
    path.unlink()
    assert accounts.refresh(ada) is None
