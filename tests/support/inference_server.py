"""An inference server as V2's: FastAPI under uvicorn, here with the cache routes only.

python -m tests.support.inference_server {sync|aio} SOCKET PORT
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

from cachesvc_client import AsyncCacheClient, CacheClient
from cachesvc_client.fastapi import cache_router


def main(kind: str, target: str, port: str) -> None:
    new = CacheClient if kind == "sync" else AsyncCacheClient
    client = new(target, wait_s=2)
    app = FastAPI()
    app.include_router(cache_router(client))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
