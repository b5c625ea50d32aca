"""What is acknowledged after a directory was deleted, moved or covered by a mount? Promise 9.

Nothing is acknowledged that a restart would lose. The daemon reports the problem, and works again
once the directory is back.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cachesvc.core.errors import CacheError, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import key_scope
from cachesvc.engine import invalidate
from cachesvc.engine.upkeep import NAMES
from tests.support.engine.house import EngineHouse
from tests.support.engine.mounts import small_filesystem

PERSON = EntryKey("human_upper_body", "alice")
COAT = EntryKey("garment", "coat")
Where = Callable[[EngineHouse], Path]
WHERE: dict[str, Where] = {
    "the state directory": lambda house: house.state_dir,
    "the catalog's file": lambda house: house.state_dir / "catalog.sqlite",
    "the catalog's log": lambda house: house.state_dir / "catalog.sqlite-wal",
    "L2's root": lambda house: house.root,
}


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest) -> Where:
    return WHERE[request.param]


@contextmanager
def moved(path: Path) -> Iterator[None]:
    away = path.with_name(f"{path.name}-away")
    path.rename(away)
    yield
    away.rename(path)


async def is_not_durable(house: EngineHouse) -> bool:
    """Return whether a Put and an invalidation both fail with NotDurable."""
    with pytest.raises(CacheError) as put:
        await house.put(COAT, 3)
    with pytest.raises(CacheError) as removed:
        await house.cache.invalidate(key_scope(PERSON))
    return isinstance(put.value, NotDurable) and isinstance(removed.value, NotDurable)


async def fill(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()


async def test_nothing_is_acknowledged_while_a_name_leads_elsewhere(
    house: EngineHouse, where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidate, "RETRY_S", 0.01)
    await fill(house)
    await house.cache.upkeep.names_step()
    assert house.engine.problems.current() == {}
    with moved(where(house)):
        assert await is_not_durable(house)
        await house.cache.upkeep.names_step()
        assert str(where(house)) in house.engine.problems.current()[NAMES]
    # The directory is back, so the retry succeeds and the problem ends.
    await house.settle()
    await house.cache.upkeep.names_step()
    assert house.engine.problems.current() == {}
    await house.put(COAT, 4)
    house.upload(PERSON, 2)
    await house.restart()
    assert await house.version(PERSON) == 2
    assert await house.version(COAT) == 4


async def test_nothing_is_acknowledged_once_it_was_deleted(
    house: EngineHouse, where: Where
) -> None:
    await fill(house)
    path = where(house)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert await is_not_durable(house)
    await house.cache.upkeep.names_step()
    assert NAMES in house.engine.problems.current()


async def test_a_get_is_served_all_the_same(house: EngineHouse, where: Where) -> None:
    await fill(house)
    with moved(where(house)):
        assert await house.version(PERSON) == 1
        house.upload(COAT, 1)
        assert await house.version(COAT) == 1
        await house.settle()


async def test_a_directory_that_was_made_anew_is_not_the_one_that_was_opened(
    house: EngineHouse,
) -> None:
    shutil.rmtree(house.root)
    house.root.mkdir()
    assert await is_not_durable(house)


async def test_what_a_mount_hides_is_lost_too(house: EngineHouse, tmp_path: Path) -> None:
    await fill(house)
    with small_filesystem(tmp_path / "over", 1 << 20):
        pass
    aside = tmp_path / "state-aside"
    house.state_dir.rename(aside)
    with small_filesystem(house.state_dir, 1 << 20):
        assert await is_not_durable(house)
    house.state_dir.rmdir()
    aside.rename(house.state_dir)
