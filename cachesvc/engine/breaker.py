"""Stops asking an origin that does not answer, and finds out when it answers again.

The circuit opens when fills of several entries in a row could not ask the origin; an entry
counts once, because its own objects may be the cause. While the circuit is open, fills fail at
once. After a pause one fill at a time goes through as a probe. An entry whose probe failed
lets other entries go first: otherwise one bad object that is asked for all the time would be
every probe and keep the circuit open for all.

No library is used: the existing ones count failures, not the entries that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import (
    CacheError,
    HostBusy,
    ObjectChanging,
    OriginUnavailable,
    StaleFill,
)
from cachesvc.core.keys import EntryKey

# Even if the setting is lower: failures of one entry alone never open the circuit.
LEAST_ENTRIES = 2


class Circuit(Enum):
    """A change of the circuit."""

    OPENED = "opened"
    PROBED = "probed"
    CLOSED = "closed"


class Asking:
    """One fill that the breaker lets through. Call `answered` when the origin has answered."""

    def __init__(self) -> None:
        self.has_answer = False

    def answered(self) -> None:
        """Count no later failure of this fill against the origin."""
        self.has_answer = True


class OriginBreaker:
    """One origin's circuit. `failures` entries open it; `steady_ns` reads the time."""

    def __init__(
        self,
        failures: int,
        open_s: float,
        steady_ns: Callable[[], int],
        on_change: Callable[[Circuit], None] = lambda _: None,
    ) -> None:
        self._most_failed = max(failures, LEAST_ENTRIES)
        self._open_ns = int(open_s * NS_PER_S)
        self._steady_ns = steady_ns
        self._on_change = on_change
        # Entries that failed in a row, or as probes while the circuit is open, each with the
        # time until which other entries go first. Never more than `_most_failed`.
        self._failed: dict[EntryKey, int] = {}
        self._paused_until_ns: int | None = None  # None = closed
        self._probe: Asking | None = None
        self._probe_until_ns = 0

    @property
    def is_open(self) -> bool:
        """Return whether every fill is refused; False while a probe may go through."""
        return self._paused_until_ns is not None and self._steady_ns() < self._paused_until_ns

    @contextmanager
    def asking(self, key: EntryKey) -> Iterator[Asking]:
        """Run one fill. Raises OriginUnavailable, reason ORIGIN_CIRCUIT_OPEN, if it is refused.

        Any answer, including NoSuchObject, closes the circuit. A fill that was fenced or
        cancelled, or for which this host lacked resources, changes nothing.
        """
        asked = Asking()
        self._admit(key, asked)
        try:
            yield asked
            asked.answered()
        except ObjectChanging:
            asked.answered()
            raise
        except OriginUnavailable:
            if not asked.has_answer:
                self._fail(key, asked)
            raise
        except (StaleFill, HostBusy):
            raise
        except CacheError:
            asked.answered()
            raise
        finally:
            if self._probe is asked:
                self._probe = None
            if asked.has_answer:
                self._close()

    def _admit(self, key: EntryKey, asked: Asking) -> None:
        if self._paused_until_ns is None:
            return
        now_ns = self._steady_ns()
        # A probe that hangs keeps other fills out until `_probe_until_ns` only.
        is_probed = self._probe is not None and now_ns < self._probe_until_ns
        if now_ns < max(self._paused_until_ns, self._failed.get(key, 0)) or is_probed:
            raise OriginUnavailable(
                "the origin has not answered lately and is left alone for a moment; retry",
                reason="ORIGIN_CIRCUIT_OPEN",
            )
        self._probe, self._probe_until_ns = asked, now_ns + self._open_ns
        self._on_change(Circuit.PROBED)

    def _fail(self, key: EntryKey, asked: Asking) -> None:
        if self._paused_until_ns is not None and self._probe is not asked:
            return  # the fill began before the circuit opened: its failure says nothing new
        until_ns = self._steady_ns() + self._open_ns
        self._failed[key] = until_ns
        if len(self._failed) < self._most_failed:
            return
        if self._paused_until_ns is None:
            self._on_change(Circuit.OPENED)
        self._paused_until_ns = until_ns
        self._failed.clear()

    def _close(self) -> None:
        self._failed.clear()
        if self._paused_until_ns is not None:
            self._paused_until_ns = None
            self._on_change(Circuit.CLOSED)
