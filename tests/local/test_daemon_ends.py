"""Promise 9 for local hits: what do workers see when the daemon is killed, stopped or replaced?"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cachesvc_client import (
    Aborted,
    CacheClient,
    CacheServiceError,
    NotCached,
    PreconditionFailed,
    requests,
)
from cachesvc_client._reading import Received
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.processes import process_ids_with_locked
from tests.local.steps import Ended
from tests.local.versioned import put_version, version_of
from tests.local.workers import Worker
from tests.support.daemons import Daemon, wait_until
from tests.support.sample_objects import fresh_id
from tests.support.server_processes import ReservedPort

NewClient = Callable[..., CacheClient]
# The age of the oldest heartbeat that a worker still trusts.
TRUSTED_S = 1.0
# The place of the control page's state: docs/on-disk-format.md.
STATE, STATE_OFFSET, CLOSED = struct.Struct("<I"), 12, 2
SUCCESSION_S = 1.1
ABSENT = ("NotCached", "PreconditionFailed")


def start_hitting(worker: Worker, clothing_id: str, tmp_path: Path) -> None:
    """Let the worker Get until a Get fails; return after its first answer."""
    flag = tmp_path / "got"
    worker.begin(steps.get_until_it_fails, clothing_id, str(flag))
    wait_until(flag.exists, 20.0)


def pid_of(daemon: Daemon) -> int:
    (pid,) = process_ids_with_locked(daemon.l2_root)
    return pid


@pytest.fixture
def port() -> Iterator[int]:
    """A loopback port for a daemon and its successor."""
    reserved = ReservedPort()
    yield reserved.number
    reserved.release()


def test_local_hits_end_within_a_second_of_the_daemons_death(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    put_version(new_client(daemon), text, 1)
    worker = new_worker(daemon.target, wait_s=0)
    worker.do(steps.get, "held", text)
    before = worker.do(steps.digest, "held")
    start_hitting(worker, text, tmp_path)
    daemon.kill()
    killed_s = time.monotonic()
    ended: Ended = worker.result()
    assert ended.error == "CacheUnavailable"
    assert ended.served > 1
    assert ended.last_started_s <= killed_s + TRUSTED_S
    assert worker.do(steps.digest, "held") == before


def test_what_was_invalidated_does_not_come_back_with_the_next_daemon(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon, gone, kept = new_daemon(), fresh_id("text"), fresh_id("text")
    client = new_client(daemon)
    put_version(client, gone, 1)
    put_version(client, kept, 2)
    worker = new_worker(daemon.target)
    worker.do(steps.get, "gone", gone)
    worker.do(steps.get, "kept", kept)
    before = worker.do(steps.digest, "gone")
    client.invalidate(clothing_id=gone)
    daemon.restart()
    assert worker.do(steps.try_get, gone) in ABSENT
    assert worker.do(steps.get_and_drop, kept) == 2
    assert worker.do(steps.digest, "gone") == before
    assert not worker.do(steps.is_current, "gone")


def test_a_worker_uses_the_files_of_the_next_daemon_in_the_same_directory(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    client = new_client(daemon)
    put_version(client, text, 1)
    first = client.get_text(text)
    daemon.restart()

    def is_attached_again() -> bool:
        client.get_text(text)
        return client.transport == "shared_file"

    wait_until(is_attached_again, 20.0, lambda: client.transport)
    assert version_of(client.get_text(text)) == version_of(first) == 1
    assert first.is_current()


def test_a_killed_daemons_page_is_closed_by_its_successor(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    client = new_client(daemon, wait_s=0)
    put_version(client, text, 1)
    client.get_text(text)
    before = client._local._control
    assert before is not None
    daemon.restart()
    # The heartbeat may still be fresh; the state stays closed for ever.
    assert STATE.unpack_from(before._page, STATE_OFFSET) == (CLOSED,)
    assert not before.is_serving()


def test_local_hits_end_while_the_daemon_is_stopped_and_come_back(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    put_version(new_client(daemon), text, 1)
    worker = new_worker(daemon.target, timeout_s=2, wait_s=0)
    start_hitting(worker, text, tmp_path)
    pid = pid_of(daemon)
    os.kill(pid, signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()
        ended: Ended = worker.result()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ended.error in ("CacheUnavailable", "DeadlineExceeded")
    assert ended.last_started_s <= stopped_s + TRUSTED_S

    def works_again() -> bool:
        return worker.do(steps.try_get, text) == "served"

    wait_until(works_again, 20.0)
    wait_until(
        lambda: works_again() and worker.do(steps.transport) == "shared_file",
        20.0,
        lambda: worker.do(steps.transport),
    )


def test_no_local_hit_outlives_a_daemon_that_was_asked_to_end(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    put_version(new_client(daemon), text, 1)
    worker = new_worker(daemon.target, wait_s=0)
    start_hitting(worker, text, tmp_path)
    assert daemon.stop() == 0
    ended_s = time.monotonic()
    ended: Ended = worker.result()
    assert ended.error == "CacheUnavailable"
    assert ended.last_started_s <= ended_s


def test_a_successor_elsewhere_acknowledges_nothing_that_a_worker_could_still_contradict(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    first, text = new_daemon(), fresh_id("text")
    put_version(new_client(first), text, 1)
    worker = new_worker(first.target, wait_s=0)
    start_hitting(worker, text, tmp_path)
    first.kill()
    killed_s = time.monotonic()
    second = new_daemon(L2__ROOT=str(first.l2_root), STATE_DIR=str(first.state_dir))
    new_client(second).invalidate(clothing_id=text)
    acknowledged_s = time.monotonic()
    ended: Ended = worker.result()
    assert acknowledged_s >= killed_s + SUCCESSION_S
    assert ended.last_started_s < acknowledged_s


def test_a_page_of_an_older_life_does_not_shorten_the_successors_wait(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    oldest, text = new_daemon(), fresh_id("text")
    home = {"L2__ROOT": str(oldest.l2_root), "STATE_DIR": str(oldest.state_dir)}
    oldest.stop()
    before = new_daemon(**home)
    put_version(new_client(before), text, 1)
    worker = new_worker(before.target, wait_s=0)
    start_hitting(worker, text, tmp_path)
    before.kill()
    killed_s = time.monotonic()
    oldest.start()
    new_client(oldest).invalidate(clothing_id=text)
    acknowledged_s = time.monotonic()
    ended: Ended = worker.result()
    assert acknowledged_s >= killed_s + SUCCESSION_S
    assert ended.last_started_s < acknowledged_s


def test_a_successor_elsewhere_delays_puts_in_the_same_way(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    first, text = new_daemon(), fresh_id("text")
    first.kill()
    killed_s = time.monotonic()
    second = new_daemon(L2__ROOT=str(first.l2_root), STATE_DIR=str(first.state_dir))
    put_version(new_client(second), text, 2)
    assert time.monotonic() >= killed_s + SUCCESSION_S
    # A slow start may take as long, so the catalog's own record is checked.
    assert 0 < wait_of(second) <= time.time_ns()


def test_a_root_that_was_cleaned_meanwhile_does_not_hide_its_last_daemon(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    first, text = new_daemon(), fresh_id("text")
    new_client(first).invalidate(clothing_id=text)
    read_at = datetime.now(UTC)
    first.kill()
    for path in first.l2_root.iterdir():
        (path.rmdir if path.is_dir() else path.unlink)()
    second = new_daemon(L2__ROOT=str(first.l2_root), STATE_DIR=str(first.state_dir))
    assert wait_of(second) > 0
    # The dead daemon may have acknowledged changes that its catalog did not hold.
    with pytest.raises(Aborted):
        put_version(new_client(second), text, 1, as_of=read_at)


def wait_of(daemon: Daemon) -> int:
    """Return the moment before which the daemon acknowledges nothing, as its catalog records it."""
    uri = f"file:{daemon.state_dir / 'catalog.sqlite'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as catalog:
        return int(catalog.execute("SELECT acknowledge_from_ns FROM facts").fetchone()[0])


def test_entries_of_one_daemon_are_not_kept_over_the_next_ones_boot_id(
    new_daemon: NewDaemon, new_client: NewClient, port: int
) -> None:
    # A: keeps a file of D in X | D: kill -9, X stays as it is | D2 starts in Y, at D's address
    # B: invalidates, D2 knows nothing of X | A: sees D2's page, its file still has a name
    first, text, other = new_daemon(GRPC__LISTEN=f"127.0.0.1:{port}"), fresh_id("t"), fresh_id("t")
    with CacheClient(f"127.0.0.1:{port}", wait_s=20.0) as client:
        put_version(client, text, 1)
        put_version(client, other, 2)
        client.get_text(text)
        client.get_text(other)
        left = sorted((first.runtime_dir / "l1").iterdir())
        first.kill()
        second = new_daemon(
            GRPC__LISTEN=f"127.0.0.1:{port}",
            L2__ROOT=str(first.l2_root),
            STATE_DIR=str(first.state_dir),
        )
        # Over the socket: on loopback, a caller without a credential has the worker's role only.
        new_client(second).invalidate(clothing_id=text)

        def is_attached_again() -> bool:
            client._local._next_attach_s = 0.0
            client.get_text(other)
            return client.transport == "shared_file"

        wait_until(is_attached_again, 20.0, lambda: client.transport)
        assert left == sorted((first.runtime_dir / "l1").iterdir()) != []
        with pytest.raises((NotCached, PreconditionFailed)):
            client.get_text(text)


def test_an_answer_of_a_dead_daemon_is_not_opened_in_its_successors_directory(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    # client: is told l1/NAME | the daemon dies, the next one writes another entry as l1/NAME
    # (process ids repeat in containers) | client: opens l1/NAME
    daemon, mine, other = new_daemon(), fresh_id("text"), fresh_id("text")
    client = new_client(daemon)
    put_version(client, mine, 1)
    put_version(client, other, 2)
    client.get_text(mine)
    # The client is held up, and so is its upkeep, which would notice the closed page.
    client._local._ended.set()
    asked_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    answer: Received = client._link.ask(requests.get_text(mine, "", None, "", shared=True), 5.0)
    assert answer.file is not None
    daemon.restart()
    new_client(daemon).get_text(other)
    (others_file,) = (daemon.runtime_dir / "l1").iterdir()
    shutil.copy(others_file, daemon.runtime_dir / answer.file.name)
    assert client._local.accept(answer, asked_ns) is None
    assert version_of(client.get_text(mine)) == 1


def test_a_get_whose_daemon_dies_fails_as_unavailable_and_not_as_absent(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon, clothing_id = new_daemon(), fresh_id("text")
    client = new_client(daemon, wait_s=0)
    put_version(client, clothing_id, 1)
    client.get_text(clothing_id)
    daemon.stop()
    with pytest.raises(CacheServiceError) as failure:
        client.get_text(clothing_id)
    assert not isinstance(failure.value, NotCached | PreconditionFailed)
