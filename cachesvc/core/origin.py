"""What the engine needs of an origin: whole objects, with when they were last changed.

Implemented by `origin/s3.py` and `origin/directory.py`; one contract test runs
over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cachesvc.core.tensors import Buffer


@dataclass(frozen=True, slots=True)
class OriginStamp:
    """What identifies one version of an object.

    `etag` is opaque, without quotes. `last_modified_s` is the origin's own wall
    clock, in seconds since 1970 (S3 has whole seconds).
    """

    object_key: str
    etag: str
    last_modified_s: float


@dataclass(frozen=True, slots=True)
class OriginObject:
    """A whole object: never cut short, never empty by accident."""

    stamp: OriginStamp
    data: bytes


class Origin(Protocol):
    """Reads and writes whole objects. Safe to call concurrently.

    Every method may raise OriginUnavailable (could not ask, or the answer was
    damaged on the way: retry), OriginDenied (credentials or policy). If cancelled,
    nothing is held.
    """

    async def start(self) -> None:
        """Prepare, without asking anything yet: an origin that is away stops no start."""

    async def read(self, object_key: str) -> OriginObject:
        """Return the object. Raises NoSuchObject only if the origin said so."""

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        """Return the object of `stamp` if it is another by now, else its stamp alone.

        One request, and no body if it has not changed. Raises as `read`.
        """

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        """Replace the object as a whole; readers see the old one or the new one."""

    async def check(self) -> None:
        """Return if the origin can be asked right now."""

    async def close(self) -> None:
        """Let go of connections. Nothing may be called afterwards."""
