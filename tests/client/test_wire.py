"""Does the hand-written reader of answers agree with protobuf, and survive any bytes?"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachesvc_client._views import address_of, writable_view
from cachesvc_client._wire import WireError, read_entries
from cachesvc_format.wire import varint
from cachesvc_proto.v1 import cache_pb2

infos = st.builds(
    cache_pb2.EntryInfo,
    key=st.builds(cache_pb2.EntryKey, namespace=st.text(), id=st.text()),
    size_bytes=st.integers(0, 2**64 - 1),
    generation=st.integers(0, 2**64 - 1),
    etag=st.text(),
)
entries = st.builds(
    cache_pb2.Entry,
    info=st.none() | infos,
    tensors=st.none() | st.binary(max_size=300),
    padding=st.binary(max_size=15),
)
answers = st.builds(
    cache_pb2.GetTryOnResponse,
    human=st.none() | entries,
    garment=st.none() | entries,
    text=st.none() | entries,
)
unknown_fields = st.lists(
    st.one_of(
        st.integers(0, 2**64 - 1).map(lambda n: varint(90 << 3 | 0) + varint(n)),
        st.binary(min_size=8, max_size=8).map(lambda b: varint(91 << 3 | 1) + b),
        st.binary(max_size=200).map(lambda b: varint(92 << 3 | 2) + varint(len(b)) + b),
        st.binary(min_size=4, max_size=4).map(lambda b: varint((2**29 - 1) << 3 | 5) + b),
    ),
    max_size=3,
).map(b"".join)


def assert_agrees_with_protobuf(message: bytes) -> None:
    parsed = cache_pb2.GetTryOnResponse.FromString(message)
    read = read_entries(memoryview(message), 3)
    for raw, entry in zip(read, (parsed.human, parsed.garment, parsed.text), strict=True):
        assert cache_pb2.EntryInfo.FromString(raw.info) == entry.info
        assert (raw.tensors is not None) == entry.HasField("tensors")
        assert bytes(raw.tensors or b"") == entry.tensors


@given(answers, unknown_fields, unknown_fields)
def test_the_parts_are_those_that_protobuf_finds(
    answer: cache_pb2.GetTryOnResponse, before: bytes, after: bytes
) -> None:
    assert_agrees_with_protobuf(before + answer.SerializeToString() + after)


@given(answers, answers)
def test_repeated_fields_merge_as_protobuf_merges_them(
    first: cache_pb2.GetTryOnResponse, second: cache_pb2.GetTryOnResponse
) -> None:
    assert_agrees_with_protobuf(first.SerializeToString() + second.SerializeToString())


@given(answers, st.data())
def test_a_truncated_answer_is_a_wire_error_or_a_shorter_message(
    answer: cache_pb2.GetTryOnResponse, data: st.DataObject
) -> None:
    message = answer.SerializeToString()
    cut = message[: data.draw(st.integers(0, len(message)))]
    try:
        read_entries(memoryview(cut), 3)
    except WireError:
        return
    assert_agrees_with_protobuf(cut)


@given(st.binary(max_size=100))
@example(b"\x0a" + b"\xff" * 12)
@example(b"\x0b\x0c")
@example(b"\x00\x00")
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def test_random_bytes_raise_nothing_but_a_wire_error(message: bytes) -> None:
    try:
        found = read_entries(memoryview(message), 3)
    except WireError:
        return
    assert len(found) == 3


def test_the_blob_is_a_view_of_the_received_bytes_and_not_a_copy() -> None:
    message = cache_pb2.GetHumanResponse(
        entry=cache_pb2.Entry(tensors=b"x" * 1000)
    ).SerializeToString()
    view = writable_view(message)
    (entry,) = read_entries(view, 1)
    assert entry.tensors is not None
    assert address_of(entry.tensors) - address_of(view) == message.index(b"xxx")


@pytest.mark.parametrize("message", [b"\x0a\x05abc", b"\x09\x01", b"\x0d\x01", b"\x0a", b"\x80"])
def test_a_field_that_ends_beyond_its_message_is_a_wire_error(message: bytes) -> None:
    with pytest.raises(WireError):
        read_entries(memoryview(message), 1)
