"""Writes log lines in a thread, so that no call waits for the reader of the log.

A pipe that nobody reads takes 64 KiB and then blocks its writer, which is the thread. Lines reach
the thread through a queue with a limit. A line that finds the queue full is dropped and counted;
once lines flow again, a line says how many were dropped.
"""

from __future__ import annotations

import io
import os
import queue
import select
import threading
from collections.abc import Callable

MAX_QUEUED_LINES = 2048
# A line is some hundred bytes; a traceback some thousand.
MAX_LINE_BYTES = 16 << 10
# Bytes of one write: what an empty pipe takes at once.
_WRITE_BYTES = 64 << 10
END_WITHIN_S = 1.0


class LogWriter(io.TextIOBase):
    """A text stream for whole lines. `write` never blocks until `end`, and raises nothing.

    `describe_dropped` returns the line that says how many were dropped.
    """

    def __init__(self, fd: int, describe_dropped: Callable[[int], str]) -> None:
        self._fd = fd
        self._describe_dropped = describe_dropped
        # `put` must be reentrant: garbage collection during a `put` may log.
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._counting = threading.RLock()
        self._dropped = 0
        self._said = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost since the start: the queue was full, or the write failed."""
        return self._dropped

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        line = text.encode(errors="backslashreplace")
        if len(line) > MAX_LINE_BYTES:
            line = line[: MAX_LINE_BYTES - 1] + b"\n"
        if self._ended:
            self._write(line)
        elif self._lines.qsize() < MAX_QUEUED_LINES:
            self._lines.put(line)
        else:
            self._drop(1)
        return len(text)

    def end(self, within_s: float = END_WITHIN_S) -> None:
        """Write the queued lines, for at most `within_s`. Callers write later lines themselves."""
        self._lines.put(None)
        self._thread.join(within_s)
        self._ended = True

    def _drop(self, lines: int) -> None:
        with self._counting:
            self._dropped += lines

    def _run(self) -> None:
        is_over = False
        while not is_over:
            batch, is_over = self._next_batch()
            if self._write(b"".join(batch)):
                self._say_dropped()
            else:
                self._drop(len(batch))

    def _next_batch(self) -> tuple[list[bytes], bool]:
        """Wait for a line; return the queued lines, and whether the end was among them."""
        batch: list[bytes] = []
        line, size = self._lines.get(), 0
        while line is not None:
            batch.append(line)
            size += len(line)
            if size >= _WRITE_BYTES:
                return batch, False
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _say_dropped(self) -> None:
        dropped = self._dropped
        if dropped > self._said and self._write(
            self._describe_dropped(dropped - self._said).encode()
        ):
            self._said = dropped

    def _write(self, data: bytes) -> bool:
        """Write all of `data`. Returns False if it cannot be written: the disk may be full."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # the daemon's starter made `fd` non-blocking
                select.select((), (self._fd,), ())
            except OSError:
                return False
        return True
