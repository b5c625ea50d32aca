"""Takes pages of tmpfs before they are needed, and gives pages back.

Taking pages is 3 ms of the 3.8 ms that a copy of 10 MB costs without spares; giving them back
is another 1.4 ms. One thread does both, in order and a little later: on a machine with few
cores they would take the processor from the answer that caused them. A spare file has no
name, so no process can open it, and a killed daemon leaves nothing. It gets its name when it
is whole.

`Spares` belongs to the event loop but for `wait_for`; the functions at the end run in threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from cachesvc.core.pools import started_pool
from cachesvc.tiers import files

# One for each entry of a try-on, and one more: each miss prepares a spare of its size.
MAX_SPARES = 4
# For smaller files the pages cost less than handing the work to a thread.
LEAST_BYTES = 256 * 1024
# A spare serves what is at most this much larger or smaller: the rest is cut off or added.
_FITS_TIMES = 2
# How long an answer needs from the publication until its caller has it, on a busy machine.
_LATER_S = 0.01
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spare:
    """An unnamed file that has all its pages. The code that takes it closes `fd`."""

    fd: int
    size_bytes: int


@dataclass(slots=True)
class _Prepared:
    size_bytes: int
    made: Future[Spare | None]

    @property
    def has_failed(self) -> bool:
        """Return whether it could not be made: tmpfs is full, or descriptors used up."""
        return self.made.done() and self.made.result() is None


@dataclass(slots=True)
class GivenBack:
    """Pages that the thread is about to give back. More may be added while it `is_waiting`."""

    size_bytes: int
    done: Future[None]

    @property
    def is_waiting(self) -> bool:
        return not self.done.running() and not self.done.done()


class Spares:
    """Unnamed files of L1, at most `max_bytes` of them, and what is being given back.

    `ready_bytes` are held by files, ready or being made; `leaving_bytes` are of files that
    the thread has yet to close. Any thread may read them, because reading changes nothing. If it
    did (M reads for the metrics, L is the loop):

        M: reads `ready_bytes`, makes a list without what failed, X is in it
        | L: takes X, publishes alice's bytes in it | M: stores its list
        | L: takes X again for bob's, whose entry then reads alice's
    """

    def __init__(self, directory_fd: int, max_bytes: int, *, mode: int, gid: int | None) -> None:
        self._directory_fd = directory_fd
        self._mode, self._gid = mode, gid
        # No spares if L1's filesystem knows no unnamed files, or /proc is missing.
        self._max_bytes = max_bytes if can_name_unnamed(directory_fd) else 0
        self._prepared: list[_Prepared] = []
        self._leaving: list[GivenBack] = []
        self._thread = started_pool(1, "l1-pages")
        # Set while a thread waits for pages.
        self._hurry = threading.Event()

    @property
    def ready_bytes(self) -> int:
        return sum(one.size_bytes for one in tuple(self._prepared) if not one.has_failed)

    @property
    def leaving_bytes(self) -> int:
        return sum(one.size_bytes for one in tuple(self._leaving) if not one.done.done())

    def leaving(self) -> tuple[Future[None], ...]:
        """Return futures that end when all pages given back so far are free."""
        return tuple(one.done for one in self._leaving)

    def wait_for(self, leaving: Collection[Future[Any]]) -> None:
        """Return once these pages are free: taking others then keeps the limit.

        For threads: it blocks.
        """
        if not leaving:
            return
        self._hurry.set()
        wait(leaving)
        # Another thread that waits now waits at most _LATER_S.
        self._hurry.clear()

    def take(self, size_bytes: int, most_bytes: int) -> Spare | None:
        """Return the ready file nearest to `size_bytes`, of at most `most_bytes`."""
        self._forget_failed()
        fitting = [
            prepared
            for prepared in self._prepared
            if prepared.made.done()
            and prepared.size_bytes <= min(most_bytes, size_bytes * _FITS_TIMES)
            and size_bytes <= prepared.size_bytes * _FITS_TIMES
        ]
        if not fitting:
            return None
        nearest = min(fitting, key=lambda prepared: abs(prepared.size_bytes - size_bytes))
        self._prepared.remove(nearest)
        return nearest.made.result()

    def prepare(self, size_bytes: int, free_bytes: int) -> None:
        """Make a file of `size_bytes`; drop the oldest spares if they are too many or too large.

        Does nothing if the file alone exceeds `free_bytes`.
        """
        if not LEAST_BYTES <= size_bytes <= min(self._max_bytes, free_bytes):
            return
        self._forget_failed()
        while self._prepared and (
            len(self._prepared) >= MAX_SPARES
            or self.ready_bytes + size_bytes > min(self._max_bytes, free_bytes)
        ):
            self.drop_oldest()
        made = self._later(_make, self._directory_fd, size_bytes, self._mode, self._gid)
        self._prepared.append(_Prepared(size_bytes, made))

    def drop_oldest(self) -> None:
        """Give the oldest spare back. Its bytes are leaving from now on."""
        oldest = self._prepared.pop(0)
        self.give_back(oldest.size_bytes, _close_made, oldest.made)

    def drop_all(self) -> int:
        """Give all back, and return how many bytes they have."""
        ready_bytes = self.ready_bytes
        while self._prepared:
            self.drop_oldest()
        return ready_bytes

    @property
    def descriptors(self) -> int:
        """How many files are ready, or being made."""
        return len(self._prepared)

    def drop(self, spare: Spare) -> None:
        """Close a spare that was taken and not used."""
        self.give_back(spare.size_bytes, os.close, spare.fd)

    def give_back(self, size_bytes: int, call: Callable[..., None], *args: object) -> GivenBack:
        """Have the thread run `call`, which frees `size_bytes`: freeing pages takes time."""
        # The one thread ends them in this order.
        while self._leaving and self._leaving[0].done.done():
            self._leaving.pop(0)
        leaving = GivenBack(size_bytes, self._later(call, *args))
        self._leaving.append(leaving)
        return leaving

    def finish(self) -> None:
        """Return once every file is ready and every page given back. Blocks."""
        self.wait_for([prepared.made for prepared in self._prepared])
        self.wait_for(self.leaving())

    def close(self) -> None:
        """Give everything back. Blocks; nothing may be called afterwards."""
        while self._prepared:
            self.drop_oldest()
        self._hurry.set()
        self._thread.shutdown()

    def _later(self, call: Callable[..., T], *args: object) -> Future[T]:
        not_before_s = time.monotonic() + _LATER_S

        def run() -> T:
            self._hurry.wait(not_before_s - time.monotonic())
            return call(*args)

        return self._thread.submit(run)

    def _forget_failed(self) -> None:
        self._prepared = [one for one in self._prepared if not one.has_failed]


# ---- in threads


def fit(spare: Spare, size_bytes: int) -> None:
    """Give the file the pages and the length it needs. It has no name and no reader yet.

    Raises OSError: there is no room for the rest.
    """
    if size_bytes > spare.size_bytes:
        os.posix_fallocate(spare.fd, spare.size_bytes, size_bytes - spare.size_bytes)
    elif size_bytes < spare.size_bytes:
        os.ftruncate(spare.fd, size_bytes)


def give_name(fd: int, name: str, directory_fd: int) -> None:
    """Make an unnamed file a member of the directory. Raises OSError."""
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory_fd, follow_symlinks=True)


def can_name_unnamed(directory_fd: int) -> bool:
    """Return whether unnamed files can be made there and named afterwards."""
    probe = f".probe-{os.getpid()}"
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    except OSError:
        return False
    try:
        give_name(fd, probe, directory_fd)
        os.unlink(probe, dir_fd=directory_fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _make(directory_fd: int, size_bytes: int, mode: int, gid: int | None) -> Spare | None:
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=directory_fd)
    except OSError:
        return None
    try:
        files.set_access(fd, mode, gid)
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError:
        os.close(fd)
        return None
    return Spare(fd, size_bytes)


def _close_made(made: Future[Spare | None]) -> None:
    spare = made.result()
    if spare is not None:
        os.close(spare.fd)
