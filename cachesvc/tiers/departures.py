"""Files that have left L1's index, until their pages are free.

    owed     its link count is not 0: a reader that has it open could still believe it valid
    held     readers have it open or mapped, here or in another process
    leaving  no reader is seen: a thread looks once more, frees its pages and closes it

The bytes of all three count within L1's limit, because tmpfs still holds them.
`Departures` belongs to the event loop, except where said.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import structlog

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope
from cachesvc.tiers.shared_files import HeapBytes, Mapping, OpenFile, SharedFile
from cachesvc.tiers.spares import GivenBack, Spares

log = structlog.get_logger()
# Without leases, a file's readers cannot be seen. Workers let go of unlinked files within 0.5 s,
# and of tensors in use after a try-on. After this time the file is given up: tmpfs keeps its pages
# for readers that are still there, and L1 no longer counts them.
HELD_UNSEEN_NS = 60 * NS_PER_S
# How often, and how far apart, the thread looks whether an answer of the daemon still has a file:
# the function that removed the file may not have returned yet.
_LOOKS = 4
_BETWEEN_LOOKS_S = 0.002


class Whose(NamedTuple):
    """Whose bytes a file has, to compare with an erasure's scope."""

    key: EntryKey
    owner: str


class _State(Enum):
    OWED = "owed"
    HELD = "held"
    LEAVING = "leaving"
    FREE = "free"


@dataclass(slots=True, eq=False)
class _Departed:
    """One file. `whose` None = it never was an entry, so no reader knows its name.

    The references to this process's readers are weak, because their end is awaited. The thread
    changes `state` while it is LEAVING, the loop at other times. `is_given_up` = other
    processes may still read the file, but cannot be seen.
    """

    file: OpenFile
    whose: Whose | None
    blob: weakref.ref[SharedFile]
    mapping: weakref.ref[Mapping]
    state: _State = _State.LEAVING
    unseen_since_ns: int | None = None
    is_given_up: bool = False

    def is_used_here(self) -> bool:
        """Return whether an answer of this daemon still has the file."""
        return self.blob() is not None or self.mapping() is not None

    def is_used_for_some_time(self) -> bool:
        """As `is_used_here`, for the thread: it waits for functions that are about to return."""
        for _ in range(_LOOKS):
            if not self.is_used_here():
                return False
            time.sleep(_BETWEEN_LOOKS_S)  # the pages' own thread; no answer waits for it
        return True

    def is_covered(self, scope: Scope) -> bool:
        return self.whose is not None and scope.covers(self.whose.key, self.whose.owner)


class Departures:
    """The departed files. `on_owing` gets the problem when one is owed, and None when none is.

    `held_bytes` counts owed and held files; `leases_work` False = readers cannot be seen. Not
    `is_shared` = no worker believes a link count, so nothing is owed.
    """

    def __init__(
        self,
        spares: Spares,
        *,
        leases_work: bool,
        is_shared: bool,
        on_owing: Callable[[str | None], None],
    ) -> None:
        self._spares = spares
        self._is_shared = is_shared
        self._leases_work = leases_work
        self._on_owing = on_owing
        self._owed: list[_Departed] = []
        self._held: list[_Departed] = []
        # In the order in which the thread ends them.
        self._leaving: deque[_Departed] = deque()
        self._for_thread: deque[tuple[_Departed, list[SharedFile]]] = deque()
        self._batch: GivenBack | None = None
        self._on_heap: weakref.WeakKeyDictionary[HeapBytes, Whose] = weakref.WeakKeyDictionary()
        self.held_bytes = 0

    # ---- leaving the index

    def add(self, blob: SharedFile, whose: Whose | None) -> None:
        """Unlink a file. Raises nothing: a file that keeps a link is owed.

        The caller must drop `blob`: the last reference ends the mapping.
        """
        departed = _Departed(blob.file, whose, weakref.ref(blob), weakref.ref(blob.mapping))
        is_unlinked = departed.file.unlink()
        departed.file.shut_out()
        if not is_unlinked and self._is_shared:
            self._owe(departed)
        elif blob.senders or self._has_readers(departed):
            self._hold(departed)
        else:
            self._leave(departed, [blob])

    def _has_readers(self, departed: _Departed) -> bool:
        if not self._leases_work and departed.whose is None:
            return False
        return departed.file.has_readers()

    def _owe(self, departed: _Departed) -> None:
        if not self._owed:
            log.error("l1_file_not_removed", error=departed.file.problem)
        departed.state = _State.OWED
        self.held_bytes += departed.file.size_bytes
        self._owed.append(departed)
        if departed.whose is not None:
            self._on_owing(departed.file.problem)

    def _hold(self, departed: _Departed) -> None:
        departed.state = _State.HELD
        self.held_bytes += departed.file.size_bytes
        self._held.append(departed)

    def _leave(self, departed: _Departed, last: list[SharedFile]) -> None:
        """Have the thread free the file. `last` holds our last reference, which the thread drops.

        Small files share a job: a job for each costs more than their pages.
        """
        departed.state = _State.LEAVING
        self._leaving.append(departed)
        self._for_thread.append((departed, last))
        size_bytes = departed.file.size_bytes
        if self._batch is not None and self._batch.is_waiting:
            self._batch.size_bytes += size_bytes
        # A batch that has begun may have seen the queue empty already.
        if self._batch is None or not self._batch.is_waiting:
            self._batch = self._spares.give_back(size_bytes, self._end_all)

    def _end_all(self) -> None:
        """Free what is in the queue. For the thread."""
        while self._for_thread:
            departed, last = self._for_thread.popleft()
            # Unmapping is most of the work, so it happens here and not in the loop.
            last.clear()
            departed.state = self._end_one(departed)

    def _end_one(self, departed: _Departed) -> _State:
        if departed.is_used_for_some_time():
            return _State.HELD
        if departed.is_given_up:
            departed.file.close()
            return _State.FREE
        if self._has_readers(departed):
            return _State.HELD
        departed.file.free()
        return _State.FREE

    # ---- what is still there

    @property
    def descriptors(self) -> int:
        """How many owed and held files are open; leaving files are closed soon."""
        return len(self._owed) + len(self._held)

    @property
    def owed_files(self) -> int:
        return sum(departed.whose is not None for departed in self._owed)

    def owes(self, scope: Scope) -> bool:
        """Try again to unlink; return whether a file that `scope` covers still has a name."""
        self._try_again()
        return any(departed.is_covered(scope) for departed in self._owed)

    def collect(self) -> None:
        """Take files with readers back from the thread, and forget those that it freed."""
        while self._leaving and self._leaving[0].state is not _State.LEAVING:
            departed = self._leaving.popleft()
            if departed.state is _State.HELD:
                self._hold(departed)

    def step(self, steady_ns: int) -> None:
        """Try owed files again, and free the held files whose readers are gone."""
        self.collect()
        self._try_again()
        held, self._held = self._held, []
        for departed in held:
            self.held_bytes -= departed.file.size_bytes
            if self._is_let_go_of(departed, steady_ns):
                self._leave(departed, [])
            else:
                self._hold(departed)

    def _is_let_go_of(self, departed: _Departed, steady_ns: int) -> bool:
        if departed.is_used_here():
            return False
        if self._leases_work:
            return not departed.file.has_readers()
        if departed.unseen_since_ns is None:
            departed.unseen_since_ns = steady_ns
        departed.is_given_up = steady_ns - departed.unseen_since_ns >= HELD_UNSEEN_NS
        return departed.is_given_up

    def _try_again(self) -> None:
        """Unlink owed files; when none is left, call `on_owing` with None."""
        if not self._owed:
            return
        had_any = self.owed_files
        owed, self._owed = self._owed, []
        for departed in owed:
            self.held_bytes -= departed.file.size_bytes
            if departed.file.unlink():
                self._hold(departed)
            else:
                self.held_bytes += departed.file.size_bytes
                self._owed.append(departed)
        if had_any and not self.owed_files:
            log.warning("l1_files_removed_after_all", files=had_any)
            self._on_owing(None)

    # ---- erasures

    def keep_in_reach(self, blob: HeapBytes, whose: Whose) -> None:
        """Let an erasure end the answers that send `blob`, for as long as there are any."""
        self._on_heap[blob] = whose

    def erase(self, scope: Scope) -> Callable[[], None]:
        """Mark what `scope` covers as erased: no answer sends a byte of it from here on.

        Returns a call that zeroes the files, for a thread; it raises OSError. Marking comes
        first, so that no answer sends zeros.
        """
        files = []
        for departed in (*self._owed, *self._held, *self._leaving):
            if not departed.is_covered(scope):
                continue
            files.append(departed.file)
            blob = departed.blob()
            if blob is not None:
                blob.is_erased = True
        for heap, whose in list(self._on_heap.items()):
            if scope.covers(whose.key, whose.owner):
                heap.is_erased = True

        def punch_all() -> None:
            for file in files:
                file.punch()

        return punch_all

    def close(self) -> None:
        """Close all files, after the thread has ended. Readers keep what they have.

        Owed files stay as litter for the next start.
        """
        self.collect()
        for departed in (*self._owed, *self._held):
            departed.file.close()
        self._owed, self._held, self.held_bytes = [], [], 0
