"""How is the real daemon run for a test: as a process, with directories of its own?

Its runtime directory is in /dev/shm, as in production, everything else in the test's folder. The
daemon dies with the test process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1 import cache_pb2_grpc
from tests.support import server_processes
from tests.support.entry_files import entry_files
from tests.support.forked_daemons import ForkedDaemon
from tests.support.s3.servers import S3Server
from tests.support.server_processes import ReservedPort, ServerProcess

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "cachesvc", "serve")
READY_WITHIN_S = 20.0
ENDS_WITHIN_S = 20.0
ANSWERS_WITHIN_S = 20.0
_POLL_S = 0.005
_LARGE_ANSWERS = (("grpc.max_receive_message_length", -1),)
# A test's daemon comes back at once; the default backoff starts at a second. `min_` is also the
# limit of one attempt, which may take long on a busy machine.
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)
_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", re.MULTILINE)


class Daemon:
    """One daemon that a test may end and start again on the same directories.

    `settings` are environment variables, named without `CACHESVC_`; `environment` is added
    unchanged. `under` is a command that runs the daemon and becomes it, as `strace -D` does;
    `arguments` are those of `serve`. A forked daemon begins faster (see `forked_daemons`).
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        arguments: Sequence[str] = (),
        is_forked: bool = False,
    ) -> None:
        assert not (under and is_forked)
        self._command = (*under, *COMMAND, *arguments)
        self._forked_arguments = ("serve", *arguments) if is_forked else None
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="cachesvc-test-", dir="/dev/shm"))
        self.state_dir = folder / "state"
        self.l2_root = folder / "l2"
        self.origin_dir = folder / "origin"
        self.log = folder / "daemon.log"
        # The context for calls of its HTTP port, if that has TLS.
        self.tls: ssl.SSLContext | None = None
        self._port = ReservedPort()
        self._owned_runtime_dir = self.runtime_dir
        self._channels: list[grpc.Channel] = []
        self._stub: cache_pb2_grpc.CacheServiceStub | None = None
        self._process: ServerProcess | None = None
        self._environment = dict(environment or {})
        self.settings = {
            "RUNTIME_DIR": str(self.runtime_dir),
            "STATE_DIR": str(self.state_dir),
            "L2__ROOT": str(self.l2_root),
            "L2__FREE_FLOOR_BYTES": "0",
            "L1__MAX_BYTES": str(512 << 20),
            "HTTP__LISTEN": f"127.0.0.1:{self._port.number}",
            # Entries in L1 come from the test's own calls only.
            "L1__REWARM": "false",
            "ORIGIN__KIND": "directory",
            "ORIGIN__PATH": str(self.origin_dir),
            **(settings or {}),
        }
        self.runtime_dir = Path(self.settings["RUNTIME_DIR"])
        self.l2_root = Path(self.settings["L2__ROOT"])
        self.state_dir = Path(self.settings["STATE_DIR"])
        self.origin_dir.mkdir(parents=True, exist_ok=True)
        self.socket = self.runtime_dir / "cachesvc.sock"
        self.target = f"unix:{self.socket}"
        self.admin_target = f"unix:{self.runtime_dir / 'admin.sock'}"

    # ---- its life

    def start(self) -> float:
        """Start it, and return the seconds until /readyz said ready."""
        started = time.monotonic()
        self.spawn()
        wait_until(self._is_ready, READY_WITHIN_S, self._describe)
        ready_s = time.monotonic() - started
        # Otherwise their first call after a restart could still fail for the old connection.
        for channel in self._channels:
            grpc.channel_ready_future(channel).result(READY_WITHIN_S)
        return ready_s

    def start_with_output(self, fd: int) -> None:
        """Start it with `fd` as its output instead of its log."""
        self._process = server_processes.start(self._command, fd, env=self._variables())
        wait_until(self._is_ready, READY_WITHIN_S, self._describe)

    def spawn(self) -> ServerProcess:
        """Start it, and return its process at once."""
        self._process = self._spawn()
        return self._process

    def start_in_vain(self) -> int:
        """Start it with settings that it refuses, and return its exit code."""
        process = self._spawn()
        try:
            return process.wait(READY_WITHIN_S)
        finally:
            server_processes.kill(process)

    def terminate(self) -> None:
        """Send SIGTERM, and do not wait."""
        self._running().terminate()

    def wait(self) -> int:
        """Return the exit code once it has ended."""
        code = self._running().wait(ENDS_WITHIN_S)
        self.kill()
        return code

    def stop(self) -> int:
        """End it by SIGTERM, and return its exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL. Repeating it is harmless."""
        if self._process is not None:
            server_processes.kill(self._process)
            self._process = None

    def restart(self) -> None:
        """Send SIGKILL, and start again on the same directories."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Close the channels, kill the daemon, and delete its runtime directory."""
        for channel in self._channels:
            channel.close()
        self.kill()
        self._port.release()
        shutil.rmtree(self._owned_runtime_dir)

    # ---- talking to it

    def channel(self, *options: tuple[str, int], target: str = "") -> grpc.Channel:
        """Return a new channel with gRPC's default limits, except for `options`."""
        channel = grpc.insecure_channel(target or self.target, options=(*_RECONNECT, *options))
        grpc.channel_ready_future(channel).result(READY_WITHIN_S)
        self._channels.append(channel)
        return channel

    def stub(self) -> cache_pb2_grpc.CacheServiceStub:
        """Return the generated stub on one channel that accepts answers of any size."""
        if self._stub is None:
            self._stub = stub_on(self.channel(*_LARGE_ANSWERS))
        return self._stub

    @property
    def http_port(self) -> int:
        return self._port.number

    def admin_stub(self) -> cache_pb2_grpc.CacheServiceStub:
        """Return the stub of the daemon's own user, on a channel of its own."""
        return stub_on(self.channel(target=self.admin_target))

    def http(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET."""
        scheme = "http" if self.tls is None else "https"
        url = f"{scheme}://127.0.0.1:{self._port.number}{path}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWERS_WITHIN_S, context=self.tls) as answer:
                return int(answer.status), str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def metrics(self) -> dict[str, float]:
        """Return every sample of a scrape; labels as in `name{label="value"}`."""
        samples = {}
        for family in text_string_to_metric_families(self.http("/metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def wait_until_stored(self) -> None:
        """Return once every filled entry is in L2 too."""
        stub = self.stub()
        wait_until(
            lambda: stub.Stats(pb.StatsRequest(), timeout=ANSWERS_WITHIN_S).flights == 0,
            READY_WITHIN_S,
            self._describe,
        )

    # ---- measuring it from outside

    @property
    def pid(self) -> int:
        return self._running().pid

    def private_bytes(self) -> int:
        """Return its private memory, without L1's files and shared libraries."""
        rollup = Path(f"/proc/{self._running().pid}/smaps_rollup").read_text()
        return sum(int(size) for size in _PRIVATE.findall(rollup)) * 1024

    def cpu_s(self) -> float:
        """Return the processor time it has used so far."""
        used = psutil.Process(self._running().pid).cpu_times()
        return float(used.user + used.system)

    def mapped_files(self) -> set[str]:
        """Return the names of all mapped files: libraries, and entries that it has read."""
        maps = Path(f"/proc/{self._running().pid}/maps").read_text()
        return {Path(line.split(maxsplit=5)[5]).name for line in maps.splitlines() if "/" in line}

    def l1_bytes(self) -> int:
        """Return the bytes of its files in L1."""
        return sum(status.st_size for status in _statuses((self.runtime_dir / "l1").iterdir()))

    def l2_files(self) -> list[Path]:
        return entry_files(self.l2_root)

    def l2_allocated_bytes(self) -> int:
        """Return the disk space of L2's entry files, as `du` counts it."""
        return sum(status.st_blocks * 512 for status in _statuses(self.l2_files()))

    def log_text(self) -> str:
        """Return its log, over all restarts."""
        return self.log.read_text(errors="replace")

    # ---- private

    def _spawn(self) -> ServerProcess:
        if self._forked_arguments is not None:
            forked = ForkedDaemon(self._forked_arguments, self.log, self._variables())
            return server_processes.started(forked)
        return server_processes.start(self._command, self.log, env=self._variables())

    def _variables(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CACHESVC_", "AWS_"))
        }
        return {
            **inherited,
            **{f"CACHESVC_{name}": value for name, value in self.settings.items()},
            **self._environment,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}",
        }

    def _running(self) -> ServerProcess:
        assert self._process is not None, "the daemon is not running"
        return self._process

    def _is_ready(self) -> bool:
        if self._running().poll() is not None:
            raise RuntimeError(f"the daemon ended: {self._describe()}")
        with contextlib.suppress(OSError, json.JSONDecodeError):
            return self.http("/readyz")[0] == 200
        return False

    def _describe(self) -> str:
        return server_processes.log_tail(self.log)


def _statuses(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """Yield the status of each file that still exists: the daemon deletes files meanwhile."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path.stat()


def stub_on(channel: grpc.Channel) -> cache_pb2_grpc.CacheServiceStub:
    """Return the generated stub, whose constructor alone is untyped."""
    return cache_pb2_grpc.CacheServiceStub(channel)  # type: ignore[no-untyped-call]


def s3_settings(server: S3Server, bucket: str, endpoint_url: str = "") -> dict[str, str]:
    """Return the settings that make `bucket` the origin; `endpoint_url` may lead through a
    proxy.
    """
    return {
        "ORIGIN__KIND": "s3",
        "ORIGIN__BUCKET": bucket,
        "ORIGIN__REGION": server.region,
        "ORIGIN__ENDPOINT_URL": endpoint_url or server.endpoint_url,
    }


def floor_of_the_whole_disk() -> int:
    """Return the largest `l2.free_floor_bytes` that a start accepts: L2 has no room."""
    return shutil.disk_usage(tempfile.gettempdir()).total - 1


def wait_until(
    is_so: Callable[[], bool], within_s: float, describe: Callable[[], str] = lambda: ""
) -> None:
    """Return as soon as `is_so`; the deadline only ends a test that has failed."""
    give_up = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not reached in {within_s:g} s: {describe()}")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def running_daemon(
    folder: Path,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    is_forked: bool = False,
) -> Iterator[Daemon]:
    daemon = Daemon(folder, settings, environment, is_forked=is_forked)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
