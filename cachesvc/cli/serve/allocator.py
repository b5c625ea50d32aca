"""Limits the freed memory that the daemon keeps.

A fill and an inline answer pass through buffers of 5 to 10 MB. By default glibc gives each thread
its own heap, and every heap keeps some freed memory: after 100 fills of one person each, 165 MB
were private beyond L1's own bytes. Giving each buffer back at once (a low mmap threshold) leaves 70
MB, but then every inline hit faults its pages in again: 16 ms instead of 7. One heap that may keep
64 MiB at its top avoids both costs. With 40 MiB, 103 to 113 MB are private and one caller's hit
takes 7 ms, but two callers of whole try-ons (2 x 14.7 MB each: the answer, and gRPC's copy) pass 40
MiB and fault again: 39 ms p50, against 19 with 64 MiB. Measured on 2 cores.
"""

from __future__ import annotations

import ctypes

# mallopt's numbers, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MIB = 1 << 20


def limit_kept_memory() -> None:
    """Call it before threads start. Does nothing if libc has no mallopt (musl)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_TRIM_THRESHOLD, 64 * _MIB)
