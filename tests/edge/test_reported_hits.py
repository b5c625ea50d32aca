"""Can what a worker says of its own hits harm more than its own counts?

Promise 5.
"""

from __future__ import annotations

import pytest

from cachesvc.core.entry import MAX_ACCESSES
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.keys import EntryKey
from cachesvc.edge.local import MAX_REPORTED_HITS, LocalDelivery
from cachesvc.edge.statistics import Statistics
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.engine_house import EngineHouse

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
        local.report(report)
    assert refused.value.reason == "INVALID_COUNT"
    assert stats_of(house).requests.local_hits == 0
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is not None
    assert inspected.memory.accesses == 1


async def test_accesses_saturate_at_what_the_catalog_can_hold(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    served = await house.get(PERSON)
    await house.settle()
    assert house.cache.record_local_hits(PERSON, served.meta.generation, MAX_ACCESSES)
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    local.report(pb.ReportHitsRequest(hits=[hits(served.meta.generation, MAX_REPORTED_HITS)]))
    await house.cache.upkeep.disk_step()
    row = await house.disk.lookup(PERSON)
    assert row is not None
    assert row.accesses == MAX_ACCESSES


async def test_stats_are_answered_when_the_local_hits_are_more_than_their_field_holds(
    house: EngineHouse,
) -> None:
    house.metrics.requests.inc("local", MAX_UINT64)
    local = LocalDelivery(house.cache, house.runtime, b"boot", lambda: True)
    local.report(pb.ReportHitsRequest(hits=[hits(1, MAX_REPORTED_HITS)]))
    assert stats_of(house).requests.local_hits == MAX_UINT64
