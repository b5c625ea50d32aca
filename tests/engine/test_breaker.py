"""When is the origin left alone, and how is it found out that it answers again?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import circuitbreaker
import pytest

from cachesvc.core.errors import (
    CacheError,
    NoSuchObject,
    OriginDenied,
    OriginUnavailable,
    StaleFill,
)
from cachesvc.core.keys import EntryKey
from cachesvc.engine.breaker import OriginBreaker
from tests.support.engine_house import EngineHouse

GARMENT = EntryKey("garment", "shirt")
FAILURES = 3
OPEN_S = 5.0
AWAY = OriginUnavailable("away")


@dataclass
class SteadyTime:
    """The monotonic clock that the library reads, in seconds."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SteadyTime:
    time = SteadyTime()
    monkeypatch.setattr(circuitbreaker, "monotonic", time)
    return time


@pytest.fixture
async def house(closed_house: EngineHouse, time: SteadyTime) -> EngineHouse:
    closed_house.open(breaker_failures=FAILURES, breaker_open_s=OPEN_S)
    return closed_house


def person(index: int) -> EntryKey:
    return EntryKey("human_upper_body", f"u{index}")


def fail(house: EngineHouse, key: EntryKey, error: CacheError = AWAY) -> None:
    house.origin.errors[house.object_keys(key)[0]] = error


async def reason_of(house: EngineHouse, key: EntryKey) -> str:
    with pytest.raises(CacheError) as failed:
        await house.get(key)
    return failed.value.reason


async def open_circuit(house: EngineHouse) -> None:
    for index in range(FAILURES):
        fail(house, person(index))
        assert await reason_of(house, person(index)) == "ORIGIN_UNAVAILABLE"
    assert house.cache.is_origin_left_alone


async def test_fills_in_a_row_that_could_not_ask_open_the_circuit(house: EngineHouse) -> None:
    await open_circuit(house)
    healthy = person(FAILURES)
    house.upload(healthy, 1)
    house.origin.reads.clear()
    with pytest.raises(OriginUnavailable) as failed:
        await house.get(healthy)
    assert failed.value.reason == "ORIGIN_CIRCUIT_OPEN"
    assert house.origin.reads == []


async def test_one_failure_fewer_leaves_it_closed(house: EngineHouse) -> None:
    for index in range(FAILURES - 1):
        fail(house, person(index))
        await reason_of(house, person(index))
    assert not house.cache.is_origin_left_alone
    house.upload(person(FAILURES), 1)
    assert await house.version(person(FAILURES)) == 1


@pytest.mark.parametrize(
    "answer",
    [NoSuchObject("none"), OriginDenied("no")],
    ids=lambda answer: type(answer).__name__,
)
async def test_an_answer_of_any_kind_starts_the_count_anew(
    house: EngineHouse, answer: CacheError
) -> None:
    for index in range(2 * FAILURES):
        said = answer if index % FAILURES == FAILURES - 1 else AWAY
        fail(house, person(index), said)
        assert await reason_of(house, person(index)) == said.reason
    assert not house.cache.is_origin_left_alone


async def test_fills_that_hang_until_their_deadline_open_it_too(
    closed_house: EngineHouse, time: SteadyTime
) -> None:
    house = closed_house
    house.open(breaker_failures=FAILURES, breaker_open_s=OPEN_S, fill_deadline_s=0.01)
    for index in range(FAILURES):
        for object_key in house.object_keys(person(index)):
            house.gates.stop(f"origin {object_key}")
        assert await reason_of(house, person(index)) == "FILL_DEADLINE"
    assert house.cache.is_origin_left_alone


async def test_hits_of_both_tiers_are_unaffected(house: EngineHouse) -> None:
    cached = person(100)
    house.upload(cached, 1)
    await house.get(cached)
    await house.settle()
    await house.restart()
    await open_circuit(house)
    assert (await house.get(cached)).tier == "disk"
    assert (await house.get(cached)).tier == "memory"


async def test_an_expired_garment_is_served_stale_at_once(house: EngineHouse) -> None:
    house.upload(GARMENT, 1)
    served = await house.get(GARMENT)
    await house.settle()
    house.clock.advance((served.expires_ns - house.clock.read().steady_ns) / 1e9 + 1)
    await open_circuit(house)
    house.origin.reads.clear()
    assert (await house.get(GARMENT)).is_stale
    assert house.origin.reads == []


async def test_one_fill_asks_after_the_pause_and_the_others_fail_at_once(
    house: EngineHouse, time: SteadyTime
) -> None:
    await open_circuit(house)
    probe, other, later = person(10), person(11), person(12)
    for key in (probe, other, later):
        house.upload(key, 1)
    time.now_s += OPEN_S
    stop = house.gates.stop(f"origin {house.object_keys(probe)[0]}")
    probing = asyncio.create_task(house.version(probe))
    await stop.reached()
    assert await reason_of(house, other) == "ORIGIN_CIRCUIT_OPEN"
    assert house.sets_read(other) == 0
    stop.release()
    assert await probing == 1
    assert not house.cache.is_origin_left_alone
    assert await house.version(later) == 1


async def test_a_probe_that_fails_leaves_the_origin_alone_for_another_pause(
    house: EngineHouse, time: SteadyTime
) -> None:
    await open_circuit(house)
    time.now_s += OPEN_S
    fail(house, person(10))
    assert await reason_of(house, person(10)) == "ORIGIN_UNAVAILABLE"
    assert await reason_of(house, person(10)) == "ORIGIN_CIRCUIT_OPEN"
    time.now_s += OPEN_S
    house.upload(person(11), 1)
    assert await house.version(person(11)) == 1


async def test_a_probe_that_finds_nothing_closes_the_circuit(
    house: EngineHouse, time: SteadyTime
) -> None:
    await open_circuit(house)
    time.now_s += OPEN_S
    assert await reason_of(house, person(10)) == "NO_SUCH_OBJECT"
    assert not house.cache.is_origin_left_alone


def test_a_probe_that_is_cancelled_lets_the_next_one_ask(time: SteadyTime) -> None:
    breaker = OriginBreaker(1, OPEN_S)
    with pytest.raises(OriginUnavailable), breaker.asking():
        raise AWAY
    time.now_s += OPEN_S
    with pytest.raises(asyncio.CancelledError), breaker.asking():
        raise asyncio.CancelledError
    with breaker.asking():
        assert not breaker.is_open


def test_a_fill_that_did_not_ask_says_nothing_of_the_origin(time: SteadyTime) -> None:
    breaker = OriginBreaker(2, OPEN_S)
    with pytest.raises(OriginUnavailable), breaker.asking():
        raise AWAY
    with pytest.raises(StaleFill), breaker.asking():
        raise StaleFill("fenced while it queued")
    with pytest.raises(OriginUnavailable), breaker.asking():
        raise AWAY
    assert breaker.is_open
