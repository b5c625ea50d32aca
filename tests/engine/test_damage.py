"""Is any damage of a file in L2 ever served? Promise 2.

The whole engine is asked for each damaged file. The origin has another version by then, so the
version shows where the answer came from. Each damage must be a counted miss, its file must be set
aside unchanged, and the entry must be filled again and be in L2 again.
"""

from __future__ import annotations

import itertools
import random
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cachesvc.codec.blob import build_blob
from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, Encoding, Field, Kind, Kinds, Namespace, Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import key_scope
from cachesvc_format.blob import Tensor
from tests.support.engine.entries import blob_of
from tests.support.engine.house import EngineHouse

# A kind of one field: the smallest header that an entry can have.
DOT = Kind(
    name="dot",
    namespaces=(Namespace("dot"),),
    fields=(Field("x", Encoding.PICKLE, "{owner}/{id}"),),
    subject=Subject.CLOTHING,
    max_entries=4,
)
SMALLEST = EntryKey("dot", "a")
OTHER = EntryKey("dot", "b")
PERSON = EntryKey("human_upper_body", "alice")
VERSIONS = 200  # all of them fit the elements of an image
QUICK_BODY_FLIPS = 500
LONG_BODY_FLIPS = 20_000
PAGE_BYTES, PAGES = 4096, 40

Damage = Callable[[bytes], bytes]


@pytest.fixture
async def house() -> AsyncIterator[EngineHouse]:
    # All files are in shared memory: these tests are not about syncs, and they commit often.
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as folder:
        house = EngineHouse(Path(folder), Path(folder) / "runtime")
        (Path(folder) / "runtime").mkdir()
        house.kinds = Kinds((*BUILT_IN, DOT))
        house.open()
        yield house
        await house.end()


class Stored:
    """One entry that is only in L2, and is filled again after each damage."""

    def __init__(
        self, house: EngineHouse, key: EntryKey, *, first_version: int = 1, elements: int = 0
    ) -> None:
        self._house = house
        self._key = key
        self._elements = elements
        self._versions = itertools.cycle(range(first_version, VERSIONS + 1))
        self._blob = b""
        self.tried = 0

    async def fill(self) -> None:
        await self._upload_next()
        await self._check_served("origin")

    def path(self) -> Path:
        folder = self._house.root / self._key.namespace / self._key.id
        (path,) = folder.iterdir()
        return path

    async def check(self, damage: Damage) -> None:
        """Damage the file; check that it is missed, set aside, and that the next file is whole."""
        path = self.path()
        damaged = damage(path.read_bytes())
        assert damaged != path.read_bytes()
        path.write_bytes(damaged)
        await self._upload_next()
        before = self._house.metrics.value("damaged_entries")
        await self._check_served("origin")
        assert self._house.metrics.value("damaged_entries") == before + 1
        assert not path.exists()
        kept = [p for p in (self._house.root / ".quarantine").iterdir() if path.stem in p.name]
        assert [p.read_bytes() for p in kept] == [damaged]
        self.tried += 1

    async def check_undamaged(self) -> None:
        """Check that the undamaged file is a hit of L2; otherwise the tests above would prove
        nothing.
        """
        await self._check_served("disk")

    async def _upload_next(self) -> None:
        version, kind = next(self._versions), self._house.kinds.of(self._key.namespace)
        if not self._elements:
            self._blob = blob_of(kind, version)
            self._house.upload(self._key, version)
            return
        (field,), (object_key,) = kind.fields, self._house.object_keys(self._key)
        data = np.full(self._elements, version, "<f2").tobytes()
        tensor = Tensor("F16", (self._elements,), data)
        self._blob = build_blob({field.name: tensor})
        self._house.origin.hold(object_key, encode_pickle(tensor))

    async def _check_served(self, tier: str) -> None:
        served = await self._house.get(self._key)
        assert served.tier == tier
        assert bytes(served.blob.view()) == self._blob
        await self._house.settle()
        self._house.memory.remove(self._key, Leaving.BYTES_LIMIT)

    async def check_all(self, damages: Iterable[Damage]) -> None:
        await self.fill()
        await self.check_undamaged()
        for damage in damages:
            await self.check(damage)
        await self.check_undamaged()


def flip(bit: int) -> Damage:
    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    return damage


def header_bytes(blob: bytes) -> int:
    return 8 + int(struct.unpack_from("<Q", blob)[0])


def header_flips(kind: Kind) -> Iterator[Damage]:
    """Each bit of the length and the header; they lie at the same place in every version."""
    return (flip(bit) for bit in range(8 * header_bytes(blob_of(kind, 1))))


def body_flips(kind: Kind, count: int) -> Iterator[Damage]:
    blob = blob_of(kind, 1)
    first, end = 8 * header_bytes(blob), 8 * len(blob)
    chance = random.Random(11)
    return (flip(chance.randrange(first, end)) for _ in range(count))


def zeroed(page: int) -> Damage:
    def damage(data: bytes) -> bytes:
        start, end = page * PAGE_BYTES, min((page + 1) * PAGE_BYTES, len(data))
        return data[:start] + bytes(end - start) + data[end:]

    return damage


def old_formats(kind: Kind) -> list[Damage]:
    """An entry in other formats: our former one, plain safetensors, V2's."""

    def replaced(data: bytes) -> bytes:
        return data.replace(b'"cachesvc.format":"1"', b'"cachesvc.format":"0"')

    def without_metadata(data: bytes) -> bytes:
        size = header_bytes(data)
        start, end = data.index(b'"__metadata__"'), data.index(b"},") + 2
        text = data[8:start] + data[end:size]
        return struct.pack("<Q", size - 8) + text.ljust(size - 8) + data[size:]

    return [replaced, without_metadata, lambda _: b"\x80\x04N.", lambda _: b"\x89PNG\r\n\x1a\n"]


async def test_every_flipped_bit_of_a_header_is_a_counted_miss(house: EngineHouse) -> None:
    stored = Stored(house, SMALLEST)
    await stored.check_all(header_flips(DOT))
    assert stored.tried == 8 * header_bytes(blob_of(DOT, 1))


async def test_flipped_bits_of_a_body_are_counted_misses(house: EngineHouse) -> None:
    stored = Stored(house, PERSON)
    kind = house.kinds.of(PERSON.namespace)
    await stored.check_all(body_flips(kind, QUICK_BODY_FLIPS))
    assert stored.tried == QUICK_BODY_FLIPS


async def test_a_file_of_any_other_length_is_a_counted_miss(house: EngineHouse) -> None:
    stored, size = Stored(house, SMALLEST), len(blob_of(DOT, 1))
    await stored.check_all(
        [
            *(lambda data, length=length: data[:length] for length in range(size)),
            lambda data: data + b"\0",
            lambda data: data + data,
        ]
    )
    assert stored.tried == size + 2


async def test_an_old_format_in_the_place_of_an_entry_is_a_counted_miss(house: EngineHouse) -> None:
    stored = Stored(house, SMALLEST)
    await stored.check_all(old_formats(DOT))
    assert stored.tried == 4


async def test_another_entrys_file_and_an_older_one_of_its_own_are_counted_misses(
    house: EngineHouse,
) -> None:
    other = Stored(house, OTHER, first_version=100)
    await other.fill()
    of_other, older = other.path().read_bytes(), blob_of(DOT, 150)
    assert of_other == blob_of(DOT, 100)
    stored = Stored(house, SMALLEST)
    await stored.check_all([lambda _: of_other, lambda _: older])
    assert stored.tried == 2


async def test_a_page_of_zeros_anywhere_is_a_counted_miss(house: EngineHouse) -> None:
    stored = Stored(house, SMALLEST, elements=PAGES * PAGE_BYTES // 2)
    await stored.check_all(zeroed(page) for page in range(PAGES))
    assert stored.tried == PAGES


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_all_damage_of_every_kind_is_a_counted_miss(house: EngineHouse) -> None:
    tried: Counter[str] = Counter()
    for kind in house.kinds.all:
        key = EntryKey(kind.namespaces[0].name, "long")
        size = len(blob_of(kind, 1))
        damages = {
            "header bits": header_flips(kind),
            "body bits": body_flips(kind, LONG_BODY_FLIPS // len(house.kinds.all)),
            "lengths": (lambda data, n=n: data[:n] for n in range(size)),
            "old formats": iter(old_formats(kind)),
        }
        for what, some in damages.items():
            stored = Stored(house, key)
            await stored.check_all(some)
            tried[what] += stored.tried
            await house.cache.invalidate(key_scope(key))
    print(dict(tried))  # noqa: T201 - the figures of the run
    assert tried["body bits"] == LONG_BODY_FLIPS
