"""Runs the real daemon beside the demo, in folders of its own, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from cachesvc_client import CacheClient, CacheServiceError

STARTED_WITHIN_S = 30.0
# Longer than the daemon's own drain.
STOPPED_WITHIN_S = 15.0
# Roughly the time of one object's read from S3.
ADDED_LATENCY_MS = 100
L1_MAX_BYTES = 256 << 20


class DaemonFailed(Exception):
    """The daemon did not start; the text holds the end of its log."""


class DaemonProcess:
    """One `cachesvc serve` that can be killed and started again on the same folders."""

    def __init__(self) -> None:
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="cachesvc-demo-", dir="/dev/shm"))
        self.folder = Path(tempfile.mkdtemp(prefix="cachesvc-demo-"))
        self.origin = self.folder / "origin"
        self.socket = self.runtime_dir / "cachesvc.sock"
        self._log = self.folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave a daemon or folders behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._stop()
        shutil.rmtree(self.runtime_dir, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Return once the daemon answers. Raises DaemonFailed."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cachesvc", "serve"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the demo, which then stops the daemon
            )
        with CacheClient(str(self.socket), wait_s=STARTED_WITHIN_S) as client:
            try:
                client.stats()
            except CacheServiceError as exc:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise DaemonFailed(f"the daemon did not start: {exc}\n{tail}") from exc

    def kill(self) -> None:
        """Kill the daemon without a clean end, like a crash."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Return when the daemon has ended."""
        assert self._process is not None
        self._process.wait()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("CACHESVC_")}
        return kept | {
            "CACHESVC_RUNTIME_DIR": str(self.runtime_dir),
            "CACHESVC_STATE_DIR": str(self.folder / "state"),
            "CACHESVC_L1__MAX_BYTES": str(L1_MAX_BYTES),
            "CACHESVC_L2__ROOT": str(self.folder / "l2"),
            "CACHESVC_L2__FREE_FLOOR_BYTES": "0",
            "CACHESVC_ORIGIN__KIND": "directory",
            "CACHESVC_ORIGIN__PATH": str(self.origin),
            "CACHESVC_ORIGIN__ADDED_LATENCY_MS": str(ADDED_LATENCY_MS),
            "CACHESVC_HTTP__LISTEN": "",
        }
