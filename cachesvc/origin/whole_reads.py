"""How is a file read whole while another process may be writing it in place?

With a read lease: the kernel grants a lease only while no process has the file open for
writing, mappings included, and lets a writer wait until the lease is given back. A lease needs
a file of the daemon's own user (or CAP_LEASE), and a filesystem that supports leases. Elsewhere
the file's size and times must not have changed for QUIET_NS before the read, nor during it:
equal times alone prove nothing, because two writes within one tick of the kernel's clock (4 ms)
leave the same time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO

# Longer than a busy host delays a writer's next write: with 0.5 s, one of 288 reads was torn
# beside 16 processes on two cores.
QUIET_NS = 2_000_000_000
# Between attempts. A local writer of 5 MB ends within the first waits; the sum exceeds QUIET_NS.
WAITS_S = (0.01, 0.03, 0.1, 0.4, 1.0, 1.2)
# The kernel's signal when a writer waits for the lease. The default signal, SIGIO, ends a
# process; SIGURG is ignored by default.
_LEASE_SIGNAL = signal.SIGURG

_Signature = tuple[int, int, int, int]


class Changing(Exception):
    """The file has a writer, or was changed too lately to tell. Try again."""


@dataclass(slots=True)
class Watch:
    """The last change seen of one file, over the attempts to read it."""

    _seen: _Signature | None = None
    _since_ns: int = 0

    def is_quiet(self, status: os.stat_result, steady_ns: int, wall_ns: int) -> bool:
        """Return whether the file is unchanged for QUIET_NS, by its own time or by our watch."""
        signature = _signature(status)
        if signature != self._seen:
            self._seen, self._since_ns = signature, steady_ns
        watched_ns = steady_ns - self._since_ns
        return max(watched_ns, wall_ns - status.st_ctime_ns) >= QUIET_NS


def read_whole(
    file: FileIO, watch: Watch, check_size: Callable[[int], None]
) -> tuple[bytes, os.stat_result]:
    """Return the whole file as one writer left it, and its status. Closing `file` ends the lease.

    `check_size` may raise before anything is read. Raises Changing, OSError.
    """
    is_leased = _lease(file.fileno())
    before = os.fstat(file.fileno())
    check_size(before.st_size)
    if not is_leased and not watch.is_quiet(before, time.monotonic_ns(), time.time_ns()):
        raise Changing
    data = file.readall()
    after = os.fstat(file.fileno())
    if len(data) != before.st_size or _signature(after) != _signature(before):
        raise Changing
    return data, after


def _lease(descriptor: int) -> bool:
    """Take a read lease; False = leases do not work here. Raises Changing: a writer exists."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, _LEASE_SIGNAL)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        if exc.errno == errno.EAGAIN:
            raise Changing from exc
        return False
    return True


def _signature(status: os.stat_result) -> _Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
