"""When is the origin left alone, and how does the engine find out that it answers again?

Promise 8.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
import structlog

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import (
    CacheError,
    HostBusy,
    NoSuchObject,
    ObjectChanging,
    OriginDataCorrupt,
    OriginDenied,
    OriginUnavailable,
    StaleFill,
)
from cachesvc.core.keys import EntryKey
from cachesvc.engine.breaker import OriginBreaker
from tests.support.engine.house import EngineHouse

GARMENT = EntryKey("garment", "shirt")
FAILURES = 3
OPEN_S = 5.0
AWAY = OriginUnavailable("away")


@pytest.fixture
async def house(closed_house: EngineHouse) -> EngineHouse:
    closed_house.open(breaker_failures=FAILURES, breaker_open_s=OPEN_S)
    return closed_house


def person(index: int) -> EntryKey:
    return EntryKey("human_upper_body", f"u{index}")


def fail(house: EngineHouse, key: EntryKey, error: CacheError = AWAY) -> None:
    # A new error each time, as a real origin raises: the engine names the object in it.
    house.origin.errors[house.object_keys(key)[0]] = type(error)(error.message)


async def reason_of(house: EngineHouse, key: EntryKey) -> str:
    with pytest.raises(CacheError) as failed:
        await house.get(key)
    return failed.value.reason


async def open_circuit(house: EngineHouse) -> None:
    for index in range(FAILURES):
        fail(house, person(index))
        assert await reason_of(house, person(index)) == "ORIGIN_UNAVAILABLE"
    assert house.cache.levels().is_origin_left_alone


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
    assert not house.cache.levels().is_origin_left_alone
    house.upload(person(FAILURES), 1)
    assert await house.version(person(FAILURES)) == 1


@pytest.mark.parametrize(
    "answer",
    [NoSuchObject("none"), OriginDenied("no")],
    ids=lambda answer: type(answer).__name__,
)
async def test_an_answer_of_any_kind_starts_the_count_again(
    house: EngineHouse, answer: CacheError
) -> None:
    for index in range(2 * FAILURES):
        said = answer if index % FAILURES == FAILURES - 1 else AWAY
        fail(house, person(index), said)
        assert await reason_of(house, person(index)) == said.reason
    assert not house.cache.levels().is_origin_left_alone


async def test_fills_that_hang_until_their_deadline_open_it_too(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(breaker_failures=FAILURES, breaker_open_s=OPEN_S, fill_deadline_s=0.01)
    for index in range(FAILURES):
        for object_key in house.object_keys(person(index)):
            house.gates.stop(f"origin {object_key}")
        assert await reason_of(house, person(index)) == "FILL_DEADLINE"
    assert house.cache.levels().is_origin_left_alone


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
    house: EngineHouse,
) -> None:
    await open_circuit(house)
    probe, other, later = person(10), person(11), person(12)
    for key in (probe, other, later):
        house.upload(key, 1)
    house.clock.advance(OPEN_S)
    stop = house.gates.stop(f"origin {house.object_keys(probe)[0]}")
    probing = asyncio.create_task(house.version(probe))
    await stop.reached()
    assert await reason_of(house, other) == "ORIGIN_CIRCUIT_OPEN"
    assert house.sets_read(other) == 0
    stop.release()
    assert await probing == 1
    assert not house.cache.levels().is_origin_left_alone
    assert await house.version(later) == 1


async def test_a_probe_that_fails_leaves_the_origin_alone_for_another_pause(
    house: EngineHouse,
) -> None:
    await open_circuit(house)
    house.clock.advance(OPEN_S)
    fail(house, person(10))
    assert await reason_of(house, person(10)) == "ORIGIN_UNAVAILABLE"
    assert await reason_of(house, person(10)) == "ORIGIN_CIRCUIT_OPEN"
    house.clock.advance(OPEN_S)
    house.upload(person(11), 1)
    assert await house.version(person(11)) == 1


async def test_a_probe_that_finds_nothing_closes_the_circuit(house: EngineHouse) -> None:
    await open_circuit(house)
    house.clock.advance(OPEN_S)
    assert await reason_of(house, person(10)) == "NO_SUCH_OBJECT"
    assert not house.cache.levels().is_origin_left_alone


@dataclass
class Steady:
    """The time of a breaker that no house owns."""

    now_s: float = 1000.0

    def ns(self) -> int:
        return int(self.now_s * NS_PER_S)


@pytest.fixture
def time() -> Steady:
    return Steady()


@pytest.fixture
def breaker(time: Steady) -> OriginBreaker:
    """A breaker that is open."""
    breaker = OriginBreaker(FAILURES, OPEN_S, time.ns)
    for index in range(FAILURES):
        ask_in_vain(breaker, person(index))
    assert breaker.is_open
    return breaker


def ask_in_vain(breaker: OriginBreaker, key: EntryKey) -> str:
    with pytest.raises(OriginUnavailable) as failed, breaker.asking(key):
        raise AWAY
    return failed.value.reason


def ask_well(breaker: OriginBreaker, key: EntryKey) -> None:
    with breaker.asking(key):
        pass


def is_refused(breaker: OriginBreaker, key: EntryKey) -> bool:
    """Return whether the breaker refuses `key`; a call that may ask counts neither way."""
    try:
        with breaker.asking(key):
            raise StaleFill("says nothing")
    except OriginUnavailable:
        return True
    except StaleFill:
        return False


async def test_one_entry_however_often_it_fails_never_opens_the_circuit_for_another(
    house: EngineHouse,
) -> None:
    house.upload(person(1), 1)
    fail(house, person(0))
    for _ in range(5 * FAILURES):
        assert await reason_of(house, person(0)) == "ORIGIN_UNAVAILABLE"
    assert await house.version(person(1)) == 1


def test_one_entry_never_opens_it_even_where_one_failure_is_said_to_be_enough(
    time: Steady,
) -> None:
    breaker = OriginBreaker(1, OPEN_S, time.ns)
    for _ in range(3):
        assert ask_in_vain(breaker, person(0)) == "ORIGIN_UNAVAILABLE"
    ask_well(breaker, person(1))


def test_a_bad_object_that_is_every_first_probe_does_not_keep_the_circuit_open(
    breaker: OriginBreaker, time: Steady
) -> None:
    bad = person(0)
    for _ in range(3):
        time.now_s += OPEN_S
        assert ask_in_vain(breaker, bad) == "ORIGIN_UNAVAILABLE"
        assert ask_in_vain(breaker, bad) == "ORIGIN_CIRCUIT_OPEN"
    # Another entry may ask at once, not only after the next pause.
    ask_well(breaker, person(1))
    assert not is_refused(breaker, person(2))


def test_after_an_answer_fills_ask_side_by_side_again(breaker: OriginBreaker, time: Steady) -> None:
    time.now_s += OPEN_S
    ask_well(breaker, person(0))
    with breaker.asking(person(1)):
        assert not is_refused(breaker, person(2))


def test_probes_of_several_entries_that_fail_begin_another_pause(
    breaker: OriginBreaker, time: Steady
) -> None:
    time.now_s += OPEN_S
    for index in range(FAILURES):
        assert ask_in_vain(breaker, person(index)) == "ORIGIN_UNAVAILABLE"
    assert ask_in_vain(breaker, person(FAILURES)) == "ORIGIN_CIRCUIT_OPEN"


def test_a_probe_that_hangs_gives_way_to_another_after_a_pause(
    breaker: OriginBreaker, time: Steady
) -> None:
    time.now_s += OPEN_S
    with breaker.asking(person(0)):
        assert is_refused(breaker, person(1))
        time.now_s += OPEN_S
        ask_well(breaker, person(1))
    assert not is_refused(breaker, person(2))


def test_a_bad_object_of_a_probe_is_an_answer_of_the_origin(
    breaker: OriginBreaker, time: Steady
) -> None:
    time.now_s += OPEN_S
    with pytest.raises(OriginDataCorrupt), breaker.asking(person(0)):
        raise OriginDataCorrupt("empty")
    assert not is_refused(breaker, person(1))


@pytest.mark.parametrize("nothing", [StaleFill("fenced"), HostBusy("no descriptors")])
def test_a_probe_that_says_nothing_of_the_origin_lets_the_next_one_ask(
    breaker: OriginBreaker, time: Steady, nothing: CacheError
) -> None:
    time.now_s += OPEN_S
    with pytest.raises(type(nothing)), breaker.asking(person(0)):
        raise nothing
    ask_well(breaker, person(0))
    assert not is_refused(breaker, person(1))


def test_what_this_host_lacks_is_not_counted_against_the_origin(time: Steady) -> None:
    breaker = OriginBreaker(FAILURES, OPEN_S, time.ns)
    for index in range(2 * FAILURES):
        with pytest.raises(HostBusy), breaker.asking(person(index)):
            raise HostBusy("no descriptors")
    ask_well(breaker, person(0))


def test_objects_that_somebody_is_writing_do_not_open_the_circuit(time: Steady) -> None:
    breaker = OriginBreaker(FAILURES, OPEN_S, time.ns)
    for index in range(2 * FAILURES):
        with pytest.raises(ObjectChanging), breaker.asking(person(index)):
            raise ObjectChanging("being written")
    ask_well(breaker, person(0))


def test_what_fails_after_the_origin_has_answered_is_not_counted_against_it(time: Steady) -> None:
    breaker = OriginBreaker(FAILURES, OPEN_S, time.ns)
    for index in range(2 * FAILURES):
        with suppress(OriginUnavailable), breaker.asking(person(index)) as asking:
            asking.answered()
            raise AWAY
    ask_well(breaker, person(0))


async def test_fills_that_wait_for_a_slot_in_vain_do_not_open_it(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(breaker_failures=FAILURES, breaker_open_s=OPEN_S, max_concurrent_fills=1)
    slow = person(100)
    house.upload(slow, 1)
    stop = house.gates.stop(f"origin {house.object_keys(slow)[0]}")
    filling = asyncio.create_task(house.version(slow))
    await stop.reached()
    house.engine.limits = replace(house.limits, fill_deadline_s=0.01)
    for index in range(2 * FAILURES):
        assert await reason_of(house, person(index)) == "FILLS_BUSY"
    assert not house.cache.levels().is_origin_left_alone
    stop.release()
    assert await filling == 1


async def test_puts_that_cannot_be_persisted_do_not_open_it(house: EngineHouse) -> None:
    for index in range(2 * FAILURES):
        fail(house, person(index))
        with pytest.raises(OriginUnavailable):
            await house.put(person(index), 1, persist=True)
    healthy = person(100)
    house.upload(healthy, 1)
    assert await house.version(healthy) == 1


def test_a_fill_from_before_the_opening_that_fails_does_not_prolong_the_pause(
    time: Steady,
) -> None:
    breaker = OriginBreaker(FAILURES, OPEN_S, time.ns)
    with suppress(OriginUnavailable), breaker.asking(person(100)):
        for index in range(FAILURES):
            ask_in_vain(breaker, person(index))
        time.now_s += OPEN_S / 2
        raise AWAY
    time.now_s += OPEN_S / 2
    assert not is_refused(breaker, person(100))


def test_a_probe_that_is_cancelled_lets_the_next_one_ask(
    breaker: OriginBreaker, time: Steady
) -> None:
    time.now_s += OPEN_S
    with pytest.raises(asyncio.CancelledError), breaker.asking(person(0)):
        raise asyncio.CancelledError
    with breaker.asking(person(0)):
        assert not breaker.is_open


def test_a_fill_that_did_not_ask_says_nothing_of_the_origin(time: Steady) -> None:
    breaker = OriginBreaker(2, OPEN_S, time.ns)
    ask_in_vain(breaker, person(0))
    with pytest.raises(StaleFill), breaker.asking(person(1)):
        raise StaleFill("fenced while it queued")
    ask_in_vain(breaker, person(2))
    assert breaker.is_open


# ---- the log


async def test_the_log_says_an_outages_first_failure_and_what_becomes_of_the_circuit(
    house: EngineHouse,
) -> None:
    with structlog.testing.capture_logs() as lines:
        await open_circuit(house)
        await reason_of(house, person(50))
        house.clock.advance(OPEN_S)
        house.upload(person(51), 1)
        await house.version(person(51))
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["event"], line.get("state")) for line in warnings] == [
        ("origin_fails", None),
        ("origin_circuit", "opened"),
        ("origin_circuit", "probed"),
        ("origin_circuit", "closed"),
    ]
    # Every failed fill has a log line, at a level that alerts nobody.
    failed = [line for line in lines if line["event"] == "fill_failed"]
    assert {line["log_level"] for line in failed} == {"info"}
    assert len(failed) == FAILURES + 1


async def test_while_an_outage_lasts_the_log_says_once_a_minute_how_many_fills_failed(
    house: EngineHouse,
) -> None:
    with structlog.testing.capture_logs() as lines:
        await open_circuit(house)
        for _ in range(6):
            house.clock.advance(20)
            await reason_of(house, person(0))
    counts = [line["failed_fills"] for line in lines if line["event"] == "origin_fails"]
    assert counts == [1, FAILURES + 3, FAILURES + 6]


async def test_one_bad_object_between_good_ones_is_said_once_a_minute_at_most(
    house: EngineHouse,
) -> None:
    fail(house, person(0))
    with structlog.testing.capture_logs() as lines:
        for index in range(1, 10):
            await reason_of(house, person(0))
            house.upload(person(index), 1)
            await house.version(person(index))
    assert len([line for line in lines if line["log_level"] == "warning"]) == 1


async def test_the_error_names_the_object_and_the_log_its_pseudonym(house: EngineHouse) -> None:
    key = person(0)
    fail(house, key)
    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(OriginUnavailable) as failed,
    ):
        await house.get(key)
    object_key = house.object_keys(key)[0]
    assert failed.value.object_keys == (object_key,)
    (line,) = [line for line in lines if line["event"] == "fill_failed"]
    pseudonyms = house.engine.pseudonyms
    assert line["objects"] == [pseudonyms.of(object_key)]
    assert line["what"] == f"{key.namespace}/{pseudonyms.of(key.id)}"
    assert key.id not in str({k: v for k, v in line.items() if k != "namespace"})


async def test_an_empty_object_is_data_loss_that_names_it(house: EngineHouse) -> None:
    house.upload(person(0), 1)
    object_key = house.object_keys(person(0))[1]
    house.origin.hold(object_key, b"")
    for _ in range(2 * FAILURES):
        with pytest.raises(OriginDataCorrupt) as failed:
            await house.get(person(0))
        assert (failed.value.reason, failed.value.object_keys) == ("OBJECT_EMPTY", (object_key,))
    house.upload(person(1), 1)
    assert await house.version(person(1)) == 1
