"""Serves V2's `/cache/*` on an inference server.

    app.include_router(cache_router(CacheClient()))

Answers and errors are those of the daemon's own HTTP (docs/http.md), so that a backend
that called V2 changes nothing. The only module that imports FastAPI. The server's own
access control protects these routes, as in V2.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, cast

import grpc

from cachesvc_client._arguments import Category, check, check_settings
from cachesvc_client.aio import AsyncCacheClient
from cachesvc_client.answers import WarmProgress
from cachesvc_client.client import CacheClient
from cachesvc_client.errors import CacheServiceError, DeadlineExceeded
from cachesvc_format import v2_stats
from cachesvc_proto.v1.cache_pb2 import StatsResponse

try:
    from fastapi import APIRouter, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from pydantic import BaseModel
except ImportError as exc:
    raise ImportError(
        "the routes need FastAPI: pip install fastapi, or install the client's wheel or checkout "
        "with its extra [fastapi]"
    ) from exc

__all__ = ["cache_router", "v2_cache_stats"]

# A longer warm-up goes on in the daemon, and the answer says so.
WARM_WAIT_S = 20.0
_Code = grpc.StatusCode
_STATUSES = {
    _Code.INVALID_ARGUMENT: 400,
    _Code.UNAUTHENTICATED: 401,
    _Code.PERMISSION_DENIED: 403,
    _Code.NOT_FOUND: 404,
    _Code.ABORTED: 409,
    _Code.FAILED_PRECONDITION: 412,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.UNAVAILABLE: 503,
    _Code.DEADLINE_EXCEEDED: 504,
}


class WarmupGarment(BaseModel):
    """A garment whose owner may be another person."""

    clothing_id: str
    owner_id: str = ""


class WarmupBody(BaseModel):
    """V2's two keys, and the daemon's. `clothing_ids` lie under `user_id`'s own prefix."""

    user_id: str = ""
    clothing_ids: list[str] = []
    categories: list[str] = []
    garments: list[WarmupGarment] = []


def cache_router(client: CacheClient | AsyncCacheClient) -> APIRouter:
    """Return the routes: DELETE human, garment, all; POST warmup; GET stats.

    Include it as it is, without a prefix. Calls of a `CacheClient` run in the server's
    thread pool. `/cache/all` needs the role admin: 403 otherwise.
    """
    check_settings(locals())
    routes = _Routes(client)
    router = APIRouter(prefix="/cache", tags=["cache"], route_class=_ErrorsAsAnswers)
    # `:path`: an id with a slash is refused as an id, not as an unknown route.
    router.add_api_route("/human/{user_id:path}", routes.delete_human, methods=["DELETE"])
    router.add_api_route("/garment/{clothing_id:path}", routes.delete_garment, methods=["DELETE"])
    router.add_api_route("/all", routes.delete_all, methods=["DELETE"])
    router.add_api_route("/warmup", routes.warm, methods=["POST"])
    router.add_api_route("/stats", routes.stats, methods=["GET"])
    return router


def v2_cache_stats(stats: StatsResponse) -> dict[str, Any]:
    """Return V2's `cache_stats` from what `client.stats()` returns. Raises InvalidRequest."""
    check(locals())
    return v2_stats.v2_cache_stats(stats)


class _ErrorsAsAnswers(APIRoute):
    """Turns errors into answers, because a router cannot register exception handlers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except CacheServiceError as error:
                return _error_response(error)

        return answer


class _Routes:
    def __init__(self, client: CacheClient | AsyncCacheClient) -> None:
        self._client = client

    async def delete_human(self, user_id: str) -> dict[str, Any]:
        return await self._invalidate(f"Cache cleared for user {user_id}", user_id=user_id)

    async def delete_garment(self, clothing_id: str) -> dict[str, Any]:
        message = f"Cache cleared for garment {clothing_id} and its text"
        return await self._invalidate(message, clothing_id=clothing_id)

    async def delete_all(self) -> dict[str, Any]:
        return await self._invalidate("All cache cleared", everything=True)

    async def _invalidate(self, message: str, **target: Any) -> dict[str, Any]:
        """Await the invalidation: after this answer no Get is served those bytes."""
        client = self._client
        if isinstance(client, AsyncCacheClient):
            done = await client.invalidate(**target)
        else:
            done = await run_in_threadpool(client.invalidate, **target)
        return {
            "status": "success",
            "message": message,
            "removed_count": done.removed_count,
            "invalidated_at": _text(done.invalidated_at),
        }

    async def warm(self, body: WarmupBody) -> JSONResponse:
        garments: list[str | tuple[str, str]] = [*body.clothing_ids]
        garments += [(garment.clothing_id, garment.owner_id) for garment in body.garments]
        tally: dict[str, Any] = {"done": 0, "total": 0, "absent": [], "failed": []}
        try:
            await self._follow(body, garments, tally)
        except DeadlineExceeded:
            # The first message has the total. Without it the warm-up may not have begun.
            if not tally["total"]:
                raise
            message = "Warm-up goes on in the background"
            return JSONResponse({"status": "running", "message": message, **tally}, 202)
        warmed = tally["done"] - len(tally["absent"]) - len(tally["failed"])
        message = f"Warmed {warmed} of {tally['total']} entries"
        return JSONResponse({"status": "success", "message": message, **tally})

    async def _follow(
        self, body: WarmupBody, garments: list[str | tuple[str, str]], tally: dict[str, Any]
    ) -> None:
        client = self._client
        # The client refuses other words.
        categories = cast("list[Category]", body.categories)
        if isinstance(client, AsyncCacheClient):
            async for progress in client.warm(
                body.user_id,
                categories=categories,
                garments=garments,
                timeout_s=WARM_WAIT_S,
            ):
                _count(tally, progress)
            return

        def follow() -> None:
            for progress in client.warm(
                body.user_id,
                categories=categories,
                garments=garments,
                timeout_s=WARM_WAIT_S,
            ):
                _count(tally, progress)

        await run_in_threadpool(follow)

    async def stats(self) -> dict[str, Any]:
        client = self._client
        if isinstance(client, AsyncCacheClient):
            stats = await client.stats()
        else:
            stats = await run_in_threadpool(client.stats)
        return {"status": "success", "cache_stats": v2_cache_stats(stats)}


def _count(tally: dict[str, Any], progress: WarmProgress) -> None:
    tally["done"], tally["total"] = progress.done, progress.total
    if progress.failed is not None:
        (namespace, entry_id), reason = progress.failed
        found = {"namespace": namespace, "id": entry_id, "reason": reason}
        tally["absent" if progress.failed.is_absent else "failed"].append(found)


def _error_response(error: CacheServiceError) -> JSONResponse:
    status = _STATUSES.get(error.code, 500)
    return JSONResponse(
        {
            "error": {
                "reason": error.reason,
                "message": error.message,
                "code": error.code.name,
            },
            "detail": error.message,
        },
        status,
        headers={"Retry-After": "1"} if status in (429, 503) else None,
    )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
