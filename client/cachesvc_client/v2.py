"""Replaces the old server's in-process cache, over the daemon.

`TwoLevelCacheV2` keeps what that server calls: async gets, sync puts, clears and statistics, V2's
dicts of PIL images and torch tensors, None for an absent entry. The daemon now has the limits, the
disk and the S3 access. Unlike V2, a failure is raised and never looks like a miss.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachesvc_client._arguments import Category, check, check_as, check_settings, is_image
from cachesvc_client._options import DEFAULT_WAIT_S
from cachesvc_client._v2_arguments import warn_about
from cachesvc_client.aio import AsyncCacheClient
from cachesvc_client.answers import EntryInfo
from cachesvc_client.client import CacheClient
from cachesvc_client.entry import EntryFields
from cachesvc_client.errors import InvalidRequest, InvalidSettings, NotCached, PreconditionFailed
from cachesvc_format.v2_stats import v2_cache_stats

if TYPE_CHECKING:
    from cachesvc_client._torch import DeviceLike
    from cachesvc_proto.v1.cache_pb2 import StatsResponse

# The old server appends ids to this path and passes it to rmtree. No file can exist below a device
# file, so the server can neither delete nor make one there.
NOWHERE = Path("/dev/null/cachesvc")


class TwoLevelCacheV2:
    """V2's surface over the daemon at `target` (default: as `CacheClient`).

    V2's five arguments are accepted in both of V2's spellings, by name or by position, and change
    nothing; one warning names the daemon's settings that replace them. The order by position is
    `ssd_root`, users, garments, hours, disk if the first argument is a path, otherwise users,
    garments, `ssd_root`, disk, hours. `device` is where the tensors of the gets are. `client`
    replaces `target`: a `CacheClient`, or a test's `InMemoryCacheClient`. The first call connects.
    Every call raises CacheServiceError for a failure.

    Raises:
        TypeError: too many positional arguments, or two values for one argument.
        InvalidSettings: an argument of another type.
    """

    def __init__(
        self,
        *v2_arguments: Any,
        ssd_root: object = None,
        l1_max_users: int | None = None,
        l1_human_limit: int | None = None,
        l1_max_garments: int | None = None,
        l1_garment_limit: int | None = None,
        ttl_hours: float | None = None,
        max_disk_usage_gb: float | None = None,
        ssd_limit_gb: float | None = None,
        device: DeviceLike = "cpu",
        target: str | None = None,
        wait_s: float = DEFAULT_WAIT_S,
        client: CacheClient | None = None,
    ) -> None:
        warn_about(
            v2_arguments,
            {
                "ssd_root": ssd_root,
                "l1_max_users": l1_max_users,
                "l1_human_limit": l1_human_limit,
                "l1_max_garments": l1_max_garments,
                "l1_garment_limit": l1_garment_limit,
                "ttl_hours": ttl_hours,
                "max_disk_usage_gb": max_disk_usage_gb,
                "ssd_limit_gb": ssd_limit_gb,
            },
        )
        check_settings({"device": device})
        self.device = device
        self.ssd_root = NOWHERE
        # Inert: the old server reads these, and sometimes clears them. V2's counters read as 0;
        # `get_stats` has the real counts.
        self.stats: dict[str, int] = Counter()
        self.l1_human_upper: dict[str, Any] = {}
        self.l1_human_lower: dict[str, Any] = {}
        self.l1_human_dresses: dict[str, Any] = {}
        self.l1_garment: dict[str, Any] = {}
        self.l1_text: dict[str, Any] = {}
        self._async: AsyncCacheClient | _InThreads
        if client is not None:
            check_as("sync_client", client, "client", error=InvalidSettings)
            self._sync, self._async = client, _InThreads(client)
            return
        # Two connections: any thread may use the sync client, also a thread with a loop.
        self._sync = CacheClient(target, wait_s=wait_s)
        self._async = AsyncCacheClient(target, wait_s=wait_s)

    def __repr__(self) -> str:
        return f"<TwoLevelCacheV2 over {self._sync!r}>"

    async def get_human(
        self, user_id: str, category: Category = "upper_body", owner_id: str | None = None
    ) -> dict[str, Any] | None:
        """Return `human_img`, `mask`, `mask_gray` (PIL) and `pose_tensor`, or None if absent.

        A person's owner is the person: `owner_id` is accepted for symmetry.
        """
        check({"owner_id": _owner(owner_id)})
        return await self._or_none(self._async.get_human(user_id, category))

    async def get_garment(
        self, clothing_id: str, owner_id: str | None = None
    ) -> dict[str, Any] | None:
        """Return `garm_img` (PIL) and `garm_tensor`, or None if absent.

        Without an owner the origin cannot be asked, so an entry that is not cached is also None.
        """
        return await self._or_none(self._async.get_garment(clothing_id, _owner(owner_id)))

    async def get_text(
        self, clothing_id: str, owner_id: str | None = None
    ) -> dict[str, Any] | None:
        """Return the five embeddings, or None; `owner_id` is that of `get_garment`."""
        return await self._or_none(self._async.get_text(clothing_id, _owner(owner_id)))

    def put_human(
        self,
        user_id: str,
        category: Category,
        data: Mapping[str, Any],
        owner_id: str | None = None,
        persist: bool = False,
    ) -> EntryInfo:
        """Store the dict that `get_human` returns."""
        check({"user_id": user_id, "category": category})
        return self._put(f"human_{category}", user_id, data, owner_id, persist)

    def put_garment(
        self,
        clothing_id: str,
        data: Mapping[str, Any],
        owner_id: str | None = None,
        persist: bool = False,
    ) -> EntryInfo:
        """Store the dict that `get_garment` returns."""
        check({"clothing_id": clothing_id})
        return self._put("garment", clothing_id, data, owner_id, persist)

    def put_text(
        self,
        clothing_id: str,
        data: Mapping[str, Any],
        owner_id: str | None = None,
        persist: bool = False,
    ) -> EntryInfo:
        """Store the dict that `get_text` returns."""
        check({"clothing_id": clothing_id})
        return self._put("text", clothing_id, data, owner_id, persist)

    def clear_human(self, user_id: str) -> int:
        """Invalidate all categories of a person; return how many entries were cached."""
        check({"user_id": user_id})
        return self._sync.invalidate(user_id=user_id).removed_count

    def clear_garment(self, clothing_id: str) -> int:
        """Invalidate a garment and its text; return how many entries were cached."""
        check({"clothing_id": clothing_id})
        return self._sync.invalidate(clothing_id=clothing_id).removed_count

    def clear_all(self) -> int:
        """Invalidate everything (role admin); return how many entries were cached."""
        return self._sync.invalidate(everything=True).removed_count

    def get_stats(self) -> dict[str, Any]:
        """Return V2's `cache_stats`, and the daemon's misses, errors, entries and bytes."""
        return _stats_of(self._sync.stats())

    def close(self) -> None:
        """Close the sync connection. Repeating it is harmless."""
        self._sync.close()

    async def aclose(self) -> None:
        """Close both connections."""
        self._sync.close()
        await self._async.close()

    async def _or_none(self, answer: Awaitable[EntryFields]) -> dict[str, Any] | None:
        try:
            entry = await answer
        except NotCached:
            return None
        except PreconditionFailed as error:
            if error.reason != "OWNER_REQUIRED":
                raise
            return None
        return _values_of(entry, self.device)

    def _put(
        self,
        namespace: str,
        id: str,
        data: Mapping[str, Any],
        owner_id: str | None,
        persist: bool,
    ) -> EntryInfo:
        check({"data": data})
        values = {name: _storable(value) for name, value in data.items()}
        return self._sync.put(namespace, id, values, owner_id=_owner(owner_id), persist=persist)


class _InThreads:
    """The gets of a synchronous client, awaited."""

    def __init__(self, client: CacheClient) -> None:
        self._client = client

    async def get_human(self, user_id: str, category: Category) -> EntryFields:
        return await asyncio.to_thread(self._client.get_human, user_id, category)

    async def get_garment(self, clothing_id: str, owner_id: str) -> EntryFields:
        return await asyncio.to_thread(self._client.get_garment, clothing_id, owner_id)

    async def get_text(self, clothing_id: str, owner_id: str) -> EntryFields:
        return await asyncio.to_thread(self._client.get_text, clothing_id, owner_id)

    async def close(self) -> None:
        """`TwoLevelCacheV2` closes the client itself."""


def _values_of(entry: EntryFields, device: DeviceLike) -> dict[str, Any]:
    from cachesvc_client import _torch

    return {
        name: entry.image(name) if field.mode else _torch.moved(entry[name], device, None, False)
        for name, field in entry.layout.items()
    }


def _owner(owner_id: str | None) -> str:
    """Return V2's owner, which may be None, as the client's methods take it."""
    return "" if owner_id is None else owner_id


def _storable(value: Any) -> Any:
    """Return images in a mode that can be stored: V2 took any mode, and PNG kept some modes."""
    if not is_image(value) or value.mode in ("L", "LA", "RGB", "RGBA"):
        return value
    if value.mode == "1":
        return value.convert("L")
    if value.mode in ("P", "CMYK", "YCbCr", "HSV"):
        return value.convert("RGB")
    raise InvalidRequest(f"a {value.mode} image cannot be stored", reason="UNSUPPORTED_IMAGE_MODE")


def _stats_of(stats: StatsResponse) -> dict[str, Any]:
    v2, requests = v2_cache_stats(stats), stats.requests
    hits = v2["l1_hits"] + v2["l2_hits"] + v2["l3_hits"]
    asked = hits + requests.not_found
    return {
        **v2,
        "s3_hits": v2["l3_hits"],
        "misses": requests.not_found,
        "errors": requests.failed,
        "hit_rate": round(100 * hits / asked, 2) if asked else 0.0,
        "l1_entries": stats.memory.entries,
        "l1_bytes": stats.memory.size_bytes,
        "l2_entries": stats.disk.entries,
        "l2_bytes": stats.disk.size_bytes,
        "l1": {name.namespace: name.memory_entries for name in stats.namespaces},
        "l2": {name.namespace: name.disk_entries for name in stats.namespaces},
    }
