"""Does `v2.GPUPersonCache` stand in for the old server's cache?"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from PIL import Image

from cachesvc_client import CacheUnavailable, InvalidRequest, OriginUnavailable, PreconditionFailed
from cachesvc_client.v2 import TwoLevelCacheV2
from tests.client.support import values
from tests.client.support.scripted_server import ScriptedServer, refuse


@pytest.fixture
def cache(server: ScriptedServer) -> Iterator[TwoLevelCacheV2]:
    v2 = TwoLevelCacheV2(target=server.target)
    yield v2
    v2.close()


async def test_dicts_of_images_and_tensors_go_in_and_come_out(cache: TwoLevelCacheV2) -> None:
    # The puts are called inside a running loop, as in the old server.
    person, clothes, words = values.human(), values.garment(), values.text()
    cache.put_human("u1", "upper_body", person)
    cache.put_garment("c1", clothes, owner_id="o1")
    cache.put_text("c1", words)
    found = await cache.get_human("u1", "upper_body")
    assert found is not None
    assert found["mask"].tobytes() == person["mask"].tobytes()
    assert isinstance(found["human_img"], Image.Image)
    assert torch.equal(found["pose_tensor"], person["pose_tensor"])
    garment = await cache.get_garment("c1", "o1")
    assert garment is not None
    assert torch.equal(garment["garm_tensor"], clothes["garm_tensor"])
    text = await cache.get_text("c1")
    assert text is not None
    assert text.keys() == words.keys()
    await cache.aclose()


async def test_absent_is_none_and_so_is_a_garment_without_an_owner(cache: TwoLevelCacheV2) -> None:
    assert await cache.get_human("u1") is None
    assert await cache.get_garment("c1", "o1") is None
    assert await cache.get_text("c1") is None
    await cache.aclose()


async def test_a_failure_is_raised_and_is_not_none(
    server: ScriptedServer, cache: TwoLevelCacheV2
) -> None:
    metadata = (("cachesvc-reason", "ORIGIN_UNAVAILABLE"),)
    server.script("GetHuman", refuse(grpc.StatusCode.UNAVAILABLE, "S3 is down", metadata))
    with pytest.raises(OriginUnavailable):
        await cache.get_human("u1")
    metadata = (("cachesvc-reason", "KIND_VERSION_MISMATCH"),)
    server.script("GetText", refuse(grpc.StatusCode.FAILED_PRECONDITION, "other", metadata))
    with pytest.raises(PreconditionFailed):
        await cache.get_text("c1")
    await cache.aclose()


async def test_a_daemon_that_is_away_is_raised_by_gets_and_by_sync_calls(socket: Path) -> None:
    cache = TwoLevelCacheV2(target=str(socket), wait_s=0.1)
    with pytest.raises(CacheUnavailable):
        await cache.get_human("u1")
    with pytest.raises(CacheUnavailable):
        cache.get_stats()
    await cache.aclose()


async def test_device_is_where_the_tensors_are(server: ScriptedServer) -> None:
    cache = TwoLevelCacheV2(target=server.target, device="meta")
    cache.put_garment("c1", values.garment())
    found = await cache.get_garment("c1")
    assert found is not None
    assert found["garm_tensor"].device.type == "meta"
    await cache.aclose()


async def test_clears_and_stats_work_from_any_thread(cache: TwoLevelCacheV2) -> None:
    cache.put_human("u1", "upper_body", values.human())
    cache.put_human("u1", "dresses", values.human())
    cache.put_garment("c1", values.garment())
    with ThreadPoolExecutor(4) as pool:
        assert pool.submit(cache.get_stats).result(20)["l1_entries"] == 3
        assert pool.submit(cache.clear_human, "u1").result(20) == 2
        assert pool.submit(cache.clear_garment, "c1").result(20) == 1
    cache.put_text("c1", values.text())
    assert cache.clear_all() == 1
    assert await cache.get_human("u1") is None
    stats = cache.get_stats()
    assert (stats["misses"], stats["l1_entries"]) == (1, 0)
    await cache.aclose()


@pytest.mark.parametrize(("mode", "kept"), [("1", "L"), ("P", "RGB"), ("CMYK", "RGB")])
async def test_images_of_other_modes_are_converted_as_v2_took_any(
    cache: TwoLevelCacheV2, mode: str, kept: str
) -> None:
    cache.put_human("u1", "upper_body", {**values.human(), "mask": Image.new(mode, (3, 2), 1)})
    found = await cache.get_human("u1")
    assert found is not None
    assert found["mask"].mode == kept
    with pytest.raises(InvalidRequest):
        cache.put_human("u1", "upper_body", {**values.human(), "mask": Image.new("F", (3, 2))})
    await cache.aclose()


DOCUMENT = {
    "ssd_root": "/opt/dlami/nvme/vton-cache",
    "l1_max_users": 10,
    "l1_max_garments": 100,
    "ttl_hours": 24,
    "max_disk_usage_gb": 50.0,
}
REPOSITORY = {
    "l1_human_limit": 10,
    "l1_garment_limit": 100,
    "ssd_root": Path("/opt/dlami/nvme/vton-cache"),
    "ssd_limit_gb": 50,
    "ttl_hours": 24,
}
MIXED = {**DOCUMENT, **REPOSITORY}


@pytest.mark.parametrize("named", [DOCUMENT, REPOSITORY, MIXED], ids=["document", "repo", "mixed"])
def test_both_spellings_are_accepted_with_one_warning_that_names_the_settings(
    named: dict[str, Any],
) -> None:
    with pytest.warns(DeprecationWarning, match="set them on the daemon") as caught:
        TwoLevelCacheV2(**named)
    (warning,) = caught
    for setting in (
        "HUMAN__MAX_ENTRIES",
        "GARMENT__MAX_ENTRIES",
        "TEXT__MAX_ENTRIES",
        "L2__ROOT",
        "L2__MAX_BYTES",
        "CACHESVC_TTL_HOURS",
    ):
        assert str(warning.message).count(setting) == 1
    assert warning.filename == __file__


@pytest.mark.parametrize("known", [DOCUMENT, REPOSITORY], ids=["document", "repo"])
def test_a_value_without_a_name_is_known_by_the_order_of_its_spelling(
    known: dict[str, Any],
) -> None:
    names, values = list(known), list(known.values())
    for by_position in range(1, 6):
        rest = dict(zip(names[by_position:], values[by_position:], strict=True))
        with pytest.warns(DeprecationWarning, match="no longer uses") as caught:
            TwoLevelCacheV2(*values[:by_position], **rest)
        assert all(f"{name}: CACHESVC_" in str(caught[0].message) for name in names)


@pytest.mark.parametrize(
    ("positional", "named", "says"),
    [
        ((), {"l1_max_users": 10, "l1_human_limit": 12}, "l1_max_users=10 and l1_human_limit=12"),
        ((), {"max_disk_usage_gb": 50.0, "ssd_limit_gb": 40}, "=50.0 and ssd_limit_gb=40"),
        (("/a",), {"ssd_root": "/b"}, "ssd_root='/a' and ssd_root='/b'"),
        ((10,), {"l1_max_users": 12}, "l1_human_limit=10 and l1_max_users=12"),
        (("/a", 10, 100, 24, 50.0, "cuda"), {}, "at most 5 positional arguments"),
        ((), {"l1_max_people": 10}, "unexpected keyword argument 'l1_max_people'"),
    ],
)
def test_two_values_for_one_argument_are_refused_by_their_names(
    positional: tuple[Any, ...], named: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(says)):
        TwoLevelCacheV2(*positional, **named)


def test_without_old_arguments_there_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TwoLevelCacheV2(device="cpu")


@pytest.mark.parametrize("below", [".", "human_upper_body", "human_upper_body/..", "../../etc"])
def test_rmtree_of_anything_below_ssd_root_finds_nothing(below: str) -> None:
    path = TwoLevelCacheV2().ssd_root / below
    assert not path.exists()
    assert list(path.glob("*")) == []
    with pytest.raises(NotADirectoryError):
        shutil.rmtree(path)
    with pytest.raises(NotADirectoryError):
        path.mkdir(parents=True)


def test_the_old_attributes_are_there_and_inert() -> None:
    cache = TwoLevelCacheV2()
    assert cache.stats == {}
    assert cache.stats["l1_hits"] == 0
    for name in ("human_upper", "human_lower", "human_dresses", "garment", "text"):
        assert len(getattr(cache, f"l1_{name}")) == 0
