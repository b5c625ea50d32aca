"""What happens in workers when an entry is invalidated, evicted, replaced or expires?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cachesvc_client import CacheClient, LocalOptions, NotCached, Tier
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.interposed import InterposedLink
from tests.local.processes import deleted_files, process_ids_with_locked
from tests.local.steps import Ended
from tests.local.versioned import DEFAULT_SIZE_BYTES, put_version, upload_version, version_of
from tests.local.workers import Held
from tests.support.daemons import Daemon, wait_until
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
ABSENT = ("NotCached", "PreconditionFailed")
# Time for an upkeep of the client, one of the daemon, and a busy machine.
LET_GO_WITHIN_S = 10.0


def test_a_get_after_an_invalidation_is_no_local_hit(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    worker.do(steps.get, "held", text)
    assert worker.do(steps.is_mapped, "held")
    assert worker.do(steps.is_current, "held")
    client.invalidate(clothing_id=text)
    assert worker.do(steps.try_get, text) in ABSENT
    assert not worker.do(steps.is_current, "held")
    assert worker.do(steps.version, "held") == 1


def test_a_get_after_a_put_is_the_new_entry(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    text = fresh_id("text")
    worker = new_worker(daemon.target)
    for version in range(1, 6):
        put_version(client, text, version)
        assert worker.do(steps.get, f"v{version}", text) == version
    assert [worker.do(steps.version, f"v{version}") for version in range(1, 6)] == [1, 2, 3, 4, 5]
    assert not worker.do(steps.is_current, "v4")
    assert worker.do(steps.is_current, "v5")


def test_an_entry_that_was_only_evicted_is_asked_for_again_and_is_still_current(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    client = new_client(new_daemon(KINDS__TEXT__MAX_ENTRIES="1"))
    first, second = fresh_id("text"), fresh_id("text")
    put_version(client, first, 1)
    held = client.get_text(first)
    put_version(client, second, 2)
    assert [found.tier for found in client.inspect("text", first).tiers] == [Tier.DISK]
    assert held.is_current()
    again = client.get_text(first)
    assert again.info.tier is Tier.DISK
    assert again.info.generation == held.info.generation
    assert version_of(again) == version_of(held) == 1


def test_an_entry_that_is_gone_between_the_answer_and_the_open_comes_inline(
    client: CacheClient, daemon: Daemon, new_client: NewClient
) -> None:
    # client: is told l1/NAME | another: Put, NAME is unlinked | client: open -> ENOENT, asks again
    text, reader = fresh_id("text"), new_client(daemon)
    put_version(client, text, 1)
    reader.get_text(text).is_current()
    client.invalidate(clothing_id=text)
    put_version(client, text, 2)
    link = InterposedLink(reader._link, then=lambda: put_version(client, text, 3))
    reader._link = link
    entry = reader.get_text(text)
    assert version_of(entry) == 3
    assert not steps.is_mapped(Held(reader, {"it": entry}), "it")
    assert link.calls == 2
    assert reader.transport == "shared_file"


def test_an_invalidation_between_the_answer_and_the_open_is_not_undone_by_the_file(
    client: CacheClient, daemon: Daemon, new_client: NewClient
) -> None:
    text, reader = fresh_id("text"), new_client(daemon)
    put_version(client, text, 1)
    reader._link = InterposedLink(reader._link, then=lambda: client.invalidate(clothing_id=text))
    assert steps.try_get(Held(reader), text) in ABSENT


def test_a_local_hit_ends_at_the_entrys_expiry(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    text = fresh_id("text")
    worker = new_worker(daemon.target)
    worker.do(steps.transport)
    ttl = timedelta(seconds=5)  # the first Get may be slow
    put_version(client, text, 1, ttl=ttl)
    put_by_s = time.monotonic()
    worker.begin(steps.get_until_it_fails, text, str(tmp_path / "got"))
    ended: Ended = worker.result()
    assert ended.error in ABSENT
    assert ended.served > 0
    assert ended.last_started_s < put_by_s + ttl.total_seconds()


def test_the_time_of_day_does_not_decide_whether_a_local_hit_is_allowed(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker
) -> None:
    for years in (-1, 1):
        text = fresh_id("text")
        put_version(client, text, 1)
        worker = new_worker(daemon.target)
        worker.do(steps.set_wall_clock_off, years * 365 * 86_400.0)
        calls = client.stats().requests.memory_hits
        assert worker.do(steps.get_all, [text] * 10) == [1] * 10
        assert client.stats().requests.memory_hits == calls + 1
        client.invalidate(clothing_id=text)
        assert worker.do(steps.try_get, text) in ABSENT


def test_an_origin_after_that_a_kept_entry_meets_needs_no_call(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    client, text = new_client(new_daemon(ORIGIN__ORIGIN_AFTER_GRACE_S="600")), fresh_id("text")
    put_version(client, text, 1)
    first = client.get_text(text)
    assert first.info.origin_time is not None
    before = client.stats().requests
    client.get_text(text, origin_after=first.info.origin_time)
    client.get_text(text, origin_after=first.info.origin_time - timedelta(days=1))
    assert client.stats().requests.memory_hits == before.memory_hits
    # A moment in the future counts as now, which the entry's time plus the grace exceeds.
    held = client.get_text(text, origin_after=datetime.now(UTC) + timedelta(days=1))
    assert version_of(held) == 1


def test_an_origin_after_that_a_kept_entry_does_not_meet_is_no_local_hit(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    client, text = new_client(new_daemon(ORIGIN__ORIGIN_AFTER_GRACE_S="0")), fresh_id("text")
    as_of = datetime.now(UTC)
    put_version(client, text, 1, as_of=as_of)
    assert version_of(client.get_text(text)) == 1
    assert version_of(client.get_text(text, origin_after=as_of - timedelta(hours=1))) == 1
    with pytest.raises(NotCached):
        client.get_text(text, owner_id="nobody", origin_after=datetime.now(UTC))


def test_an_origin_time_later_than_now_meets_no_origin_after_in_the_worker_either(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon, owner, text = new_daemon(), fresh_id("owner"), fresh_id("text")
    client = new_client(daemon)
    upload_version(daemon.origin_dir, owner, text, 1, size_bytes=DEFAULT_SIZE_BYTES)
    ahead_s = time.time() + 365 * 86_400
    for path in daemon.origin_dir.rglob(f"{text}_*"):
        os.utime(path, (ahead_s, ahead_s))
    assert version_of(client.get_text(text, owner_id=owner)) == 1
    assert version_of(client.get_text(text, owner_id=owner)) == 1
    assert client.transport == "shared_file"
    upload_version(daemon.origin_dir, owner, text, 2, size_bytes=DEFAULT_SIZE_BYTES)
    changed_at = datetime.now(UTC)
    assert version_of(client.get_text(text, owner_id=owner, origin_after=changed_at)) == 2


def test_a_worker_lets_go_of_what_was_invalidated_and_the_memory_is_free(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon()
    client, texts = new_client(daemon), [fresh_id("text") for _ in range(4)]
    worker = new_worker(daemon.target)
    for number, text in enumerate(texts):
        put_version(client, text, number)
        worker.do(steps.get, text, text)
    client.invalidate(namespace="text")
    assert len(deleted_files(worker.pid, daemon.runtime_dir)) >= len(texts)
    assert client.stats().held_bytes > len(texts) * 60_000
    worker.do(steps.drop, *texts)
    wait_until(lambda: not deleted_files(worker.pid, daemon.runtime_dir), LET_GO_WITHIN_S)
    wait_until(lambda: client.stats().held_bytes == 0, LET_GO_WITHIN_S)
    assert daemon.l1_bytes() == 0


def test_a_worker_that_was_killed_holds_nothing(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon()
    client, text = new_client(daemon), fresh_id("text")
    put_version(client, text, 1)
    worker = new_worker(daemon.target)
    worker.do(steps.get, "held", text)
    client.invalidate(clothing_id=text)
    assert client.stats().held_bytes > 0
    worker.kill()
    wait_until(lambda: client.stats().held_bytes == 0, LET_GO_WITHIN_S)


def test_bytes_that_readers_hold_count_against_the_limit_and_answers_come_inline(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    daemon = new_daemon(L1__MAX_BYTES=str(1 << 20))
    client, size_bytes = new_client(daemon), 400_000
    texts = [fresh_id("text") for _ in range(3)]
    worker = new_worker(daemon.target)
    for number, text in enumerate(texts[:2]):
        put_version(client, text, number, size_bytes=size_bytes)
        worker.do(steps.get, text, text)
        client.invalidate(clothing_id=text)
    held_bytes = client.stats().held_bytes
    assert held_bytes >= 2 * 399_000
    assert daemon.metrics()["cachesvc_held_bytes"] == held_bytes
    put_version(client, texts[2], 2, size_bytes=size_bytes)
    assert worker.do(steps.get, "inline", texts[2]) == 2
    assert not worker.do(steps.is_mapped, "inline")
    assert worker.do(steps.transport) == "shared_file"
    assert [worker.do(steps.version, text) for text in texts[:2]] == [0, 1]
    worker.do(steps.drop, *texts[:2])
    wait_until(lambda: client.stats().held_bytes == 0, LET_GO_WITHIN_S)
    assert worker.do(steps.get, "mapped", texts[2]) == 2
    assert worker.do(steps.is_mapped, "mapped")


def test_the_daemon_itself_keeps_nothing_of_what_left_l1(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    # The daemon's own mapping of an unlinked file would cost tmpfs as much as a reader's.
    daemon = new_daemon(L1__MAX_BYTES=str(1 << 20))
    (pid,) = process_ids_with_locked(daemon.l2_root)
    client = new_client(daemon, local=LocalOptions(enabled=False))
    for number in range(20):
        text = fresh_id("text")
        put_version(client, text, number, size_bytes=300_000)
        assert version_of(client.get_text(text)) == number
    kept = deleted_files(pid, daemon.runtime_dir)
    assert len(set(kept)) <= 1  # the last answer's, until gRPC has sent it
