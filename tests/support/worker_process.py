"""Runs an example worker whose model waits for the test when told to.

python -m tests.support.worker_process {new|v2} SOCKET PORT FOLDER, with `examples/worker` on the
path.

FOLDER holds `photos/`. If it also holds the FIFOs `began` and `go`, the model opens `began` to say
that it runs, and reads `go` to its end before it goes on.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import model
import uvicorn
from messages import Photos
from PIL import Image

from cachesvc_client import AsyncCacheClient, CacheClient
from cachesvc_client.fastapi import cache_router
from cachesvc_client.v2 import TwoLevelCacheV2


def main(kind: str, target: str, port: str, folder: str) -> None:
    root = Path(folder)

    def diffuse(**inputs: Any) -> Image.Image:
        if (root / "began").exists():
            (root / "began").open("w").close()
            (root / "go").read_text()
        return model.diffuse(**inputs)  # type: ignore[no-any-return]

    photos = Photos(root / "photos")
    if kind == "new":
        import server

        # On a busy machine more than a second may lie between a test's change and its photo.
        server.CLOCK_MARGIN = timedelta(seconds=30)
        app = server.create_app(AsyncCacheClient(target, wait_s=2), diffuse, photos)
    else:
        import v2_server

        app = v2_server.create_app(TwoLevelCacheV2(target=target, wait_s=2), diffuse, photos)
        app.include_router(cache_router(CacheClient(target, wait_s=2)))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
