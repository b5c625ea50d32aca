"""Does a Put win over everything older, and lose to everything newer?

Promise 1, its second half.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import pytest
import torch

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import (
    Aborted,
    CacheError,
    InvalidRequest,
    OriginDenied,
    OriginUnavailable,
    Overloaded,
)
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import GARMENT as GARMENT_KIND
from cachesvc.core.kinds import Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.core.watermarks import Watermarks
from cachesvc.engine import fill, put
from tests.support.engine.entries import blob_of, version_of
from tests.support.engine.house import EngineHouse
from tests.support.tensor_forms import loaded, tensor_in_form

PERSON = EntryKey("human_upper_body", "alice")
FILL_POINTS = (
    "l2_looked_up",
    "origin users/alice/vton-cache/upper/human_img.png",
    "decoded",
    "l1_written",
    "l2_write",
    "l2_written",
)


async def test_a_put_is_served_by_both_tiers_and_after_a_crash(house: EngineHouse) -> None:
    served = await house.put(PERSON, 7)
    assert version_of(served.blob.view()) == 7
    assert (await house.get(PERSON)).tier == "memory"
    await house.restart()
    found = await house.get(PERSON)
    assert found.tier == "disk"
    assert version_of(found.blob.view()) == 7
    assert house.origin.reads == []


@pytest.mark.parametrize("point", FILL_POINTS)
async def test_a_put_wins_over_a_fill_in_flight(house: EngineHouse, point: str) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(point)
    filling = asyncio.create_task(house.get(PERSON))
    await stop.reached()
    await house.put(PERSON, 2)
    assert await house.version(PERSON) == 2
    stop.release()
    await filling
    await house.settle()
    assert await house.version(PERSON) == 2
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2
    await house.restart()
    assert await house.version(PERSON) == 2
    assert len(house.files()) == 1


async def test_a_promotion_of_the_older_entry_loses_to_a_put(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.put(PERSON, 1)
    await house.restart()
    stop = house.gates.stop("l2_read")
    promoting = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    await house.put(PERSON, 2)
    stop.release()
    assert await promoting in (1, 2)  # this Get began before the Put was answered
    assert await house.version(PERSON) == 2


async def test_a_fill_that_began_while_the_puts_row_was_written_loses_to_it(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    l2_stop = house.gates.stop("l2_written")
    putting = asyncio.create_task(house.put(PERSON, 2))
    await l2_stop.reached()
    fill_stop = house.gates.stop("decoded")
    filling = asyncio.create_task(house.version(PERSON))
    await fill_stop.reached()
    l2_stop.release()
    await putting
    fill_stop.release()
    assert await filling in (1, 2)  # this Get began before the Put was answered
    assert await house.version(PERSON) == 2
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == 2


@pytest.mark.parametrize("point", ["stream", "l2_write", "l2_written", "l1_written"])
async def test_an_invalidation_during_a_put_fences_it(house: EngineHouse, point: str) -> None:
    house.upload(PERSON, 3)
    async with house.receive(PERSON) as upload:
        upload.append(blob_of(house.kinds.of(PERSON.namespace), 1))
        if point == "stream":
            await house.cache.invalidate(key_scope(PERSON))
            storing = asyncio.create_task(house.cache.store_put(upload))
        else:
            stop = house.gates.stop(point)
            storing = asyncio.create_task(house.cache.store_put(upload))
            await stop.reached()
            await house.cache.invalidate(key_scope(PERSON))
            stop.release()
        with pytest.raises(Aborted) as failed:
            await storing
    assert failed.value.reason in ("PUT_FENCED", "PUT_OUTDATED")
    assert await house.version(PERSON) == 3
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == 3
    assert len(house.files()) == 1


async def test_an_invalidation_while_the_puts_row_is_written_fences_it(house: EngineHouse) -> None:
    writer_may_go = threading.Event()
    house.catalog._writes.put(lambda db: writer_may_go.wait(20))
    putting = asyncio.create_task(house.put(PERSON, 1))
    # Once the tombstone covers it, the Put's row is queued and the Put only waits.
    while not house.engine.tombstones.covers(PERSON, "alice"):
        await asyncio.sleep(0)
    invalidating = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
    await asyncio.sleep(0)
    writer_may_go.set()
    with pytest.raises(Aborted) as failed:
        await putting
    assert failed.value.reason == "PUT_FENCED"
    await invalidating
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is None
    assert inspected.disk is None
    await house.settle()
    assert house.files() == []


async def test_a_fenced_put_gives_back_its_room(house: EngineHouse) -> None:
    stop = house.gates.stop("l1_written")
    putting = asyncio.create_task(house.put(PERSON, 1))
    await stop.reached()
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    with pytest.raises(Aborted):
        await putting
    await house.settle()
    assert house.disk.room.used_bytes == 0
    assert house.files() == []
    assert list((house.runtime / "l1").iterdir()) == []


async def test_the_rest_of_a_fenced_stream_is_refused_at_once(house: EngineHouse) -> None:
    async with house.receive(PERSON) as upload:
        upload.append(b"begun")
        await house.cache.invalidate(subject_scope(Subject.USER, "alice", house.kinds))
        with pytest.raises(Aborted) as failed:
            upload.append(b"more")
    assert failed.value.reason == "PUT_FENCED"


async def test_a_put_whose_source_is_older_than_the_last_change_is_outdated(
    house: EngineHouse,
) -> None:
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(5)
    await house.cache.invalidate(subject_scope(Subject.USER, "alice", house.kinds))
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=read_at_ns)
    assert failed.value.reason == "PUT_OUTDATED"


async def test_a_put_that_comes_while_a_newer_change_is_being_recorded_is_outdated(
    house: EngineHouse,
) -> None:
    """The invalidation began before the Put, so it cannot fence the Put; its change is not in the
    catalog yet, so the Put cannot find it there.
    """
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(5)
    writer_may_go = threading.Event()
    house.catalog._writes.put(lambda db: writer_may_go.wait(20))
    invalidating = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
    await asyncio.sleep(0)
    stop = house.gates.stop("l2_write")
    putting = asyncio.create_task(house.put(PERSON, 1, as_of_ns=read_at_ns))
    await asyncio.wait(
        [putting, asyncio.create_task(stop.reached())], return_when="FIRST_COMPLETED"
    )
    writer_may_go.set()
    await invalidating
    stop.release()
    with pytest.raises(Aborted) as failed:
        await putting
    assert failed.value.reason == "PUT_OUTDATED"


@pytest.mark.parametrize(
    "scope",
    [
        Scope(ScopeKind.OWNER, "alice"),
        Scope(ScopeKind.NAMESPACE, PERSON.namespace),
        Scope(ScopeKind.EVERYTHING),
        key_scope(PERSON),
    ],
    ids=lambda scope: scope.kind.value,
)
async def test_the_last_change_of_every_scope_survives_a_restart(
    house: EngineHouse, scope: Scope
) -> None:
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(5)
    await house.cache.invalidate(scope)
    await house.restart()
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=read_at_ns)
    assert failed.value.reason == "PUT_OUTDATED"


async def test_a_put_read_after_the_change_is_stored(house: EngineHouse) -> None:
    changed_at_ns = house.clock.read().wall_ns
    house.clock.advance(5)
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(5)
    await house.cache.invalidate(key_scope(PERSON), changed_at_ns)
    assert version_of((await house.put(PERSON, 1, as_of_ns=read_at_ns)).blob.view()) == 1


async def test_of_two_puts_out_of_order_the_newer_source_stays(house: EngineHouse) -> None:
    older_ns = house.clock.read().wall_ns
    newer_ns = older_ns + NS_PER_S
    house.clock.advance(10)
    await house.put(PERSON, 2, as_of_ns=newer_ns)
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=older_ns)
    assert failed.value.reason == "PUT_OUTDATED"
    assert await house.version(PERSON) == 2
    await house.restart()
    with pytest.raises(Aborted):
        await house.put(PERSON, 1, as_of_ns=older_ns)
    assert await house.version(PERSON) == 2


async def test_concurrent_puts_of_one_key_end_with_one_whole_entry(house: EngineHouse) -> None:
    await asyncio.gather(*(house.put(PERSON, version) for version in range(1, 9)))
    served = await house.version(PERSON)
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == served
    assert len(house.files()) == 1


async def test_a_put_that_l2_does_not_admit_takes_the_older_row_away_before_it_answers(
    house: EngineHouse,
) -> None:
    await house.put(PERSON, 1)
    await house.settle()
    await house.end()
    house.watermarks = Watermarks(1, 1, 1)
    house.open()
    await house.put(PERSON, 2)
    assert (await house.get(PERSON)).tier == "memory"
    assert await house.version(PERSON) == 2
    house.upload(PERSON, 3)
    await house.restart()
    assert await house.version(PERSON) == 3


async def test_a_put_that_fits_nowhere_is_refused(closed_house: EngineHouse) -> None:
    house = closed_house
    house.watermarks = Watermarks(1, 1, 1)
    house.memory_max_bytes = 1
    house.open()
    with pytest.raises(Overloaded) as failed:
        await house.put(PERSON, 1)
    assert failed.value.reason == "NO_ROOM"


async def test_a_put_of_another_kinds_blob_is_refused(house: EngineHouse) -> None:
    async with house.receive(PERSON) as upload:
        upload.append(blob_of(GARMENT_KIND, 1))
        with pytest.raises(InvalidRequest):
            await house.cache.store_put(upload)
    assert (await house.cache.inspect(PERSON)).disk is None


async def test_a_put_larger_than_an_entry_may_be_is_refused_while_it_streams(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(max_entry_bytes=100)
    async with house.receive(PERSON) as upload:
        upload.append(bytes(100))
        with pytest.raises(Overloaded) as failed:
            upload.append(b"x")
    assert failed.value.reason == "ENTRY_TOO_LARGE"


async def test_the_number_of_puts_is_bounded(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(max_concurrent_puts=1)
    async with house.receive(PERSON):
        with pytest.raises(Overloaded) as failed:
            await house.put(EntryKey("human_upper_body", "bob"), 1)
    assert failed.value.reason == "TOO_MANY_PUTS"
    await house.put(EntryKey("human_upper_body", "bob"), 1)


async def test_a_persisted_put_can_be_filled_again_from_the_origin(house: EngineHouse) -> None:
    await house.put(PERSON, 5, persist=True)
    assert sorted(house.origin.objects) == sorted(house.object_keys(PERSON))
    await house.cache.invalidate(key_scope(PERSON))
    served = await house.get(PERSON)
    assert served.tier == "origin"
    assert version_of(served.blob.view()) == 5


async def test_a_put_that_cannot_be_persisted_stores_nothing(house: EngineHouse) -> None:
    house.origin.errors[house.object_keys(PERSON)[0]] = OriginUnavailable("away")
    with pytest.raises(OriginUnavailable):
        await house.put(PERSON, 5, persist=True)
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is None
    assert inspected.disk is None


@pytest.mark.parametrize("point", ["put_checked", "l2_looked_up", "put_encoded"])
async def test_a_put_that_is_fenced_already_writes_nothing_to_the_origin(
    house: EngineHouse, point: str
) -> None:
    read_at_ns = house.clock.read().wall_ns
    stop = house.gates.stop(point)
    putting = asyncio.create_task(house.put(PERSON, 1, as_of_ns=read_at_ns, persist=True))
    await stop.reached()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON), read_at_ns)
    stop.release()
    with pytest.raises(Aborted) as failed:
        await putting
    assert failed.value.reason == "PUT_FENCED"
    assert house.origin.writes == []
    assert await house.version(PERSON) == 2


async def test_a_put_that_was_fenced_behind_another_put_writes_nothing_to_the_origin(
    house: EngineHouse,
) -> None:
    stop = house.gates.stop("l2_written")
    first = asyncio.create_task(house.put(PERSON, 1))
    await stop.reached()
    checked = house.gates.stop("put_checked")
    second = asyncio.create_task(house.put(PERSON, 1, persist=True))
    await checked.reached()
    checked.release()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [getattr(end, "reason", end) for end in ended] == ["PUT_FENCED"] * 2
    assert house.origin.writes == []
    assert await house.version(PERSON) == 2


async def test_members_that_wait_for_their_turn_are_not_written_once_the_put_is_fenced(
    house: EngineHouse,
) -> None:
    text = EntryKey("text", "shirt")
    *first, last = house.object_keys(text)
    assert len(first) == fill.MAX_CONCURRENT_WRITES
    stops = [house.gates.stop(f"origin_write {object_key}") for object_key in first]
    putting = asyncio.create_task(house.put(text, 1, persist=True))
    for stop in stops:
        await stop.reached()
    await house.cache.invalidate(key_scope(text))
    for stop in stops:
        stop.release()
    with pytest.raises(Aborted) as failed:
        await putting
    assert failed.value.reason == "PUT_FENCED"
    assert last not in house.origin.writes


@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
async def test_persist_keeps_the_form_of_the_object_that_it_replaces(
    house: EngineHouse, form: str
) -> None:
    *_, pose = house.object_keys(PERSON)
    found = tensor_in_form(form, torch.ones(3))
    house.origin.hold(pose, found)

    await house.put(PERSON, 5, persist=True)

    written = house.origin.objects[pose].data
    assert written[:2] == found[:2]
    assert loaded(form, written).tolist() == [[5, 5, 5, 5]]


async def test_persist_reads_the_start_of_tensors_only(house: EngineHouse) -> None:
    *_, pose = house.object_keys(PERSON)

    await house.put(PERSON, 5, persist=True)

    assert house.origin.starts_read == [pose]
    assert loaded("raw", house.origin.objects[pose].data).tolist() == [[5, 5, 5, 5]]


async def test_persist_does_not_guess_the_form_while_the_origin_cannot_be_asked(
    house: EngineHouse,
) -> None:
    *_, pose = house.object_keys(PERSON)
    house.origin.hold(pose, tensor_in_form("zip", torch.ones(3)))
    house.origin.start_errors[pose] = OriginUnavailable("away")

    with pytest.raises(OriginUnavailable):
        await house.put(PERSON, 5, persist=True)

    assert house.origin.writes == []


async def test_persist_writes_where_reading_an_absent_object_is_refused(
    house: EngineHouse,
) -> None:
    """Without s3:ListBucket."""
    *_, pose = house.object_keys(PERSON)
    house.origin.start_errors[pose] = OriginDenied("denied")

    await house.put(PERSON, 5, persist=True)

    assert loaded("raw", house.origin.objects[pose].data).tolist() == [[5, 5, 5, 5]]


async def test_an_explicit_ttl_is_kept_over_a_restart(house: EngineHouse) -> None:
    await house.put(PERSON, 1, ttl_s=60.0)
    await house.restart()
    for _ in range(60):
        await house.get(PERSON)
    house.upload(PERSON, 2)
    house.clock.advance(59.999)
    assert await house.version(PERSON) == 1
    house.clock.advance(0.001)
    assert await house.version(PERSON) == 2


async def test_a_caller_that_leaves_in_the_middle_leaves_no_tombstone(house: EngineHouse) -> None:
    stop = house.gates.stop("l1_written")
    putting = asyncio.create_task(house.put(PERSON, 1))
    await stop.reached()
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    stop.release()
    await house.settle()
    assert len(house.engine.tombstones) == 0
    assert await house.version(PERSON) == 1


@pytest.mark.parametrize("point", [None, "l2_write", "l2_written", "l1_written"])
async def test_an_invalidation_fences_a_put_whose_caller_has_left(
    house: EngineHouse, point: str | None
) -> None:
    """Where `point` is None, the caller leaves before the Put's own task has begun."""
    stop = house.gates.stop(point) if point else None
    putting = asyncio.create_task(house.put(PERSON, 1))
    if stop:
        await stop.reached()
    else:
        while not house.engine.tasks:
            await asyncio.sleep(0)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    if stop:
        stop.release()
    await house.settle()
    assert await house.version(PERSON) == 2


async def test_the_failure_of_a_put_whose_caller_has_left_is_no_unhandled_error(
    house: EngineHouse,
) -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: unhandled.append(said))
    stop = house.gates.stop("l2_written")
    putting = asyncio.create_task(house.put(PERSON, 1))
    await stop.reached()
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    await house.settle()
    gc.collect()  # asyncio reports the error when the task is collected
    assert unhandled == []


async def test_a_put_that_l1_fails_leaves_no_file_without_a_row(house: EngineHouse) -> None:
    (house.runtime / "l1").rmdir()  # deleted under the daemon, so every write to L1 fails
    with contextlib.suppress(OSError, CacheError):
        await house.put(PERSON, 1)
    await house.settle()
    row = await house.disk.lookup(PERSON)
    assert len(house.files()) == (row is not None)


async def test_a_get_during_a_put_that_replaces_an_entry_is_served_one_of_the_two(
    house: EngineHouse,
) -> None:
    """The origin does not have the entry: it exists only in the cache."""
    await house.put(PERSON, 1)
    await house.restart()
    stop = house.gates.stop("l2_read")
    getting = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    await house.put(PERSON, 2)
    stop.release()
    assert await getting in (1, 2)


async def test_a_put_in_messages_of_every_size_is_stored_as_its_bytes_and_never_joined(
    house: EngineHouse,
) -> None:
    blob = blob_of(house.kinds.of(PERSON.namespace), 3)
    large = put.LEAST_PART_BYTES
    async with house.receive(PERSON) as upload:
        upload.append(b"")
        for at in range(0, len(blob), 7):
            upload.append(blob[at : at + 7])
            upload.append(b"")
        served = await house.cache.store_put(upload)
    assert bytes(served.blob.view()) == blob
    async with house.receive(PERSON) as upload:
        for data in (b"a" * large, b"b", b"c" * large, b"d" * (large - 1), b"e" * 2, b"f"):
            upload.append(data)
        parts = upload.take()
    sizes = [len(part) for part in parts]
    assert sizes == [large, 1, large, large + 1, 1]
    assert b"".join(parts)[large - 1 : large + 2] == b"abc"
