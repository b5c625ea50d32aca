"""A writable view of received bytes, without a copy.

gRPC returns an answer as a new `bytes` object to which it keeps no reference. A tensor over it
should be writable; otherwise torch warns, and a caller's in-place step fails. Copying 10 MB for
that costs milliseconds.

Writing into it is safe in CPython: the payload of a bytes object lies inside the object and never
moves, and only its hash is cached, which is never computed here. The interpreter shares empty and
one-byte objects, so those are copied, as are all objects under another implementation.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

# sizeof(PyBytesObject) ends with the first payload byte (`ob_sval[1]`).
_PAYLOAD_OFFSET = bytes.__basicsize__ - 1
_SHARED_UP_TO_BYTES = 1


def writable_view(data: bytes) -> memoryview:
    """Return a writable view, shape (len(data),), of bytes that only the caller holds.

    The view keeps `data` alive. Never pass bytes to which other code refers.
    """
    if len(data) <= _SHARED_UP_TO_BYTES or not _payload_is_in_place():
        return memoryview(bytearray(data))
    return view_of_address(id(data) + _PAYLOAD_OFFSET, len(data), data)


def view_of_address(address: int, size_bytes: int, owner: object) -> memoryview:
    """Return a writable view of `size_bytes` at `address`, which `owner` keeps valid."""
    array = (ctypes.c_ubyte * size_bytes).from_address(address)
    # from_address keeps no reference; the view holds the array, and the array the owner.
    array._owner = owner  # type: ignore[attr-defined]
    return memoryview(array).cast("B")


def address_of(view: memoryview) -> int:
    """Return the address of a writable, non-empty view."""
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(view))


def aligned(view: memoryview, at: int, alignment: int) -> memoryview:
    """Return `view`, or a copy if its byte `at` is not at a multiple of `alignment`.

    fp16 on an odd address is slow at best and refused by numpy at worst.
    """
    if len(view) == 0 or (address_of(view) + at) % alignment == 0:
        return view
    # A new bytearray starts at a multiple of 16, so `at` decides; in our blobs `at` is a multiple
    # of 64. Other views are shifted in a longer bytearray, which is first filled with zeros.
    shift = -at % alignment
    if shift == 0:
        return memoryview(bytearray(view))
    room = memoryview(bytearray(shift + len(view)))[shift:]
    room[:] = view
    return room


@lru_cache(maxsize=1)
def _payload_is_in_place() -> bool:
    """Check once, on bytes of our own, that the offset holds in this interpreter."""
    if sys.implementation.name != "cpython":
        return False
    probe = bytes(range(256))
    return bytes(view_of_address(id(probe) + _PAYLOAD_OFFSET, len(probe), probe)) == probe
