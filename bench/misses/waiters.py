"""What do 1,000 simultaneous Gets of one cold key cost, compared with one Get?

The waiters come over five connections from this process and ask for no bytes (DELIVERY_NONE), so
that only the waiting is compared. The origin is a folder whose reads wait like S3's; the key is a
garment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc

from bench.misses import wardrobe
from bench.misses.findings import Check, Finding
from bench.misses.turns import Way, take
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from examples.demo import sample_data
from tests.support.daemons import Daemon, running_daemon

WAITERS = 1000
# A connection carries grpc.max_concurrent_streams (256) calls at once.
CONNECTIONS = 5
# One object's time at a near S3, and the time of the original's set of reads.
LATENCIES_MS = (100, 1000)
MOST_OF_ONE = 1.3
_DEADLINE_S = 30


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    for latency_ms in LATENCIES_MS:
        place = folder / f"waiters-{latency_ms}"
        place.mkdir()
        settings = {"ORIGIN__ADDED_LATENCY_MS": str(latency_ms)}
        with running_daemon(place, settings) as daemon:
            sample_data.write_origin(daemon.origin_dir)
            yield _wait_together(daemon, latency_ms, rounds)


def _wait_together(daemon: Daemon, latency_ms: int, rounds: int) -> Finding:
    loop = asyncio.new_event_loop()
    channels = loop.run_until_complete(_connect(daemon.target))
    stubs = [CacheServiceStub(channel) for channel in channels]  # type: ignore[no-untyped-call]

    def get(count: int) -> int:
        return loop.run_until_complete(_get(stubs, count))

    def attach() -> int:
        return loop.run_until_complete(_attach(stubs, WAITERS))

    def make_cold() -> None:
        daemon.wait_until_stored()
        admin.Invalidate(pb.InvalidateRequest(everything=True), timeout=_DEADLINE_S)

    admin = daemon.admin_stub()
    get(CONNECTIONS)  # connects
    before = daemon.stub().Stats(pb.StatsRequest(), timeout=5)
    rows = take(
        {
            "one": Way("one Get, cold", partial(get, 1), before=make_cold),
            "many": Way(f"{WAITERS:,} Gets, cold", partial(get, WAITERS), before=make_cold),
            "hits": Way(f"{WAITERS:,} Gets from L1", partial(get, WAITERS)),
            "bare": Way(f"{WAITERS:,} bare calls (Attach)", attach),
        },
        rounds,
    )
    after = daemon.stub().Stats(pb.StatsRequest(), timeout=5)
    for channel in channels:
        loop.run_until_complete(channel.close())
    loop.close()
    cold_turns = rounds + 1  # one turn is the warm-up
    facts = {
        "sets of origin reads": f"{after.fills - before.fills} in {2 * cold_turns} cold turns",
        "of the waiters, joined a fill": (
            f"{(after.coalesced_waiters - before.coalesced_waiters) / cold_turns:.0f} a turn"
        ),
    }
    many_ms, one_ms = rows["many"].median_ms, rows["one"].median_ms
    ratio = many_ms / one_ms
    facts["1,000 cold / (one cold + 1,000 from L1)"] = (
        f"{many_ms / (one_ms + rows['hits'].median_ms):.2f}"
    )
    # Attach reads nothing and answers a few bytes: the rest of its time is gRPC's, at both ends.
    facts["1,000 cold / (one cold + 1,000 bare calls)"] = (
        f"{many_ms / (one_ms + rows['bare'].median_ms):.2f}"
    )
    return Finding(
        f"{WAITERS:,} waiters on one garment, each object {latency_ms} ms away",
        list(rows.values()),
        facts,
        [
            Check(f"{WAITERS:,} / one", ratio, MOST_OF_ONE),
            Check("sets of origin reads a turn", (after.fills - before.fills) / 2 / cold_turns, 1),
        ],
    )


async def _connect(target: str) -> list[grpc.aio.Channel]:
    # Otherwise all channels to one target would share one connection.
    options = (("grpc.use_local_subchannel_pool", 1),)
    return [grpc.aio.insecure_channel(target, options=options) for _ in range(CONNECTIONS)]


async def _get(stubs: list[CacheServiceStub], count: int) -> int:
    request = pb.GetGarmentRequest(
        clothing_id=wardrobe.GARMENT, owner_id=wardrobe.USER, delivery=pb.DELIVERY_NONE
    )
    answers = await asyncio.gather(
        *(
            stubs[number % len(stubs)].GetGarment(request, timeout=_DEADLINE_S)
            for number in range(count)
        )
    )
    generations = {answer.entry.info.generation for answer in answers}
    assert len(generations) == 1, "the waiters got different fills"
    return len(answers)


async def _attach(stubs: list[CacheServiceStub], count: int) -> int:
    answers = await asyncio.gather(
        *(
            stubs[number % len(stubs)].Attach(pb.AttachRequest(), timeout=_DEADLINE_S)
            for number in range(count)
        )
    )
    return len(answers)
