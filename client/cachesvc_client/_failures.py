"""The failures that a test has planned for the in-memory clients."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Any

from cachesvc_client._arguments import METHODS
from cachesvc_client.errors import CacheServiceError, NotCached, missing_parts
from cachesvc_client.requests import Call

# The contract's methods, GetHuman for get_human.
_CONTRACTS = {name.replace("_", ""): name for name in METHODS}


@dataclass
class _Planned:
    error: CacheServiceError
    method: str
    left: int


class Failures:
    """Planned failures, in the order in which they were planned. Safe for many threads."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()

    def plan(self, error: CacheServiceError, method: str, times: int) -> None:
        """Let the next `times` calls of `method` (empty: of any) fail."""
        with self._lock:
            self._planned.append(_Planned(error, method, times))

    def clear(self) -> None:
        """Forget what was planned."""
        with self._lock:
            self._planned.clear()

    def raise_planned(self, call: Call[Any]) -> None:
        """Raise a copy of the error that is planned for this call."""
        with self._lock:
            error = self._take(_CONTRACTS.get(call.method.lower(), ""))
        if error is None:
            return
        # Two calls must not share an exception: each raise adds to its traceback.
        raised = copy.copy(error)
        if isinstance(raised, NotCached) and not raised.missing:
            raised.missing = missing_parts(raised.parts, call.asked_for)
        raise raised

    def _take(self, method: str) -> CacheServiceError | None:
        for planned in self._planned:
            if planned.method in ("", method):
                planned.left -= 1
                if not planned.left:
                    self._planned.remove(planned)
                return planned.error
        return None
