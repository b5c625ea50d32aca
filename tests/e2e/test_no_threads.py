"""What does the daemon do if it may not start another thread (pids.max, TasksMax=)?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cachesvc_client import CacheClient
from tests.local.versioned import put_version, version_of
from tests.support.daemons import Daemon, wait_until
from tests.support.sample_objects import fresh_id, person, put_in_folder

WITHIN_S = 20.0
CGROUPS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


class Limited:
    """A cgroup whose tasks are limited."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def under(self) -> tuple[str, ...]:
        """A command that joins the cgroup and then becomes the command behind it."""
        return ("bash", "-c", f'echo $$ > {self._path}/cgroup.procs && exec "$@"', "bash")

    def tasks(self) -> int:
        return int((self._path / "pids.current").read_text())

    def limit(self, tasks: int) -> None:
        (self._path / "pids.max").write_text(str(tasks))


@pytest.fixture
def limited() -> Iterator[Limited]:
    for above in CGROUPS:
        path = above / f"cachesvc-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            path.mkdir()
            if (path / "pids.max").exists():
                break
            path.rmdir()
    else:
        pytest.skip("no cgroup whose tasks are counted can be made here")
    try:
        yield Limited(path)
    finally:
        wait_until(lambda: not (path / "cgroup.procs").read_text(), WITHIN_S)
        path.rmdir()


@pytest.mark.parametrize("tasks", [1, 2, 4, 8, 12])
def test_a_start_without_threads_is_one_line_with_what_to_raise(
    tmp_path: Path, limited: Limited, tasks: int
) -> None:
    limited.limit(tasks)
    daemon = Daemon(tmp_path, under=limited.under)
    try:
        assert daemon.start_in_vain() == 2
        assert "raise TasksMax=" in daemon.log_text()
        assert "Traceback" not in daemon.log_text()
    finally:
        daemon.close()


def test_a_daemon_that_serves_needs_no_further_thread(tmp_path: Path, limited: Limited) -> None:
    """Promise 5: Puts, fills, invalidations, scrapes and the end all work."""
    daemon = Daemon(tmp_path, under=limited.under)
    user, text = fresh_id("u"), fresh_id("t")
    put_in_folder(daemon.origin_dir, person(user))
    try:
        daemon.start()
        limited.limit(limited.tasks())
        with CacheClient(daemon.target) as client:
            assert client.get_human(user)
            put_version(client, text, 1)
            assert version_of(client.get_text(text)) == 1
            client.invalidate(user_id=user)
            assert client.get_human(user)
        assert daemon.metrics()["cachesvc_puts_total"] == 1
        statuses = daemon.metrics()
        internal = grpc.StatusCode.INTERNAL.name
        assert statuses[f'cachesvc_call_statuses_total{{code="{internal}"}}'] == 0
        assert daemon.stop() == 0
    finally:
        daemon.close()
    assert "Traceback" not in daemon.log_text()
