"""What does `Invalidate(erase)` reach, and what not? The strictest part of promise 1."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from cachesvc_client import CacheClient, _shared_file
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.processes import deleted_files
from tests.local.versioned import put_version, version_of
from tests.local.workers import Worker
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
# In an entry of 64 KB with pages of 4 KB: so far apart that no page holds both.
NEAR_THE_START, NEAR_THE_END = 1_000, 7_000


@pytest.fixture
def worker(daemon: Daemon, new_worker: NewWorker) -> Worker:
    return new_worker(daemon.target)


def test_pages_that_a_worker_only_mapped_read_zeros(client: CacheClient, worker: Worker) -> None:
    text = fresh_id("text")
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    count = worker.do(steps.word_count, "held")
    client.invalidate(clothing_id=text, erase=True)
    assert worker.do(steps.words, "held", range(count)) == [0] * count
    assert not worker.do(steps.is_current, "held")


def test_pages_that_a_worker_wrote_to_keep_its_own_values(
    client: CacheClient, worker: Worker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    worker.do(steps.write_word, "held", NEAR_THE_START, 99)
    client.invalidate(clothing_id=text, erase=True)
    at = (NEAR_THE_START, NEAR_THE_START + 1, NEAR_THE_END)
    assert worker.do(steps.words, "held", at) == [99, 7, 0]


def test_evicted_entries_that_are_still_mapped_are_erased_too(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon(KINDS__TEXT__MAX_ENTRIES="1")
    client, worker = new_client(daemon), new_worker(daemon.target)
    text, other = fresh_id("text"), fresh_id("text")
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    put_version(client, other, 8)
    assert worker.do(steps.version, "held") == 7
    client.invalidate(clothing_id=text, erase=True)
    assert worker.do(steps.version, "held") == 0


def test_replaced_entries_that_are_still_mapped_are_erased_too(
    client: CacheClient, worker: Worker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 7)
    worker.do(steps.get, "old", text)
    put_version(client, text, 8)
    worker.do(steps.get, "new", text)
    client.invalidate(clothing_id=text, erase=True)
    assert worker.do(steps.version, "old") == worker.do(steps.version, "new") == 0


@pytest.mark.parametrize("step", ["private_mapping", "opened_file"])
def test_an_entry_that_is_erased_while_it_is_opened_is_asked_for_again(
    daemon: Daemon,
    client: CacheClient,
    new_client: NewClient,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    # reader: opens | another: Invalidate with erase, then a Put | reader: maps, reads the header
    # reader: opens, reads the header | another: the same | reader: the fields' bytes are zeros
    text, reader, l1 = fresh_id("text"), new_client(daemon), daemon.runtime_dir / "l1"
    put_version(client, text, 7)
    already = deleted_files(os.getpid(), l1)
    original, erasures = getattr(_shared_file, step), iter([text])

    def erase() -> None:
        for erased in erasures:  # only the first time
            client.invalidate(clothing_id=erased, erase=True)
            put_version(client, erased, 8)

    def erase_around(*arguments: Any) -> Any:
        if step == "private_mapping":
            erase()
        result = original(*arguments)
        erase()
        return result

    monkeypatch.setattr(_shared_file, step, erase_around)
    assert version_of(reader.get_text(text)) == 8
    assert set(deleted_files(os.getpid(), l1)) <= set(already)


def test_other_entries_are_not_erased(client: CacheClient, worker: Worker) -> None:
    text, other = fresh_id("text"), fresh_id("text")
    put_version(client, text, 7)
    put_version(client, other, 8)
    worker.do(steps.get, "held", text)
    worker.do(steps.get, "other", other)
    client.invalidate(clothing_id=text, erase=True)
    assert worker.do(steps.version, "other") == 8
    assert worker.do(steps.is_current, "other")


def test_an_invalidation_without_erase_leaves_what_a_worker_has(
    client: CacheClient, worker: Worker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    client.invalidate(clothing_id=text)
    assert worker.do(steps.version, "held") == 7
    # A second call reaches the entry that the worker still holds.
    client.invalidate(clothing_id=text, erase=True)
    assert worker.do(steps.version, "held") == 0


def test_an_entry_that_nobody_reads_is_simply_gone(client: CacheClient, worker: Worker) -> None:
    text = fresh_id("text")
    put_version(client, text, 7)
    assert client.invalidate(clothing_id=text, erase=True).removed_count == 1
    assert worker.do(steps.try_get, text) in ("NotCached", "PreconditionFailed")


def test_after_an_erase_the_next_put_is_served(client: CacheClient, worker: Worker) -> None:
    text = fresh_id("text")
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    client.invalidate(clothing_id=text, erase=True)
    put_version(client, text, 8)
    assert worker.do(steps.get, "next", text) == 8
    assert worker.do(steps.version, "held") == 0
