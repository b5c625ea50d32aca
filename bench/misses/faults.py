"""What do hits cost while S3 misbehaves, in each of its ways?

Callers in another process ask for texts that are not cached, one after the other with a pause.
Meanwhile hits of another text are timed, over gRPC and local ones in turns. All faults take their
turns, and so does an idle turn without misses. The circuit breaker is kept closed, so that every
miss really asks S3.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.misses import faulty_store, missing_callers
from bench.misses.faulty_store import SetFault
from bench.misses.findings import Check, Finding
from bench.misses.missing_callers import OWNER, text_of
from bench.misses.told_process import Acting
from bench.misses.turns import S_TO_MS, Row
from cachesvc_client import CacheClient
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support.daemons import running_daemon
from tests.support.s3.faults import Fault

QUIET = "nothing else"
CACHED = "cached"
CALLERS = 3
# Three misses a second, 15 reads of S3: as if nothing were cached for a host's eight workers, each
# of which needs 8 s or more for a picture.
_PAUSE_S = 1.0
HITS_A_TURN = 1000
_LOCAL_HITS_EACH = 10
ORIGIN_DEADLINE_S = 2.0
_TIMEOUT_S = ORIGIN_DEADLINE_S + 1
# The limits of a hit's 99th percentile: for a hit over gRPC the larger of both counts.
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
        with (
            running_daemon(folder, settings, _CREDENTIALS) as daemon,
            missing_callers.running(daemon, CALLERS, _PAUSE_S, _TIMEOUT_S) as asking,
            CacheClient(str(daemon.socket)) as client,
        ):
            stub = daemon.stub()
            text_of(stub, CACHED, _TIMEOUT_S)
            yield from _beside_each(stub, client, set_fault, asking, rounds)


def _beside_each(
    stub: CacheServiceStub,
    client: CacheClient,
    set_fault: SetFault,
    asking: Acting,
    rounds: int,
) -> Iterator[Finding]:
    found = {title: Hits([], []) for title in (QUIET, *map(_title, FAULTS))}
    _time_hits(stub, client, Hits([], []))  # untimed: the first hits connect and warm up
    for _ in range(rounds):
        _time_hits(stub, client, found[QUIET])
        for fault in FAULTS:
            set_fault(fault)
            with asking("ask"):
                _time_hits(stub, client, found[_title(fault)])
    set_fault(Fault.NONE)
    reported = stub.Stats(pb.StatsRequest()).requests
    assert reported.local_hits > reported.memory_hits, "the client's hits were not local"
    by_rpc = [Row(title, hits.by_rpc_ms) for title, hits in found.items()]
    local = [Row(title, hits.local_ms) for title, hits in found.items()]
    yield _finding("RPC hits", by_rpc, more_ms=MOST_MORE_MS)
    yield _finding("Local hits", local, more_ms=0.0)


def _finding(what: str, rows: list[Row], *, more_ms: float) -> Finding:
    """Compare the slowest turn with an idle turn, and with the same load on a sound S3."""
    quiet, sound, *unsound = rows
    worst = max(unsound, key=p99_ms)
    return Finding(
        f"{what} beside {CALLERS} callers that miss, while S3 does what it should not",
        rows,
        {f"p50 / p99, {row.title}": f"{row.median_ms:.3g} / {p99_ms(row):.3g} ms" for row in rows},
        [_check(worst, reference, more_ms) for reference in (quiet, sound)],
    )


def _check(worst: Row, reference: Row, more_ms: float) -> Check:
    reference_ms = p99_ms(reference)
    allowed_ms = max(MOST_TIMES * reference_ms, reference_ms + more_ms)
    text = f"worst p99 ({worst.title}) / {allowed_ms:.3g} ms, by {reference.title}"
    return Check(text, p99_ms(worst) / allowed_ms, 1)


def _title(fault: Fault) -> str:
    return "fills that succeed" if fault is Fault.NONE else fault.name.lower().replace("_", " ")


def p99_ms(row: Row) -> float:
    return statistics.quantiles(row.samples_ms, n=100)[98]


@dataclass(frozen=True)
class Hits:
    """The times of the hits."""

    by_rpc_ms: list[float]
    local_ms: list[float]


def _time_hits(stub: CacheServiceStub, client: CacheClient, hits: Hits) -> None:
    """Add a turn's times to `hits`."""
    for _ in range(HITS_A_TURN):
        started_s = time.perf_counter()
        entry = text_of(stub, CACHED, _TIMEOUT_S)
        hits.by_rpc_ms.append((time.perf_counter() - started_s) * S_TO_MS)
        assert entry.info.tier == pb.TIER_MEMORY
        for _ in range(_LOCAL_HITS_EACH):
            started_s = time.perf_counter()
            text = client.get_text(CACHED, OWNER)
            hits.local_ms.append((time.perf_counter() - started_s) * S_TO_MS)
            del text
