"""How long an entry is served: the adaptive TTL.

Popular entries live longer; every TTL is shortened a little at random, so that
entries filled together do not all expire together. Pure: no clock.
"""

from __future__ import annotations

from cachesvc.core.clock import NS_PER_S

# (least number of accesses, factor), highest first. V2 promised both steps.
STEPS = ((50, 4.0), (10, 2.0))
MAX_TTL_S = 96 * 3600.0
# Downwards only: no entry is served longer than the documented TTL.
JITTER = 0.1
_MIX = 0x9E3779B97F4A7C15  # Fibonacci hashing: consecutive generations spread evenly
_MASK = (1 << 64) - 1


def jitter_factor(generation: int) -> float:
    """Return a factor in (1 - JITTER, 1] that is always the same for a generation."""
    mixed = (generation * _MIX) & _MASK
    return 1.0 - JITTER * (mixed / (1 << 64))


def expires_ns(
    *, confirmed_ns: int, base_s: float, explicit_s: float | None, accesses: int, generation: int
) -> int:
    """Return the moment from which the entry is a miss.

    A Put's `explicit_s` is used unchanged. Otherwise `base_s` is multiplied by the factor
    of the step that `accesses` has reached, limited to MAX_TTL_S (to `base_s` if that is
    longer), and jittered.
    """
    if explicit_s is not None:
        return confirmed_ns + int(explicit_s * NS_PER_S)
    factor = next((factor for at, factor in STEPS if accesses >= at), 1.0)
    ttl_s = min(base_s * factor, max(MAX_TTL_S, base_s))
    return confirmed_ns + int(ttl_s * jitter_factor(generation) * NS_PER_S)
