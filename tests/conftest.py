"""Fixtures that more than one folder uses: real servers and real daemons."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.daemons import Daemon, running_daemon
from tests.support.s3.servers import s3_server

__all__ = ["daemon", "daemon_target", "new_daemon", "s3_server"]

# Without bytecode every process that a test starts compiles this code again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Generated examples have no deadline: a busy machine must not fail them.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

NewDaemon = Callable[..., Daemon]


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon over a folder for the whole session: use fresh ids, and never end it."""
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def daemon_target(daemon: Daemon) -> str:
    return daemon.target


@pytest.fixture
def new_daemon() -> Iterator[NewDaemon]:
    """Make daemons that a test may end: `new_daemon(L1__MAX_BYTES="...")` starts one.

    `is_forked=False` runs the command, as a test of the process itself needs it.
    """
    with ExitStack() as stack:

        def make(
            *, environment: dict[str, str] | None = None, is_forked: bool = True, **settings: str
        ) -> Daemon:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-test-"))
            return stack.enter_context(
                running_daemon(Path(folder), settings, environment, is_forked=is_forked)
            )

        yield make
