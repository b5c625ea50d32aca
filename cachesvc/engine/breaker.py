"""Stops asking an origin that does not answer, and finds out when it does again.

After some fills in a row that could not ask, the next ones fail at once; after a
pause a single one is let through to see. Built on `circuitbreaker`, which counts and
keeps the (monotonic) time; the single probe is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from circuitbreaker import STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker

from cachesvc.core.errors import OriginUnavailable, StaleFill


class OriginBreaker:
    """One origin's circuit."""

    def __init__(self, failures: int, open_s: float) -> None:
        self._circuit = CircuitBreaker(
            failure_threshold=failures,
            recovery_timeout=open_s,
            expected_exception=OriginUnavailable,
            name="origin",
        )
        self._probing = False

    @property
    def is_open(self) -> bool:
        return bool(self._circuit.opened)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Run one fill in it: raises OriginUnavailable, reason ORIGIN_CIRCUIT_OPEN, instead.

        An answer of any kind, NoSuchObject too, closes the circuit. A StaleFill is none: it
        did not ask.
        """
        # Read once: time passes between two readings.
        state = self._circuit.state
        is_probe = state == STATE_HALF_OPEN
        if state == STATE_OPEN or (is_probe and self._probing):
            raise OriginUnavailable(
                "the origin has not answered lately and is left alone for a moment; retry",
                reason="ORIGIN_CIRCUIT_OPEN",
            )
        self._probing = self._probing or is_probe
        try:
            yield
        except StaleFill:
            raise
        except BaseException as exc:  # cancelled too: the library tells what is a failure
            with self._circuit:
                raise exc
        else:
            with self._circuit:
                pass
        finally:
            if is_probe:
                self._probing = False
