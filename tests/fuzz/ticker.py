"""How long does one input hold the interpreter? A thread that ticks beside it measures.

Like the daemon's loop, the thread sleeps and wakes up again and again; hits would wait for its
longest gap. On a busy machine a gap says more of the machine than of the input. So a gap counts at
most the processor time that the input's own thread took in it, and the least of several attempts
counts.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from cachesvc.codec.images import decode_png, encode_png
from cachesvc_format.blob import Tensor

_TICK_S = 0.0005
# An input that was slow once may have been unlucky.
ATTEMPTS = 5
MAX_TIMES = 3.0
_LEGAL_SIDE = 1826  # 10 MB in RGB


class Ticker:
    """Ticks beside the thread that entered it, until it is left."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._ended = threading.Event()
        self._ticking = threading.Event()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._thread = threading.Thread(target=self._tick, name="ticker", daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        self._ticking.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        before_s, spent_before_s = time.monotonic(), time.clock_gettime(self._clock)
        self._ticking.set()
        while not self._ended.is_set():
            time.sleep(_TICK_S)
            now_s, spent_s = time.monotonic(), time.clock_gettime(self._clock)
            gap_s = min(now_s - before_s, spent_s - spent_before_s)
            self.longest_s = max(self.longest_s, gap_s)
            before_s, spent_before_s = now_s, spent_s


def held_s(read: Callable[[], object]) -> float:
    """Return the longest time for which `read` held up a ticking thread."""
    with Ticker() as ticker:
        read()
    return ticker.longest_s


@cache
def allowed_s() -> float:
    """Return the longest time allowed: three times that of a legal image of 10 MB.

    A thread of Python gives way only after the interpreter's switch interval, so the limit is never
    less than that.
    """
    noise = np.random.default_rng(7).integers(0, 32, (_LEGAL_SIDE, _LEGAL_SIDE, 3), np.uint8)
    shape = (_LEGAL_SIDE, _LEGAL_SIDE, 3)
    legal = encode_png(Tensor("U8", shape, noise.tobytes(), "RGB"))
    decode_png(legal)  # loads its libraries
    held = min(held_s(lambda: decode_png(legal)) for _ in range(ATTEMPTS))
    return MAX_TIMES * max(held, sys.getswitchinterval())


def holds_too_long(read: Callable[[], object]) -> float | None:
    """Return how long an input holds the interpreter, if that is too long in each attempt."""
    least_s = float("inf")
    for _ in range(ATTEMPTS):
        least_s = min(least_s, held_s(read))
        if least_s <= allowed_s():
            return None
    return least_s
