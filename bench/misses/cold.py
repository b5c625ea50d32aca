"""What does a cold try-on cost, at an S3 that is 0, 20 and 100 ms away?

A real S3 server is behind `slow_link.py`; L1 and L2 are empty before each of our turns. All rows
read the same 11 objects over the same link.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from bench.misses import slow_link, wardrobe
from bench.misses.findings import Check, Finding
from bench.misses.turns import Row, Way, take
from bench.misses.wardrobe import GARMENT, OBJECT_COUNT, USER, Objects, Read
from cachesvc_client import CacheClient
from tests.support.daemons import Daemon, running_daemon, s3_settings
from tests.support.s3.servers import S3Server, running_s3_server

DELAYS_MS = [0, 20, 100]
FAR_MS = 100
# The bounds: our miss to the sum of its unavoidable parts; V2's cold path to ours.
MOST_OF_PARTS, LEAST_OF_V2 = 1.3, 4.0


@dataclass(frozen=True)
class Place:
    """The folders and endpoints; `endpoints` is keyed by the delay in ms."""

    server: S3Server
    bucket: str
    objects: Objects
    endpoints: dict[int, str]
    folder: Path

    def reader(self, delay_ms: int) -> Read:
        """Return a function that reads one object by boto3, from any thread."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoints[delay_ms],
            region_name=self.server.region,
            aws_access_key_id=self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=OBJECT_COUNT),
        )

        def read(key: str) -> bytes:
            return bytes(client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

        return read


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield the parts alone, then one finding for each delay."""
    with ExitStack() as stack:
        place = stack.enter_context(_place(folder))
        threads = stack.enter_context(ThreadPoolExecutor(OBJECT_COUNT))
        yield _decoding(place, rounds)
        for delay_ms in DELAYS_MS:
            yield _cold_try_on(place, delay_ms, threads, rounds)


@contextmanager
def _place(folder: Path) -> Iterator[Place]:
    objects = wardrobe.make(folder / "wardrobe")
    with running_s3_server() as server:
        bucket, client = server.new_bucket(), server.client()
        for key, data in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
        port = urlsplit(server.endpoint_url).port
        assert port is not None
        with slow_link.running(port, DELAYS_MS) as endpoints:
            yield Place(server, bucket, objects, endpoints, folder)


def _decoding(place: Place, rounds: int) -> Finding:
    with ThreadPoolExecutor(2) as two:
        rows = take(
            {
                "one": Way("one thread", partial(wardrobe.decode_all, place.objects)),
                "two": Way(
                    "two threads",
                    lambda: list(
                        two.map(lambda item: wardrobe.decode(*item), place.objects.items())
                    ),
                ),
            },
            rounds,
        )
    size_bytes = sum(map(len, place.objects.values()))
    facts = {"objects": f"{OBJECT_COUNT}, {size_bytes:,} bytes", "S3 server": place.server.kind}
    return Finding("Decoding the 11 objects by hand (Pillow, pickle)", list(rows.values()), facts)


def _cold_try_on(place: Place, delay_ms: int, threads: ThreadPoolExecutor, rounds: int) -> Finding:
    settings = s3_settings(place.server, place.bucket, place.endpoints[delay_ms])
    folder = place.folder / f"daemon-{delay_ms}"
    folder.mkdir()
    saved = place.folder / f"v2-{delay_ms}"
    saved.mkdir()
    objects, near, far = place.objects, place.reader(0), place.reader(delay_ms)
    smallest = min(objects, key=lambda key: len(objects[key]))
    with (
        running_daemon(folder, settings, place.server.credentials()) as daemon,
        CacheClient(str(daemon.socket)) as client,
    ):
        rows = take(
            {
                "one": Way("one request of the smallest object", partial(far, smallest)),
                "reads": Way(
                    "11 reads in parallel with 0 ms added",
                    partial(wardrobe.read_in_parallel, objects, near, threads),
                ),
                "decoding": Way(
                    "decoding by hand, one thread", partial(wardrobe.decode_all, objects)
                ),
                "ours": Way(
                    "ours, cold",
                    partial(_get_try_on, client),
                    before=partial(_make_cold, client),
                    after=daemon.wait_until_stored,
                ),
                "pool": Way(
                    "boto3 in a pool of 11 threads, decoding there",
                    partial(wardrobe.read_and_decode_in_parallel, objects, far, threads),
                ),
                "v2": Way("V2's cold path", partial(wardrobe.v2_cold_path, objects, far, saved)),
            },
            rounds,
        )
        facts = _stages(daemon)
    return Finding(
        f"A cold try-on, S3 {delay_ms} ms away",
        list(rows.values()),
        facts,
        _checks(rows) if delay_ms == FAR_MS else _ratios(rows),
    )


def _get_try_on(client: CacheClient) -> list[Any]:
    tryon = client.get_tryon(USER, GARMENT)
    assert tryon.human.info.tier.value == "origin", "the cache was not cold"
    return [part.torch() for part in (tryon.human, tryon.garment, tryon.text)]


def _make_cold(client: CacheClient) -> None:
    client.invalidate(everything=True)


def _stages(daemon: Daemon) -> dict[str, str]:
    """Return the daemon's own mean times for one object: at the origin, and decoding."""
    metrics = daemon.metrics()
    means = {}
    for stage in ("origin", "decode", "l1_write"):
        label = f'{{stage="{stage}"}}'
        count = metrics[f"cachesvc_fill_stage_seconds_count{label}"]
        total_s = metrics[f"cachesvc_fill_stage_seconds_sum{label}"]
        means[f"the daemon's mean {stage}"] = f"{total_s / count * 1000:.1f} ms"
    return means


def _parts_ms(rows: dict[str, Row]) -> float:
    return sum(rows[name].median_ms for name in ("one", "reads", "decoding"))


def _ratios(rows: dict[str, Row]) -> list[Check]:
    ours_ms = rows["ours"].median_ms
    return [
        Check("ours / boto3 in a pool", ours_ms / rows["pool"].median_ms, 1.0),
        Check("V2 / ours", rows["v2"].median_ms / ours_ms, LEAST_OF_V2, at_most=False),
    ]


def _checks(rows: dict[str, Row]) -> list[Check]:
    text = "ours / (one request + 11 reads with 0 ms added + decoding, one thread)"
    parts = Check(text, rows["ours"].median_ms / _parts_ms(rows), MOST_OF_PARTS)
    return [parts, *_ratios(rows)]
