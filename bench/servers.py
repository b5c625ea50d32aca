"""Starts one server process, waits until its socket answers, and stops it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 15.0
_LOOK_EVERY_S = 0.02


class Server:
    """A process that listens on a unix socket. Its output goes to a log beside the socket."""

    def __init__(
        self, command: Sequence[str], socket_path: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = socket_path.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **(env or {})}, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for(socket_path)
        except BaseException:
            self.stop()
            raise

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while not _listens(path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a server did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(_LOOK_EVERY_S)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End the process. Repeating it is harmless."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
