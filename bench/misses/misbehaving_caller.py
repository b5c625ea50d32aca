"""One caller in a process of its own that uses its rights to the limit, and beyond.

Run as `python -m bench.misses.misbehaving_caller SOCKET`. A line of its input names an action and
begins it, the next line ends it; each line is answered when that has happened.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import grpc

from bench.misses import small_kind, told_process
from bench.misses.told_process import Acting
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support.daemons import Daemon

PICTURES = "pictures"
# Names of the objects that `misbehaving.py` has written, each under many ids.
TALL, TOO_TALL, LARGE = "tall", "too-tall", "large"
CALLERS = 4
STREAMS = 20
STREAMED = "streamed"
PUT_BYTES = 60 << 20
_CHUNK_BYTES = 1 << 20
REPORTED_KEYS = 1000
_LONGEST_ID = "i" * 120
_TIMEOUT_S = 20.0


def get(stub: CacheServiceStub, namespace: str, entry_id: str) -> None:
    request = pb.GetRequest(
        key=pb.EntryKey(namespace=namespace, id=entry_id), owner_id=small_kind.OWNER
    )
    for _ in stub.Get(request, timeout=_TIMEOUT_S):
        pass


def _get_pictures(kind: str, stub: CacheServiceStub, ended: threading.Event, ids: Ids) -> None:
    while not ended.is_set():
        with contextlib.suppress(grpc.RpcError):
            get(stub, PICTURES, f"{kind}-{next(ids[kind])}")


def _put(stub: CacheServiceStub, ended: threading.Event) -> None:
    entry = {"dtype": "U8", "shape": [PUT_BYTES], "data_offsets": [0, PUT_BYTES]}
    header = json.dumps({"value": entry}).encode()
    blob = struct.pack("<Q", len(header)) + header + bytes(PUT_BYTES)
    name = f"put-{threading.get_ident()}"

    def messages() -> Iterator[pb.PutRequest]:
        key = pb.EntryKey(namespace=small_kind.NAMESPACE, id=name)
        yield pb.PutRequest(header=pb.PutHeader(key=key, owner_id=small_kind.OWNER))
        for at in range(0, len(blob), _CHUNK_BYTES):
            yield pb.PutRequest(data=blob[at : at + _CHUNK_BYTES])

    while not ended.is_set():
        with contextlib.suppress(grpc.RpcError):
            stub.Put(messages(), timeout=_TIMEOUT_S)


def _report(stub: CacheServiceStub, ended: threading.Event) -> None:
    hits = [
        pb.LocalHits(
            key=pb.EntryKey(namespace=small_kind.NAMESPACE, id=f"{_LONGEST_ID}{number}"), count=1
        )
        for number in range(REPORTED_KEYS)
    ]
    while not ended.is_set():
        with contextlib.suppress(grpc.RpcError):
            stub.ReportHits(pb.ReportHitsRequest(hits=hits), timeout=_TIMEOUT_S)


def _hold_streams(stub: CacheServiceStub, ended: threading.Event) -> None:
    key = pb.EntryKey(namespace=small_kind.NAMESPACE, id=STREAMED)
    calls = [stub.Get(pb.GetRequest(key=key, owner_id=small_kind.OWNER)) for _ in range(STREAMS)]
    with contextlib.suppress(grpc.RpcError):
        for call in calls:
            next(iter(call))
        while not ended.wait(0.05):  # reads one message of one stream, now and then
            next(iter(calls[0]), None)
    for call in calls:
        call.cancel()


Ids = dict[str, Iterator[int]]
WAYS = ("tall images", "too tall images", "large images", "large Puts", "reports", "slow streams")


def _work(way: str, ids: Ids) -> Callable[[CacheServiceStub, threading.Event], None]:
    kinds = {"tall images": TALL, "too tall images": TOO_TALL, "large images": LARGE}
    if way in kinds:
        return lambda stub, ended: _get_pictures(kinds[way], stub, ended, ids)
    return {"large Puts": _put, "reports": _report, "slow streams": _hold_streams}[way]


def serve(socket: str) -> None:
    ids: Ids = {kind: itertools.count() for kind in (TALL, TOO_TALL, LARGE)}
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(f"unix:{socket}", options=options)
    stub = CacheServiceStub(channel)  # type: ignore[no-untyped-call]
    print("ready", flush=True)
    for line in sys.stdin:
        way, ended = line.strip(), threading.Event()
        callers = 1 if way == "slow streams" else CALLERS
        threads = [
            threading.Thread(target=_work(way, ids), args=(stub, ended)) for _ in range(callers)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)  # until all threads have begun
        print("begun", flush=True)
        sys.stdin.readline()
        ended.set()
        for thread in threads:
            thread.join()
        print("ended", flush=True)


def running(daemon: Daemon) -> AbstractContextManager[Acting]:
    """Run the caller; yield a context manager in which it misbehaves in one way."""
    return told_process.running(__name__, daemon.socket)


if __name__ == "__main__":
    serve(sys.argv[1])
