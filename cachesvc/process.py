"""How does the daemon live as a process: its limits, its signals, and its end?"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
from collections.abc import Callable

import structlog

from cachesvc.app.daemon import Daemon, Output
from cachesvc.config import Settings
from cachesvc.core.pools import started_pool
from cachesvc.edge.reload_request import ReloadRequests
from cachesvc.edge.service_manager import ServiceManager
from cachesvc.edge.signals import DECISIONS, Decision, Signals, name_of

log = structlog.get_logger()
# For work that may block and is short: scrapes, reloads, names of hosts.
OTHER_THREADS = 4


async def serve(
    settings: Settings,
    signals: Signals,
    output: Output,
    read_settings: Callable[[], Settings],
    set_log_level: Callable[[str], None],
) -> None:
    """Run a daemon until a signal ends it. Raises ConfigError."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold people's photos
    # Each entry of L1 and each caller needs a descriptor.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    reloads = ReloadRequests(settings, read_settings, set_log_level)
    answers = _Answers(reloads)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(started_pool(OTHER_THREADS, "other"))
    signals.follow(loop, answers.take)
    try:
        if not answers.ended.is_set():  # a signal may come during the imports
            await _run(Daemon(settings, output), answers, reloads)
    finally:
        # A signal that comes while the interpreter ends must not change the exit code.
        signals.ignore_all()


async def _run(daemon: Daemon, answers: _Answers, reloads: ReloadRequests) -> None:
    manager = ServiceManager.of(os.environ, os.getpid())
    with contextlib.closing(manager):
        await daemon.start()
        gc.enable()
        # The objects of the start stay: S3's model alone is 100,000 objects. A full collection
        # that looks at all of them holds up every hit for 95 ms.
        gc.freeze()
        reloading = asyncio.create_task(reloads.run(daemon.reloadable_files()), name="reloads")
        manager.serving()
        await answers.ended.wait()
        manager.stopping()
        reloading.cancel()
        await asyncio.gather(reloading, return_exceptions=True)
        await daemon.stop(answers.ended_by)


class _Answers:
    """Acts on the signals that the loop receives."""

    def __init__(self, reloads: ReloadRequests) -> None:
        self.ended = asyncio.Event()
        self.ended_by = ""
        self._reloads = reloads
        self._noted: set[int] = set()

    def take(self, number: int) -> None:
        decision = DECISIONS[number]
        if decision is Decision.DRAIN:
            self._end(number)
        elif decision is Decision.RELOAD:
            self._reload(number)
        elif number not in self._noted:
            self._noted.add(number)
            log.info("signal_without_meaning", signal=name_of(number), action="ignored")

    def _end(self, number: int) -> None:
        if not self.ended.is_set():
            self.ended_by = name_of(number)
            self.ended.set()
            return
        # Wrappers send the same signal twice: to the daemon, and to its process group.
        log.info("draining_already", signal=name_of(number))

    def _reload(self, number: int) -> None:
        if self.ended.is_set():
            log.info("not_reloaded", signal=name_of(number), why="the daemon is shutting down")
        else:
            self._reloads.request()
