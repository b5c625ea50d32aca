"""What is an expired entry good for: conditional requests, also with an invalidation during them?

Promises 1 and 2. Version 1 expires; the origin's answer for each member decides whether the entry
is renewed or filled again.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import NoSuchObject
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, Kinds, Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.origin import OriginObject
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.engine.flight import Served
from tests.support.engine.entries import version_of
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")
MEMBERS = 4
HOUR_S = 3600.0
# Longer than any entry here is served: a base TTL and few accesses.
EXPIRED_S = 25 * HOUR_S


async def expired(house: EngineHouse, key: EntryKey = PERSON, owner: str = "") -> Served:
    """Put version 1 into both tiers, and let it expire."""
    house.upload(key, 1, owner)
    served = await house.get(key, owner or key.id)
    await house.settle()
    house.clock.advance(EXPIRED_S)
    house.origin.reads.clear()
    return served


async def assert_only_version_2_is_left(house: EngineHouse) -> None:
    """Check what L1 and L2 serve, and what is served after a crash."""
    assert await house.version(PERSON) == 2
    await house.settle()
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2
    await house.restart()
    assert await house.version(PERSON) == 2


# ---- unchanged, changed


async def test_an_unchanged_person_costs_four_conditional_requests_side_by_side(
    house: EngineHouse,
) -> None:
    before = await expired(house)
    keys = house.object_keys(PERSON)
    stops = [house.gates.stop(f"origin {key}") for key in keys]
    getting = asyncio.create_task(house.get(PERSON))
    for stop in stops:
        await stop.reached()  # all of them are under way before any is answered
    for stop in stops:
        stop.release()
    served = await getting
    assert sorted(house.origin.reads) == sorted(keys)
    assert house.origin.unchanged == MEMBERS
    assert served.meta.generation == before.meta.generation
    assert version_of(served.blob.view()) == 1
    assert (served.tier, served.is_stale) == ("disk", False)
    assert house.metrics.value("fills") == 1
    assert house.metrics.value("revalidations", outcome="unchanged") == 1


async def test_what_was_renewed_is_served_for_a_whole_ttl_again(house: EngineHouse) -> None:
    before = await expired(house)
    served = await house.get(PERSON)
    life_ns = before.expires_ns - before.meta.confirmed_ns
    assert served.expires_ns == house.clock.read().steady_ns + life_ns
    assert (await house.get(PERSON)).tier == "memory"
    assert house.origin.unchanged == MEMBERS


async def test_a_renewal_survives_a_restart(house: EngineHouse) -> None:
    await expired(house)
    renewed = await house.get(PERSON)
    await house.settle()
    await house.restart()
    house.origin.reads.clear()
    served = await house.get(PERSON)
    assert served.tier == "disk"
    assert served.meta == renewed.meta
    assert house.origin.reads == []


async def test_one_changed_member_refills_the_whole_entry(house: EngineHouse) -> None:
    before = await expired(house)
    keys = house.object_keys(PERSON)
    house.origin.hold(keys[2], house.origin.objects[keys[2]].data)
    served = await house.get(PERSON)
    assert served.meta.generation > before.meta.generation
    assert served.tier == "origin"
    assert [stamp.etag for stamp in served.meta.stamps] == [
        house.origin.objects[key].stamp.etag for key in keys
    ]
    assert house.origin.reads.count(keys[0]) == 2, "read once with a condition, once for its bytes"
    assert house.metrics.value("revalidations", outcome="changed") == 1
    await house.settle()
    await house.restart()
    assert (await house.get(PERSON)).meta.generation == served.meta.generation


async def test_a_photo_that_changes_between_two_conditional_requests_is_never_mixed(
    house: EngineHouse,
) -> None:
    await expired(house)
    held, *others = house.object_keys(PERSON)
    old = house.origin.objects[held]
    house.upload(PERSON, 2)
    new = house.origin.objects[held]
    house.origin.objects[held] = old  # the upload has not replaced this object yet
    stop = house.gates.stop(f"origin {held}")
    getting = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    house.origin.objects[held] = new
    stop.release()
    assert await getting == 2
    assert house.origin.unchanged == 1
    assert all(house.origin.reads.count(key) == 2 for key in others)


async def test_a_member_that_is_gone_is_not_found(house: EngineHouse) -> None:
    await expired(house)
    del house.origin.objects[house.object_keys(PERSON)[1]]
    with pytest.raises(NoSuchObject):
        await house.get(PERSON)


# ---- whose stamps


async def test_a_get_without_an_owner_revalidates_under_the_rows_owner(house: EngineHouse) -> None:
    before = await expired(house, GARMENT, "bob")
    served = await house.get(GARMENT, "")
    assert served.meta.generation == before.meta.generation
    assert set(house.origin.reads) == set(house.object_keys(GARMENT, "bob"))


async def test_another_owners_get_does_not_use_the_rows_stamps(house: EngineHouse) -> None:
    await expired(house, GARMENT, "bob")
    house.upload(GARMENT, 2, "carol")
    assert await house.version(GARMENT, "carol") == 2
    assert set(house.origin.reads) == set(house.object_keys(GARMENT, "carol"))
    assert house.origin.unchanged == 0


@pytest.mark.parametrize("persist", [False, True])
async def test_what_was_put_is_refilled_and_not_revalidated(
    house: EngineHouse, persist: bool
) -> None:
    house.upload(PERSON, 2)
    as_of_ns = house.clock.read().wall_ns
    await house.put(PERSON, 1, as_of_ns=as_of_ns, persist=persist)
    await house.settle()
    house.clock.advance(EXPIRED_S)
    assert await house.version(PERSON) == (1 if persist else 2)
    assert house.origin.unchanged == 0
    assert house.metrics.value("fills") == 1


async def test_another_models_entry_is_refilled(house: EngineHouse) -> None:
    await expired(house)
    kinds = [replace(kind, version="2") if kind.name == "human" else kind for kind in BUILT_IN]
    house.kinds = Kinds(tuple(kinds))
    await house.restart()
    assert (await house.get(PERSON)).meta.kind_version == "2"
    assert house.origin.unchanged == 0


@pytest.mark.parametrize("loss", ["gone", "damaged"])
async def test_an_unchanged_entry_whose_file_is_lost_is_filled_anew(
    house: EngineHouse, loss: str
) -> None:
    before = await expired(house)
    (file,) = house.files()
    if loss == "gone":
        file.unlink()
    else:
        damage(file)
    served = await house.get(PERSON)
    assert version_of(served.blob.view()) == 1
    assert served.meta.generation > before.meta.generation
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == 1


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)


# ---- origin_after


async def test_an_unchanged_entry_that_is_too_old_is_outdated_without_a_body(
    house: EngineHouse,
) -> None:
    await expired(house)
    with pytest.raises(NoSuchObject) as failed:
        await house.get(PERSON, origin_after_ns=house.clock.read().wall_ns)
    assert failed.value.reason == "ORIGIN_OUTDATED"
    assert house.origin.unchanged == MEMBERS
    assert house.metrics.value("fills") == 1


async def test_a_call_that_named_no_time_gets_the_whole_entry_from_such_a_flight(
    house: EngineHouse,
) -> None:
    await expired(house)
    stop = house.gates.stop("l2_looked_up")
    demanding = asyncio.create_task(house.get(PERSON, origin_after_ns=house.clock.read().wall_ns))
    await stop.reached()
    content = asyncio.create_task(house.version(PERSON))
    await asyncio.sleep(0)
    assert house.metrics.value("coalesced_waiters") == 1
    stop.release()
    assert await content == 1
    with pytest.raises(NoSuchObject):
        await demanding


async def test_the_same_bytes_uploaded_again_meet_a_later_origin_after(house: EngineHouse) -> None:
    before = await expired(house)
    now_ns = house.clock.read().wall_ns
    for key in house.object_keys(PERSON):
        found = house.origin.objects[key]
        stamp = replace(found.stamp, last_modified_s=now_ns / NS_PER_S)
        house.origin.objects[key] = OriginObject(stamp, found.data)
    served = await house.get(PERSON, origin_after_ns=now_ns)
    assert served.meta.generation == before.meta.generation
    assert house.metrics.value("fills") == 1


# ---- invalidated in the middle

SCOPES = {
    "user": lambda house: subject_scope(Subject.USER, "alice", house.kinds),
    "owner": lambda house: Scope(ScopeKind.OWNER, "alice"),
    "everything": lambda house: Scope(ScopeKind.EVERYTHING),
}
POINTS = (
    "l2_looked_up",
    "origin users/alice/vton-cache/upper/human_img.png",  # between the conditional requests
    "l2_read",  # all objects were answered "not modified"
    "l1_written",  # about to be published
)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("point", POINTS)
async def test_a_revalidation_that_an_invalidation_overtook_is_served_to_nobody_later(
    house: EngineHouse, point: str, scope: str
) -> None:
    await expired(house)
    stop = house.gates.stop(point)
    first = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    house.upload(PERSON, 2)
    await house.cache.invalidate(SCOPES[scope](house))
    second = asyncio.create_task(house.version(PERSON))
    stop.release()
    assert (await first, await second) == (2, 2)
    await assert_only_version_2_is_left(house)


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_after_the_invalidation_of_a_revalidation_brings_nothing_back(
    house: EngineHouse, point: str
) -> None:
    await expired(house)
    stop = house.gates.stop(point)
    first = asyncio.create_task(house.get(PERSON))
    await stop.reached()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    await house.restart()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await assert_only_version_2_is_left(house)


async def test_an_invalidation_before_the_renewal_is_recorded_is_not_undone_by_it(
    house: EngineHouse,
) -> None:
    await expired(house)
    stop = house.gates.stop("l1_written")
    getting = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    writer_may_go = threading.Event()
    house.catalog._writes.put(lambda db: writer_may_go.wait(20))
    stop.release()
    assert await getting == 1, "published; its renewal waits for the catalog"
    house.upload(PERSON, 2)
    invalidating = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
    await asyncio.sleep(0)
    writer_may_go.set()
    await invalidating
    await assert_only_version_2_is_left(house)


# ---- how long expired entries are kept


async def test_expired_entries_count_as_bytes_until_their_keeping_time_is_over(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.keep_expired_ns = int(24 * HOUR_S * NS_PER_S)
    house.open()
    served = await expired(house)
    stored_bytes = house.disk.room.used_bytes
    assert stored_bytes > 0
    await house.cache.upkeep.disk_step()
    assert house.disk.room.used_bytes == stored_bytes
    assert (await house.cache.inspect(PERSON)).disk is None, "the entry is served no more"

    kept_until_ns = served.expires_ns + house.keep_expired_ns
    house.clock.advance((kept_until_ns - house.clock.read().steady_ns) / NS_PER_S + 1)
    await house.cache.upkeep.disk_step()
    assert house.disk.room.used_bytes == 0
    assert house.files() == []
