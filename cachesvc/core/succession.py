"""From when may a new daemon acknowledge removals, given who was here before it?

Workers trust a daemon's last heartbeat for a second. Closing its control page ends
that at once; where the page was not the last daemon's, the second has to be waited out.
Steady nanoseconds. The schedules are docs/local-delivery.md's.
"""

from __future__ import annotations

from dataclasses import dataclass

# What workers may still believe, and a little for the two clocks' reading.
WAIT_NS = 1_100_000_000


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What is known of the last daemon on this L2 root.

    `was_there` is False for a root that was never used. `acknowledge_from_ns` is what it
    had to wait for itself; `boot_id` is empty if the catalog was lost.
    """

    was_there: bool
    boot_id: bytes
    acknowledge_from_ns: int


def acknowledge_from_ns(
    predecessor: Predecessor, closed_boot_id: bytes | None, locked_ns: int
) -> int:
    """Return the moment from which removals may be acknowledged; 0 = at once.

    `closed_boot_id` is of the control page that was closed just now, None if there was
    none. `locked_ns` is when the root was locked: until then its owner may have lived.
    """
    end_ns = locked_ns + WAIT_NS
    if not predecessor.was_there:
        return 0
    if not predecessor.boot_id or closed_boot_id != predecessor.boot_id:
        return end_ns
    # It may have died before its own wait was over: those workers are still waited for.
    return min(end_ns, predecessor.acknowledge_from_ns)
