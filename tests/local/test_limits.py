"""Promise 5 for workers: what bounds the descriptors and bytes that a client keeps open?"""

from __future__ import annotations

import pytest

from cachesvc_client import CacheClient
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.versioned import DEFAULT_SIZE_BYTES, put_version
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

MANY = 1_000
SMALL_BYTES = 4_000


def put_many(client: CacheClient, count: int, size_bytes: int = DEFAULT_SIZE_BYTES) -> list[str]:
    texts = [fresh_id("text") for _ in range(count)]
    for version, text in enumerate(texts):
        put_version(client, text, version, size_bytes=size_bytes)
    return texts


def test_a_client_keeps_at_most_so_many_entries_open(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    texts = put_many(client, 5)
    worker = new_worker(daemon.target, local={"max_entries": 2})
    assert worker.do(steps.get_all, texts) == [0, 1, 2, 3, 4]
    l1 = str(daemon.runtime_dir / "l1")
    assert worker.do(steps.descriptors_below, l1) == 2
    # The two that were used last are local hits; the others are calls.
    before = client.stats().requests.memory_hits
    assert worker.do(steps.get_all, [texts[4], texts[3]]) == [4, 3]
    assert client.stats().requests.memory_hits == before
    assert worker.do(steps.get_all, [texts[0]]) == [0]
    assert client.stats().requests.memory_hits == before + 1


def test_a_client_keeps_at_most_so_many_bytes_open(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    texts = put_many(client, 4)
    worker = new_worker(daemon.target, local={"max_bytes": 3 * DEFAULT_SIZE_BYTES})
    assert worker.do(steps.get_all, texts) == [0, 1, 2, 3]
    # Each entry has a header too, so three do not fit.
    assert worker.do(steps.descriptors_below, str(daemon.runtime_dir / "l1")) == 2


@pytest.mark.parametrize("limit", [{"max_entries": 0}, {"max_bytes": 1_000}])
def test_an_entry_beyond_the_limit_is_mapped_and_not_kept(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker, limit: dict[str, int]
) -> None:
    (text,) = put_many(client, 1)
    worker = new_worker(daemon.target, local=limit)
    for name in ("first", "second"):
        assert worker.do(steps.get, name, text) == 0
        assert worker.do(steps.is_mapped, name)
    worker.do(steps.drop, "first", "second")
    assert worker.do(steps.descriptors_below, str(daemon.runtime_dir / "l1")) == 0


@pytest.mark.timeout(180)
def test_descriptors_do_not_grow_over_a_thousand_keys(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    worker = new_worker(daemon.target, local={"max_entries": 8})
    texts = put_many(client, 10, SMALL_BYTES)
    assert worker.do(steps.get_all, texts) == list(range(10))
    before = worker.do(steps.descriptors_below, "/")
    for _ in range(MANY // 100):
        texts = put_many(client, 100, SMALL_BYTES)
        assert worker.do(steps.get_all, texts) == list(range(100))
    assert worker.do(steps.descriptors_below, "/") <= before
    assert worker.do(steps.descriptors_below, str(daemon.runtime_dir / "l1")) <= 8


@pytest.mark.parametrize("left", range(4))
def test_without_a_free_descriptor_entries_come_inline(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker, left: int
) -> None:
    texts = put_many(client, 6)
    worker = new_worker(daemon.target)
    worker.do(steps.get, "first", texts[0])
    worker.do(steps.use_up_descriptors, left)
    for version, text in enumerate(texts):
        assert worker.do(steps.get, text, text) == version
    assert worker.do(steps.get, "again", texts[0]) == 0
    assert not all(worker.do(steps.is_mapped, text) for text in texts)


def test_with_local_delivery_switched_off_everything_comes_inline(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    (text,) = put_many(client, 1)
    worker = new_worker(daemon.target, local={"enabled": False})
    assert worker.do(steps.get, "it", text) == 0
    assert not worker.do(steps.is_mapped, "it")
    assert worker.do(steps.transport) == "inline: shared files are switched off"
