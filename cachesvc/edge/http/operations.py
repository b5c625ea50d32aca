"""V2's requests, DELETE /cache/... and POST /cache/warmup; and the invalidation of a key.

Requests become the contract's messages and pass the same checks (`messages.py`), so that an id
means the same over HTTP and gRPC.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from cachesvc.core.access import Action, Principal
from cachesvc.core.errors import NO_SUCH_OBJECT, InvalidRequest
from cachesvc.edge import messages
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.http.routes import Route
from cachesvc.engine.cache import Cache
from cachesvc.engine.warm import Progress
from cachesvc_proto.v1 import cache_pb2 as pb

# Less than the default deadline. A longer warm-up goes on, and the answer says so.
WARM_WAIT_S = 20.0


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class _Garment(_Body):
    clothing_id: str
    owner_id: str = ""


class WarmupBody(_Body):
    """V2's two fields, and ours. `clothing_ids` lie under `user_id`'s own prefix, as in V2."""

    user_id: str = ""
    clothing_ids: list[str] = []
    categories: list[str] = []
    garments: list[_Garment] = []

    def request(self) -> pb.WarmRequest:
        """Return the contract's request. Raises InvalidRequest."""
        unknown = [name for name in self.categories if name not in messages.CATEGORIES]
        if unknown:
            raise InvalidRequest(
                f"each category must be one of {', '.join(messages.CATEGORIES)}",
                reason="INVALID_BODY",
            )
        garments = [pb.WarmGarment(clothing_id=clothing_id) for clothing_id in self.clothing_ids]
        garments += [pb.WarmGarment(**garment.model_dump()) for garment in self.garments]
        return pb.WarmRequest(
            user_id=self.user_id,
            categories=[messages.CATEGORIES[name] for name in self.categories],
            garments=garments,
        )


class OperationRoutes:
    """Answers have V2's `status` and `message`, and the fields of the contract's answer."""

    def __init__(
        self, cache: Cache, invalidations: AuditedInvalidations, *, warm_wait_s: float = WARM_WAIT_S
    ) -> None:
        self._cache = cache
        self._invalidations = invalidations
        self._warm_wait_s = warm_wait_s
        self._read = messages.RequestReader(cache.kinds)

    def routes(self) -> list[Route]:
        return [
            Route("DELETE", "/cache/human/{user_id}", Action.INVALIDATE, self._delete_human),
            Route(
                "DELETE", "/cache/garment/{clothing_id}", Action.INVALIDATE, self._delete_garment
            ),
            Route("DELETE", "/cache/all", Action.PURGE, self._delete_all),
            Route("POST", "/cache/warmup", Action.WARM, self._warm),
            Route("DELETE", "/api/key/{namespace}/{id}", Action.INVALIDATE, self._delete_key),
        ]

    async def _delete_human(self, request: web.Request, caller: Principal) -> web.Response:
        user_id = request.match_info["user_id"]
        return await self._invalidate(
            pb.InvalidateRequest(user_id=user_id), caller, f"Cache cleared for user {user_id}"
        )

    async def _delete_garment(self, request: web.Request, caller: Principal) -> web.Response:
        clothing_id = request.match_info["clothing_id"]
        return await self._invalidate(
            pb.InvalidateRequest(clothing_id=clothing_id),
            caller,
            f"Cache cleared for garment {clothing_id} and its text",
        )

    async def _delete_all(self, _: web.Request, caller: Principal) -> web.Response:
        return await self._invalidate(
            pb.InvalidateRequest(everything=True), caller, "All cache cleared"
        )

    async def _delete_key(self, request: web.Request, caller: Principal) -> web.Response:
        namespace, entry_id = request.match_info["namespace"], request.match_info["id"]
        return await self._invalidate(
            pb.InvalidateRequest(key=pb.EntryKey(namespace=namespace, id=entry_id)),
            caller,
            f"Cache cleared for {namespace}/{entry_id}",
        )

    async def _invalidate(
        self, request: pb.InvalidateRequest, caller: Principal, message: str
    ) -> web.Response:
        """Await the invalidation: after this answer no Get is served those bytes."""
        scope = self._read.scope(request)
        done = await self._invalidations.invalidate(caller, scope)
        return web.json_response(
            {
                "status": "success",
                "message": message,
                "removed_count": done.removed_count,
                "invalidated_at": messages.moment(done.at.wall_ns),
            }
        )

    async def _warm(self, request: web.Request, _: Principal) -> web.Response:
        reads = self._read.warm((await _warmup_body(request)).request())
        tally: dict[str, Any] = {"done": 0, "total": len(reads), "absent": [], "failed": []}
        try:
            async with asyncio.timeout(self._warm_wait_s):
                async for progress in self._cache.warm(reads):
                    _count(tally, progress)
        except TimeoutError:
            message = "Warm-up goes on in the background"
            return web.json_response({"status": "running", "message": message, **tally}, status=202)
        warmed = tally["done"] - len(tally["absent"]) - len(tally["failed"])
        message = f"Warmed {warmed} of {tally['total']} entries"
        return web.json_response({"status": "success", "message": message, **tally})


def _count(tally: dict[str, Any], progress: Progress) -> None:
    tally["done"] = progress.done
    if progress.failed is not None:
        (namespace, entry_id), reason = progress.failed
        found = {"namespace": namespace, "id": entry_id, "reason": reason}
        tally["absent" if reason == NO_SUCH_OBJECT else "failed"].append(found)


async def _warmup_body(request: web.Request) -> WarmupBody:
    # A form of a foreign page cannot send this type.
    if request.content_type != "application/json":
        raise InvalidRequest("the body must be application/json", reason="UNSUPPORTED_CONTENT_TYPE")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise InvalidRequest(
            "the body must not be compressed: send it without Content-Encoding",
            reason="UNSUPPORTED_CONTENT_ENCODING",
        )
    return read_warmup(await _whole_body(request))


async def _whole_body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except (ConnectionError, web.RequestPayloadError) as exc:
        # The caller has left, which is no defect. Nobody reads this answer.
        raise InvalidRequest("the body ends early", reason="INVALID_BODY") from exc


def read_warmup(body: bytes) -> WarmupBody:
    """Return what a warm-up's body asks for. Raises InvalidRequest."""
    try:
        return WarmupBody.model_validate_json(body)
    except ValidationError as exc:
        error = exc.errors()[0]
        where = ".".join(str(part) for part in error["loc"])
        raise InvalidRequest(
            f"the body cannot be used: {where or 'JSON'}: {error['msg']}", reason="INVALID_BODY"
        ) from exc
