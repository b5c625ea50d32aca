"""What do hits by RPC cost while S3 misbehaves, in every way it can?

Callers ask for texts that are not cached, one after the other with a pause, while hits of
another text are timed. The circuit breaker is kept closed, so that every miss does meet S3.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from bench.misses import faulty_store
from bench.misses.faulty_store import SetFault
from bench.misses.findings import Check, Finding
from bench.misses.turns import S_TO_MS, Row
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support.daemons import Daemon, running_daemon
from tests.support.s3_faults import Fault

OWNER = "bob"
CACHED = "cached"
CALLERS = 3
_PAUSE_S = 0.02
ORIGIN_DEADLINE_S = 2.0
# The larger of both is what a hit may cost at its 99th percentile.
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
            yield _beside_each(daemon, set_fault, rounds)


def _beside_each(daemon: Daemon, set_fault: SetFault, rounds: int) -> Finding:
    stub = daemon.stub()
    _time_hits(stub, rounds)  # untimed: the first ones connect and warm up
    quiet = Row("nothing else", _time_hits(stub, rounds))
    rows = [quiet]
    for fault in FAULTS:
        set_fault(fault)
        with _misses(daemon):
            rows.append(Row(_title(fault), _time_hits(stub, rounds)))
    set_fault(Fault.NONE)
    allowed_ms = max(MOST_TIMES * _p99_ms(quiet), _p99_ms(quiet) + MOST_MORE_MS)
    worst = max(rows[1:], key=_p99_ms)
    return Finding(
        f"RPC hits beside {CALLERS} callers that miss, while S3 does what it should not",
        rows,
        {f"p99, {row.title}": f"{_p99_ms(row):.2f} ms" for row in rows},
        [Check(f"worst p99 ({worst.title}) / {allowed_ms:.2f} ms", _p99_ms(worst) / allowed_ms, 1)],
    )


def _title(fault: Fault) -> str:
    return "fills that succeed" if fault is Fault.NONE else fault.name.lower().replace("_", " ")


def _p99_ms(row: Row) -> float:
    return statistics.quantiles(row.samples_ms, n=100)[98]


def _time_hits(stub: CacheServiceStub, count: int) -> list[float]:
    samples_ms = []
    for _ in range(count):
        started_s = time.perf_counter()
        entry = _text_of(stub, CACHED)
        samples_ms.append((time.perf_counter() - started_s) * S_TO_MS)
        assert entry.info.tier == pb.TIER_MEMORY
    return samples_ms


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
