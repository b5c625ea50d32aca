"""When is an expired entry served instead of an error, and when never?

Only if the origin could not be asked, only for kinds that allow it, for a bounded time, marked as
stale, and never after an invalidation (promises 1 and 3).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import (
    CacheError,
    ConfigError,
    NoSuchObject,
    OriginDataCorrupt,
    OriginDenied,
    OriginUnavailable,
)
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, DEFAULT_STALE_IF_ERROR_S, HUMAN, Kinds, Subject
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.core.ttl import STEPS
from cachesvc.engine.flight import Served
from tests.support.engine.entries import version_of
from tests.support.engine.gates import Stop
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")
OWNER = "bob"
AWAY = OriginUnavailable("away")


async def expired(house: EngineHouse, key: EntryKey = GARMENT, owner: str = OWNER) -> Served:
    """Put version 1 into L2, and let it expire a second ago."""
    house.upload(key, 1, owner)
    served = await house.get(key, owner)
    await house.settle()
    advance_beyond(house, served.expires_ns, 1)
    return served


def advance_beyond(house: EngineHouse, steady_ns: int, seconds: float) -> None:
    house.clock.advance((steady_ns - house.clock.read().steady_ns) / NS_PER_S + seconds)


def fail(
    house: EngineHouse, error: CacheError, key: EntryKey = GARMENT, owner: str = OWNER
) -> None:
    for object_key in house.object_keys(key, owner):
        house.origin.errors[object_key] = error


async def hang(house: EngineHouse, asker: str) -> tuple[asyncio.Task[Served], list[Stop]]:
    """Start a Get whose reads all hang; it fails once all stops are released."""
    fail(house, AWAY, owner=asker)
    stops = [house.gates.stop(f"origin {key}") for key in house.object_keys(GARMENT, asker)]
    getting = asyncio.create_task(house.get(GARMENT, asker))
    for stop in stops:
        await stop.reached()
    return getting, stops


async def test_an_expired_garment_is_served_marked_while_the_origin_is_away(
    house: EngineHouse,
) -> None:
    before = await expired(house)
    fail(house, AWAY)
    served = await house.get(GARMENT, OWNER)
    assert version_of(served.blob.view()) == 1
    assert (served.tier, served.is_stale) == ("disk", True)
    assert served.meta == before.meta
    assert served.expires_ns <= house.clock.read().steady_ns
    assert house.metrics.value("stale_served") == 1


async def test_a_stale_answer_is_kept_nowhere_and_the_next_call_asks_the_origin_again(
    house: EngineHouse,
) -> None:
    await expired(house)
    fail(house, AWAY)
    await house.get(GARMENT, OWNER)
    inspected = await house.cache.inspect(GARMENT)
    assert (inspected.memory, inspected.disk) == (None, None)
    asked = len(house.origin.reads)
    assert (await house.get(GARMENT, OWNER)).is_stale
    assert len(house.origin.reads) > asked


async def test_the_next_good_answer_renews_what_was_served_stale(house: EngineHouse) -> None:
    before = await expired(house)
    fail(house, AWAY)
    await house.get(GARMENT, OWNER)
    assert len(house.files()) == 1, "an error replaces nothing"
    house.origin.errors.clear()
    served = await house.get(GARMENT, OWNER)
    assert not served.is_stale
    assert served.meta.generation == before.meta.generation
    assert (await house.get(GARMENT, OWNER)).tier == "memory"


async def test_a_person_is_never_served_stale(house: EngineHouse) -> None:
    await expired(house, PERSON, "alice")
    fail(house, AWAY, PERSON, "alice")
    with pytest.raises(OriginUnavailable):
        await house.get(PERSON)
    assert house.metrics.value("stale_served") == 0


def test_a_private_kind_cannot_be_configured_to_be_served_stale() -> None:
    with pytest.raises(ConfigError):
        replace(HUMAN, stale_if_error_s=1.0)


@pytest.mark.parametrize(
    "error",
    [NoSuchObject("none"), OriginDenied("no"), OriginDataCorrupt("bad")],
    ids=lambda error: type(error).__name__,
)
async def test_an_answer_of_the_origin_is_never_hidden_by_a_stale_entry(
    house: EngineHouse, error: CacheError
) -> None:
    await expired(house)
    fail(house, error)
    with pytest.raises(type(error)):
        await house.get(GARMENT, OWNER)


async def test_it_is_served_stale_for_a_bounded_time(house: EngineHouse) -> None:
    before = await expired(house)
    fail(house, AWAY)
    advance_beyond(house, before.expires_ns, DEFAULT_STALE_IF_ERROR_S - 1)
    assert (await house.get(GARMENT, OWNER)).is_stale
    house.clock.advance(1)
    with pytest.raises(OriginUnavailable):
        await house.get(GARMENT, OWNER)


async def test_a_ttl_shorter_than_the_stale_time_changes_nothing(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.kinds = Kinds(tuple(replace(kind, ttl_s=60.0) for kind in BUILT_IN))
    house.open()
    await expired(house)
    fail(house, AWAY)
    assert (await house.get(GARMENT, OWNER)).is_stale


async def test_stale_uses_do_not_prolong_an_entrys_life(house: EngineHouse) -> None:
    await expired(house)
    fail(house, AWAY)
    (_, _), (doubles_at, _) = STEPS
    for _ in range(doubles_at + 1):
        assert (await house.get(GARMENT, OWNER)).is_stale


async def test_another_models_entry_is_not_served_stale(house: EngineHouse) -> None:
    await expired(house)
    house.kinds = Kinds(tuple(replace(kind, version="2") for kind in BUILT_IN))
    await house.restart()
    fail(house, AWAY)
    with pytest.raises(OriginUnavailable):
        await house.get(GARMENT, OWNER)


async def test_a_damaged_entry_is_not_served_stale(house: EngineHouse) -> None:
    await expired(house)
    (file,) = house.files()
    file.chmod(0o600)
    file.write_bytes(bytes(file.stat().st_size))
    fail(house, AWAY)
    with pytest.raises(OriginUnavailable):
        await house.get(GARMENT, OWNER)
    assert house.metrics.value("damaged_entries") == 1


# ---- origin_after


async def test_a_stale_entry_older_than_asked_is_not_served(house: EngineHouse) -> None:
    await expired(house)
    fail(house, AWAY)
    with pytest.raises(OriginUnavailable):
        await house.get(GARMENT, OWNER, origin_after_ns=house.clock.read().wall_ns)


async def test_a_waiter_that_asked_for_newer_than_the_stale_entry_is_not_told_that_there_is_none(
    house: EngineHouse,
) -> None:
    """The origin has not answered, so the reason is UNAVAILABLE, not NOT_FOUND."""
    await expired(house)
    fail(house, AWAY)
    stop = house.gates.stop("l2_looked_up")
    content = asyncio.create_task(house.get(GARMENT, OWNER))
    await stop.reached()
    demanding = asyncio.create_task(
        house.get(GARMENT, OWNER, origin_after_ns=house.clock.read().wall_ns)
    )
    await asyncio.sleep(0)
    assert house.metrics.value("coalesced_waiters") == 1
    stop.release()
    assert (await content).is_stale
    with pytest.raises(OriginUnavailable):
        await demanding


# ---- invalidated

SCOPES = {
    "clothing": lambda house: subject_scope(Subject.CLOTHING, "shirt", house.kinds),
    "key": lambda house: key_scope(GARMENT),
    "owner": lambda house: Scope(ScopeKind.OWNER, OWNER),
    "everything": lambda house: Scope(ScopeKind.EVERYTHING),
}


@pytest.mark.parametrize("scope", SCOPES)
async def test_an_invalidated_entry_is_not_served_stale(house: EngineHouse, scope: str) -> None:
    await expired(house)
    fail(house, AWAY)
    house.gates.stop("l2_unlink")  # its file stays while any read could open it
    await house.cache.invalidate(SCOPES[scope](house))
    with pytest.raises(OriginUnavailable):
        await house.get(GARMENT, OWNER)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("asker", [OWNER, "carol"])
async def test_an_entry_that_is_invalidated_while_the_origin_hangs_is_not_served_stale(
    house: EngineHouse, asker: str, scope: str
) -> None:
    """The fence knows carol's flight as carol's, but its stale bytes would be bob's."""
    await expired(house)
    house.gates.stop("l2_unlink")
    getting, stops = await hang(house, asker)
    await house.cache.invalidate(SCOPES[scope](house))
    later = asyncio.create_task(house.get(GARMENT, asker))
    for stop in stops:
        stop.release()
    for call in (getting, later):
        with pytest.raises(OriginUnavailable):
            await call


@pytest.mark.parametrize("asker", [OWNER, "carol"])
@pytest.mark.parametrize("point", ["l2_looked_up", "l2_read"])
async def test_an_entry_that_is_invalidated_while_it_is_read_again_is_not_served_stale(
    house: EngineHouse, point: str, asker: str
) -> None:
    await expired(house)
    house.gates.stop("l2_unlink")
    getting, stops = await hang(house, asker)
    reading = house.gates.stop(point)
    for stop in stops:
        stop.release()
    await reading.reached()
    await house.cache.invalidate(Scope(ScopeKind.OWNER, OWNER))
    reading.release()
    with pytest.raises(OriginUnavailable):
        await getting
