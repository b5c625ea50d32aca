"""What does a person from L2 cost, compared with the bare work and with V2's own L2?

L1 has room for one person and two take turns, so each Get is an L1 miss. All files are in the page
cache, for every row.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import xxhash
from PIL import Image

from bench.misses import wardrobe
from bench.misses.findings import Check, Finding
from bench.misses.turns import Way, take
from cachesvc_client import CacheClient
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support.daemons import Daemon, running_daemon

CHUNK_BYTES = 256 << 10
MOST_OF_BY_HAND, LEAST_OF_V2 = 1.5, 8.0
PEOPLE = ("first", "second")


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    source = folder / "wardrobe"
    wardrobe.make(source)
    person = source / "users" / wardrobe.USER / "vton-cache" / "upper"
    _grey_out(person)
    with (
        running_daemon(folder, {"KINDS__HUMAN__MAX_ENTRIES": "1"}) as daemon,
        CacheClient(str(daemon.socket)) as client,
        tempfile.TemporaryDirectory(prefix="cachesvc-bench-", dir="/dev/shm") as shared,
    ):
        for name in PEOPLE:
            shutil.copytree(person, daemon.origin_dir / "users" / name / "vton-cache" / "upper")
            client.get_human(name)
        daemon.wait_until_stored()
        v2 = folder / "v2"
        v2.mkdir()
        for path in person.iterdir():
            wardrobe.v2_save(v2 / path.name, wardrobe.decode(path.name, path.read_bytes()))
        by_hand = _ByHand(daemon.l2_files()[0], Path(shared) / "entry")
        turns = itertools.cycle(PEOPLE)
        rows = take(
            {
                "ours": Way("ours, mapped by the client", lambda: _get(client, next(turns))),
                "rpc": Way("ours, the call alone", lambda: _call(daemon.stub(), next(turns))),
                "answer": Way(
                    "a call that finds it in L1", partial(_hit, daemon.stub(), PEOPLE[1])
                ),
                "by hand": Way(
                    "read, xxh3 and write to tmpfs by hand", by_hand.copy, after=by_hand.remove
                ),
                "v2": Way("V2's L2: 3 PNGs and a pickle", partial(wardrobe.v2_read_person, v2)),
            },
            rounds,
            warmup=3,
        )
        stages = _l1_write_ms(daemon)
    ours_ms = rows["ours"].median_ms
    yield Finding(
        f"A person from L2, {by_hand.size_bytes:,} bytes",
        list(rows.values()),
        {"the daemon's mean of reading, checking and writing": f"{stages:.2f} ms"},
        [
            Check("ours / by hand", ours_ms / rows["by hand"].median_ms, MOST_OF_BY_HAND),
            Check("V2 / ours", rows["v2"].median_ms / ours_ms, LEAST_OF_V2, at_most=False),
        ],
    )


def _grey_out(person: Path) -> None:
    """Make mask_gray as most preprocessors write it: the photo at full size, partly grey."""
    with Image.open(person / "human_img.png") as photo, Image.open(person / "mask.png") as mask:
        photo.paste((128, 128, 128), (0, 0), mask)
        photo.save(person / "mask_gray.png")


class _ByHand:
    """The least work possible: no catalog, no call, no limits."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = source, target
        self.size_bytes = source.stat().st_size

    def copy(self) -> int:
        digest, buffer = xxhash.xxh3_64(), memoryview(bytearray(CHUNK_BYTES))
        source = os.open(self._source, os.O_RDONLY)
        target = os.open(self._target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            while count := os.readv(source, [buffer]):
                digest.update(buffer[:count])
                os.write(target, buffer[:count])
        finally:
            os.close(source)
            os.close(target)
        return digest.intdigest()

    def remove(self) -> None:
        self._target.unlink()


def _get(client: CacheClient, name: str) -> object:
    human = client.get_human(name)
    assert human.info.tier.value == "disk", "the Get was not a hit in L2"
    return human.torch()


def _call(stub: CacheServiceStub, name: str) -> None:
    info = _asked(stub, name)
    assert info.tier == pb.TIER_DISK


def _hit(stub: CacheServiceStub, name: str) -> None:
    assert _asked(stub, name).tier == pb.TIER_MEMORY


def _asked(stub: CacheServiceStub, name: str) -> pb.EntryInfo:
    request = pb.GetHumanRequest(
        user_id=name,
        category=pb.HUMAN_CATEGORY_UPPER_BODY,
        delivery=pb.DELIVERY_SHARED_FILE,
    )
    answer = stub.GetHuman(request, timeout=10)
    assert answer.entry.WhichOneof("payload") == "file"
    info: pb.EntryInfo = answer.entry.info
    return info


def _l1_write_ms(daemon: Daemon) -> float:
    metrics = daemon.metrics()
    label = '{stage="l1_write"}'
    count = metrics[f"cachesvc_fill_stage_seconds_count{label}"]
    return metrics[f"cachesvc_fill_stage_seconds_sum{label}"] / count * 1000
