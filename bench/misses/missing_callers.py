"""Callers in a process of their own that ask for absent texts, as other workers would.

Run as `python -m bench.misses.missing_callers SOCKET CALLERS PAUSE_S DEADLINE_S`. Each line of its
input begins or ends the asking, and is answered when all callers have begun or ended; the process
ends with its input.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from contextlib import AbstractContextManager

import grpc

from bench.misses import told_process
from bench.misses.told_process import Acting
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1.cache_pb2_grpc import CacheServiceStub
from tests.support.daemons import Daemon

OWNER = "bob"


def text_of(stub: CacheServiceStub, clothing_id: str, timeout_s: float) -> pb.Entry:
    request = pb.GetTextRequest(clothing_id=clothing_id, owner_id=OWNER)
    answer: pb.GetTextResponse = stub.GetText(request, timeout=timeout_s)
    return answer.entry


def serve(socket: str, callers: int, pause_s: float, deadline_s: float) -> None:
    ids = itertools.count(time.monotonic_ns())
    stubs = [CacheServiceStub(_channel(socket)) for _ in range(callers)]  # type: ignore[no-untyped-call]

    def miss(stub: CacheServiceStub, begun: threading.Event, ended: threading.Event) -> None:
        while True:
            begun.set()
            with contextlib.suppress(grpc.RpcError):
                text_of(stub, f"missing-{next(ids)}", deadline_s)
            if ended.wait(pause_s):
                return

    print("ready", flush=True)
    for _ in sys.stdin:
        ended, begun = threading.Event(), [threading.Event() for _ in stubs]
        threads = [
            threading.Thread(target=miss, args=(stub, event, ended))
            for stub, event in zip(stubs, begun, strict=True)
        ]
        for thread, event in zip(threads, begun, strict=True):
            thread.start()
            event.wait()
            # Spread over the pause; otherwise all of them would ask at once.
            time.sleep(pause_s / callers)
        print("begun", flush=True)
        sys.stdin.readline()
        ended.set()
        for thread in threads:
            thread.join()
        print("ended", flush=True)


def _channel(socket: str) -> grpc.Channel:
    # A connection for each caller, as separate processes have.
    return grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])


def running(
    daemon: Daemon, callers: int, pause_s: float, deadline_s: float
) -> AbstractContextManager[Acting]:
    """Run the callers; yield a context manager in which they ask."""
    return told_process.running(__name__, daemon.socket, callers, pause_s, deadline_s)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
