"""Does another process have this file open? The kernel counts the openers, and a lease asks it.

A write lease is granted only to a file's one opener. It is given back at once, and what can
happen in between is harmless:

    D is the daemon, O somebody who opens the file
    D: takes the lease | O: opens, waits; the kernel signals D | D: sees the wish, gives it back

The kernel's signal is SIGIO by default, which ends the process; here it is one that does
nothing by default. `O` counts as an opener although D's lease was granted.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal

# Its default action is to be ignored, so no handler and no mask has to be in place first.
_HARMLESS = signal.SIGURG


def is_open_elsewhere(fd: int) -> bool:
    """Return whether another process has the file of `fd` open or mapped (5 us).

    `fd` is writable and the daemon's only description of that file. Everything that is not a
    granted lease means yes: a kernel without leases, one that is out of locks, another owner.
    Descriptors made with O_PATH are not seen.
    """
    return _refusal(fd) is not None


def why_not(fd: int) -> str | None:
    """Return why leases cannot tell here, None if they can. Nobody else may have `fd`'s file."""
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
        # An exception from a signal handler may come anywhere: an opener must not wait for good.
        with contextlib.suppress(OSError):  # none was granted
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
