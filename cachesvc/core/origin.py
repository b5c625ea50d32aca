"""What the engine needs of an origin: whole objects, and when each was last changed.

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

    Every method may raise OriginUnavailable (the origin could not be asked, or its
    answer was damaged: retry) and OriginDenied (credentials or policy). A cancelled
    call holds nothing.
    """

    async def start(self) -> None:
        """Prepare without a request: a daemon starts even if its origin is down."""

    async def read(self, object_key: str) -> OriginObject:
        """Return the object. Raises NoSuchObject only if the origin said so."""

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        """Return the object if it differs from `stamp`, otherwise its stamp alone.

        One request, without a body if the object has not changed. Raises as `read`.
        """

    async def read_start(self, object_key: str, size_bytes: int) -> bytes:
        """Return the object's first bytes, at most `size_bytes`. Raises as `read`."""

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        """Replace the object as a whole; readers see the old one or the new one."""

    async def check(self) -> None:
        """Return if the origin can be asked now; raise otherwise."""

    async def close(self) -> None:
        """Close the connections. No method may be called afterwards."""


class DatedOrigin(Origin, Protocol):
    """An origin as the operator's tools also use it."""

    async def stamp(self, object_key: str) -> OriginStamp:
        """Return the object's stamp without its bytes. Raises as `read`."""
