"""Is an entry new enough for a caller that names the moment of the last change?

Wall-clock nanoseconds. S3's clock has whole seconds, hence the grace.
"""

from __future__ import annotations

from typing import NamedTuple


class Need(NamedTuple):
    """`named_ns` is a call's `origin_after`, 0 if it names none, and `arrival_ns` when it came."""

    named_ns: int = 0
    arrival_ns: int = 0

    @property
    def moment_ns(self) -> int:
        """The moment to hold entries against; 0 = none was named.

        A moment in the future counts as the arrival of the call: nothing could meet it.
        """
        return min(self.named_ns, self.arrival_ns)


ANY_AGE = Need()


def need_of(origin_after_ns: int, arrival_ns: int) -> Need:
    return Need(origin_after_ns, arrival_ns) if origin_after_ns else ANY_AGE


def is_new_enough(origin_ns: int, need: Need, grace_ns: int, *, read_ns: int) -> bool:
    """Return whether a stored entry, whose oldest member is from `origin_ns`, may be served.

    A time that is later than the call says nothing: this host's clock was ahead when it was
    stored, or is behind now, or another clock is wrong. Then it counts that the entry was
    read after the moment, if that is known: `read_ns` is when its fill began.
    """
    if not need.named_ns:
        return True
    if origin_ns <= need.arrival_ns:
        return origin_ns + grace_ns >= need.moment_ns
    return need.moment_ns <= read_ns <= need.arrival_ns


def is_answer_new_enough(origin_ns: int, need: Need, grace_ns: int) -> bool:
    """Return the same of what the origin said after the call had come.

    If this host's clock is behind, the origin's time and the caller's are both later than
    the call. Neither says anything about now, but they can be compared with each other.
    """
    moment_ns = need.moment_ns if origin_ns <= need.arrival_ns else need.named_ns
    return origin_ns + grace_ns >= moment_ns
