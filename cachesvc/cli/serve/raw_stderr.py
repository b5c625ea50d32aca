"""Logs the lines that libraries write directly to descriptor 2.

gRPC's core writes there in its own form, for example one line for each failed TLS handshake.
Descriptor 2 becomes a pipe whose lines are logged like all others, and failed handshakes are
counted. So neither a library nor the interpreter ever waits for the reader of the log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()
_STDERR = 2
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
_READ_BYTES = 64 << 10
MAX_TEXT = 400
# absl's form: level and date, time, thread, file and line.
_CORE = re.compile(r"(?P<level>[IWEF])\d{4} \S+\s+\d+ (?P<place>[\w./-]+:\d+)\] (?P<text>.*)")
_BEFORE_ABSL = "WARNING: All log messages before absl::InitializeLog()"


class RawStderr:
    """Redirects descriptor 2 until `give_back`. `fd` is a copy of the original descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.on_handshake_failure: Callable[[], None] = lambda: None
        self._reading, writing = os.pipe2(os.O_CLOEXEC)
        # With a full pipe a library's line is lost. If the write blocked, its thread might hold the
        # interpreter's lock, and the pipe could never be read.
        os.set_blocking(writing, False)
        os.dup2(writing, _STDERR)
        os.close(writing)
        self._thread = threading.Thread(target=self._run, name="raw-stderr", daemon=True)

    def start(self) -> None:
        """Log the lines of the pipe, with those written before this call."""
        self._thread.start()
        crash_fd = _never_blocking(self._fd)
        if crash_fd is not None:
            # In a crash the pipe's last lines are lost.
            faulthandler.enable(crash_fd)

    def give_back(self) -> None:
        """Restore descriptor 2, and log the lines written until now."""
        os.dup2(self._fd, _STDERR)  # the last writer's end: the thread sees the pipe's end
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._reading)

    def _run(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := os.read(self._reading, _READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(line)
                rest = rest[:_READ_BYTES]
        if rest:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if not text or text.startswith(_BEFORE_ABSL):
            return
        found = _CORE.match(text)
        if found is None:
            log.warning("raw_stderr", text=text[:MAX_TEXT])
            return
        is_handshake = "andshake failed" in found["text"]
        if is_handshake:
            self.on_handshake_failure()
        is_grave = is_handshake or found["level"] != "I"
        say: Callable[..., None] = log.warning if is_grave else log.info
        say("grpc_core", place=found["place"], text=found["text"][:MAX_TEXT])


def _never_blocking(fd: int) -> int | None:
    """Return a non-blocking descriptor of the file of `fd`, or None if it cannot be opened.

    A crashing process that waited for the reader of its log would never be restarted.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", _APPENDING)
    except OSError:  # a socket, or a terminal of another user
        return None
