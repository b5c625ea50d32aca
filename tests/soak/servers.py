"""How are the two compared processes started, called and measured?"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.soak import uploads
from tests.soak.growth import Sample
from tests.support import server_processes
from tests.support.daemons import ROOT, Daemon, running_daemon

_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", re.MULTILINE)
# gRPC's come and go, and a pool makes its last when all others are busy at one moment.
THREADS_THAT_COME_LATER = 2
_READY_WITHIN_S = 30.0


@dataclass(frozen=True)
class Server:
    """One of the two. `rest` frees what the calls left in it.

    `count` is given the number of the workers' calls; it returns the number of all calls so far,
    those included that the client makes by itself, and of the tasks of the loop.
    """

    name: str
    target: str
    pid: int
    count: Callable[[int], tuple[int, int]]
    rest: Callable[[], None]

    def look(self, workers_calls: int) -> Sample:
        calls, tasks = self.count(workers_calls)
        process = psutil.Process(self.pid)
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return Sample(
            calls=calls,
            # Its alone: files of L1 and libraries are shared.
            private_bytes=sum(map(int, _PRIVATE.findall(rollup))) * 1024,
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            tasks=tasks,
        )


@contextmanager
def running_pair(folder: Path) -> Iterator[tuple[Server, Server, Path]]:
    """Run the daemon and the echo server; yield them and the file of a blob."""
    blob_file = folder / "blob"
    blob_file.write_bytes(uploads.garment_blob())
    with ExitStack() as stack:
        daemon = stack.enter_context(running_daemon(folder))
        uploads.upload(daemon.origin_dir)
        echo = _start_echo(stack, folder, blob_file)
        yield _daemon_server(daemon), echo, blob_file


def _daemon_server(daemon: Daemon) -> Server:
    def count(_: int) -> tuple[int, int]:
        metrics = daemon.metrics()
        calls = sum(n for name, n in metrics.items() if name.startswith("cachesvc_calls_total{"))
        return int(calls), int(metrics["cachesvc_tasks"])

    def rest() -> None:
        # The two descriptors of each L1 entry belong to the entry, and are not a leak.
        admin = daemon.channel(target=daemon.admin_target)
        _invalidate_everything(admin)
        admin.close()

    return Server("cachesvc", daemon.target, daemon.pid, count, rest)


def _invalidate_everything(channel: grpc.Channel) -> None:
    call: grpc.UnaryUnaryMultiCallable[pb.InvalidateRequest, bytes] = channel.unary_unary(
        "/cachesvc.v1.CacheService/Invalidate",
        request_serializer=pb.InvalidateRequest.SerializeToString,
        response_deserializer=bytes,
    )
    call(pb.InvalidateRequest(everything=True), timeout=_READY_WITHIN_S)


def _start_echo(stack: ExitStack, folder: Path, blob_file: Path) -> Server:
    socket = folder / "echo.sock"
    command = (sys.executable, "-m", "tests.soak.echo_server", str(socket), str(blob_file))
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "PATH": "/usr/bin:/bin"}
    process = server_processes.start(command, folder / "echo.log", env=environment)
    stack.callback(server_processes.kill, process)
    channel = grpc.insecure_channel(f"unix:{socket}")
    try:
        grpc.channel_ready_future(channel).result(_READY_WITHIN_S)
    finally:
        channel.close()
    return Server("echo", f"unix:{socket}", process.pid, lambda calls: (calls, 0), lambda: None)


def look_at_rest(server: Server, calls: int, at_most: Sample | None, within_s: float) -> Sample:
    """Return the sample of the idle server, as soon as it is no more than `at_most`."""
    server.rest()
    give_up = time.monotonic() + within_s
    while True:
        seen = server.look(calls)
        if at_most is not None and not excess(seen, at_most):
            return seen
        if time.monotonic() > give_up:
            return seen
        time.sleep(0.2)


def excess(end: Sample, start: Sample) -> dict[str, int]:
    """Return each count that is above the earlier one; memory is left out."""
    counts = {
        "descriptors": end.descriptors - start.descriptors,
        "threads": end.threads - start.threads - THREADS_THAT_COME_LATER,
        "tasks": end.tasks - start.tasks,
    }
    return {name: more for name, more in counts.items() if more > 0}
