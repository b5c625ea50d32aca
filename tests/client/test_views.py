"""Can received bytes be written in place, and do they live as long as anything uses them?"""

from __future__ import annotations

import gc
import weakref

import pytest

from cachesvc_client._views import address_of, aligned, view_of_address, writable_view


def test_writing_through_the_view_changes_the_bytes_in_place() -> None:
    received = b"".join([b"ab", b"cd"] * 100)
    view = writable_view(received)
    view[1] = ord("X")
    assert received[:4] == b"aXcd"
    assert not view.readonly


@pytest.mark.parametrize("shared", [b"", b"a"])
def test_objects_that_the_interpreter_shares_are_copied(shared: bytes) -> None:
    view = writable_view(shared)
    view[:] = b"Z" * len(shared)
    assert b"a"[0] == ord("a")
    assert len(view) == len(shared)


def test_the_view_keeps_its_owner_alive_and_no_longer() -> None:
    class Owner:
        pass

    room, owner = bytearray(64), Owner()
    alive = weakref.ref(owner)
    view = view_of_address(address_of(memoryview(room)), 64, owner)[8:16]
    del owner
    gc.collect()
    assert alive() is not None
    del view
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("alignment", [1, 2, 4, 8])
@pytest.mark.parametrize("offset", range(9))
def test_a_misaligned_view_is_copied_once_and_an_aligned_one_is_not(
    alignment: int, offset: int
) -> None:
    room = memoryview(bytearray(range(128)))
    view = room[offset:]
    found = aligned(view, 3, alignment)
    assert (address_of(found) + 3) % alignment == 0
    assert found == view
    was_aligned = (address_of(view) + 3) % alignment == 0
    assert (address_of(found) == address_of(view)) == was_aligned
