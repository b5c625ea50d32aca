"""What do a thousand callers of one key cost the origin, and is each of them answered?

Promise 4.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cachesvc.core.errors import OriginUnavailable
from cachesvc.core.keys import EntryKey
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
WAITERS = 1000


async def wait_together(house: EngineHouse) -> list[asyncio.Task[int]]:
    """Return a thousand Gets that share one fill; their fill was held at the origin until all
    waited.
    """
    stop = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    waiters = [asyncio.create_task(house.version(PERSON)) for _ in range(WAITERS)]
    await stop.reached()
    assert house.metrics.value("coalesced_waiters") == WAITERS - 1
    stop.release()
    return waiters


async def test_a_thousand_waiters_of_one_key_cost_one_set_of_origin_reads(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    waiters = await wait_together(house)
    assert await asyncio.gather(*waiters) == [1] * WAITERS
    assert sorted(house.origin.reads) == sorted(house.object_keys(PERSON))


async def test_a_failing_origin_is_told_to_each_of_a_thousand_waiters(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    house.origin.errors[house.object_keys(PERSON)[0]] = OriginUnavailable("away")
    waiters = await wait_together(house)
    failures = await asyncio.gather(*waiters, return_exceptions=True)
    assert {type(failure) for failure in failures} == {OriginUnavailable}
    assert len(failures) == WAITERS
    assert sorted(house.origin.reads) == sorted(house.object_keys(PERSON))


async def test_the_last_of_a_thousand_waiters_is_answered_when_all_others_have_left(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    *leaving, last = (asyncio.create_task(house.version(PERSON)) for _ in range(WAITERS))
    await stop.reached()
    for waiter in leaving:
        waiter.cancel()
    ended = await asyncio.gather(*leaving, return_exceptions=True)
    assert {type(end) for end in ended} == {asyncio.CancelledError}
    with pytest.raises(asyncio.InvalidStateError):
        last.result()
    stop.release()
    assert await last == 1
    assert sorted(house.origin.reads) == sorted(house.object_keys(PERSON))


async def test_a_hanging_origin_is_told_to_each_of_a_thousand_waiters_and_holds_nothing_back(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(fill_deadline_s=0.3)
    house.upload(PERSON, 1)
    hangs = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    waiters = [asyncio.create_task(house.version(PERSON)) for _ in range(WAITERS)]
    await hangs.reached()
    failures = await asyncio.gather(*waiters, return_exceptions=True)
    assert {getattr(failure, "reason", failure) for failure in failures} == {"FILL_DEADLINE"}
    assert sorted(house.origin.reads) == sorted(house.object_keys(PERSON))
    house.engine.limits = replace(house.limits, fill_deadline_s=30.0)
    assert await house.version(PERSON) == 1


@pytest.mark.parametrize("ends", ["hangs", "fails"])
async def test_the_last_of_a_thousand_waiters_is_told_what_went_wrong_when_all_others_have_left(
    closed_house: EngineHouse, ends: str
) -> None:
    house = closed_house
    house.open(fill_deadline_s=0.3)
    house.upload(PERSON, 1)
    stop = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    *leaving, last = (asyncio.create_task(house.version(PERSON)) for _ in range(WAITERS))
    await stop.reached()
    for waiter in leaving:
        waiter.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    if ends == "fails":
        house.origin.errors[house.object_keys(PERSON)[0]] = OriginUnavailable("away")
        stop.release()
    with pytest.raises(OriginUnavailable):
        await last
    assert sorted(house.origin.reads) == sorted(house.object_keys(PERSON))
    house.origin.errors.clear()
    house.engine.limits = replace(house.limits, fill_deadline_s=30.0)
    assert await house.version(PERSON) == 1
