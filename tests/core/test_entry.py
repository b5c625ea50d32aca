"""Are generations unique, whatever the clock does, and do etags tell members apart?"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.checksum import Checksum, checksum
from cachesvc.core.entry import GenerationSource, oldest_ns
from cachesvc.core.keys import EntryKey
from cachesvc.core.origin import OriginStamp
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of

META = meta_of(EntryKey("garment", "shirt"), b"blob")
_STAMP = META.stamps[0]


@given(
    lives=st.lists(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), min_size=1, max_size=5)
)
def test_generations_are_unique_across_clock_steps_and_restarts(lives: list[list[int]]) -> None:
    last = 0
    seen: list[int] = []
    for wall_times in lives:
        source = GenerationSource(last)
        seen += [source.next(wall_ns) for wall_ns in wall_times]
        last = seen[-1]  # the number that the catalog remembers
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))


def test_a_lost_catalog_takes_no_generation_back_while_the_clock_goes_on() -> None:
    before = GenerationSource(0).next(START_NS)
    assert GenerationSource(0).next(START_NS + 1) > before


def test_an_etag_differs_when_any_member_does() -> None:
    two = replace(META, stamps=(_STAMP, replace(_STAMP, object_key="mask")))
    changed = replace(two, stamps=(_STAMP, replace(two.stamps[1], etag="other")))
    swapped = replace(two, stamps=two.stamps[::-1])
    put = replace(META, stamps=())
    etags = {meta.etag for meta in (META, two, changed, swapped, put)}
    assert len(etags) == 5
    assert replace(two, generation=9, confirmed_ns=9).etag == two.etag
    assert replace(put, generation=9).etag != put.etag


def test_the_oldest_member_decides_an_entrys_age() -> None:
    stamps = tuple(OriginStamp(str(at), "", float(at)) for at in (30, 10, 20))
    assert oldest_ns(stamps) == 10 * 10**9


@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_a_checksum_over_chunks_is_that_of_the_whole(data: bytes, cuts: list[int]) -> None:
    digest = Checksum()
    at = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(at):
        digest.update(data[start:end])
    assert digest.value() == checksum(data)
    assert -(1 << 63) <= checksum(data) < 1 << 63


@pytest.mark.parametrize(
    ("modified_s", "expected_ns"),
    [
        (0.0, 0),
        (-1.0, 0),
        (-62_135_596_800.0, 0),
        (-1e18, 0),
        (1.5, 1_500_000_000),
        (10_413_792_000.0, (1 << 63) - 1),
        (1e18, (1 << 63) - 1),
    ],
)
def test_any_time_of_a_file_becomes_one_that_the_catalog_can_hold(
    modified_s: float, expected_ns: int
) -> None:
    assert oldest_ns((replace(_STAMP, last_modified_s=modified_s),)) == expected_ns
