"""Threads, forks and exits: does local delivery work in every way in which a worker may run?"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cachesvc_client import CacheClient, NotCached, PreconditionFailed
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.versioned import put_version, version_of
from tests.support.daemons import Daemon, wait_until
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
THREADS = 8
ROUNDS = 30
ABSENT = ("NotCached", "PreconditionFailed")


def test_eight_threads_see_nothing_older_than_what_was_acknowledged(
    daemon: Daemon, client: CacheClient, new_client: NewClient
) -> None:
    texts = [fresh_id("text") for _ in range(2)]
    floors = dict.fromkeys(texts, 1)
    for text in texts:
        put_version(client, text, 1)
    reader, over = new_client(daemon), threading.Event()

    def read() -> tuple[int, list[tuple[int, int]]]:
        gets, stale = 0, []
        while not over.is_set():
            for text in texts:
                floor = floors[text]
                try:
                    found = version_of(reader.get_text(text))
                except (NotCached, PreconditionFailed):
                    continue
                gets += 1
                if found < floor:
                    stale.append((found, floor))
        return gets, stale

    with ThreadPoolExecutor(THREADS) as pool:
        reading = [pool.submit(read) for _ in range(THREADS)]
        try:
            for version in range(2, 2 + ROUNDS):
                for text in texts:
                    client.invalidate(clothing_id=text)
                    floors[text] = version
                    put_version(client, text, version)
        finally:
            over.set()
        seen = [future.result() for future in reading]
    assert [stale for _, stale in seen if stale] == []
    assert all(gets > 0 for gets, _ in seen)


def test_a_forked_child_starts_anew_and_its_parent_notices_nothing(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    worker.do(steps.hit_times, text, 3)
    l1 = str(daemon.runtime_dir / "l1")
    assert worker.do(steps.descriptors_below, l1) == 1
    inherited, version, how, code = worker.do(steps.fork_and_get, text, l1)
    assert (inherited, version, how, code) == (0, 1, "shared_file", 0)
    before = client.stats().requests.memory_hits
    assert worker.do(steps.get_and_drop, text) == 1
    assert client.stats().requests.memory_hits == before
    client.invalidate(clothing_id=text)
    assert worker.do(steps.try_get, text) in ABSENT


def test_a_forked_child_finds_what_changed_since_the_fork(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    assert worker.do(steps.get_and_drop, text) == 1
    put_version(client, text, 2)
    _, version, _, code = worker.do(steps.fork_and_get, text, str(daemon.runtime_dir))
    assert (version, code) == (2, 0)


def test_a_stopped_reader_is_not_waited_for_and_finds_the_change_when_it_goes_on(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    worker.do(steps.get, "held", text)
    worker.send_signal(signal.SIGSTOP)
    try:
        client.invalidate(clothing_id=text)
        put_version(client, text, 2)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert worker.do(steps.get_and_drop, text) == 2
    assert worker.do(steps.version, "held") == 1


def test_a_process_that_ends_without_closing_its_client_ends_well(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    worker.do(steps.get, "held", text)
    assert worker.close() == 0


def test_a_client_that_was_only_forgotten_lets_go_of_everything(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    worker.do(steps.get_and_drop, text)
    worker.do(steps.forget_client, daemon.target)
    l1 = str(daemon.runtime_dir)
    wait_until(lambda: worker.do(steps.descriptors_below, l1) == 0, 10.0)


def test_entries_outlive_their_client(daemon: Daemon, client: CacheClient) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    with CacheClient(daemon.target) as closing:
        closing.get_text(text)
        entry = closing.get_text(text)
    assert version_of(entry) == 1
