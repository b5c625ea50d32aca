"""Can the hits that a worker reports harm more than the worker's own counts?

Promise 5.
"""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.entry import MAX_ACCESSES
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.keys import EntryKey
from cachesvc.edge.grpc.local import (
    MAX_REPORTED_HITS,
    MAX_REPORTED_KEYS,
    REPORTED_AT_ONCE,
    LocalDelivery,
)
from cachesvc.edge.statistics import Statistics
from cachesvc_client import requests
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "user1")
MAX_UINT64 = (1 << 64) - 1


def hits(generation: int, count: int) -> pb.LocalHits:
    key = pb.EntryKey(namespace=PERSON.namespace, id=PERSON.id)
    return pb.LocalHits(key=key, generation=generation, count=count)


def stats_of(house: EngineHouse) -> pb.StatsResponse:
    return Statistics(house.cache, house.memory, house.disk, house.metrics, "test").response()


@pytest.mark.parametrize("count", [MAX_REPORTED_HITS + 1, MAX_UINT64])
async def test_a_report_with_a_count_that_cannot_be_is_refused_and_nothing_of_it_counted(
    house: EngineHouse, count: int
) -> None:
    house.upload(PERSON, 1)
    generation = (await house.get(PERSON)).meta.generation
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    report = pb.ReportHitsRequest(hits=[hits(generation, 1), hits(generation, count)])
    with pytest.raises(InvalidRequest) as refused:
        await local.report(report)
    assert refused.value.reason == "INVALID_COUNT"
    assert stats_of(house).requests.local_hits == 0
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is not None
    assert inspected.memory.accesses == 1


async def test_accesses_saturate_at_what_the_catalog_can_hold(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    served = await house.get(PERSON)
    await house.settle()
    assert house.cache.count_local_hits(PERSON, served.meta.generation, MAX_ACCESSES)
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    await local.report(pb.ReportHitsRequest(hits=[hits(served.meta.generation, MAX_REPORTED_HITS)]))
    await house.cache.upkeep.disk_step()
    row = await house.disk.lookup(PERSON)
    assert row is not None
    assert row.accesses == MAX_ACCESSES


async def test_stats_are_answered_when_the_local_hits_are_more_than_their_field_holds(
    house: EngineHouse,
) -> None:
    house.metrics.requests.inc("local", MAX_UINT64)
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    await local.report(pb.ReportHitsRequest(hits=[hits(1, MAX_REPORTED_HITS)]))
    assert stats_of(house).requests.local_hits == MAX_UINT64


async def test_a_report_of_too_many_keys_is_refused(house: EngineHouse) -> None:
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    report = pb.ReportHitsRequest(hits=[hits(1, 1)] * (MAX_REPORTED_KEYS + 1))
    with pytest.raises(InvalidRequest) as refused:
        await local.report(report)
    assert refused.value.reason == "TOO_MANY_KEYS"


async def test_others_have_their_turn_while_a_large_report_is_counted(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    generation = (await house.get(PERSON)).meta.generation
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    report = pb.ReportHitsRequest(hits=[hits(generation, 1)] * MAX_REPORTED_KEYS)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(other())
    assert (await local.report(report)).counted == MAX_REPORTED_KEYS
    others.cancel()
    assert turns >= MAX_REPORTED_KEYS // REPORTED_AT_ONCE


def test_the_client_splits_what_is_too_much_for_one_report() -> None:
    some = [("garment", f"g{index}", index, 1) for index in range(2 * MAX_REPORTED_KEYS + 1)]
    reports = [pb.ReportHitsRequest.FromString(call.request) for call in requests.report_hits(some)]
    assert [len(report.hits) for report in reports] == [MAX_REPORTED_KEYS, MAX_REPORTED_KEYS, 1]
    assert list(requests.report_hits([])) == []
