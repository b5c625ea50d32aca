"""Is an entry new enough for a caller with `origin_after`?

Times are wall-clock nanoseconds. The grace is there because S3's clock has whole seconds.
"""

from __future__ import annotations

from typing import NamedTuple


class Need(NamedTuple):
    """`named_ns` is a call's `origin_after`, 0 if it has none; `arrival_ns` is its arrival."""

    named_ns: int = 0
    arrival_ns: int = 0

    @property
    def moment_ns(self) -> int:
        """The moment that an entry has to meet; 0 = any entry does.

        An `origin_after` in the future counts as the call's arrival: no entry could meet it.
        """
        return min(self.named_ns, self.arrival_ns)


ANY_AGE = Need()


def need_of(origin_after_ns: int, arrival_ns: int) -> Need:
    return Need(origin_after_ns, arrival_ns) if origin_after_ns else ANY_AGE


def is_new_enough(origin_ns: int, need: Need, grace_ns: int, *, read_ns: int) -> bool:
    """Return whether a stored entry, whose oldest member is from `origin_ns`, meets `need`.

    An `origin_ns` later than the call proves nothing: this host's clock was ahead when the
    entry was stored, or is behind now, or another clock is wrong. The entry then meets `need`
    only if its fill, which began at `read_ns`, began between the moment and the call.
    """
    if not need.named_ns:
        return True
    if origin_ns <= need.arrival_ns:
        return origin_ns + grace_ns >= need.moment_ns
    return need.moment_ns <= read_ns <= need.arrival_ns


def is_answer_new_enough(origin_ns: int, need: Need, grace_ns: int) -> bool:
    """Return whether an answer that the origin gave after the call's arrival meets `need`.

    If this host's clock is behind, the origin's time and the caller's are both later than
    the call, but they can be compared with each other.
    """
    moment_ns = need.moment_ns if origin_ns <= need.arrival_ns else need.named_ns
    return origin_ns + grace_ns >= moment_ns
