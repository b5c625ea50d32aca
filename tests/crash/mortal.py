"""How is a process made in a millisecond, to be killed? By a fork of one that has all imports.

The forking process has one thread only, and never opens an engine itself: the next life examines
what a death leaves.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator

from tests.crash.ledger import Event, Ledger, parse

FAILED = b"!"
ENDS_WITHIN_S = 30.0


class LifeFailed(AssertionError):
    """The child ended by an error of its own; the text is its traceback."""


class Mortal:
    """A child that runs `life(tell)`, and the ledger of the events that it told."""

    def __init__(self, life: Callable[[Callable[[Event], None]], None], ledger: Ledger) -> None:
        self._ledger = ledger
        self._reading, writing = os.pipe()
        self._rest = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            _live(life, writing)
        os.close(writing)

    def told(self, within_s: float = ENDS_WITHIN_S) -> Iterator[Event]:
        """Yield each event as the child tells it, until the child dies or the time is over."""
        until_s = time.monotonic() + within_s
        while True:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([self._reading], [], [], left_s)[0]:
                return
            if not (chunk := os.read(self._reading, 1 << 16)):
                return
            yield from self._take(chunk)

    def _take(self, chunk: bytes) -> list[Event]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in lines:
            if line.startswith(FAILED):
                raise LifeFailed(line[1:].decode("unicode_escape"))
            events.append(parse(line))
            self._ledger.apply(events[-1])
        return events

    def stop(self) -> None:
        """Return once no thread of the child runs any more."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def kill(self) -> None:
        """Kill the child with SIGKILL, and read the events that it told before."""
        os.kill(self.pid, signal.SIGKILL)
        self.bury()

    def bury(self) -> None:
        """Read the rest of the child's events, and wait for its end. Raises LifeFailed."""
        try:
            for _ in self.told():
                pass
        finally:
            os.close(self._reading)
            os.waitpid(self.pid, 0)


def _live(life: Callable[[Callable[[Event], None]], None], writing: int) -> None:
    """Run in the child. A line is written whole at once: it is shorter than PIPE_BUF."""
    code = 1
    try:
        os.dup2(2, 1)  # the log must not mix with the report
        life(lambda event: _write(writing, event.line()))
        code = 0
    except BaseException:  # noqa: BLE001 - the forking process must know any error
        text = traceback.format_exc().encode("unicode_escape")
        os.write(writing, FAILED + text + b"\n")
    finally:
        os._exit(code)


def _write(fd: int, line: bytes) -> None:
    assert os.write(fd, line) == len(line)
