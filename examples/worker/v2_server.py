"""The server with V2's in-process cache: which lines change?

The lines marked `changed`. The rest stays as in V2: a try-on asks three times, nothing is checked
before the result is returned, and a Put has no `as_of` (server.py has all three).

    python examples/worker/v2_server.py --photos DIR      # on port 8001
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import model
import uvicorn
from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from messages import (
    BatchBody,
    Diffuse,
    Done,
    Photos,
    PrepareHumanBody,
    ToPrepare,
    TryOnBody,
    batch_item,
)

from cachesvc_client import CacheClient
from cachesvc_client.fastapi import cache_router
from cachesvc_client.v2 import TwoLevelCacheV2  # changed: it was the server's own module


def create_app(cache: TwoLevelCacheV2, diffuse: Diffuse, photos: Photos) -> FastAPI:
    """Return the old server's try-on, batch and preprocessing."""
    gpu = asyncio.Lock()
    app = FastAPI()

    async def run(job: TryOnBody) -> Done | ToPrepare:
        parts = {
            "human": await cache.get_human(job.user_id, job.category),
            # changed: `owner_id`; V2 looked a borrowed garment up under the borrower.
            "garment": await cache.get_garment(job.clothing_id, owner_id=job.owner),
            "text": await cache.get_text(job.clothing_id, owner_id=job.owner),
        }
        missing = tuple(name for name, part in parts.items() if part is None)
        if missing:
            return ToPrepare(missing)
        async with gpu:
            return Done(await run_in_threadpool(generate, **parts))

    def generate(human: Any, garment: Any, text: Any) -> Any:
        return diffuse(
            image=human["human_img"],
            mask_image=human["mask"],
            pose_img=human["pose_tensor"],
            ip_adapter_image=garment["garm_img"],
            cloth=garment["garm_tensor"],
            text_embeds_cloth=text["prompt_embeds_c"],
            **{name: value for name, value in text.items() if name != "prompt_embeds_c"},
        )

    @app.post("/tryon")
    async def try_on(body: TryOnBody) -> Response:
        result = await run(body)
        if isinstance(result, ToPrepare):
            return JSONResponse({"prepare": list(result.parts)}, result.status)
        return Response(await run_in_threadpool(result.png), media_type="image/png")

    @app.post("/batch")
    async def batch(body: BatchBody) -> dict[str, Any]:
        return {"results": [batch_item(await run(job)) for job in body.jobs]}

    @app.post("/preprocess/human", status_code=204)
    async def prepare_human(body: PrepareHumanBody) -> None:
        photo = await run_in_threadpool(photos.read, body.user_id)
        fields = await run_in_threadpool(model.prepare_human, photo)
        # changed: `persist`, instead of the server's own upload to S3. In the pool, because
        # it answers when the origin has the objects.
        await run_in_threadpool(cache.put_human, body.user_id, body.category, fields, persist=True)

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="The old server, with a stand-in model.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of ID.png")
    parser.add_argument("--port", type=int, default=8001)
    chosen = parser.parse_args()
    cache = TwoLevelCacheV2()  # changed: its five arguments are the daemon's settings now
    app = create_app(cache, model.diffuse, Photos(chosen.photos))
    app.include_router(cache_router(CacheClient()))  # changed: instead of its own /cache/*
    uvicorn.run(app, host="127.0.0.1", port=chosen.port)


if __name__ == "__main__":
    main()
