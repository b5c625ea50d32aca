"""The daemon's counters under V2's names: in its `/health`, and in the client."""

from __future__ import annotations

from typing import Any

from cachesvc_format.namespaces import GARMENT_NAMESPACE, TEXT_NAMESPACE

# V2's names for the number of L1's entries in each namespace.
V2_COUNTS = {
    "l1_human_upper_count": "human_upper_body",
    "l1_human_lower_count": "human_lower_body",
    "l1_human_dresses_count": "human_dresses",
    "l1_garment_count": GARMENT_NAMESPACE,
    "l1_text_count": TEXT_NAMESPACE,
}
_GIB = 1 << 30


def v2_cache_stats(stats: Any) -> dict[str, Any]:
    """Return V2's `cache_stats` of a `StatsResponse`.

    Rates are shares of all Gets, in percent: `68.18`.
    """
    requests = stats.requests
    # A worker's local hits are L1 hits.
    l1_hits = requests.memory_hits + requests.local_hits
    found = l1_hits + requests.disk_hits + requests.origin_fills
    total = found + requests.not_found + requests.failed
    in_memory = {name.namespace: name.memory_entries for name in stats.namespaces}
    return {
        "l1_hits": l1_hits,
        "l2_hits": requests.disk_hits,
        "l3_hits": requests.origin_fills,
        "evictions": stats.memory.evictions + stats.disk.evictions,
        "stampede_prevented": stats.coalesced_waiters,
        "total_requests": total,
        "l1_hit_rate": _percentage(l1_hits, total),
        "l2_hit_rate": _percentage(requests.disk_hits, total),
        **{key: in_memory.get(namespace, 0) for key, namespace in V2_COUNTS.items()},
        "l2_disk_usage_gb": round(stats.disk.size_bytes / _GIB, 2),
        "l2_disk_limit_gb": round(stats.disk.max_bytes / _GIB, 2),
    }


def _percentage(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
