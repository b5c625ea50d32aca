"""Is each public object one line that a person can read, without secrets and without megabytes?"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import cachesvc_client
from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    CacheServiceError,
    EntryKey,
    LocalOptions,
    OriginUnavailable,
    PutOptions,
    TlsFiles,
    TryOnKey,
    WarmFailure,
    WarmSummary,
)
from cachesvc_client.testing import AsyncInMemoryCacheClient, InMemoryCacheClient, MemoryService
from cachesvc_client.v2 import TwoLevelCacheV2
from tests.client.support import values

SECRET = "a-token-that-nobody-may-read"
LONGEST = 400


def public_objects(tmp_path: Path) -> list[Any]:
    service = MemoryService()
    client = InMemoryCacheClient(service)
    stored = client.put_human("user-7", **values.human())
    client.put_garment("coat-3", owner_id="user-7", **values.garment())
    client.put_text("coat-3", owner_id="user-7", **values.text())
    tryon = client.get_tryon("user-7", "coat-3")
    warm_up = client.warm("user-7")
    failure = WarmFailure(EntryKey("text", "coat-3"), "NO_SUCH_OBJECT")

    async def entries() -> list[Any]:
        other = AsyncInMemoryCacheClient(service)
        return [other, await other.get_human("user-7"), other.warm("user-7")]

    errors = [
        found("what happened" * 10, reason="SOME_REASON")
        for name in cachesvc_client.__all__
        if inspect.isclass(found := getattr(cachesvc_client, name))
        and issubclass(found, CacheServiceError)
    ]
    path = str(tmp_path / "cachesvc.sock")
    inspection = client.inspect("garment", "coat-3")
    return [
        CacheClient(path),
        AsyncCacheClient(path),
        CacheClient("127.0.0.1:9", token=SECRET),
        client,
        service,
        TwoLevelCacheV2(client=client),
        *(LocalOptions(), TlsFiles("ca.pem"), TryOnKey("user-7", "coat-3"), PutOptions()),
        *(stored, stored.key, stored.tier, inspection, inspection.tiers[0]),
        *(tryon, tryon.human, tryon.human.layout, warm_up, *list(warm_up)[:1]),
        *(failure, WarmSummary(2000, 2000, (failure,) * 2000), warm_up.wait()),
        client.invalidate(user_id="user-8"),
        *errors,
        *asyncio.run(entries()),
    ]


def test_every_public_object_is_one_short_line(tmp_path: Path) -> None:
    objects = public_objects(tmp_path)
    for shown in map(repr, objects):
        assert "\n" not in shown
        assert len(shown) < LONGEST
        assert " object at 0x" not in shown
        assert SECRET not in shown
    seen = {type(one).__name__ for one in objects}
    classes = {
        name for name in cachesvc_client.__all__ if inspect.isclass(getattr(cachesvc_client, name))
    }
    assert classes - seen == {"PartStatus"}  # in the errors of a try-on


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        (
            OriginUnavailable("S3 is away", reason="ORIGIN_TIMEOUT"),
            "OriginUnavailable('S3 is away', reason='ORIGIN_TIMEOUT')",
        ),
        (MemoryService(), "<MemoryService with 0 entries>"),
        (InMemoryCacheClient(), "<InMemoryCacheClient over <MemoryService with 0 entries>>"),
        (
            CacheClient("/run/cachesvc.sock"),
            "<CacheClient unix:/run/cachesvc.sock, inline: no Get was made yet>",
        ),
    ],
)
def test_a_repr_says_which_one_it_is(one: object, shown: str) -> None:
    assert repr(one) == shown


def test_a_try_on_is_shown_by_its_keys() -> None:
    client = InMemoryCacheClient()
    client.put_human("user-7", **values.human())
    client.put_garment("coat-3", **values.garment())
    client.put_text("coat-3", **values.text())
    shown = repr(client.get_tryon("user-7", "coat-3"))
    assert shown == "<TryOn human_upper_body/user-7, garment/coat-3, text/coat-3>"
