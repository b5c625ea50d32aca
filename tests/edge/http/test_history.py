"""Does the status page's history keep the last minutes, and nothing older?

Promise 5.
"""

from __future__ import annotations

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.keys import EntryKey
from cachesvc.edge.http.history import MAX_SAMPLES, History
from cachesvc.edge.statistics import Statistics
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "user1")


def history_of(house: EngineHouse) -> History:
    statistics = Statistics(house.cache, house.memory, house.disk, house.metrics, "test")
    return History(statistics, house.metrics)


async def test_a_sample_has_the_counts_of_its_moment(house: EngineHouse) -> None:
    history = history_of(house)
    history.step(0)
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.get(PERSON)
    history.step(NS_PER_S)
    before, after = history.json()["samples"]
    assert (before["at"], after["at"]) == ("1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z")
    assert before["requests"]["total"] == 0
    assert after["requests"]["origin_fills"] == 1
    assert after["requests"]["memory_hits"] == 1
    assert after["requests"]["total"] == 2
    assert [after["latency"][tier][-1] for tier in ("memory", "disk", "origin")] == [1, 0, 1]
    assert after["size_bytes"]["memory"] == house.memory.index.used_bytes > 0


async def test_only_the_last_samples_are_kept(house: EngineHouse) -> None:
    history = history_of(house)
    for second in range(MAX_SAMPLES + 3):
        history.step(second * NS_PER_S)
    samples = history.json()["samples"]
    assert len(samples) == MAX_SAMPLES
    assert samples[0]["at"] == "1970-01-01T00:00:03Z"
