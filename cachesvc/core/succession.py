"""From when may a new daemon acknowledge invalidations, given the daemon before it?

Workers trust a daemon's last heartbeat for a second. Closing its control page ends that
trust at once; if the closed page was not the last daemon's, the new daemon waits for the
second. Times are steady nanoseconds. Schedules: docs/local-delivery.md.
"""

from __future__ import annotations

from dataclasses import dataclass

# How long workers trust a heartbeat, plus a margin for reading the two clocks.
WAIT_NS = 1_100_000_000


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What is known of the last daemon on this L2 root.

    `was_there` is False for a root that was never used. `acknowledge_from_ns` is the moment
    that it had to wait for itself; `boot_id` is empty if the catalog was lost.
    """

    was_there: bool
    boot_id: bytes
    acknowledge_from_ns: int


def acknowledge_from_ns(
    predecessor: Predecessor, closed_boot_id: bytes | None, locked_ns: int
) -> int:
    """Return the moment from which invalidations may be acknowledged; 0 = at once.

    `closed_boot_id` is from the control page that was closed just now, None if there was no
    page. `locked_ns` is when the root was locked: the last daemon may have lived until then.
    """
    end_ns = locked_ns + WAIT_NS
    if not predecessor.was_there:
        return 0
    if not predecessor.boot_id or closed_boot_id != predecessor.boot_id:
        return end_ns
    # The predecessor may have died during its own wait; the rest of that wait is still due.
    return min(end_ns, predecessor.acknowledge_from_ns)
