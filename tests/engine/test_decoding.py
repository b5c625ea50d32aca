"""Is memory for decoding bounded over all fills, and do small images overtake large ones?

Promises 5 and 8.
"""

from __future__ import annotations

import asyncio
import pickle
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
import torch

from cachesvc.codec import pickles
from cachesvc.core.errors import HostBusy, Overloaded
from cachesvc.core.keys import EntryKey
from cachesvc.core.tensors import DecodePlan
from cachesvc.engine import decoding
from cachesvc.engine.decoding import DecodingRoom
from tests.support.engine.gates import GatedCodec
from tests.support.engine.house import EngineHouse

BUDGET = 1600
LARGE, SMALL = 500, 100
LARGE_LANE, SMALL_LANE = 1200, 400


class Decodes:
    """Decodes that run until a test ends them."""

    def __init__(self, room: DecodingRoom) -> None:
        self._room = room
        self.running: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, needed_bytes: int) -> None:
        self.tasks[name] = asyncio.create_task(self._decode(name, needed_bytes))
        await asyncio.sleep(0)

    async def _decode(self, name: str, needed_bytes: int) -> None:
        async with self._room.taken(needed_bytes):
            end = self.running[name] = asyncio.Event()
            await end.wait()
        del self.running[name]

    async def end(self, name: str) -> None:
        self.running[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 4)
    return Decodes(DecodingRoom(BUDGET))


async def test_decodes_take_no_more_than_the_budget_and_the_next_in_line_comes_first(
    decodes: Decodes,
) -> None:
    for name in "abcd":
        await decodes.begin(name, LARGE)
    assert set(decodes.running) == {"a", "b"}
    await decodes.begin("fits", LARGE_LANE - 2 * LARGE)  # it would fit, but others wait before it
    assert set(decodes.running) == {"a", "b"}
    await decodes.end("a")
    assert set(decodes.running) == {"b", "c"}


async def test_a_small_one_passes_large_ones_that_wait(decodes: Decodes) -> None:
    for name in "abcd":
        await decodes.begin(name, LARGE)
    await decodes.begin("small", SMALL)
    assert "small" in decodes.running


async def test_one_that_exceeds_the_budget_runs_alone_among_the_large_ones(
    decodes: Decodes,
) -> None:
    await decodes.begin("huge", 10 * BUDGET)
    await decodes.begin("large", LARGE)
    await decodes.begin("small", SMALL)
    assert set(decodes.running) == {"huge", "small"}
    await decodes.end("huge")
    assert set(decodes.running) == {"large", "small"}


async def test_large_ones_leave_a_processor_to_the_others(
    decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 2)
    decodes = Decodes(DecodingRoom(BUDGET))
    for name in "ab":
        await decodes.begin(name, LARGE)
    assert set(decodes.running) == {"a"}


async def test_one_that_is_cancelled_while_it_waits_keeps_nobody_out(decodes: Decodes) -> None:
    for name in "abcd":
        await decodes.begin(name, LARGE)
    decodes.tasks["c"].cancel()
    await decodes.end("a")
    assert set(decodes.running) == {"b", "d"}


async def test_one_that_is_cancelled_when_its_turn_has_come_gives_its_bytes_back() -> None:
    room = DecodingRoom(BUDGET)
    async with room.taken(10 * BUDGET):
        waiting = asyncio.create_task(_take(room))
        await asyncio.sleep(0)
    waiting.cancel()  # its turn has come, and its task has not run since
    await asyncio.gather(waiting, return_exceptions=True)
    assert room.used_bytes == 0


async def _take(room: DecodingRoom) -> None:
    async with room.taken(LARGE):
        await asyncio.Event().wait()


# ---- in an engine


def person(index: int) -> EntryKey:
    return EntryKey("human_upper_body", f"u{index}")


async def test_an_entry_too_large_by_its_headers_is_refused_before_anything_is_decoded(
    closed_house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = closed_house
    house.open(max_entry_bytes=20)
    house.upload(person(0), 1)
    decoded: list[bytes] = []
    monkeypatch.setattr(
        GatedCodec, "decode_member", lambda _, field, data, plan: decoded.append(data)
    )
    with pytest.raises(Overloaded) as failed:
        await house.get(person(0))
    assert failed.value.reason == "ENTRY_TOO_LARGE"
    assert failed.value.object_keys[0] in house.object_keys(person(0))
    # Each of its images alone is small enough; two together are not.
    assert len(decoded) <= 1


def expanded(shape: tuple[int, ...]) -> bytes:
    """Return a pickle of some hundred bytes whose tensor has `shape`, of float32."""
    return pickle.dumps(torch.ones(1).expand(shape))


async def test_an_expanded_tensor_within_the_limits_is_served(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(max_entry_bytes=64 * 1024)
    house.upload(person(0), 1)
    pose = house.object_keys(person(0))[-1]
    house.origin.hold(pose, expanded((100, 100)))
    served = await house.get(person(0))
    assert served.meta.size_bytes > 40_000


async def test_an_expanded_tensor_is_refused_by_its_size_before_it_takes_memory(
    closed_house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = closed_house
    house.open(max_entry_bytes=64 * 1024)
    house.upload(person(0), 1)
    pose = house.object_keys(person(0))[-1]
    house.origin.hold(pose, expanded((1000, 1000)))
    gathered: list[object] = []
    monkeypatch.setattr(pickles, "gather", gathered.append)
    with pytest.raises(Overloaded) as failed:
        await house.get(person(0))
    assert failed.value.reason == "ENTRY_TOO_LARGE"
    assert failed.value.object_keys == (pose,)
    assert gathered == []


async def test_an_expanded_tensor_takes_room_for_decoding(
    closed_house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = closed_house
    house.open()
    house.upload(person(0), 1)
    house.origin.hold(house.object_keys(person(0))[-1], expanded((100, 1000)))
    taken: list[int] = []
    take = DecodingRoom.taken

    def noted(room: DecodingRoom, needed_bytes: int) -> AbstractAsyncContextManager[None]:
        taken.append(needed_bytes)
        return take(room, needed_bytes)

    monkeypatch.setattr(DecodingRoom, "taken", noted)
    await house.get(person(0))
    # A PNG takes more than 8 MiB, for Pillow's blocks.
    assert any(400_000 < needed_bytes < 500_000 for needed_bytes in taken)


async def test_a_fill_that_has_read_everything_gives_its_slot_to_the_next(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(max_concurrent_fills=1)
    house.upload(person(0), 1)
    house.upload(person(1), 2)
    stop = house.gates.stop("decoded")
    decoding_one = asyncio.create_task(house.version(person(0)))
    await stop.reached()
    assert await house.version(person(1)) == 2
    stop.release()
    assert await decoding_one == 1


async def test_a_fill_keeps_its_slot_where_too_many_bytes_wait_to_be_decoded(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(max_concurrent_fills=1, max_decoding_bytes=1)
    house.upload(person(0), 1)
    house.upload(person(1), 2)
    stop = house.gates.stop("decoded")
    decoding_one = asyncio.create_task(house.version(person(0)))
    await stop.reached()
    second = asyncio.create_task(house.version(person(1)))
    await asyncio.sleep(0)
    assert house.sets_read(person(1)) == 0
    stop.release()
    assert await decoding_one == 1
    assert await second == 2


async def test_a_fill_whose_time_is_up_while_it_waits_to_decode_does_not_blame_the_origin(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(breaker_failures=2, max_concurrent_fills=1)
    house.engine.limits = replace(house.limits, fill_deadline_s=0.05)
    for index in range(4):
        house.upload(person(index), 1)
        stop = house.gates.stop("decoded")
        with pytest.raises(HostBusy) as failed:
            await house.get(person(index))
        assert failed.value.reason == "DECODE_QUEUE"
        stop.release()
    assert not house.cache.levels().is_origin_left_alone


async def test_a_decode_for_which_there_is_no_memory_is_this_hosts_failure(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    house.upload(person(0), 1)
    monkeypatch.setattr(GatedCodec, "decode_member", without_memory)
    with pytest.raises(HostBusy) as failed:
        await house.get(person(0))
    assert failed.value.reason == "HOST_RESOURCES"


async def test_sixteen_large_images_do_not_keep_a_small_one_waiting(
    closed_house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = closed_house
    house.open(max_concurrent_fills=8)
    small = person(100)
    house.upload(small, 2)
    larges = [person(index) for index in range(16)]
    stops = []
    for key in larges:
        house.upload(key, 1)

    def plan(_: object, field: object, data: bytes) -> DecodePlan:
        is_large = data != house.origin.objects[house.object_keys(small)[0]].data
        return DecodePlan(len(data), 8 << 20 if is_large else 1)

    monkeypatch.setattr(GatedCodec, "plan_member", plan)
    stops = [house.gates.stop("decoded") for _ in larges[:2]]
    filling = [asyncio.create_task(house.version(key)) for key in larges]
    await stops[0].reached()
    assert await house.version(small) == 2
    for stop in stops:
        stop.release()
    assert await asyncio.gather(*filling) == [1] * 16
