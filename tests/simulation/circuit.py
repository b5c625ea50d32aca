"""Which fills may the circuit breaker refuse, and which must it refuse?

`WatchedBreaker` stands between the fills of one life and their breaker. It knows when each
fill was let through or refused, and how it ended, and applies the documented rules to that:

- closed: the breaker refuses nothing. Fills of `breaker_failures` different entries that
  could not ask the origin, without an answer in between, open the circuit;
- open: for `breaker_open_s` it lets no fill through, then one probe at a time. An entry whose
  probe failed waits for `breaker_open_s`; after failed probes of as many entries as open the
  circuit, all entries do. A probe keeps others out for `breaker_open_s` at most;
- any answer closes the circuit: a whole entry, an absence, a refusal. A fill that was fenced,
  or that got no slot, says nothing of the origin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import CacheError, HostBusy, ObjectChanging, OriginUnavailable, StaleFill
from cachesvc.core.keys import EntryKey
from cachesvc.engine.breaker import Asking, OriginBreaker
from cachesvc.engine.state import Limits

REFUSED = "ORIGIN_CIRCUIT_OPEN"
# So many failures open no circuit.
NEVER = 1 << 30


@dataclass(eq=False)
class Fill(Asking):
    """One fill that was let through."""

    key: EntryKey
    began_ns: int
    asking: Asking
    has_answer: bool = False

    def answered(self) -> None:
        self.has_answer = True
        self.asking.answered()


class WatchedBreaker:
    """Has the methods of the breaker that it watches. `problems` says what broke a rule."""

    def __init__(
        self, breaker: OriginBreaker, limits: Limits, steady_ns: Callable[[], int]
    ) -> None:
        self._breaker = breaker
        self._open_at = max(limits.breaker_failures, 2)
        self._open_ns = int(limits.breaker_open_s * NS_PER_S)
        self._steady_ns = steady_ns
        self._opened_ns: int | None = None  # None = closed
        # Entries whose failure counts towards opening, and when it was.
        self._failed_ns: dict[EntryKey, int] = {}
        self._probe: Fill | None = None
        # When a fill of each entry was last refused, or failed for want of the origin or the host.
        self.in_vain_ns: dict[EntryKey, int] = {}
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()

    @property
    def is_open(self) -> bool:
        return self._breaker.is_open

    @contextmanager
    def asking(self, key: EntryKey) -> Iterator[Fill]:
        fill: Fill | None = None
        try:
            with self._breaker.asking(key) as asking:
                fill = self._let_through(key, asking)
                yield fill
        except BaseException as exc:
            if fill is None:
                self._was_refused(key)
            else:
                self._has_ended(fill, exc)
            raise
        self._has_ended(fill, None)

    def _let_through(self, key: EntryKey, asking: Asking) -> Fill:
        fill = Fill(key, self._steady_ns(), asking)
        if self._opened_ns is not None:
            if reason := self._reason_to_refuse(key):
                self.problems.append(f"a fill of {key} was let through, and {reason}")
            self._probe = fill
        return fill

    def _was_refused(self, key: EntryKey) -> None:
        self.counts["refused by the circuit"] += 1
        self.in_vain_ns[key] = self._steady_ns()
        if not self._reason_to_refuse(key):
            self.problems.append(f"a fill of {key} was refused, and the circuit was not open")

    def _reason_to_refuse(self, key: EntryKey) -> str:
        """Return why a fill of `key` has to be refused now; empty if it has to be let through."""
        if self._opened_ns is None:
            return ""
        lately_ns = self._steady_ns() - self._open_ns
        if self._opened_ns > lately_ns:
            return "the circuit was open"
        if self._failed_ns.get(key, lately_ns) > lately_ns:
            return "a probe of the same entry had just failed"
        if self._probe is not None and self._probe.began_ns > lately_ns:
            return "another probe was under way"
        return ""

    def _has_ended(self, fill: Fill, error: BaseException | None) -> None:
        is_probe = self._probe is fill
        if is_probe:
            self._probe = None
        # This includes fills whose objects were read, but not decoded in time.
        if isinstance(error, OriginUnavailable | HostBusy):
            self.in_vain_ns[fill.key] = self._steady_ns()
        if fill.has_answer or _is_answer(error):
            self._opened_ns = None
            self._failed_ns.clear()
        elif isinstance(error, OriginUnavailable) and (is_probe or self._opened_ns is None):
            # Otherwise the fill began before the circuit opened, and says nothing new.
            self._count(fill.key)

    def _count(self, key: EntryKey) -> None:
        self._failed_ns[key] = self._steady_ns()
        if len(self._failed_ns) >= self._open_at:
            self.counts["circuits opened"] += 1
            self._opened_ns = self._steady_ns()
            self._failed_ns.clear()


def _is_answer(error: BaseException | None) -> bool:
    """Return whether a fill that ended like this was answered by the origin."""
    if error is None or isinstance(error, ObjectChanging):
        return True
    nothing = (OriginUnavailable, StaleFill, HostBusy)
    return isinstance(error, CacheError) and not isinstance(error, nothing)
