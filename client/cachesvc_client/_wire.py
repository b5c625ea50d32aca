"""Finds an entry's bytes inside a serialized answer.

protobuf would copy a `tensors` field of 10 MB; this module reads only the frame around it
(https://protobuf.dev/programming-guides/encoding/) and returns a view. Unknown fields are skipped.
Repeated fields follow protobuf's rule: messages merge, scalars take the last value. Groups are
refused: no proto3 server writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cachesvc_format.wire import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT

_MAX_VARINT_BYTES = 10
_MAX_FIELD_NUMBER = (1 << 29) - 1

_ENTRY_INFO = 1
_ENTRY_TENSORS = 2
_ENTRY_FILE = 3
_ENTRY_BOOT_ID = 4


class WireError(ValueError):
    """The bytes are not a protobuf message, or the message is cut short."""


class RawEntry(NamedTuple):
    """The parts of one `Entry`: its serialized info, and its blob or its serialized file."""

    info: bytes
    tensors: memoryview | None
    file: bytes = b""
    boot_id: bytes = b""


def read_entries(message: memoryview, last_field: int) -> list[RawEntry]:
    """Return the entries in fields 1 to `last_field` of an answer; absent entries are empty.

    Views alias `message`. Raises WireError.
    """
    spans: list[list[memoryview]] = [[] for _ in range(last_field)]
    for number, value in length_delimited(message):
        if number <= last_field:
            spans[number - 1].append(value)
    return [_read_entry(pieces) for pieces in spans]


def length_delimited(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, value) of each length-delimited field; skip all others."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise WireError("field number out of range")
        start, at = _value(message, at, wire_type)
        if at > end:
            raise WireError("a field ends beyond its message")
        if wire_type == LENGTH_DELIMITED:
            yield number, message[start:at]


def _read_entry(pieces: list[memoryview]) -> RawEntry:
    info, tensors, file, boot_id = b"", None, b"", b""
    for piece in pieces:
        for number, value in length_delimited(piece):
            if number == _ENTRY_INFO:
                info += value
            elif number == _ENTRY_TENSORS:
                tensors = value
            elif number == _ENTRY_FILE:
                file += value
            elif number == _ENTRY_BOOT_ID:
                boot_id = bytes(value)
    return RawEntry(info, tensors, file, boot_id)


def _value(message: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    """Return the begin, after a length, and the end of the value at `at`."""
    if wire_type == LENGTH_DELIMITED:
        length, at = _varint(message, at)
        return at, at + length
    if wire_type == VARINT:
        return at, _varint(message, at)[1]
    if wire_type == FIXED64:
        return at, at + 8
    if wire_type == FIXED32:
        return at, at + 4
    raise WireError("unknown wire type")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise WireError("a number does not end")
