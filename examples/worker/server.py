"""How does an inference server use the cache? FastAPI, one process, one GPU.

The order matters in four places:

- the inputs are fetched before the GPU is taken, so that no request holds the GPU while it waits
  for S3;
- absent parts are returned to be prepared; a cache that cannot be asked is an error;
- the last check, before the result is returned, finds a photo that was changed meanwhile;
- a Put says when its source was read, so that the result of an old photo is refused.

    python examples/worker/server.py --photos DIR      # on port 8001
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import model
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from messages import (
    BatchBody,
    Diffuse,
    Done,
    NoSuchPhoto,
    Photos,
    PrepareGarmentBody,
    PrepareHumanBody,
    ToPrepare,
    TryOnBody,
    batch_item,
    latest,
)
from PIL import Image

from cachesvc_client import (
    Aborted,
    AsyncCacheClient,
    CacheServiceError,
    CacheUnavailable,
    NotCached,
    OriginUnavailable,
    Overloaded,
)
from cachesvc_client.fastapi import cache_router

# How far this host's clock may be ahead of the backend's and the daemon's.
CLOCK_MARGIN = timedelta(seconds=1)
_TRANSIENT = (Aborted, CacheUnavailable, OriginUnavailable, Overloaded)


class Worker:
    """Fetches the inputs, runs the model, and checks the photo once more."""

    def __init__(self, cache: AsyncCacheClient, diffuse: Diffuse, device: str) -> None:
        self._cache = cache
        self._diffuse = diffuse
        self._device = device
        self._gpu = asyncio.Lock()

    async def try_on(self, job: TryOnBody) -> Done | ToPrepare:
        """Raises CacheServiceError if the cache or its origin is away."""
        try:
            tryon = await self._cache.get_tryon(
                job.user_id,
                job.clothing_id,
                job.category,
                job.owner,
                origin_after=job.photo_changed_at,
            )
        except NotCached as absent:
            return ToPrepare(absent.missing)
        async with self._gpu:
            picture = await run_in_threadpool(self._run, tryon)
        # Seconds have passed. A stale photo is a privacy incident, a wasted run is not.
        parts = {"human": tryon.human, "garment": tryon.garment}
        changed = tuple([name for name, part in parts.items() if not await part.is_current()])
        return ToPrepare(changed, changed=True) if changed else Done(picture)

    async def try_on_all(self, jobs: Iterable[TryOnBody]) -> list[dict[str, Any]]:
        """Do a batch in order; the inputs of later jobs are fetched while the first jobs run."""
        batch = list(jobs)
        fetching = self._cache.prefetch(
            (job.user_id, job.clothing_id, job.category, job.owner) for job in batch
        )
        try:
            return [batch_item(await self.try_on(job)) for job in batch]
        finally:
            fetching.cancel()  # stops waiting; the daemon finishes its fetches

    def _run(self, tryon: Any) -> Image.Image:
        return self._diffuse(**tryon.pipe_inputs(self._device))


class Preprocessing:
    """Prepares pictures, and puts the results into the cache and the origin."""

    def __init__(self, cache: AsyncCacheClient, photos: Photos) -> None:
        self._cache = cache
        self._photos = photos

    async def human(self, job: PrepareHumanBody) -> None:
        """Raises NoSuchPhoto; Aborted if the photo was changed meanwhile."""
        as_of = read_at_least_at(job.photo_changed_at)
        photo = await run_in_threadpool(self._photos.read, job.user_id)
        fields = await run_in_threadpool(model.prepare_human, photo)
        await self._cache.put_human(job.user_id, job.category, **fields, as_of=as_of, persist=True)

    async def garment(self, job: PrepareGarmentBody) -> None:
        """As `human`, for a garment and its text."""
        as_of = read_at_least_at(job.changed_at)
        photo = await run_in_threadpool(self._photos.read, job.clothing_id)
        fields = await run_in_threadpool(model.prepare_garment, photo)
        text = await run_in_threadpool(model.prepare_text, job.description)
        stored = {"owner_id": job.owner_id, "as_of": as_of, "persist": True}
        await self._cache.put_garment(job.clothing_id, **fields, **stored)
        await self._cache.put_text(job.clothing_id, **text, **stored)


def read_at_least_at(changed_at: datetime | None) -> datetime:
    """Return a moment that is surely not after the reading of the source. Call it before the
    reading.

    A job is made after the change, so the source is at least as new as the job, whatever this
    host's clock says; the clock counts only where it shows a later moment.
    """
    return latest(changed_at, datetime.now(UTC) - CLOCK_MARGIN)


def create_app(
    cache: AsyncCacheClient, diffuse: Diffuse, photos: Photos, device: str = "cpu"
) -> FastAPI:
    """Return the server: try-on, batch, preprocessing, and V2's `/cache/*`."""
    worker = Worker(cache, diffuse, device)
    preprocessing = Preprocessing(cache, photos)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await cache.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(cache_router(cache))
    app.add_exception_handler(CacheServiceError, answer_failure)
    app.add_exception_handler(NoSuchPhoto, answer_no_photo)

    @app.post("/tryon")
    async def try_on(body: TryOnBody) -> Response:
        result = await worker.try_on(body)
        if isinstance(result, ToPrepare):
            return JSONResponse({"prepare": list(result.parts)}, result.status)
        return Response(await run_in_threadpool(result.png), media_type="image/png")

    @app.post("/batch")
    async def batch(body: BatchBody) -> dict[str, Any]:
        return {"results": await worker.try_on_all(body.jobs)}

    @app.post("/preprocess/human", status_code=204)
    async def prepare_human(body: PrepareHumanBody) -> None:
        await preprocessing.human(body)

    @app.post("/preprocess/garment", status_code=204)
    async def prepare_garment(body: PrepareGarmentBody) -> None:
        await preprocessing.garment(body)

    return app


async def answer_failure(_: Request, error: Exception) -> Response:
    """A failure is not a miss: 503 means retry, 409 lost to a newer change, 502 bad objects."""
    assert isinstance(error, CacheServiceError)
    status = 503 if isinstance(error, _TRANSIENT) else 502
    if error.reason in ("PUT_OUTDATED", "PUT_FENCED"):
        status = 409
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"reason": error.reason, "detail": error.message}, status, headers)


async def answer_no_photo(_: Request, __: Exception) -> Response:
    return JSONResponse({"detail": "no such photo"}, 404)


def main() -> None:
    parser = argparse.ArgumentParser(description="An inference server with a stand-in model.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of ID.png")
    parser.add_argument("--port", type=int, default=8001)
    chosen = parser.parse_args()
    app = create_app(AsyncCacheClient(), model.diffuse, Photos(chosen.photos))
    uvicorn.run(app, host="127.0.0.1", port=chosen.port)


if __name__ == "__main__":
    main()
