"""Does a scrape read the tiers' state only in the thread that changes it?

Promise 2: a thread that read L1's spare files once gave the same file to two keys.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from aiohttp.test_utils import make_mocked_request

import cachesvc
from cachesvc.core.access import Principal
from cachesvc.core.keys import EntryKey
from cachesvc.edge.http.gauges import Gauges
from cachesvc.edge.http.health import HealthRoutes
from cachesvc.edge.statistics import Statistics
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "user1")
PRODUCT = Path(cachesvc.__file__).parent


@contextmanager
def seen_in_new_threads() -> Iterator[set[str]]:
    """Yield the set of the product's modules whose functions run in threads started meanwhile."""
    seen: set[str] = set()

    def trace(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PRODUCT):
            seen.add(str(path.relative_to(PRODUCT)))

    before = threading.gettrace()
    threading.settrace(trace)
    try:
        yield seen
    finally:
        threading.settrace(before)


async def test_a_scrape_leaves_to_threads_only_the_file_system_and_the_text(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    statistics = Statistics(house.cache, house.memory, house.disk, house.metrics, "test")
    gauges = Gauges(house.cache, house.memory, house.disk)
    health = HealthRoutes(house.metrics, statistics, gauges, dict)
    (scrape,) = (route.handle for route in health.routes() if route.path == "/metrics")
    with seen_in_new_threads() as seen:
        answer = await scrape(make_mocked_request("GET", "/metrics"), Principal("", frozenset()))
    assert b'cachesvc_memory_entries{namespace="human_upper_body"} 1.0' in answer.body
    assert b"cachesvc_ready 1.0" in answer.body
    assert seen == {"metrics.py", "tiers/files.py", "tiers/memory.py"}
