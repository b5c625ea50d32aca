"""Is an entry new enough for a caller that names the moment of the last change?

Wall-clock nanoseconds. S3's clock has whole seconds, hence the grace.
"""

from __future__ import annotations


def needed_ns(origin_after_ns: int, arrival_ns: int) -> int:
    """Return the moment to hold entries against; 0 = none was given.

    A moment in the future counts as the arrival of the call: nothing could meet it.
    """
    return min(origin_after_ns, arrival_ns)


def is_new_enough(origin_ns: int, needed: int, grace_ns: int) -> bool:
    """Return whether an entry whose oldest member is from `origin_ns` may be served."""
    return origin_ns + grace_ns >= needed
