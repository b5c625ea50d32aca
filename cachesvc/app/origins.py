"""Which origin do the settings name? A new origin is a `case` here."""

from __future__ import annotations

import structlog

from cachesvc.config import OriginSettings
from cachesvc.core.errors import OriginError
from cachesvc.core.origin import DatedOrigin

log = structlog.get_logger()


def make_origin(settings: OriginSettings, max_object_bytes: int) -> DatedOrigin:
    """Return the origin that the settings describe, not started yet.

    Only that origin's libraries are loaded: S3's take a third of the start's processor time.
    """
    match settings.kind:
        case "s3":
            from cachesvc.origin.s3 import from_settings
        case "directory":
            from cachesvc.origin.directory import from_settings
    return from_settings(settings, max_object_bytes)


async def start(origin: DatedOrigin) -> None:
    """Start the origin. If that fails, L2 is still served, and each fill tries again."""
    try:
        await origin.start()
    except OriginError as exc:
        log.error("origin_not_started", reason=exc.reason, error=exc.message)
