"""Starts the parts of one daemon in order, and stops them in reverse.

docs/architecture.md has both lists, "Start" and "Stop"; the numbers here are theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, Protocol

import structlog

from cachesvc import __version__
from cachesvc.app import engine, grpc, host, http, l1, l2, origins, runtime
from cachesvc.app.instruments import Instruments
from cachesvc.codec import members
from cachesvc.config import Settings
from cachesvc.core import succession
from cachesvc.core.credentials import Grants
from cachesvc.core.errors import NotDurable
from cachesvc.core.pools import started_pool
from cachesvc.core.succession import Predecessor
from cachesvc.edge import audit, tls_files
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.grpc.local import LocalDelivery
from cachesvc.edge.grpc.server import GrpcServer
from cachesvc.edge.grpc.service import CacheService
from cachesvc.edge.http.gauges import Gauges
from cachesvc.edge.http.history import History
from cachesvc.edge.http.server import HttpServer
from cachesvc.edge.readiness import Readiness
from cachesvc.edge.reloading import Reloaded
from cachesvc.edge.statistics import Statistics
from cachesvc.engine.cache import Cache
from cachesvc.engine.state import WAS_KILLED
from cachesvc.tiers.control import ControlPage, close_predecessor
from cachesvc.tiers.disk_files import DiskFiles
from cachesvc_format.control_page import L1_DIRECTORY

log = structlog.get_logger()
# The daemon's own part in /readyz.
PROBLEM = "daemon"


class Output(Protocol):
    """The process's log. Only the log learns of handshakes that fail in gRPC's core."""

    def dropped_lines(self) -> int: ...

    def on_handshake_failure(self, count: Callable[[], None]) -> None: ...


class Daemon:
    """One daemon's parts. `start` may raise ConfigError; `stop` may be called even then."""

    def __init__(self, settings: Settings, output: Output | None = None) -> None:
        """`output` is the process's log; None = its dropped lines are not counted."""
        self.settings = settings
        self.grpc_port = 0
        self.http_port = 0
        self._instruments = Instruments()
        self._certificates = Certificates(self._instruments.clock)
        metrics = self._instruments.metrics
        if output is not None:
            metrics.read_dropped_lines_from(output.dropped_lines)
            output.on_handshake_failure(lambda: metrics.handshake_failures.inc("grpc"))
        self._instruments.problems.set(PROBLEM, "starting")
        self._stack = AsyncExitStack()
        self._cache: Cache | None = None
        file = settings.access.file
        self._reloaded_grants = Reloaded(
            "access.file",
            () if file is None else (file,),
            settings.access.load_grants,
            lambda: metrics.reload_failures.inc("access"),
        )

    async def start(self) -> None:
        """Start serving, without a scan of L2. When this returns, Gets are answered."""
        try:
            await self._start()
        except BaseException:  # also if cancelled: stop the started parts first
            await self._stack.aclose()
            raise

    async def stop(self, why: str = "") -> None:
        """Drain: not ready, refuse new calls, let calls in flight finish, flush, close.

        The stack ends the parts of `_start` in reverse.
        """
        self._instruments.problems.set(PROBLEM, "shutting down")  # stop 1
        log.info("draining", signal=why)
        await self._stack.aclose()
        log.info("stopped")

    async def _start(self) -> None:
        """Start each part, and give its end to the stack at once."""
        settings, stack, instruments = self.settings, self._stack, self._instruments
        metrics, clock = instruments.metrics, instruments.clock
        tls_files.check_all(settings)
        metrics.memory_limit.set(host.look(settings))
        kinds = settings.build_kinds()

        # Start 2 and 3: the locks; `DiskFiles` also empties .tmp. Then the control pages.
        gid = runtime.gid_of(settings.group)
        with host.of_setting("runtime_dir"):
            runtime_fd = runtime.lock(settings.runtime_dir, gid, stack)
        with host.of_setting("l2.root"):
            disk_files = DiskFiles(settings.l2.root, kinds.namespaces)
        locked_ns = clock.read().steady_ns
        closed_boot_id = close_predecessor(runtime_fd)
        control = runtime.make_control_page(settings.runtime_dir, runtime_fd, gid)
        stack.callback(control.close)

        # Start 4: the catalog and L2.
        with host.of_setting("state_dir"):
            catalog = l2.open_catalog(
                settings, disk_files, runtime_fd, instruments, stack, self._after_catalog_loss
            )
        # If the root was emptied, its catalog still knows of the last daemon.
        was_used = disk_files.was_used or bool(catalog.last_boot_id)
        knows_all_changes = catalog.ended_cleanly or not was_used
        acknowledge_from_ns = succession.acknowledge_from_ns(
            Predecessor(was_used, catalog.last_boot_id, catalog.acknowledge_from_ns),
            closed_boot_id,
            locked_ns,
        )
        disk = l2.open_disk(settings, disk_files, catalog, runtime_fd, instruments)
        stack.callback(disk.close)  # stop 5
        with suppress(NotDurable):  # the successor then waits, to be safe
            await catalog.record_boot(control.boot_id, acknowledge_from_ns)

        # Start 5 and 6: L1, the origin.
        with host.of_setting("runtime_dir"):
            memory = l1.open_memory(settings, kinds, gid, control, instruments)
        stack.callback(memory.close)  # stop 5
        origin = origins.make_origin(settings.origin, settings.limits.max_entry_bytes)
        stack.push_async_callback(origin.close)  # stop 5
        await origins.start(origin)

        # Start 7: the engine, and its work in the background.
        audit_key = None if settings.audit.plain_ids else audit.load_key(settings.state_dir)
        workers = started_pool(engine.WORKER_THREADS, "worker")
        stack.callback(workers.shutdown)  # stop 5
        state = engine.make_state(
            settings,
            kinds,
            memory,
            disk,
            workers,
            audit_key,
            instruments,
            acknowledge_from_ns=acknowledge_from_ns,
        )
        if not knows_all_changes:
            state.know_changes_from(clock.read().wall_ns, WAS_KILLED)
        self._cache = cache = Cache(state, origin, members)
        statistics = Statistics(cache, memory, disk, metrics, __version__)
        cache.start(rewarm=settings.l1.rewarm)
        stack.push_async_callback(cache.drain, settings.grpc.drain_s)  # stop 4

        # Start 8: HTTP and gRPC.
        local = LocalDelivery(
            cache, settings.runtime_dir, control.boot_id, lambda: control.allows_local_hits
        )
        invalidations = AuditedInvalidations(cache, audit_key)
        service = CacheService(cache, statistics, local, invalidations)
        http_server = self._make_http_server(
            cache, invalidations, statistics, Gauges(cache, memory, disk)
        )
        stack.push_async_callback(http_server.close)  # stop 3
        if settings.http.listen:
            self.http_port = await http_server.start(settings.http.listen)
        grpc_server = self._bind_grpc_server(service, gid)
        self._run_until_stop(self._certificates.run(), "certificates")
        await grpc_server.start()
        stack.push_async_callback(self._drain, grpc_server, http_server, local, control)
        await self._say_serving(control, grpc_server)

    def _make_http_server(
        self,
        cache: Cache,
        invalidations: AuditedInvalidations,
        statistics: Statistics,
        gauges: Gauges,
    ) -> HttpServer:
        history = History(statistics, self._instruments.metrics)
        self._run_until_stop(history.run(self._instruments.clock), "history")
        routes = http.make_routes(
            self.settings,
            cache,
            invalidations,
            statistics,
            gauges,
            history,
            self._certificates,
            self._instruments,
        )
        return http.make_server(
            self.settings, routes, self._grants, self._certificates, self._instruments
        )

    def _bind_grpc_server(self, service: CacheService, gid: int | None) -> GrpcServer:
        server = grpc.make_server(self.settings, service, self._instruments)
        self.grpc_port = grpc.bind(
            server, self.settings, gid, self._grants, self._certificates, self._instruments
        )
        return server

    async def _say_serving(self, control: ControlPage, grpc_server: GrpcServer) -> None:
        """Let workers, health checks and /readyz know that calls are answered."""
        settings, problems = self.settings, self._instruments.problems
        if not control.start(settings.runtime_dir / L1_DIRECTORY):
            log.warning(
                "files_not_shared",
                why="the filesystem of runtime_dir does not show readers that a file was unlinked",
                do="set CACHESVC_RUNTIME_DIR to a directory in tmpfs; until then no file is shared",
            )
        await grpc_server.set_serving(serving=True)
        problems.clear(PROBLEM)
        self._run_until_stop(Readiness(problems, grpc_server.set_ready).run(), "readiness")
        log.info(
            "serving",
            version=__version__,
            socket=str(settings.socket_path),
            grpc_port=self.grpc_port,
            http_port=self.http_port,
        )

    async def _drain(
        self,
        grpc_server: GrpcServer,
        http_server: HttpServer,
        local: LocalDelivery,
        control: ControlPage,
    ) -> None:
        """Stop 1 to 3: answer the calls under way, then end local hits.

        The control page stays open until then. An invalidation that is acknowledged meanwhile
        has unlinked its files first, so local hits stay fresh; and no successor serves before
        this process has closed the page and released its locks.
        """
        try:
            local.stop_naming_files()
            drain_s = self.settings.grpc.drain_s
            await asyncio.gather(grpc_server.drain(drain_s), http_server.drain(drain_s))
            await local.until_files_were_opened()
        finally:
            control.retire()

    def _run_until_stop(self, loop: Coroutine[Any, Any, None], name: str) -> None:
        """Run a background loop; the stack cancels it when the stop comes to this point."""
        task = asyncio.create_task(loop, name=name)
        self._stack.push_async_callback(_end, task)

    def _grants(self) -> Grants:
        return self._reloaded_grants.current()

    def _after_catalog_loss(self) -> None:
        if self._cache is not None:
            self._cache.catalog_lost()

    def reloadable_files(self) -> tuple[Reloaded[Any], ...]:
        """Return the objects made of files that may change while the daemon serves."""
        grants = () if self.settings.access.file is None else (self._reloaded_grants,)
        return (*grants, *self._certificates.files)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
