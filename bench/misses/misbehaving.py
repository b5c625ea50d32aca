"""What do hits cost while one caller misbehaves, within its rights?

Another process asks for images of as many rows as are allowed, for more rows than are allowed, for
large images; it stores entries of 60 MB, reports as many hits as fit into one report, or opens
streams and does not read them. All of these take turns with each other and with two idle turns,
whose difference is the machine's.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from bench.misses import misbehaving_caller, small_kind
from bench.misses.faults import Hits, p99_ms
from bench.misses.findings import Finding
from bench.misses.misbehaving_caller import LARGE, PICTURES, STREAMED, TALL, TOO_TALL, WAYS
from bench.misses.missing_callers import OWNER, text_of
from bench.misses.turns import S_TO_MS, Row
from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc_client import CacheClient
from cachesvc_format.blob import Tensor
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support import sample_objects
from tests.support.daemons import running_daemon

CACHED = "cached"
QUIET, QUIET_AGAIN = "nothing else", "nothing else, again"
HITS_A_TURN = 300
_LOCAL_HITS_EACH = 10
_TIMEOUT_S = 20.0
_STREAMED_BYTES = 20 << 20
# Each Get asks for an id that was not asked for before.
_IDS = 10_000
_SIDES = {TALL: (16, 65_535, 0), TOO_TALL: (1, 33_554_432, 0), LARGE: (4096, 5120, 2)}


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    settings = {"KINDS": _kinds(), "ORIGIN__BREAKER_FAILURES": "1000000"}
    with (
        running_daemon(folder, settings) as daemon,
        misbehaving_caller.running(daemon) as misbehaving,
        CacheClient(str(daemon.socket)) as client,
    ):
        _write_objects(daemon.origin_dir)
        stub = daemon.stub()
        misbehaving_caller.get(stub, small_kind.NAMESPACE, STREAMED)
        found = {title: Hits([], []) for title in (QUIET, *WAYS, QUIET_AGAIN)}
        _time_hits(stub, client, Hits([], []))  # untimed: the first hits connect and warm up
        for _ in range(rounds):
            _time_hits(stub, client, found[QUIET])
            for way in WAYS:
                with misbehaving(way):
                    _time_hits(stub, client, found[way])
            _time_hits(stub, client, found[QUIET_AGAIN])
        reported = stub.Stats(pb.StatsRequest()).requests
        assert reported.local_hits > reported.memory_hits, "the client's hits were not local"
    yield _finding("RPC hits", [Row(title, hits.by_rpc_ms) for title, hits in found.items()])
    yield _finding("Local hits", [Row(title, hits.local_ms) for title, hits in found.items()])


def _finding(what: str, rows: list[Row]) -> Finding:
    return Finding(
        f"{what} while one caller misbehaves",
        rows,
        {f"p50 / p99, {row.title}": f"{row.median_ms:.3g} / {p99_ms(row):.3g} ms" for row in rows},
    )


def _time_hits(stub: CacheServiceStub, client: CacheClient, hits: Hits) -> None:
    """Add a turn's times to `hits`."""
    for _ in range(HITS_A_TURN):
        started_s = time.perf_counter()
        text_of(stub, CACHED, _TIMEOUT_S)
        hits.by_rpc_ms.append((time.perf_counter() - started_s) * S_TO_MS)
        for _ in range(_LOCAL_HITS_EACH):
            started_s = time.perf_counter()
            entry = client.get_text(CACHED, OWNER)
            hits.local_ms.append((time.perf_counter() - started_s) * S_TO_MS)
            del entry


def _kinds() -> str:
    picture = {
        "max_entries": 4,
        "subject": "clothing",
        "namespaces": [{"name": PICTURES}],
        "fields": [{"name": "value", "encoding": "png", "template": "pictures/{id}.png"}],
    }
    return json.dumps({**json.loads(small_kind.settings(20)["KINDS"]), PICTURES: picture})


def _write_objects(origin: Path) -> None:
    sample_objects.put_in_folder(origin, sample_objects.text(CACHED, OWNER))
    (origin / "small" / small_kind.OWNER).mkdir(parents=True)
    tensor = Tensor("U8", (_STREAMED_BYTES,), os.urandom(_STREAMED_BYTES))
    (origin / "small" / small_kind.OWNER / f"{STREAMED}.pkl").write_bytes(encode_pickle(tensor))
    pictures = origin / "pictures"
    pictures.mkdir()
    for name, (width, height, colour) in _SIDES.items():
        first = pictures / f"{name}-0.png"
        first.write_bytes(_png(width, height, colour))
        for number in range(1, _IDS):
            os.link(first, pictures / f"{name}-{number}.png")


def _png(width: int, height: int, colour: int) -> bytes:
    """Return a PNG of zeros: small, and as large as any once it is inflated."""
    channels = {0: 1, 2: 3}[colour]
    deflater = zlib.compressobj(9)
    rows = bytes((1 + width * channels) * min(height, 1 << 16))
    pixels = b"".join(
        deflater.compress(rows[: (1 + width * channels) * min(1 << 16, height - at)])
        for at in range(0, height, 1 << 16)
    )
    header = struct.pack(">2I5B", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels + deflater.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
