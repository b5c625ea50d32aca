"""Is every hand-written answer the message that protobuf would have written, and aligned?"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachesvc.edge.grpc.inline import ALIGNMENT, InlineEntry, serialize_entries
from cachesvc_proto.v1 import cache_pb2 as pb

FIELDS = {"human": 1, "garment": 2, "text": 3}


@dataclass(frozen=True)
class Bytes:
    """A blob on the heap."""

    data: bytes
    is_erased: bool = False
    shared_name: str | None = None

    def view(self) -> memoryview:
        return memoryview(self.data)


def blobs() -> st.SearchStrategy[bytes | None]:
    # Sizes around those where the length takes one more byte: 127, 16 Ki, 2 Mi.
    near = [n + delta for n in (0, 127, 1 << 14, 1 << 21) for delta in range(-40, 40)]
    sizes = st.one_of(st.integers(0, 70_000), st.sampled_from([size for size in near if size >= 0]))
    # One byte value throughout, with which no small field begins or ends.
    return st.one_of(st.none(), sizes.map(lambda size: b"\xee" * size))


@st.composite
def entries(draw: st.DrawFn) -> tuple[pb.Entry, bytes | None]:
    info = pb.EntryInfo(
        key=pb.EntryKey(namespace="garment", id=draw(st.text("abc-", max_size=128))),
        size_bytes=draw(st.integers(0, 2**63)),
        tier=draw(st.sampled_from([pb.TIER_MEMORY, pb.TIER_DISK, pb.TIER_ORIGIN])),
        etag=draw(st.text("0123456789abcdef", max_size=300)),
        generation=draw(st.integers(0, 2**63)),
    )
    return pb.Entry(info=info, boot_id=draw(st.binary(max_size=16))), draw(blobs())


def expected_of(entry: pb.Entry, blob: bytes | None) -> pb.Entry:
    expected = pb.Entry()
    expected.CopyFrom(entry)
    expected.info.SetInParent()  # always sent
    if blob is not None:
        expected.tensors = blob
    return expected


@given(st.tuples(entries(), entries(), entries()))
@example(tuple((pb.Entry(), b"") for _ in FIELDS))
@example(tuple((pb.Entry(), None) for _ in FIELDS))
@example(tuple((pb.Entry(info=pb.EntryInfo(generation=238)), b"\xee") for _ in FIELDS))
def test_three_entries_of_any_size_parse_to_the_same_message(
    given_entries: tuple[tuple[pb.Entry, bytes | None], ...],
) -> None:
    parts = dict(zip(FIELDS, given_entries, strict=True))
    raw = serialize_entries(
        tuple(
            inline_entry(FIELDS[part], entry, None if blob is None else Bytes(blob))
            for part, (entry, blob) in parts.items()
        )
    )
    answer = pb.GetTryOnResponse.FromString(raw)
    offset = 0
    for part, (entry, blob) in parts.items():
        found = getattr(answer, part)
        if blob:
            # With its tag and length: a blob of one byte could also occur within a number.
            tagged = pb.Entry(tensors=blob).SerializeToString()
            offset = raw.index(tagged, offset) + len(tagged) - len(blob)
            assert offset % ALIGNMENT == 0
            offset += len(blob)
        found.ClearField("padding")
        assert found == expected_of(entry, blob)


@pytest.mark.parametrize("size", [1, 100, 127, 128, 16_300, 16_384])
def test_every_remainder_is_padded_to_a_multiple_of_16(size: int) -> None:
    for id_length in range(1, 129):
        check_padding(id_length, size)


def inline_entry(field_number: int, entry: pb.Entry, blob: Bytes | None) -> InlineEntry:
    """Split `entry` into the parts that the service hands over."""
    rest = pb.Entry()
    rest.CopyFrom(entry)
    rest.ClearField("info")
    return InlineEntry(field_number, entry.info.SerializeToString(), rest, blob)


def check_padding(id_length: int, size: int) -> None:
    info = pb.EntryInfo(key=pb.EntryKey(namespace="text", id="i" * id_length))
    blob = b"\xee" * size
    raw = serialize_entries((inline_entry(1, pb.Entry(info=info), Bytes(blob)),))
    assert raw.index(b"\xee") % ALIGNMENT == 0
    answer = pb.GetHumanResponse.FromString(raw)
    assert answer.entry.tensors == blob
    assert answer.entry.info == info
    assert len(answer.entry.padding) < 2 * ALIGNMENT


def test_an_empty_blob_is_told_apart_from_no_blob() -> None:
    with_blob = serialize_entries((inline_entry(1, pb.Entry(), Bytes(b"")),))
    without = serialize_entries((inline_entry(1, pb.Entry(), None),))
    assert pb.GetHumanResponse.FromString(with_blob).entry.WhichOneof("payload") == "tensors"
    assert pb.GetHumanResponse.FromString(without).entry.WhichOneof("payload") is None
