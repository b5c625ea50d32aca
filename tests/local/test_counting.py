"""Are hits without a call counted, for the LRU order, the adaptive TTL and the metrics?"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cachesvc_client import CacheClient, InspectedTier, Tier
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.interposed import HeldReports
from tests.local.versioned import put_version
from tests.support.daemons import wait_until
from tests.support.sample_objects import fresh_id, garment, person, put_in_folder, text

NewClient = Callable[..., CacheClient]
REPORTED_WITHIN_S = 10.0
DOUBLED_FROM_ACCESSES = 10


def in_memory(client: CacheClient, id: str, namespace: str = "text") -> InspectedTier | None:
    found = client.inspect(namespace, id).tiers
    return next((tier for tier in found if tier.tier is Tier.MEMORY), None)


def accesses(client: CacheClient, id: str, namespace: str = "text") -> int:
    found = in_memory(client, id, namespace)
    return 0 if found is None else found.accesses


def test_an_entry_with_local_hits_only_is_not_the_one_that_is_evicted(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon(KINDS__TEXT__MAX_ENTRIES="2")
    client, worker = new_client(daemon), new_worker(daemon.target)
    hot, cold, newest = (fresh_id("text") for _ in range(3))
    put_version(client, hot, 1)
    worker.do(steps.get_and_drop, hot)
    put_version(client, cold, 2)
    counted = accesses(client, hot)
    worker.do(steps.hit_times, hot, 5)
    wait_until(lambda: accesses(client, hot) == counted + 5, REPORTED_WITHIN_S)
    put_version(client, newest, 3)
    assert in_memory(client, hot) is not None
    assert in_memory(client, cold) is None


def test_local_hits_alone_reach_the_adaptive_ttls_next_step(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon()
    client, worker, text = new_client(daemon), new_worker(daemon.target), fresh_id("text")
    put_version(client, text, 1)
    before = in_memory(client, text)
    assert before is not None
    worker.do(steps.hit_times, text, DOUBLED_FROM_ACCESSES)
    wait_until(lambda: accesses(client, text) >= DOUBLED_FROM_ACCESSES, REPORTED_WITHIN_S)
    after = in_memory(client, text)
    assert after is not None
    assert after.expires_in > 1.9 * before.expires_in


def test_every_local_hit_is_counted_once_over_workers_and_their_end(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon()
    client, text, times = new_client(daemon), fresh_id("text"), 25
    put_version(client, text, 1)
    workers = [new_worker(daemon.target) for _ in range(2)]
    for worker in workers:
        worker.do(steps.hit_times, text, 1 + times)
    for worker in workers:
        assert worker.close() == 0
    requests = client.stats().requests
    assert requests.local_hits == times * len(workers)
    assert requests.memory_hits == len(workers)
    assert daemon.metrics()['cachesvc_requests_total{tier="local"}'] == times * len(workers)
    assert accesses(client, text) == (1 + times) * len(workers)


def test_closing_waits_for_the_report_that_the_upkeep_is_sending(
    new_daemon: NewDaemon, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = new_daemon()
    client, reader, text = new_client(daemon), new_client(daemon), fresh_id("text")
    put_version(client, text, 1)
    held = HeldReports(reader._link)
    reader._link = held
    join = threading.Thread.join

    def join_after_release(thread: threading.Thread, timeout: float | None = None) -> None:
        held.released.set()
        join(thread, timeout)

    for _ in range(4):
        reader.get_text(text)
    assert held.begun.wait(REPORTED_WITHIN_S)
    monkeypatch.setattr(threading.Thread, "join", join_after_release)
    reader.close()
    monkeypatch.undo()
    assert client.stats().requests.local_hits == 3


def test_hits_of_an_entry_that_was_invalidated_meanwhile_are_counted_as_requests_only(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon = new_daemon()
    client, reader, text = new_client(daemon), new_client(daemon), fresh_id("text")
    put_version(client, text, 1)
    for _ in range(4):
        reader.get_text(text)
    client.invalidate(clothing_id=text)
    put_version(client, text, 2)
    reader.close()
    assert client.stats().requests.local_hits == 3
    assert accesses(client, text) == 0


def test_the_parts_of_a_try_on_are_counted_once_whether_a_call_is_needed_or_not(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon = new_daemon()
    client, reader = new_client(daemon), new_client(daemon)
    user, coat, dress = (fresh_id(word) for word in ("user", "coat", "dress"))
    garments = [make(id, user) for make in (garment, text) for id in (coat, dress)]
    put_in_folder(daemon.origin_dir, person(user), *garments)
    reader.get_tryon(user, coat)
    reader.get_tryon(user, dress)  # the person would be a local hit, but the call is for all three
    reader.get_tryon(user, dress)  # no call at all
    reader.close()
    assert client.stats().requests.local_hits == 3
    assert accesses(client, user, "human_upper_body") == 3
    assert accesses(client, dress, "garment") == accesses(client, dress) == 2
    assert accesses(client, coat, "garment") == accesses(client, coat) == 1
