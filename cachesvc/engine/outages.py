"""Logs an origin that fails, without a warning for each call.

At `warning`: the first failure of an outage, each change of the circuit, and once a minute
how many fills have failed. Each failed fill is logged at `info`, and so is each absence, under
a name of its own. An outage is a series of failures without an answer in between. Entries and
objects are named by their pseudonyms.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import CacheError
from cachesvc.core.keys import EntryKey
from cachesvc.core.pseudonyms import Pseudonyms
from cachesvc.engine.breaker import Circuit

log = structlog.get_logger()
REPEAT_NS = 60 * NS_PER_S
# An entry has a handful of members.
MAX_OBJECTS_NAMED = 8


class OutageLog:
    """Belongs to the event loop."""

    def __init__(self, pseudonyms: Pseudonyms, steady_ns: Callable[[], int]) -> None:
        self._pseudonyms = pseudonyms
        self._steady_ns = steady_ns
        self._since_ns: int | None = None  # None = no outage
        self._said_ns: int | None = None
        self._failed = 0

    def fill_failed(self, key: EntryKey, error: CacheError, took_ms: float) -> None:
        """Log that one fill failed, whatever the reason."""
        self._say("fill_failed", key, error, took_ms)

    def found_absent(self, key: EntryKey, error: CacheError, took_ms: float) -> None:
        """Log an absence, which is an answer of the origin."""
        self._say("fill_absent", key, error, took_ms)

    def _say(self, event: str, key: EntryKey, error: CacheError, took_ms: float) -> None:
        objects = [self._pseudonyms.of(name) for name in error.object_keys[:MAX_OBJECTS_NAMED]]
        log.info(
            event,
            namespace=key.namespace,
            what=f"{key.namespace}/{self._pseudonyms.of(key.id)}",
            objects=objects,
            reason=error.reason,
            took_ms=took_ms,
        )

    def could_not_ask(self, error: CacheError) -> None:
        """Count a fill that could not ask the origin; log it unless that was done lately."""
        now_ns = self._steady_ns()
        if self._since_ns is None:
            self._since_ns, self._failed = now_ns, 0
        self._failed += 1
        # Otherwise one bad object among good ones would be logged each time it is asked for.
        if self._said_ns is not None and now_ns - self._said_ns < REPEAT_NS:
            return
        self._said_ns = now_ns
        log.warning(
            "origin_fails",
            reason=error.reason,
            failed_fills=self._failed,
            since_s=round((now_ns - self._since_ns) / NS_PER_S, 1),
        )

    def answered(self) -> None:
        """End the outage, if there is one: the origin has answered."""
        self._since_ns = None

    def circuit_changed(self, change: Circuit) -> None:
        log.warning("origin_circuit", state=change.value, failed_fills=self._failed)
