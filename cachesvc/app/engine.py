"""How is the engine made of the tiers, the origin and the settings?"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from cachesvc.app.instruments import Instruments
from cachesvc.config import Settings
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import GenerationSource
from cachesvc.core.kinds import Kinds
from cachesvc.core.pseudonyms import Pseudonyms
from cachesvc.engine.state import Limits, State
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.memory import MemoryTier

# Decoding takes most of a miss: use all cores, but two threads at least, so that a hit finds one.
WORKER_THREADS = max(2, os.cpu_count() or 2)


def make_state(
    settings: Settings,
    kinds: Kinds,
    memory: MemoryTier,
    disk: DiskTier,
    workers: ThreadPoolExecutor,
    audit_key: bytes | None,
    instruments: Instruments,
    *,
    acknowledge_from_ns: int,
) -> State:
    """Return the state that the parts of the engine share."""
    return State(
        kinds=kinds,
        clock=instruments.clock,
        memory=memory,
        disk=disk,
        metrics=instruments.metrics,
        limits=_limits(settings),
        generations=GenerationSource(disk.last_generation),
        workers=workers,
        events=instruments.events,
        pseudonyms=Pseudonyms(audit_key),
        problems=instruments.problems,
        acknowledge_from_ns=acknowledge_from_ns,
    )


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        max_entry_bytes=limits.max_entry_bytes,
        max_flights=limits.max_flights,
        max_concurrent_fills=limits.max_concurrent_fills,
        max_concurrent_warmups=limits.max_concurrent_warmups,
        max_warm_keys=limits.max_warm_keys,
        max_concurrent_puts=limits.max_concurrent_puts,
        max_pending_bytes=settings.l2.max_pending_bytes,
        max_decoding_bytes=limits.max_decoding_bytes,
        fill_deadline_s=settings.origin.deadline_s,
        breaker_failures=settings.origin.breaker_failures,
        breaker_open_s=settings.origin.breaker_open_s,
        origin_after_grace_ns=int(settings.origin.origin_after_grace_s * NS_PER_S),
    )
