"""How does a daemon begin without reading its libraries again? As the fork of a process that has.

Reading them takes most of a start's processor time. The fork runs `cachesvc.cli.entry.main` in a
session of its own, with the environment that it is given and no descriptors but its streams, and
dies with the test process. Its command line is not the daemon's, and part of its memory is
shared: a test of a start, of memory, or of how a process ends uses the command instead.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.support.preloaded"])

_PR_SET_PDEATHSIG = 1


class ForkedDaemon:
    """The methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.args = ("cachesvc", *arguments)
        self._process = FORKING.Process(
            target=_serve, args=(self.args, str(log), dict(env)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _serve(arguments: tuple[str, ...], log: str, env: dict[str, str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    for fd, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, fd)
    os.dup2(1, 2)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    sys.argv[:] = arguments
    from cachesvc.cli.entry import main

    end_after(main)


def end_after(main: Callable[[], None]) -> NoReturn:
    """Run `main`, then end as an interpreter does; a fork would leave that out."""
    code = 0
    try:
        main()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(bool(exc.code))
    except BaseException:  # noqa: BLE001 - the interpreter's last traceback
        traceback.print_exc()
        code = 1
    ctypes.pythonapi.Py_Exit(code)
    raise AssertionError("it has ended")
