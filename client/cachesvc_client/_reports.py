"""Reports a client's local hits in the upkeep's own thread."""

from __future__ import annotations

from collections.abc import Callable

from cachesvc_client._local import LocalDelivery


class HitReports:
    """Runs `report`, which takes the hits and sends them."""

    def __init__(self, report: Callable[[], None]) -> None:
        self.begin = report

    def finish(self, local: LocalDelivery) -> None:
        """Report the last hits of `local`, before the connection to the daemon is closed."""
        local.end_upkeep()
