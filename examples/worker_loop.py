"""How does an inference worker use the cache? A loop to copy from.

Three things are in an order that matters: the inputs are fetched before the GPU is
taken, so that nobody waits for S3 while holding it; what is absent goes back to be
prepared, while a cache that cannot be asked is an error; and the last look, before
the result is shown, sees a photo that was changed while the model ran.

    python examples/worker_loop.py demo-person outfit-01 outfit-02

asks the daemon of this host. The model is a stand-in that needs no GPU.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image

from cachesvc_client import CacheClient, CacheServiceError, NotCached

# The pipeline's keyword arguments -> the picture.
Pipe = Callable[..., Image.Image]


@dataclass(frozen=True)
class Job:
    """One try-on. The backend writes the time of the photo's last change into it."""

    user_id: str
    clothing_id: str
    category: str = "upper_body"
    owner_id: str = ""
    photo_changed_at: datetime | None = None


@dataclass(frozen=True)
class Shown:
    """The result may be shown."""

    picture: Image.Image


@dataclass(frozen=True)
class ToPrepare:
    """These parts (`human`, `garment`, `text`) have to be prepared first; then try again."""

    parts: tuple[str, ...]


class Worker:
    """One process with one client, for any number of threads that share one GPU."""

    def __init__(self, cache: CacheClient, pipe: Pipe, device: str = "cpu") -> None:
        self._cache = cache
        self._pipe = pipe
        self._device = device
        self._gpu = threading.Lock()

    def run(self, job: Job) -> Shown | ToPrepare:
        """Do one try-on. Raises CacheServiceError where the cache or its origin is away."""
        try:
            tryon = self._cache.get_tryon(
                job.user_id,
                job.clothing_id,
                job.category,
                job.owner_id,
                origin_after=job.photo_changed_at,
            )
        except NotCached as absent:
            return ToPrepare(absent.missing)
        with self._gpu:
            picture = self._pipe(**tryon.pipe_inputs(self._device))
        # Seconds have passed. A stale photo is a privacy incident, a wasted run is not.
        parts = {"human": tryon.human, "garment": tryon.garment}
        changed = tuple(name for name, part in parts.items() if not part.is_current())
        return ToPrepare(changed) if changed else Shown(picture)

    def run_all(self, jobs: Iterable[Job]) -> list[Shown | ToPrepare]:
        """Do a batch; what later jobs need is fetched while the first ones run."""
        batch = list(jobs)
        self._cache.prefetch(
            (job.user_id, job.clothing_id, job.category, job.owner_id) for job in batch
        )
        return [self.run(job) for job in batch]


def paste_garment(*, image: Image.Image, ip_adapter_image: Image.Image, **_: Any) -> Image.Image:
    """Stand in for the diffusion model: put the garment on the person, small."""
    picture = image.copy()
    width, height = picture.size
    picture.paste(ip_adapter_image.resize((width // 3, height // 3)), (width // 3, height // 3))
    return picture


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Try garments on one person.")
    parser.add_argument("user_id")
    parser.add_argument("clothing_id", nargs="+")
    parser.add_argument("--owner-id", default="", help="whose garments; default: the person's")
    chosen = parser.parse_args(arguments)
    jobs = [Job(chosen.user_id, id, owner_id=chosen.owner_id) for id in chosen.clothing_id]
    with CacheClient() as cache:
        worker = Worker(cache, paste_garment)
        for job in jobs:
            started_s = time.perf_counter()
            try:
                result = worker.run(job)
            except CacheServiceError as exc:
                print(f"{job.clothing_id}: {exc}", file=sys.stderr)
                return 1
            spent_ms = (time.perf_counter() - started_s) * 1e3
            what = "done" if isinstance(result, Shown) else f"prepare {', '.join(result.parts)}"
            print(f"{job.clothing_id}: {what} in {spent_ms:.1f} ms ({cache.transport})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
