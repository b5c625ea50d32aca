"""CacheService: each RPC in terms of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from cachesvc.core.access import Principal
from cachesvc.core.errors import Aborted, CacheError, InvalidRequest
from cachesvc.core.tier import Tier
from cachesvc.edge import messages
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.grpc.inline import InlineEntry
from cachesvc.edge.grpc.local import LocalDelivery
from cachesvc.edge.statistics import Statistics
from cachesvc.edge.statuses import PartsFailed
from cachesvc.engine.cache import Cache
from cachesvc.engine.flight import Served
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.put import Upload
from cachesvc.engine.warm import Progress
from cachesvc.tiers.shared_files import Blob
from cachesvc_proto.v1 import cache_pb2 as pb

STREAM_CHUNK_BYTES = 1 << 20
_ENTRY = pb.GetHumanResponse.ENTRY_FIELD_NUMBER
_TRY_ON_FIELDS = {
    "human": pb.GetTryOnResponse.HUMAN_FIELD_NUMBER,
    "garment": pb.GetTryOnResponse.GARMENT_FIELD_NUMBER,
    "text": pb.GetTryOnResponse.TEXT_FIELD_NUMBER,
}


class CacheService:
    """The handlers. Get answers are InlineEntry tuples, which `inline.py` serializes."""

    def __init__(
        self,
        cache: Cache,
        statistics: Statistics,
        local: LocalDelivery,
        invalidations: AuditedInvalidations,
    ) -> None:
        self._cache = cache
        self._clock = cache.clock
        self._invalidations = invalidations
        self._local = local
        self._descriptions = messages.Descriptions()
        self._statistics = statistics
        self._read = messages.RequestReader(cache.kinds)

    # ---- Get

    async def get_human(self, request: pb.GetHumanRequest, _: Principal) -> tuple[InlineEntry, ...]:
        read = self._read.human(request, request.kind_version)
        return _whole(await self._get(read, request.delivery))

    async def get_garment(
        self, request: pb.GetGarmentRequest, _: Principal
    ) -> tuple[InlineEntry, ...]:
        read = self._read.clothing("garment", request)
        return _whole(await self._get(read, request.delivery))

    async def get_text(self, request: pb.GetTextRequest, _: Principal) -> tuple[InlineEntry, ...]:
        read = self._read.clothing("text", request)
        return _whole(await self._get(read, request.delivery))

    async def get_try_on(
        self, request: pb.GetTryOnRequest, _: Principal
    ) -> tuple[InlineEntry, ...]:
        reads = self._read.try_on(request)
        found = await asyncio.gather(
            *(
                self._get(read, request.delivery, _TRY_ON_FIELDS[part])
                for part, read in reads.items()
            ),
            return_exceptions=True,
        )
        for failure in found:
            if isinstance(failure, BaseException) and not isinstance(failure, CacheError):
                raise failure
        entries = tuple(entry for entry in found if isinstance(entry, InlineEntry))
        if len(entries) < len(found):
            raise PartsFailed(
                {
                    part: entry if isinstance(entry, CacheError) else None
                    for part, entry in zip(reads, found, strict=True)
                }
            )
        return _whole(*entries)

    async def _get(
        self, read: ReadRequest, delivery: pb.Delivery, field_number: int = _ENTRY
    ) -> InlineEntry:
        served = await self._cache.get(read)
        now = self._clock.read()
        info = self._descriptions.describe(served, now)
        rest = pb.Entry()
        if delivery == pb.DELIVERY_NONE:
            return InlineEntry(field_number, info, rest, None)
        if delivery == pb.DELIVERY_SHARED_FILE:
            self._local.describe(served, rest, now)
        # An entry without a file (tmpfs was full) is always sent inline.
        blob = None if rest.HasField("file") else served.blob
        return InlineEntry(field_number, info, rest, blob)

    async def get(
        self, request: pb.GetRequest, _: Principal
    ) -> AsyncGenerator[pb.GetResponse, None]:
        served = await self._cache.get(self._read.any(request))
        with self._cache.sending(served):
            yield pb.GetResponse(info=self._info(served))
            view = served.blob.view()
            for start in range(0, view.nbytes, STREAM_CHUNK_BYTES):
                # No await before the copy: an erasure marks the blob before it zeroes it.
                _check_not_erased(served.blob)
                yield pb.GetResponse(data=bytes(view[start : start + STREAM_CHUNK_BYTES]))

    def _info(self, served: Served) -> pb.EntryInfo:
        return messages.entry_info(served, self._clock.read())

    # ---- Put

    async def put(self, requests: AsyncIterator[pb.PutRequest], _: Principal) -> pb.PutResponse:
        first = await anext(requests, pb.PutRequest())
        part = first.WhichOneof("part")
        if part not in ("header", "check"):
            raise InvalidRequest("the first message must be the header", reason="MISSING_FIELD")
        header = self._read.put_header(getattr(first, part))
        async with self._cache.receive_put(header) as upload:
            await _receive(upload, requests)
            if part == "check":
                return pb.PutResponse(memory_only=not await self._cache.check_put(upload))
            served = await self._cache.store_put(upload)
        return pb.PutResponse(info=self._info(served), memory_only=not served.in_l2)

    # ---- Invalidate, Warm

    async def invalidate(
        self, request: pb.InvalidateRequest, caller: Principal
    ) -> pb.InvalidateResponse:
        scope = self._read.scope(request)
        changed_at_ns = messages.changed_at_ns(request)
        done = await self._invalidations.invalidate(
            caller, scope, changed_at_ns, erase=request.erase
        )
        return pb.InvalidateResponse(
            removed_count=done.removed_count, invalidated_at=messages.timestamp(done.at.wall_ns)
        )

    async def warm(
        self, request: pb.WarmRequest, _: Principal
    ) -> AsyncGenerator[pb.WarmResponse, None]:
        async for progress in self._cache.warm(self._read.warm(request)):
            yield _warm_response(progress)

    # ---- Inspect, Stats

    async def inspect(self, request: pb.InspectRequest, _: Principal) -> pb.InspectResponse:
        key = self._read.key(request.key)
        found = await self._cache.inspect(key)
        now = self._clock.read()
        response = pb.InspectResponse(
            key=pb.EntryKey(namespace=key.namespace, id=key.id), filling=found.is_filling
        )
        for tier, held in ((Tier.MEMORY, found.memory), (Tier.DISK, found.disk)):
            if held is None:
                continue
            info = messages.meta_info(held.meta)
            info.MergeFrom(messages.lookup_info(tier, held.expires_ns, now))
            response.tiers.add(
                tier=info.tier,
                info=info,
                owner_id=held.meta.owner,
                age=messages.duration(now.steady_ns - held.meta.confirmed_ns),
                expires_in=messages.duration(held.expires_ns - now.steady_ns),
                accesses=held.accesses,
            )
        return response

    async def stats(self, _request: pb.StatsRequest, _: Principal) -> pb.StatsResponse:
        return self._statistics.response()

    # ---- local delivery

    async def attach(self, request: pb.AttachRequest, _: Principal) -> pb.AttachResponse:
        return self._local.attach(request)

    async def report_hits(
        self, request: pb.ReportHitsRequest, _: Principal
    ) -> pb.ReportHitsResponse:
        return await self._local.report(request)


def _whole(*entries: InlineEntry) -> tuple[InlineEntry, ...]:
    """Return `entries`. Raises Aborted if an entry was erased during the wait for another."""
    for entry in entries:
        if entry.blob is not None:
            _check_not_erased(entry.blob)
    return entries


def _check_not_erased(blob: Blob) -> None:
    if blob.is_erased:
        raise Aborted("the entry was erased while it was sent; retry", reason="ERASED")


async def _receive(upload: Upload, requests: AsyncIterator[pb.PutRequest]) -> None:
    async for request in requests:
        if request.WhichOneof("part") != "data":
            raise InvalidRequest("only data may follow the header", reason="INVALID_STREAM")
        upload.append(request.data)


def _warm_response(progress: Progress) -> pb.WarmResponse:
    response = pb.WarmResponse(done=progress.done, total=progress.total)
    if progress.failed is not None:
        key, reason = progress.failed
        response.failed.key.namespace, response.failed.key.id = key
        response.failed.reason = reason
    return response
