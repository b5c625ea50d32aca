"""How long are damaged files and catalogs kept that were set aside, and does an erase reach them?

Promises 1 and 5.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.tiers.quarantine import KEPT_NS
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
OTHER = EntryKey("human_upper_body", "al")
COAT = EntryKey("garment", "coat")
ALL = {PERSON, OTHER, COAT}


async def damage(house: EngineHouse, key: EntryKey) -> None:
    """Damage the entry's file, and let a Get find the damage and fill the entry again."""
    house.upload(key, 1)
    await house.get(key)
    await house.settle()
    house.memory.remove(key, Leaving.BYTES_LIMIT)
    for path in (house.root / key.namespace / key.id).iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    await house.get(key)
    await house.settle()


@pytest.fixture
async def damaged(house: EngineHouse) -> EngineHouse:
    """A house with a quarantined file of each key, and a catalog that was set aside."""
    for key in ALL:
        await damage(house, key)
    for suffix in ("", "-wal", "-shm"):
        (house.state_dir / f"catalog.sqlite.damaged{suffix}").write_bytes(b"names everybody")
    assert quarantined(house) == ALL
    return house


def quarantined(house: EngineHouse) -> set[EntryKey]:
    names = [path.name for path in (house.root / ".quarantine").iterdir()]
    return {EntryKey(*name.split(".")[:2]) for name in names}


def set_aside(house: EngineHouse) -> list[Path]:
    return list(house.state_dir.glob("*.damaged*"))


def scopes(house: EngineHouse) -> dict[str, tuple[Scope, set[EntryKey]]]:
    """Return each scope, and the keys that it leaves in the quarantine. Files name no owner."""
    return {
        "key": (key_scope(PERSON), {OTHER, COAT}),
        "user": (subject_scope(Subject.USER, "alice", house.kinds), {OTHER, COAT}),
        "clothing": (subject_scope(Subject.CLOTHING, "coat", house.kinds), {PERSON, OTHER}),
        "owner": (Scope(ScopeKind.OWNER, "alice"), set()),
        "namespace": (Scope(ScopeKind.NAMESPACE, "garment"), {PERSON, OTHER}),
        "everything": (Scope(ScopeKind.EVERYTHING), set()),
    }


@pytest.mark.parametrize("scope", ["key", "user", "clothing", "owner", "namespace", "everything"])
async def test_an_erase_reaches_the_quarantine_and_a_catalog_set_aside(
    damaged: EngineHouse, scope: str
) -> None:
    erased, left = scopes(damaged)[scope]
    await damaged.cache.invalidate(erased, erase=True)
    assert quarantined(damaged) == left
    assert set_aside(damaged) == []


@pytest.mark.parametrize("scope", ["namespace", "everything"])
async def test_a_purge_reaches_them_too(damaged: EngineHouse, scope: str) -> None:
    purged, left = scopes(damaged)[scope]
    await damaged.cache.invalidate(purged)
    assert quarantined(damaged) == left
    assert set_aside(damaged) == []


async def test_an_invalidation_without_erase_leaves_them_to_be_looked_at(
    damaged: EngineHouse,
) -> None:
    await damaged.cache.invalidate(key_scope(PERSON))
    assert quarantined(damaged) == ALL
    assert len(set_aside(damaged)) == 3


async def test_an_erase_that_cannot_reach_them_is_not_acknowledged(damaged: EngineHouse) -> None:
    path = damaged.state_dir / "catalog.sqlite.damaged"
    path.unlink()
    path.mkdir()  # unlink fails for a directory, also for root
    with pytest.raises(NotDurable) as failed:
        await damaged.cache.invalidate(key_scope(PERSON), erase=True)
    assert failed.value.reason == "ERASE_FAILED"


async def test_they_are_kept_for_seven_days(damaged: EngineHouse) -> None:
    newest_ns = max(path.stat().st_ctime_ns for path in (damaged.root / ".quarantine").iterdir())
    newest_ns = max(newest_ns, *(path.stat().st_ctime_ns for path in set_aside(damaged)))
    oldest_ns = min(path.stat().st_ctime_ns for path in (damaged.root / ".quarantine").iterdir())
    await damaged.disk.step(damaged.clock.read().steady_ns, oldest_ns + KEPT_NS)
    assert quarantined(damaged) == ALL
    assert len(set_aside(damaged)) == 3
    await damaged.disk.step(damaged.clock.read().steady_ns, newest_ns + KEPT_NS + NS_PER_S)
    assert quarantined(damaged) == set()
    assert set_aside(damaged) == []


async def test_the_bytes_of_the_quarantine_count_in_l2(damaged: EngineHouse) -> None:
    now = damaged.clock.read()
    used = damaged.disk.room.occupied_bytes
    await damaged.disk.step(now.steady_ns, now.wall_ns)
    kept = sum(path.stat().st_blocks * 512 for path in (damaged.root / ".quarantine").iterdir())
    assert kept > 0
    assert damaged.disk.room.occupied_bytes == used + kept
    await damaged.cache.invalidate(Scope(ScopeKind.EVERYTHING))
    await damaged.disk.step(now.steady_ns, now.wall_ns)
    assert damaged.disk.room.occupied_bytes == 0


async def test_a_name_that_is_not_ours_stays_in_the_quarantine(damaged: EngineHouse) -> None:
    (damaged.root / ".quarantine" / "notes.txt").touch()
    await damaged.cache.invalidate(Scope(ScopeKind.EVERYTHING), erase=True)
    assert os.listdir(damaged.root / ".quarantine") == ["notes.txt"]
