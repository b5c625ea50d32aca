"""What do hits cost while S3 misbehaves, in every way it can?

Callers ask for texts that are not cached, one after the other with a pause, while hits of
another text are timed, by RPC and local ones in turns. The circuit breaker is kept closed,
so that every miss does meet S3.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.misses import faulty_store
from bench.misses.faulty_store import SetFault
from bench.misses.findings import Check, Finding
from bench.misses.turns import S_TO_MS, Row
from cachesvc_client import CacheClient
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support.daemons import Daemon, running_daemon
from tests.support.s3_faults import Fault

OWNER = "bob"
CACHED = "cached"
CALLERS = 3
# Ten misses a second, 50 reads of S3: several times what the workers of one host ask for,
# which need seconds for each picture.
_PAUSE_S = 0.3
_LOCAL_HITS_EACH = 10
ORIGIN_DEADLINE_S = 2.0
# What a hit may cost at its 99th percentile: one by RPC the larger of both.
MOST_TIMES, MOST_MORE_MS = 1.2, 5.0
FAULTS = (
    Fault.NONE,
    Fault.HANGS_BEFORE_HEADERS,
    Fault.HANGS_IN_BODY,
    Fault.DRIPS,
    Fault.TRUNCATES_WITH_LENGTH,
    Fault.TRUNCATES_WITHOUT_LENGTH,
    Fault.EMPTY_200,
    Fault.SAYS_500,
    Fault.SAYS_503,
    Fault.SAYS_403,
    Fault.RESETS_BEFORE_HEADERS,
    Fault.RESETS_IN_BODY,
)
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    with faulty_store.running() as (endpoint, set_fault):
        settings = {
            "ORIGIN__KIND": "s3",
            "ORIGIN__BUCKET": "bucket",
            "ORIGIN__REGION": "us-east-1",
            "ORIGIN__ENDPOINT_URL": endpoint,
            "ORIGIN__DEADLINE_S": str(ORIGIN_DEADLINE_S),
            "ORIGIN__BREAKER_FAILURES": "1000000",
        }
        with running_daemon(folder, settings, _CREDENTIALS) as daemon:
            _text_of(daemon.stub(), CACHED)
            with CacheClient(str(daemon.socket)) as client:
                yield from _beside_each(daemon, client, set_fault, rounds)


def _beside_each(
    daemon: Daemon, client: CacheClient, set_fault: SetFault, rounds: int
) -> Iterator[Finding]:
    stub = daemon.stub()
    _time_hits(stub, client, rounds)  # untimed: the first ones connect and warm up
    found = {"nothing else": _time_hits(stub, client, rounds)}
    for fault in FAULTS:
        set_fault(fault)
        with _misses(daemon):
            found[_title(fault)] = _time_hits(stub, client, rounds)
    set_fault(Fault.NONE)
    reported = stub.Stats(pb.StatsRequest()).requests
    assert reported.local_hits > reported.memory_hits, "the client's hits were not local"
    by_rpc = [Row(title, hits.by_rpc_ms) for title, hits in found.items()]
    local = [Row(title, hits.local_ms) for title, hits in found.items()]
    quiet_ms = _p99_ms(by_rpc[0])
    yield _finding("RPC hits", by_rpc, max(MOST_TIMES * quiet_ms, quiet_ms + MOST_MORE_MS))
    yield _finding("Local hits", local, MOST_TIMES * _p99_ms(local[0]))


def _finding(what: str, rows: list[Row], allowed_ms: float) -> Finding:
    worst = max(rows[1:], key=_p99_ms)
    return Finding(
        f"{what} beside {CALLERS} callers that miss, while S3 does what it should not",
        rows,
        {f"p50 / p99, {row.title}": f"{row.median_ms:.3g} / {_p99_ms(row):.3g} ms" for row in rows},
        [Check(f"worst p99 ({worst.title}) / {allowed_ms:.3g} ms", _p99_ms(worst) / allowed_ms, 1)],
    )


def _title(fault: Fault) -> str:
    return "fills that succeed" if fault is Fault.NONE else fault.name.lower().replace("_", " ")


def _p99_ms(row: Row) -> float:
    return statistics.quantiles(row.samples_ms, n=100)[98]


@dataclass(frozen=True)
class Hits:
    """How long each took."""

    by_rpc_ms: list[float]
    local_ms: list[float]


def _time_hits(stub: CacheServiceStub, client: CacheClient, count: int) -> Hits:
    hits = Hits([], [])
    for _ in range(count):
        started_s = time.perf_counter()
        entry = _text_of(stub, CACHED)
        hits.by_rpc_ms.append((time.perf_counter() - started_s) * S_TO_MS)
        assert entry.info.tier == pb.TIER_MEMORY
        for _ in range(_LOCAL_HITS_EACH):
            started_s = time.perf_counter()
            text = client.get_text(CACHED, OWNER)
            hits.local_ms.append((time.perf_counter() - started_s) * S_TO_MS)
            del text
    return hits


@contextlib.contextmanager
def _misses(daemon: Daemon) -> Iterator[None]:
    """Have callers ask for what is not cached, each over a connection of its own."""
    ended = threading.Event()
    ids = itertools.count(time.monotonic_ns())

    def miss(stub: CacheServiceStub) -> None:
        while not ended.wait(_PAUSE_S):
            with contextlib.suppress(grpc.RpcError):
                _text_of(stub, f"missing-{next(ids)}")

    callers = [
        threading.Thread(target=miss, args=(CacheServiceStub(daemon.channel()),))  # type: ignore[no-untyped-call]
        for _ in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        ended.set()
        for caller in callers:
            caller.join()


def _text_of(stub: CacheServiceStub, clothing_id: str) -> pb.Entry:
    request = pb.GetTextRequest(clothing_id=clothing_id, owner_id=OWNER)
    answer: pb.GetTextResponse = stub.GetText(request, timeout=ORIGIN_DEADLINE_S + 1)
    return answer.entry
