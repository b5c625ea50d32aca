"""Can the disk of L2 ever hold what the settings say?

A value that was set and is larger than the whole filesystem is an error of its writer: another disk
was meant, or another unit. The defaults are for large disks; on a small disk the floor limits L2.
"""

from __future__ import annotations

import os

import structlog

from cachesvc.config import L2Settings
from cachesvc.config.messages import setting
from cachesvc.core import units
from cachesvc.tiers.mounts import nearest_existing

log = structlog.get_logger()
_LIMITS = ("max_bytes", "free_floor_bytes")


def problems(l2: L2Settings) -> list[str]:
    """Return a sentence for each size that was set and exceeds the filesystem."""
    return [_sentence(l2, name) for name in _too_large(l2) if name in l2.model_fields_set]


def warn(l2: L2Settings) -> None:
    """Log which defaults exceed the filesystem."""
    for name in _too_large(l2):
        if name not in l2.model_fields_set:
            log.warning(
                "l2_disk_is_small",
                problem=_sentence(l2, name),
                consequence="L2 holds less than its limit, or nothing",
                do=f"set {setting(f'l2.{name}')}",
            )


def _too_large(l2: L2Settings) -> list[str]:
    return [name for name in _LIMITS if getattr(l2, name) > _total_bytes(l2)]


def _total_bytes(l2: L2Settings) -> int:
    usage = os.statvfs(nearest_existing(l2.root))
    return usage.f_blocks * usage.f_frsize


def _sentence(l2: L2Settings, name: str) -> str:
    return (
        f"{setting(f'l2.{name}')} is {units.size_text(getattr(l2, name))}, but the filesystem of "
        f"{l2.root} has {_total_bytes(l2) / (1 << 30):.1f} GiB in all"
    )
