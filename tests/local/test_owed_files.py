"""Is anything acknowledged while a file of L1 cannot be unlinked? Promise 1.

The file's link count still says that the entry is valid, so a worker that has the file open would
serve old bytes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cachesvc_client import CacheClient, CacheServiceError
from tests.local import steps
from tests.local.board import Board
from tests.local.conftest import NewWorker
from tests.local.steps import Spun
from tests.local.versioned import put_version
from tests.support.daemons import Daemon, wait_until
from tests.support.engine.mounts import append_only
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
Unwritable = Callable[[Path], AbstractContextManager[None]]
ABSENT = ("NotCached", "PreconditionFailed")
NO_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
MENDED_WITHIN_S = 20.0
MAX_TEXTS = 10
READERS = 2


@contextmanager
def mode_0550(directory: Path) -> Iterator[None]:
    directory.chmod(0o550)
    try:
        yield
    finally:
        directory.chmod(0o750)


@pytest.fixture(params=[append_only, mode_0550], ids=["append-only", "mode 0550"])
def unwritable(request: pytest.FixtureRequest) -> Unwritable:
    way: Unwritable = request.param
    return way


@pytest.fixture
def daemon(tmp_path: Path, unwritable: Unwritable) -> Iterator[Daemon]:
    """A daemon without the capability that lets root ignore file modes."""
    if unwritable is mode_0550 and os.geteuid() != 0:
        pytest.skip("setpriv needs root here")
    under = NO_OVERRIDE if unwritable is mode_0550 else ()
    settings = {"KINDS__TEXT__MAX_ENTRIES": str(MAX_TEXTS)}
    daemon = Daemon(tmp_path, settings, under=under, is_forked=not under)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def reason_of(call: Callable[..., object], *arguments: object, **options: object) -> str:
    """Return the reason of the call's refusal; empty if the call succeeded."""
    try:
        call(*arguments, **options)
    except CacheServiceError as exc:
        return exc.reason
    return ""


@pytest.mark.parametrize("erase", [False, True])
def test_an_invalidation_whose_file_stays_is_not_acknowledged_until_it_is_gone(
    daemon: Daemon,
    new_client: NewClient,
    new_worker: NewWorker,
    unwritable: Unwritable,
    erase: bool,
) -> None:
    text, l1 = fresh_id("text"), daemon.runtime_dir / "l1"
    client, worker = new_client(daemon), new_worker(daemon.target)
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    assert worker.do(steps.is_mapped, "held")
    with unwritable(l1):
        for _ in range(3):
            refusal = reason_of(client.invalidate, clothing_id=text, erase=erase)
            assert refusal == "NOT_DURABLE"
            assert worker.do(steps.try_get, text) in ABSENT
            assert not worker.do(steps.is_current, "held")
        assert worker.do(steps.transport).startswith("inline: ")
        status, body = daemon.http("/readyz")
        assert (status, list(json.loads(body)["problems"])) == (503, ["l1"])
        readings = daemon.metrics()
        assert readings['cachesvc_queue_depth{queue="unfinished_invalidations"}'] == 1
        assert readings["cachesvc_held_bytes"] > 0
    client.invalidate(clothing_id=text, erase=erase)
    assert daemon.http("/readyz")[0] == 200
    assert worker.do(steps.try_get, text) in ABSENT
    put_version(client, text, 8)

    def hits_locally() -> bool:
        assert worker.do(steps.get, "new", text) == 8
        return bool(worker.do(steps.is_mapped, "new"))

    wait_until(hits_locally, MENDED_WITHIN_S)
    assert daemon.log_text().count("l1_file_not_removed") == 1


def test_a_put_over_a_file_that_stays_is_not_acknowledged(
    daemon: Daemon, new_client: NewClient, new_worker: NewWorker, unwritable: Unwritable
) -> None:
    text, l1 = fresh_id("text"), daemon.runtime_dir / "l1"
    client, worker = new_client(daemon), new_worker(daemon.target)
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    with unwritable(l1):
        for _ in range(2):
            assert reason_of(put_version, client, text, 8) == "NOT_DURABLE"
            assert worker.do(steps.get, "after", text) == 8
    put_version(client, text, 9)
    assert worker.do(steps.get, "after", text) == 9


def test_an_eviction_whose_file_stays_ends_local_hits(
    daemon: Daemon, new_client: NewClient, new_worker: NewWorker, unwritable: Unwritable
) -> None:
    """Otherwise the next invalidation would find no entry, while workers still find the file."""
    text, l1 = fresh_id("text"), daemon.runtime_dir / "l1"
    client, worker = new_client(daemon), new_worker(daemon.target)
    put_version(client, text, 7)
    worker.do(steps.get, "held", text)
    with unwritable(l1):
        for _ in range(MAX_TEXTS):
            put_version(client, fresh_id("text"), 1, size_bytes=4_000)
        worker.do(steps.try_get, text)
        assert reason_of(client.invalidate, clothing_id=text) == "NOT_DURABLE"
        assert worker.do(steps.try_get, text) in ABSENT


def test_a_start_over_files_that_cannot_be_removed_is_one_line(
    daemon: Daemon, new_client: NewClient, unwritable: Unwritable
) -> None:
    put_version(new_client(daemon), fresh_id("text"), 7)
    daemon.kill()
    with unwritable(daemon.runtime_dir / "l1"):
        before = len(daemon.log_text())
        assert daemon.start_in_vain() == 2
        said = daemon.log_text()[before:]
        assert "Traceback" not in said
        assert "a file of an earlier daemon stays there" in said
    daemon.start()


# ---- hard links


WITHOUT_PROTECTION = """
printf 0 > "$0"
mount --bind "$0" /proc/sys/fs/protected_hardlinks
exec "$@"
"""


def test_where_readers_may_make_hard_links_no_file_is_shared(
    tmp_path: Path, new_client: NewClient, new_worker: NewWorker
) -> None:
    """Promise 10. This daemon alone sees another value of the sysctl protected_hardlinks."""
    if os.geteuid() != 0:
        pytest.skip("a mount namespace needs root")
    said = tmp_path / "protected_hardlinks"
    under = ("unshare", "--mount", "sh", "-ec", WITHOUT_PROTECTION, str(said))
    daemon = Daemon(tmp_path, under=under)
    try:
        daemon.start()
        text, l1 = fresh_id("text"), daemon.runtime_dir / "l1"
        client, worker = new_client(daemon), new_worker(daemon.target)
        put_version(client, text, 7)
        assert worker.do(steps.get, "held", text) == 7
        assert not worker.do(steps.is_mapped, "held")
        assert "shares no files for now" in worker.do(steps.transport)
        (file,) = l1.iterdir()
        assert file.stat().st_mode & 0o777 == 0o400
        # A hard link delays no acknowledgement: no worker trusts the link count.
        os.link(file, daemon.runtime_dir / "kept")
        client.invalidate(clothing_id=text)
        assert worker.do(steps.try_get, text) in ABSENT
        assert "no_shared_files" in daemon.log_text()
        assert daemon.http("/readyz")[0] == 200
        wait_until(lambda: (daemon.runtime_dir / "kept").stat().st_blocks == 0, MENDED_WITHIN_S)
    finally:
        daemon.close()


# ---- many invalidations


class Run:
    """Writers put and invalidate while workers hit; the board holds the acknowledged versions."""

    def __init__(self, daemon: Daemon, board_path: Path, keys: int) -> None:
        self.daemon = daemon
        self.texts = [fresh_id("text") for _ in range(keys)]
        self.board_path, self.board = board_path, Board(board_path)
        self.acknowledged = 0
        self.refused = 0
        self._version = 1

    def invalidate(self, client: CacheClient, count: int) -> None:
        """Put one key and invalidate another; only an acknowledgement raises the floor."""
        for number in range(count):
            put = number % len(self.texts)
            self._version += 1
            if not reason_of(put_version, client, self.texts[put], self._version, size_bytes=8_000):
                self.board.raise_floor(put, self._version)
            # So half of the texts are in L1, and open in workers, at any moment.
            invalidated = (number + len(self.texts) // 2) % len(self.texts)
            self._version += 1  # an answer after the invalidation must be newer than this
            if reason_of(client.invalidate, clothing_id=self.texts[invalidated]):
                self.refused += 1
            else:
                self.acknowledged += 1
                self.board.raise_floor(invalidated, self._version)

    def during(self, work: Callable[[], None], new_worker: NewWorker) -> Spun:
        """Return what workers saw while `work` ran."""
        workers = [new_worker(self.daemon.target) for _ in range(READERS)]
        for reader, worker in enumerate(workers):
            worker.begin(steps.spin, str(self.board_path), self.texts, reader=reader)
        work()
        self.board.end()
        seen = Spun()
        for worker in workers:
            seen.add(worker.result())
        return seen


@pytest.mark.parametrize(
    "count", [100, pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_nothing_stale_is_served_though_l1_becomes_unwritable_amid_invalidations(
    daemon: Daemon,
    new_client: NewClient,
    new_worker: NewWorker,
    unwritable: Unwritable,
    tmp_path: Path,
    count: int,
) -> None:
    run, client = Run(daemon, tmp_path / "board", keys=8), new_client(daemon)
    for text in run.texts:
        put_version(client, text, 1, size_bytes=8_000)

    def work() -> None:
        run.board.wait_for_readers(READERS)
        run.invalidate(client, count // 3)
        with unwritable(daemon.runtime_dir / "l1"):
            run.invalidate(client, count // 3)
        run.invalidate(client, count - 2 * (count // 3))

    began_s = time.monotonic()
    seen = run.during(work, new_worker)
    print(  # noqa: T201 - the figures of the run
        f"{run.acknowledged} invalidations acknowledged, {run.refused} refused, {seen.gets:,} "
        f"Gets served in {time.monotonic() - began_s:.0f} s: {len(seen.stale)} stale"
    )
    assert seen.stale == []
    assert run.refused > 0
    assert run.acknowledged > count // 3
