"""Workers for the tests of local delivery: client processes beside a real daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cachesvc_client import CacheClient
from tests.local.workers import Worker
from tests.support.daemons import Daemon

NewWorker = Callable[..., Worker]


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHESVC_RUNTIME_DIR", "CACHESVC_GRPC__SOCKET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def new_worker() -> Iterator[NewWorker]:
    """Start workers: `new_worker(target, local={"max_entries": 2}, wait_s=0)`."""
    workers: list[Worker] = []

    def start(target: str, *, environment: dict[str, str] | None = None, **client: Any) -> Worker:
        workers.append(Worker(target, environment or {}, client))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def new_client() -> Iterator[Callable[..., CacheClient]]:
    """Make clients in the test's own process; the fixture closes them."""
    with ExitStack() as stack:

        def make(daemon: Daemon, **options: Any) -> CacheClient:
            return stack.enter_context(CacheClient(daemon.target, **options))

        yield make


@pytest.fixture
def client(daemon: Daemon, new_client: Callable[..., CacheClient]) -> CacheClient:
    """A client of the session's daemon, in the test's own process."""
    return new_client(daemon)
