"""Does the retry of an invalidation delete only what that invalidation covered? Promise 1.

invalidation: NOT_DURABLE | Put: acknowledged | the retry succeeds -> the Put's entry stays
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.core.errors import NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.engine import invalidate
from tests.support.engine.house import EngineHouse
from tests.support.engine.mounts import SmallFilesystem, small_filesystem
from tests.support.refusing_catalog import RefusingCatalog

PERSON = EntryKey("human_upper_body", "alice")
SCOPES = {
    "key": key_scope(PERSON),
    "owner": Scope(ScopeKind.OWNER, "alice"),
    "everything": Scope(ScopeKind.EVERYTHING),
}


@pytest.fixture
def l2_disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    with small_filesystem(tmp_path / "small-l2", 4 << 20) as disk:
        yield disk


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_put_after_an_invalidation_that_was_not_durable_outlives_its_retry(
    closed_house: EngineHouse,
    l2_disk: SmallFilesystem,
    monkeypatch: pytest.MonkeyPatch,
    scope: str,
) -> None:
    house = closed_house
    house.root = l2_disk.path
    house.open()
    monkeypatch.setattr(invalidate, "RETRY_S", 0.05)
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    catalog = RefusingCatalog(house)
    l2_disk.set_read_only(True)
    with pytest.raises(NotDurable):
        await house.cache.invalidate(SCOPES[scope])
    catalog.refuses = False
    l2_disk.set_read_only(False)
    # The retry has not woken yet: nothing is awaited before the Put.
    assert house.cache.levels().unfinished_invalidations == 1
    await house.put(PERSON, 2)
    await house.settle()
    assert house.cache.levels().unfinished_invalidations == 0
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON, may_ask_origin=False) == 2
    await house.restart()
    assert await house.version(PERSON, may_ask_origin=False) == 2


async def test_the_retry_still_removes_what_its_invalidation_covered(
    closed_house: EngineHouse, l2_disk: SmallFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = closed_house
    house.root = l2_disk.path
    house.open()
    monkeypatch.setattr(invalidate, "RETRY_S", 0.01)
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    catalog = RefusingCatalog(house)
    l2_disk.set_read_only(True)
    with pytest.raises(NotDurable):
        await house.cache.invalidate(SCOPES["owner"])
    catalog.refuses = False
    l2_disk.set_read_only(False)
    await house.settle()
    await asyncio.sleep(0)
    house.upload(PERSON, 2)
    await house.restart()
    assert await house.version(PERSON) == 2
