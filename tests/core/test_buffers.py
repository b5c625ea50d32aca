"""Are the parts of a blob read and joined without changing a byte?"""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.buffers import joined
from cachesvc.core.parts_file import PartsFile


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_parts_are_joined_in_their_order(parts: list[bytes]) -> None:
    assert joined(parts) == b"".join(parts)


@given(
    st.lists(st.binary(max_size=9), max_size=5),
    st.lists(st.tuples(st.integers(0, 60), st.integers(-1, 60)), max_size=8),
)
def test_parts_are_read_as_a_file_of_the_same_bytes(
    parts: list[bytes], steps: list[tuple[int, int]]
) -> None:
    file, same = PartsFile(parts), io.BytesIO(b"".join(parts))
    for at, size in steps:
        assert file.seek(at) == same.seek(at)
        assert file.read(size) == same.read(size)
        assert file.read(3) == same.read(3)


@pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
def test_a_place_in_the_parts_is_found_from_every_side(whence: int) -> None:
    file, same = PartsFile([b"ab", b"", b"cde"]), io.BytesIO(b"abcde")
    for opened in (file, same):
        opened.seek(2)
    assert file.seek(1, whence) == same.seek(1, whence)
    assert file.read() == same.read()
