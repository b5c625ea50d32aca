"""Values made of files that may change while the daemon runs: certificates, keys, grants.

Each use calls `stat` on every file, and makes the value again if a file has changed. If the files
cannot be used, the last good value stays, the metric counts the failure, and a warning names it
once for each change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from cachesvc.core.errors import ConfigError

log = structlog.get_logger()
T = TypeVar("T")
# Of each file: inode, size, and ctime, which chmod also changes; None = no file.
_Signature = tuple[tuple[int, int, int] | None, ...]


class Reloaded(Generic[T]):
    """A value made of files. Safe for use from many threads.

    `make` raises ConfigError or OSError for files that cannot be used. The constructor raises the
    same; later `on_failure` counts it.
    """

    def __init__(
        self,
        what: str,
        paths: Iterable[Path],
        make: Callable[[], T],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.what = what
        self._paths = tuple(paths)
        self._make = make
        self._on_failure = on_failure
        # gRPC asks for certificates from its own threads.
        self._lock = threading.Lock()
        self._tried = self._signature()
        self._value = make()
        self._handed_on = self._value
        self._reported = self._value
        self._failure = ""

    def current(self) -> T:
        """Return the value of the present files, or the last good value."""
        with self._lock:
            if self._paths:
                self._look()
            return self._value

    def newer(self) -> T | None:
        """Return the value if it is not that of the start or of the last `newer`."""
        with self._lock:
            self._look()
            if self._value is self._handed_on:
                return None
            self._handed_on = self._value
            return self._value

    def reload(self) -> str:
        """Check the files now, and return what changed since the last `reload`.

        The result is `reloaded`, `unchanged`, or `failed: ` and why. After a failure unchanged
        files are read again: a directory's permissions may have been the reason.
        """
        with self._lock:
            if self._failure:
                self._tried = ()
            self._look()
            if self._failure:
                return f"failed: {self._failure}"
            said = "unchanged" if self._value is self._reported else "reloaded"
            self._reported = self._value
            return said

    def _look(self) -> None:
        before = self._signature()
        if before == self._tried:
            return
        try:
            value = self._make()
        except (ConfigError, OSError) as exc:
            self._failure = str(exc)
            self._on_failure()
            log.warning("reload_failed", what=self.what, error=str(exc), action="kept the old one")
        else:
            self._failure = ""
            self._value = value
            log.info("reloaded", what=self.what)
        # If a file changed while it was read, the next call reads it again.
        self._tried = before

    def _signature(self) -> _Signature:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_ctime_ns
