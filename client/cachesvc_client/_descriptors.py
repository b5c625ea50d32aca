"""Descriptors that are closed when their owner is dropped, whatever happens.

A `__del__` of Python may be ended by an exception of a signal's handler before its first line; the
destructor of an object of C cannot. `FileIO` warns of each file that it closes so, and takes no
directory. An epoll object takes any descriptor, and nothing but its destructor is used here.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol

try:
    from select import epoll
except ImportError:  # not Linux, or gevent has removed it
    epoll = None  # type: ignore[assignment,misc]


class Owner(Protocol):
    """Owns one descriptor. Repeating `close` is harmless."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


def owner_of(fd: int) -> Owner:
    """Return what closes `fd` when it is dropped."""
    if epoll is None:
        return _Closing(fd)
    return epoll.fromfd(fd)


class _Closing:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # other code has closed it
                os.close(fd)

    def __del__(self) -> None:
        self.close()
