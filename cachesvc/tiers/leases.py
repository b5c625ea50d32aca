"""Asks the kernel, by a lease, whether another process has a file open.

A write lease is granted only to a file's sole opener. It is given back at once, and an open in
between is harmless:

    D is the daemon, O another process that opens the file
    D: takes the lease | O: opens, waits; the kernel signals D | D: sees the wish, gives it back

The kernel sends SIGIO by default, which ends the process; here it sends a signal that does
nothing by default. O counts as an opener although D's lease was granted.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal

# Its default action is to be ignored, so no handler and no mask has to be in place first.
_HARMLESS = signal.SIGURG


def is_open_elsewhere(fd: int) -> bool:
    """Return whether another process has the file of `fd` open or mapped (5 us).

    `fd` is writable and the daemon's only open file description of it. Every refusal of a lease
    means yes: a kernel without leases or out of locks, a file of another owner.
    Descriptors made with O_PATH are not seen.
    """
    return _refusal(fd) is not None


def why_not(fd: int) -> str | None:
    """Return why leases do not work here, None if they do. No other process may have `fd` open."""
    return _refusal(fd)


def _refusal(fd: int) -> str | None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, _HARMLESS)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        is_wanted = fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK
        return "somebody opens the file at this moment" if is_wanted else None
    except OSError as exc:
        return exc.strerror or "unknown"
    finally:
        # A signal handler may raise anywhere: without this an opener could wait for good.
        with contextlib.suppress(OSError):  # none was granted
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
