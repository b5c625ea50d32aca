"""What the engine relies on, whichever origin it has."""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.errors import NoSuchObject, OriginDataCorrupt, OriginUnavailable
from cachesvc.core.origin import OriginObject, OriginStamp
from tests.origin.conftest import AnyOrigin, OriginFactory

KEY = "users/u1/vton-cache/upper/human_img.png"
# More than either origin reads at once: 32 objects of S3, 8 files of a folder.
_MANY = 40


async def test_what_was_written_is_read_with_the_stamp_that_write_returned(
    origin: AnyOrigin,
) -> None:
    written = await origin.write(KEY, b"photo")

    found = await origin.read(KEY)

    assert found.data == b"photo"
    assert found.stamp == written
    assert found.stamp.object_key == KEY
    assert found.stamp.etag
    assert '"' not in found.stamp.etag


@pytest.mark.parametrize("data", [bytearray(b"tensor"), memoryview(b"a tensor")[2:]])
async def test_every_kind_of_buffer_can_be_written(
    origin: AnyOrigin, data: bytearray | memoryview
) -> None:
    await origin.write(KEY, data)

    assert (await origin.read(KEY)).data == b"tensor"


async def test_an_absent_object_is_named_as_such(origin: AnyOrigin) -> None:
    with pytest.raises(NoSuchObject) as caught:
        await origin.read(KEY)

    assert caught.value.object_keys == (KEY,)


async def test_a_folder_of_objects_is_not_itself_an_object(origin: AnyOrigin) -> None:
    await origin.write(KEY, b"photo")

    with pytest.raises(NoSuchObject):
        await origin.read("users/u1/vton-cache/upper")


async def test_an_object_is_not_a_folder_of_objects(origin: AnyOrigin) -> None:
    await origin.write(KEY, b"photo")

    with pytest.raises(NoSuchObject):
        await origin.read(f"{KEY}/mask.png")


async def test_an_overwritten_object_has_a_new_etag_and_is_not_older(origin: AnyOrigin) -> None:
    first = await origin.write(KEY, b"photo of the same size 1")
    second = await origin.write(KEY, b"photo of the same size 2")

    found = await origin.read(KEY)

    assert found.data == b"photo of the same size 2"
    assert found.stamp == second
    assert second.etag != first.etag
    assert second.last_modified_s >= first.last_modified_s


async def test_the_stamp_alone_is_that_of_a_read(origin: AnyOrigin) -> None:
    written = await origin.write(KEY, b"photo")

    assert await origin.stamp(KEY) == written
    assert (await origin.read(KEY)).data == b"photo"


async def test_the_stamp_of_an_absent_object_names_it_absent(origin: AnyOrigin) -> None:
    with pytest.raises(NoSuchObject) as caught:
        await origin.stamp(KEY)

    assert caught.value.object_keys == (KEY,)


@pytest.mark.parametrize(("data", "start"), [(b"photograph", b"photo"), (b"x", b"x"), (b"", b"")])
async def test_the_start_of_an_object_is_read_alone(
    origin: AnyOrigin, data: bytes, start: bytes
) -> None:
    await origin.write(KEY, data)

    assert await origin.read_start(KEY, 5) == start
    assert (await origin.read(KEY)).data == data


async def test_the_start_of_an_absent_object_names_it_absent(origin: AnyOrigin) -> None:
    with pytest.raises(NoSuchObject) as caught:
        await origin.read_start(KEY, 5)

    assert caught.value.object_keys == (KEY,)


async def test_an_unchanged_object_is_its_stamp_alone(origin: AnyOrigin) -> None:
    written = await origin.write(KEY, b"photo")

    assert await origin.read_if_changed(written) == written


async def test_a_changed_object_comes_whole_with_its_new_stamp(origin: AnyOrigin) -> None:
    first = await origin.write(KEY, b"photo of the same size 1")
    second = await origin.write(KEY, b"photo of the same size 2")

    found = await origin.read_if_changed(first)

    assert found == OriginObject(second, b"photo of the same size 2")


async def test_an_object_that_is_gone_is_absent_and_not_unchanged(origin: AnyOrigin) -> None:
    with pytest.raises(NoSuchObject) as caught:
        await origin.read_if_changed(OriginStamp(KEY, "an-etag", 0.0))

    assert caught.value.object_keys == (KEY,)


async def test_concurrent_conditional_reads_each_have_their_own_answer(origin: AnyOrigin) -> None:
    stamps = [await origin.write(f"users/u{i}/x.pkl", b"%d" % i * 50_000) for i in range(8)]
    for stamp in stamps[::2]:
        await origin.write(stamp.object_key, b"another")

    found = await asyncio.gather(*(origin.read_if_changed(stamp) for stamp in stamps))

    assert found[1::2] == stamps[1::2]
    changed = [each for each in found[::2] if isinstance(each, OriginObject)]
    assert [each.data for each in changed] == [b"another"] * 4


async def test_every_overwrite_in_quick_succession_has_its_own_etag(origin: AnyOrigin) -> None:
    etags = [(await origin.write(KEY, b"photo %02d" % i)).etag for i in range(_MANY)]

    assert len(set(etags)) == _MANY


async def test_concurrent_reads_each_get_their_own_object(origin: AnyOrigin) -> None:
    bodies = {f"users/u{i}/x.pkl": b"%d" % i * 50_000 for i in range(_MANY)}
    await asyncio.gather(*(origin.write(key, data) for key, data in bodies.items()))

    found = await asyncio.gather(*(origin.read(key) for key in bodies))

    assert {obj.stamp.object_key: obj.data for obj in found} == bodies


async def test_a_reader_during_overwrites_sees_one_whole_version(origin: AnyOrigin) -> None:
    versions = [bytes([i]) * 300_000 for i in range(8)]
    await origin.write(KEY, versions[0])

    async def overwrite() -> None:
        for version in versions:
            await origin.write(KEY, version)

    writing = asyncio.create_task(overwrite())
    seen = [(await origin.read(KEY)).data for _ in range(20)]
    await writing

    assert set(seen) <= set(versions)


async def test_a_truly_empty_object_is_read_as_empty(origin: AnyOrigin) -> None:
    await origin.write(KEY, b"")

    assert (await origin.read(KEY)).data == b""


@pytest.mark.parametrize(
    "name",
    ["a b.png", "a+b&c=d", "100%25.png", "100%", "it's(1)!*~", "ключ-鍵-é", "a,b;c@d$.x", "..."],
)
async def test_unusual_but_legal_names_are_kept_apart(origin: AnyOrigin, name: str) -> None:
    await origin.write(f"users/u1/{name}", name.encode())

    assert (await origin.read(f"users/u1/{name}")).data == name.encode()


async def test_an_object_of_exactly_the_limit_is_read_and_a_larger_one_is_not(
    new_origin: OriginFactory,
) -> None:
    origin = new_origin(max_object_bytes=100_000)
    await origin.write("at.pkl", bytes(100_000))
    await origin.write("over.pkl", bytes(100_001))

    assert len((await origin.read("at.pkl")).data) == 100_000
    with pytest.raises(OriginDataCorrupt) as caught:
        await origin.read("over.pkl")

    assert caught.value.reason == "OBJECT_TOO_LARGE"
    assert caught.value.object_keys == ("over.pkl",)
    assert "over.pkl" not in caught.value.message
    await origin.close()


async def test_reads_go_on_after_many_were_refused_unread(new_origin: OriginFactory) -> None:
    origin = new_origin(max_object_bytes=1000)
    await origin.write("over.pkl", bytes(1_000_000))
    await origin.write("small.pkl", b"small")

    refused = await asyncio.gather(
        *(origin.read("over.pkl") for _ in range(_MANY)), return_exceptions=True
    )

    assert {type(result) for result in refused} == {OriginDataCorrupt}
    assert (await origin.read("small.pkl")).data == b"small"
    await origin.close()


async def test_cancelled_reads_hold_nothing(origin: AnyOrigin) -> None:
    await origin.write(KEY, bytes(2_000_000))
    for passes in range(6):
        reads = [asyncio.create_task(origin.read(KEY)) for _ in range(_MANY)]
        for _ in range(passes):
            await asyncio.sleep(0)
        for read in reads:
            read.cancel()
        ended = await asyncio.gather(*reads, return_exceptions=True)
        # Some reads may have ended before they were cancelled.
        assert {type(result) for result in ended} <= {asyncio.CancelledError, OriginObject}

    found = await asyncio.gather(*(origin.read(KEY) for _ in range(_MANY)))

    assert {len(obj.data) for obj in found} == {2_000_000}


async def test_a_healthy_origin_passes_its_check(origin: AnyOrigin) -> None:
    await origin.check()

    await origin.write(KEY, b"photo")
    assert (await origin.read(KEY)).data == b"photo"


async def test_an_origin_that_was_not_started_starts_by_itself(new_origin: OriginFactory) -> None:
    origin = new_origin()

    stamps = await asyncio.gather(*(origin.write(f"{i}.pkl", b"tensor") for i in range(5)))

    assert len(stamps) == 5
    await origin.close()


async def test_a_closed_origin_cannot_be_asked_and_closes_again(new_origin: OriginFactory) -> None:
    origin = new_origin()
    await origin.write(KEY, b"photo")
    await origin.close()
    await origin.close()

    calls = (
        origin.read(KEY),
        origin.read_if_changed(OriginStamp(KEY, "an-etag", 0.0)),
        origin.write(KEY, b"photo"),
        origin.check(),
        origin.start(),
    )
    for call in calls:
        with pytest.raises(OriginUnavailable) as caught:
            await call
        assert caught.value.reason == "ORIGIN_CLOSED"
