"""Can damage make the readers do anything but refuse? Only OriginDataCorrupt may escape.

Promise 7.
"""

from __future__ import annotations

import io
import pickle

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.codec.pickles import decode_pickle
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor

EXAMPLES = 400


def _saved(tensor: torch.Tensor, *, as_zip: bool) -> bytes:
    file = io.BytesIO()
    torch.save(tensor, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


_TENSOR = torch.arange(24, dtype=torch.float16).reshape(2, 3, 4).transpose(0, 2)
GOOD = [
    *(pickle.dumps(_TENSOR, protocol=protocol) for protocol in range(6)),
    pickle.dumps(torch.nn.Parameter(_TENSOR)),
    _saved(_TENSOR, as_zip=True),
    _saved(_TENSOR, as_zip=False),
]
# Opcodes and lengths get further in a parser than arbitrary bytes.
_TELLING_BYTES = st.sampled_from(
    b"\x00\x01\x7f\xff().0NRQXBCKMJILVcpqrghjtlads}u]ebio\x80\x81\x85\x8a"
)
_BYTES = st.one_of(_TELLING_BYTES, st.integers(0, 255))


def _decoded(data: bytes) -> Tensor | None:
    try:
        return decode_pickle(data)
    except OriginDataCorrupt:
        return None


def _assert_decoded_or_refused(data: bytes) -> None:
    decoded = _decoded(data)
    assert decoded is None or decoded.size_bytes == len(decoded.data) <= len(data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 4095), _BYTES), min_size=1, max_size=6),
)
def test_changed_bytes_are_decoded_or_refused(good: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(good)
    for at, value in changes:
        data[at % len(data)] = value

    _assert_decoded_or_refused(bytes(data))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from(GOOD),
    st.integers(0, 4095),
    st.integers(0, 16),
    st.binary(max_size=16) | st.lists(_TELLING_BYTES, max_size=8).map(bytes),
)
def test_cut_and_spliced_bytes_are_decoded_or_refused(
    good: bytes, at: int, removed: int, added: bytes
) -> None:
    at %= len(good)

    _assert_decoded_or_refused(good[:at] + added + good[at + removed :])


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(GOOD), st.sampled_from(GOOD), st.integers(0, 4095), st.integers(0, 4095))
def test_halves_of_two_objects_are_decoded_or_refused(
    one: bytes, other: bytes, cut: int, start: int
) -> None:
    _assert_decoded_or_refused(one[: cut % len(one)] + other[start % len(other) :])


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(_BYTES, max_size=200).map(bytes))
def test_bytes_without_a_meaning_are_refused_or_decoded(data: bytes) -> None:
    _assert_decoded_or_refused(data)


@settings(deadline=None)
@given(st.sampled_from(GOOD), st.integers(0, 4095))
def test_an_object_that_is_cut_short_is_always_refused(good: bytes, length: int) -> None:
    assert _decoded(good[: length % len(good)]) is None
