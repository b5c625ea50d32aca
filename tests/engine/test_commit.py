"""Do commits to L2 leave the processors to the misses that callers wait for?

Promises 1, 5 and 8: a commit that is held back is fenced, bounded in time and in bytes, and ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from cachesvc.core.errors import OriginUnavailable
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import key_scope
from cachesvc.engine import commit
from cachesvc.engine.flight import Served
from tests.support.engine.entries import blob_of
from tests.support.engine.gates import Stop
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")
OTHER_GARMENT = EntryKey("garment", "coat")


@pytest.fixture
def never_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the limit of time for holding back, so that no test depends on its own speed."""
    monkeypatch.setattr(commit, "MAX_HELD_BACK_S", 3600.0)


def reading(house: EngineHouse, key: EntryKey) -> str:
    return f"origin {house.object_keys(key)[0]}"


async def person_at_the_origin(house: EngineHouse) -> tuple[Stop, asyncio.Task[Served]]:
    """Begin a miss that hangs at the origin; upload the garment for a second miss."""
    house.upload(PERSON, 1)
    house.upload(GARMENT, 1)
    at_origin = house.gates.stop(reading(house, PERSON))
    person = asyncio.create_task(house.get(PERSON))
    await at_origin.reached()
    return at_origin, person


async def until_pending(house: EngineHouse) -> None:
    while not house.engine.pending_commit_bytes:
        await asyncio.sleep(0)


async def test_a_commit_begins_only_when_the_misses_under_way_are_answered(
    house: EngineHouse, never_too_late: None
) -> None:
    house.upload(PERSON, 1)
    house.upload(GARMENT, 1)
    at_origin = house.gates.stop(reading(house, PERSON))
    writing = [house.gates.stop("l2_write"), house.gates.stop("l2_write")]
    happened: list[str] = []

    async def note(work: Awaitable[object], what: str) -> None:
        await work
        happened.append(what)

    answered = asyncio.create_task(note(house.get(PERSON), "answered"))
    await at_origin.reached()
    await house.get(GARMENT)
    await until_pending(house)
    began = asyncio.create_task(note(writing[0].reached(), "began to write"))
    at_origin.release()
    await asyncio.gather(answered, began)
    assert happened == ["answered", "began to write"]
    house.gates.release_all()
    await house.settle()
    assert len(house.files()) == 2


async def test_a_miss_that_hangs_holds_a_commit_back_for_a_while_only(house: EngineHouse) -> None:
    _, person = await person_at_the_origin(house)
    stored = house.gates.stop("l2_written")
    await house.get(GARMENT)
    await stored.reached()
    assert not person.done()
    assert len(house.files()) == 1


async def test_a_miss_whose_callers_have_left_holds_no_commit_back(
    house: EngineHouse, never_too_late: None
) -> None:
    _, person = await person_at_the_origin(house)
    stored = house.gates.stop("l2_written")
    person.cancel()
    await asyncio.gather(person, return_exceptions=True)
    await house.get(GARMENT)
    await stored.reached()
    assert len(house.files()) == 1


@pytest.mark.parametrize("end", ["fails", "is invalidated"])
async def test_a_miss_without_a_result_frees_the_commits_it_held_back(
    house: EngineHouse, never_too_late: None, end: str
) -> None:
    at_origin, person = await person_at_the_origin(house)
    stored = house.gates.stop("l2_written")
    await house.get(GARMENT)
    await until_pending(house)
    if end == "fails":
        away = OriginUnavailable("away", reason="ORIGIN_UNREACHABLE")
        house.origin.errors[house.object_keys(PERSON)[0]] = away
        at_origin.release()
    else:
        # The caller asks again after the invalidation; that fill must not write the file sought
        # below.
        house.gates.stop(reading(house, PERSON))
        await house.cache.invalidate(key_scope(PERSON))
    await stored.reached()
    assert [GARMENT.id in str(path) for path in house.files()] == [True]
    house.gates.release_all()
    await asyncio.gather(person, return_exceptions=True)


async def test_an_entry_invalidated_while_it_is_held_back_is_never_written(
    house: EngineHouse, never_too_late: None
) -> None:
    # A: lands, waits for B's answer | C: invalidates A, answers | B: answered | A: ends
    at_origin, person = await person_at_the_origin(house)
    await house.get(GARMENT)
    await until_pending(house)
    await house.cache.invalidate(key_scope(GARMENT))
    at_origin.release()
    await person
    await house.settle()
    assert house.catalog.lookup(GARMENT) is None
    assert [PERSON.id in str(path) for path in house.files()] == [True]
    assert house.metrics.value("disk_written_bytes") == house.files()[0].stat().st_size
    assert house.engine.pending_commit_bytes == 0


async def test_what_is_held_back_counts_as_pending_and_is_bounded(
    closed_house: EngineHouse, never_too_late: None
) -> None:
    house = closed_house
    size_bytes = len(blob_of(house.kinds.of(GARMENT.namespace), 1))
    house.open(max_pending_bytes=size_bytes)
    for key in (PERSON, GARMENT, OTHER_GARMENT):
        house.upload(key, 1)
    at_origin = house.gates.stop(reading(house, PERSON))
    person = asyncio.create_task(house.get(PERSON))
    await at_origin.reached()
    await house.get(GARMENT)
    await until_pending(house)
    assert house.engine.pending_commit_bytes == size_bytes
    await house.get(OTHER_GARMENT)
    while house.engine.flights.is_filling(OTHER_GARMENT):
        await asyncio.sleep(0)
    assert house.metrics.value("disk_rejections") == 1
    at_origin.release()
    await person
    await house.settle()
    assert house.catalog.lookup(GARMENT) is not None
    assert house.catalog.lookup(OTHER_GARMENT) is None


async def test_a_drain_stores_what_was_held_back(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    house.upload(GARMENT, 1)
    at_origin = house.gates.stop(reading(house, PERSON))
    person = asyncio.create_task(house.get(PERSON))
    await at_origin.reached()
    await house.get(GARMENT)
    await until_pending(house)
    draining = asyncio.create_task(house.cache.drain(20.0))
    at_origin.release()
    await draining
    await person
    assert len(house.files()) == 2
