"""How are a field's tag and length written in a protobuf message?

Daemon and client frame large fields themselves, because protobuf would copy them
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

# The wire types without groups, which no proto3 message has.
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Return `value` as protobuf writes an unsigned number."""
    assert value >= 0
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(number: int) -> bytes:
    """Return the tag of the length-delimited field `number`; its length comes next."""
    return varint(number << 3 | LENGTH_DELIMITED)
