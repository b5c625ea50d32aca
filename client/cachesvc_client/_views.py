"""A writable view of received bytes, without a copy.

gRPC hands an answer over as a `bytes` object that it has just built and lets go
of: nobody else can see it. A tensor over it should be writable, or torch warns
and a caller's in-place step fails; copying 10 MB for that costs milliseconds.

Why writing into it is safe in CPython: the payload of a bytes object lies inside
the object, is never moved, and only its hash is cached, which nobody computes
here. Empty and one-byte objects are shared by the interpreter, so those are
copied, as everything is under another implementation.
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

    The view keeps `data` alive. Never pass bytes that anything else refers to.
    """
    if len(data) <= _SHARED_UP_TO_BYTES or not _payload_is_in_place():
        return memoryview(bytearray(data))
    return view_of_address(id(data) + _PAYLOAD_OFFSET, len(data), data)


def view_of_address(address: int, size_bytes: int, owner: object) -> memoryview:
    """Return a writable view of `size_bytes` at `address`, which `owner` keeps valid."""
    array = (ctypes.c_ubyte * size_bytes).from_address(address)
    # from_address borrows; the view holds the array, and the array holds the owner.
    array._owner = owner  # type: ignore[attr-defined]
    return memoryview(array).cast("B")


def address_of(view: memoryview) -> int:
    """Return where a writable, non-empty view starts."""
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(view))


def aligned(view: memoryview, at: int, alignment: int) -> memoryview:
    """Return `view`, or one copy of it where its byte `at` is not at a multiple of `alignment`.

    fp16 on an odd address is slow at best and refused by numpy at worst.
    """
    if len(view) == 0 or (address_of(view) + at) % alignment == 0:
        return view
    # A fresh bytearray starts at a multiple of 16, so `at` decides; in our blobs it is a
    # multiple of 64. Others are moved up, which first fills the room with zeros.
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
