"""Wires one daemon: starts its parts in order, and stops them in reverse.

lock L2's root and the runtime directory -> empty L1 -> open the catalog
-> origin -> gRPC and HTTP -> ready
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cachesvc import __version__
from cachesvc.codec import members
from cachesvc.config import OriginSettings, Settings
from cachesvc.core import succession
from cachesvc.core.clock import NS_PER_S, Clock
from cachesvc.core.credentials import Grants
from cachesvc.core.entry import EntryMeta, GenerationSource, Row
from cachesvc.core.errors import ConfigError, NotDurable, OriginError
from cachesvc.core.events import Eviction, RecentEvents
from cachesvc.core.kinds import Kinds
from cachesvc.core.leaving import Leaving
from cachesvc.core.lru import NamespaceLimits
from cachesvc.core.pools import started_pool
from cachesvc.core.problems import Problems
from cachesvc.core.pseudonyms import Pseudonyms
from cachesvc.core.succession import Predecessor
from cachesvc.core.tier import Tier
from cachesvc.edge import audit, tls_files
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.grpc import callers
from cachesvc.edge.grpc.calls import Calls
from cachesvc.edge.grpc.local import LocalDelivery
from cachesvc.edge.grpc.server import GrpcServer
from cachesvc.edge.grpc.service import CacheService
from cachesvc.edge.history import History
from cachesvc.edge.http.access import HttpAccess
from cachesvc.edge.http.health import HealthRoutes
from cachesvc.edge.http.operations import OperationRoutes
from cachesvc.edge.http.page import PageRoute
from cachesvc.edge.http.server import HttpServer
from cachesvc.edge.http.status import StatusRoutes
from cachesvc.edge.http.tls import ReloadedContext
from cachesvc.edge.readiness import Readiness
from cachesvc.edge.reloading import Reloaded
from cachesvc.edge.statistics import Statistics
from cachesvc.edge.status_report import StatusReport
from cachesvc.engine.cache import Cache
from cachesvc.engine.state import Limits, State
from cachesvc.metrics import Metrics
from cachesvc.tiers import descriptors, files, host_limits
from cachesvc.tiers.anchors import Anchor
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.control import (
    ControlPage,
    close_predecessor,
    replace_control_page,
)
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.disk_files import DiskFiles
from cachesvc.tiers.memory import MemoryEntry, MemoryTier
from cachesvc.tiers.witness import Witness
from cachesvc_format.control_page import L1_DIRECTORY

if TYPE_CHECKING:
    from cachesvc.origin.directory import DirectoryOrigin
    from cachesvc.origin.s3 import S3Origin

log = structlog.get_logger()
# Decoding takes most of a miss: use all cores, but two threads at least, so that a hit finds one.
WORKER_THREADS = max(2, os.cpu_count() or 2)
# The daemon's own part in /readyz.
PROBLEM = "daemon"
L1_PROBLEM = "l1"
# The witness of the catalog's commits, in the runtime directory.
WITNESS = "catalog"
UNPROTECTED = (
    "fs.protected_hardlinks is not 1: whoever may read a file of L1 could make a hard link of it, "
    "and its link count would stay; answers are inline (sysctl fs.protected_hardlinks=1)"
)
EVICTIONS = (
    Leaving.ENTRIES_LIMIT,
    Leaving.BYTES_LIMIT,
    Leaving.TMPFS_FULL,
    Leaving.DESCRIPTORS,
    Leaving.DISK_SPACE,
)


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
        self._clock = Clock()
        self._metrics = Metrics(__version__)
        self._certificates = Certificates(self._clock)
        if output is not None:
            self._metrics.read_dropped_lines_from(output.dropped_lines)
            output.on_handshake_failure(lambda: self._metrics.handshake_failures.inc("grpc"))
        self._events = RecentEvents()
        self._problems = Problems()
        self._problems.set(PROBLEM, "starting")
        self._stack = contextlib.AsyncExitStack()
        self._cache: Cache | None = None
        file = settings.access.file
        self._reloaded_grants = Reloaded(
            "access.file",
            () if file is None else (file,),
            settings.access.load_grants,
            lambda: self._metrics.reload_failures.inc("access"),
        )

    async def start(self) -> None:
        """Start serving, without a scan of L2. When this returns, Gets are answered."""
        try:
            await self._start()
        except BaseException:  # also if cancelled: stop the started parts first
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        settings, stack = self.settings, self._stack
        tls_files.check_all(settings)
        self._metrics.memory_limit.set(host_limits.look(settings))
        kinds = settings.build_kinds()
        gid = _gid(settings.group)
        runtime_fd = self._lock_runtime_directory(gid)
        disk_files = DiskFiles(settings.l2.root, kinds.namespaces)
        locked_ns = self._clock.read().steady_ns
        closed_boot_id = close_predecessor(runtime_fd)
        control = self._make_control_page(runtime_fd, gid)
        stack.callback(control.close)
        catalog = self._open_catalog(disk_files, runtime_fd)
        ended_cleanly = catalog.ended_cleanly
        # If the root was emptied, its catalog still knows of the last daemon.
        was_used = disk_files.was_used or bool(catalog.last_boot_id)
        acknowledge_from_ns = succession.acknowledge_from_ns(
            Predecessor(was_used, catalog.last_boot_id, catalog.acknowledge_from_ns),
            closed_boot_id,
            locked_ns,
        )
        disk = self._open_disk(disk_files, catalog, Anchor(settings.runtime_dir, runtime_fd))
        stack.callback(disk.close)
        with contextlib.suppress(NotDurable):  # the successor then waits, to be safe
            await catalog.record_boot(control.boot_id, acknowledge_from_ns)
        memory = self._open_memory(kinds, gid, control)
        stack.callback(memory.close)
        origin = make_origin(settings.origin, settings.limits.max_entry_bytes)
        stack.push_async_callback(origin.close)
        try:
            await origin.start()
        except OriginError as exc:
            # L2 is still served; each fill tries again and says what is wrong.
            log.error("origin_not_started", reason=exc.reason, error=exc.message)
        audit_key = self._audit_key()
        workers = started_pool(WORKER_THREADS, "worker")
        stack.callback(workers.shutdown)
        state = State(
            kinds=kinds,
            clock=self._clock,
            memory=memory,
            disk=disk,
            metrics=self._metrics,
            limits=_limits(settings),
            generations=GenerationSource(disk.last_generation),
            workers=workers,
            events=self._events,
            pseudonyms=Pseudonyms(audit_key),
            problems=self._problems,
        )
        state.acknowledge_from_ns = acknowledge_from_ns
        if was_used and not ended_cleanly:
            state.know_changes_from(self._clock.read().wall_ns)
        self._cache = cache = Cache(state, origin, members)
        statistics = Statistics(cache, memory, disk, self._metrics, __version__)
        cache.start(rewarm=settings.l1.rewarm)
        stack.push_async_callback(cache.drain, settings.grpc.drain_s)
        local = LocalDelivery(
            cache, settings.runtime_dir, control.boot_id, lambda: control.allows_local_hits
        )
        invalidations = AuditedInvalidations(cache, audit_key)
        service = CacheService(cache, statistics, local, invalidations)
        http = self._http_server(cache, invalidations, statistics)
        await self._start_edges(service, http, local, control, gid)

    def _grants(self) -> Grants:
        return self._reloaded_grants.current()

    def _audit_key(self) -> bytes | None:
        return None if self.settings.audit.plain_ids else audit.load_key(self.settings.state_dir)

    def _lock_runtime_directory(self, gid: int | None) -> int:
        path = self.settings.runtime_dir
        fd = files.open_directory(path, mode=0o750, gid=gid)
        self._stack.callback(os.close, fd)
        files.lock_directory(fd, path)
        return fd

    def _make_control_page(self, runtime_fd: int, gid: int | None) -> ControlPage:
        try:
            return replace_control_page(runtime_fd, gid)
        except OSError as exc:
            path = self.settings.runtime_dir
            raise ConfigError(f"{path}: cannot hold a control page: {exc.strerror}") from exc

    def _open_catalog(self, disk_files: DiskFiles, runtime_fd: int) -> Catalog:
        path = self.settings.state_dir
        fd = files.open_directory(path, mode=0o700)
        self._stack.callback(os.close, fd)
        # Two daemons with one catalog would each delete the other's rows: the files are elsewhere.
        files.lock_directory(fd, path)

        loop = asyncio.get_running_loop()

        def on_reset() -> None:
            self._metrics.catalog_resets.inc()
            log.error("catalog_damaged", action="set aside; L2 starts empty")
            # Called in the writer's thread, or in the loop's at the start.
            loop.call_soon_threadsafe(self._after_catalog_loss)

        return Catalog(
            self.settings.state_dir,
            on_reset=on_reset,
            read_time=self._clock.read,
            witnesses=self._witnesses(disk_files, runtime_fd),
            anchors=(disk_files.anchor(),),
        )

    def _witnesses(self, disk_files: DiskFiles, runtime_fd: int) -> list[Witness]:
        try:
            in_runtime = Witness(runtime_fd, WITNESS, knows_one_catalog=False)
            return [disk_files.witness(), in_runtime]
        except OSError as exc:
            names = f"{self.settings.l2.root}/.catalog, {self.settings.runtime_dir}/{WITNESS}"
            raise ConfigError(f"one of {names} cannot be opened: {exc}; remove it") from exc

    def _open_disk(self, disk_files: DiskFiles, catalog: Catalog, runtime: Anchor) -> DiskTier:
        metrics = self._metrics

        def on_leaving(row: Row, cause: Leaving) -> None:
            metrics.disk_removals.inc(cause.value)
            if cause in EVICTIONS:
                self._note_eviction(Tier.DISK, row.meta, cause)

        return DiskTier(
            disk_files,
            catalog,
            self.settings.l2.watermarks(),
            on_leaving=on_leaving,
            on_damage=self._metrics.damaged.inc,
            on_no_room=self._metrics.disk_refused_writes.inc,
            anchors=(runtime,),
            keep_expired_ns=int(self.settings.l2.keep_expired_hours * 3600 * NS_PER_S),
        )

    def _open_memory(self, kinds: Kinds, gid: int | None, control: ControlPage) -> MemoryTier:
        metrics, problems = self._metrics, self._problems
        is_shared = files.hard_links_are_protected()
        if not is_shared:
            log.warning("no_shared_files", reason=UNPROTECTED)
            control.suspend("hard links")

        def on_owing(problem: str | None) -> None:
            if problem is None:
                control.resume(L1_PROBLEM)
                problems.clear(L1_PROBLEM)
            else:
                control.suspend(L1_PROBLEM)
                problems.set(L1_PROBLEM, f"a file cannot be removed: {problem}")

        def on_leaving(entry: MemoryEntry, cause: Leaving) -> None:
            metrics.memory_removals.inc(cause.value)
            if cause in EVICTIONS:
                self._note_eviction(Tier.MEMORY, entry.meta, cause)

        limits = {
            namespace: NamespaceLimits(
                kinds.of(namespace).max_entries, kinds.of(namespace).max_bytes
            )
            for namespace in kinds.namespaces
        }
        return MemoryTier(
            self.settings.runtime_dir / L1_DIRECTORY,
            limits,
            self.settings.l1.max_bytes,
            on_leaving=on_leaving,
            gid=gid,
            allow_heap=self.settings.l1.allow_heap,
            spare_bytes=self.settings.l1.spare_bytes,
            on_owing=on_owing,
            max_files=descriptors.files_of_l1(),
            is_shared=is_shared,
        )

    def _note_eviction(self, tier: Tier, meta: EntryMeta, cause: Leaving) -> None:
        now = self._clock.read()
        age_s = max(0, now.steady_ns - meta.confirmed_ns) / NS_PER_S
        self._metrics.eviction_age_seconds.observe(age_s, tier)
        event = Eviction(now.wall_ns, tier, meta.key, cause, meta.size_bytes, age_s)
        self._events.evictions.append(event)

    def _http_server(
        self, cache: Cache, invalidations: AuditedInvalidations, statistics: Statistics
    ) -> HttpServer:
        settings = self.settings

        history = History(statistics, self._metrics)
        sampling = asyncio.create_task(history.run(self._clock), name="history")
        self._stack.push_async_callback(_end, sampling)
        report = StatusReport(
            cache,
            statistics,
            self._metrics,
            settings,
            self._problems.current,
            self._certificates,
        )
        tls = None
        if settings.http.tls.is_on:
            failures = self._metrics.reload_failures
            tls = ReloadedContext.of(
                settings.http.tls,
                self._certificates,
                lambda: failures.inc("http_tls"),
                lambda: self._metrics.handshake_failures.inc("http"),
            )
        return HttpServer(
            settings.http,
            HttpAccess(settings.http, self._grants, self._clock),
            [
                *HealthRoutes(
                    self._metrics, statistics, self._problems.current, self._certificates.gauges
                ).routes(),
                *OperationRoutes(cache, invalidations).routes(),
                *StatusRoutes(cache, report, history).routes(),
                *PageRoute().routes(),
            ],
            tls=tls,
            deadline_s=settings.grpc.default_deadline_s,
        )

    async def _start_edges(
        self,
        service: CacheService,
        http: HttpServer,
        local: LocalDelivery,
        control: ControlPage,
        gid: int | None,
    ) -> None:
        settings = self.settings
        self._stack.push_async_callback(http.close)
        if settings.http.listen:
            self.http_port = await http.start(settings.http.listen)
        calls = Calls(settings.grpc.default_deadline_s, settings.grpc.stream_stall_s)
        self._metrics.read_calls_from(calls.tally)
        grpc_server = GrpcServer(settings.grpc, service, calls, self._clock)
        workers = callers.socket_group(frozenset(settings.access.socket_roles))
        grpc_server.bind_group_socket(settings.socket_path, gid, callers.always(workers))
        grpc_server.bind_admin_socket(settings.admin_socket_path)
        if settings.grpc.listen:
            failures = self._metrics.reload_failures
            self.grpc_port = grpc_server.bind_tcp(
                settings.grpc.listen,
                self._grants,
                self._certificates,
                lambda: failures.inc("grpc_tls"),
            )
        dates = asyncio.create_task(self._certificates.run(), name="certificates")
        self._stack.push_async_callback(_end, dates)
        await grpc_server.start()
        self._stack.push_async_callback(self._drain, grpc_server, http, local, control)
        if not control.start(settings.runtime_dir / L1_DIRECTORY):
            log.warning(
                "files_not_shared",
                why="the filesystem of runtime_dir does not show readers that a file was removed",
                do="give CACHESVC_RUNTIME_DIR a directory in tmpfs; answers are inline until then",
            )
        await grpc_server.set_serving(serving=True)
        self._problems.clear(PROBLEM)
        readiness = Readiness(self._problems, grpc_server.set_ready)
        telling = asyncio.create_task(readiness.run(), name="readiness")
        self._stack.push_async_callback(_end, telling)
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
        http: HttpServer,
        local: LocalDelivery,
        control: ControlPage,
    ) -> None:
        """Answer the calls under way, then end local hits.

        The control page stays open until then. An invalidation that is acknowledged meanwhile
        has unlinked its files first, so local hits stay fresh; and no successor serves before
        this process has closed the page and released its locks.
        """
        try:
            local.stop_naming_files()
            drain_s = self.settings.grpc.drain_s
            await asyncio.gather(grpc_server.drain(drain_s), http.drain(drain_s))
            await local.until_files_were_opened()
        finally:
            control.retire()

    def _after_catalog_loss(self) -> None:
        if self._cache is not None:
            self._cache.catalog_lost()

    def reloadable_files(self) -> tuple[Reloaded[Any], ...]:
        """Return the objects made of files that may change while the daemon serves."""
        grants = () if self.settings.access.file is None else (self._reloaded_grants,)
        return (*grants, *self._certificates.files)

    async def stop(self, why: str = "") -> None:
        """Drain: not ready, refuse new calls, let calls in flight finish, flush, close."""
        self._problems.set(PROBLEM, "shutting down")
        log.info("draining", signal=why)
        await self._stack.aclose()
        log.info("stopped")


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def make_origin(settings: OriginSettings, max_object_bytes: int) -> S3Origin | DirectoryOrigin:
    """Return the origin that the settings describe, not started yet.

    Only that origin's libraries are loaded: S3's take a third of the start's processor time.
    """
    if settings.kind == "directory":
        from cachesvc.origin.directory import DirectoryOrigin

        assert settings.path is not None
        return DirectoryOrigin(
            Path(settings.path),
            added_latency_s=settings.added_latency_ms / 1000,
            deadline_s=settings.deadline_s,
            max_object_bytes=max_object_bytes,
        )
    from cachesvc.origin.s3 import S3Origin
    from cachesvc.origin.s3_client import S3Settings

    return S3Origin(
        S3Settings(
            bucket=settings.bucket,
            region=settings.region or None,
            endpoint_url=settings.endpoint_url or None,
            deadline_s=settings.deadline_s,
            max_concurrent_reads=settings.max_concurrent_reads,
            max_object_bytes=max_object_bytes,
        )
    )


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        max_entry_bytes=limits.max_entry_bytes,
        max_flights=limits.max_flights,
        max_concurrent_fills=limits.max_concurrent_fills,
        max_concurrent_warmups=limits.max_concurrent_warmups,
        max_warm_keys=limits.max_warm_keys,
        max_concurrent_puts=limits.max_concurrent_puts,
        max_pending_bytes=settings.l2.max_pending_bytes,
        max_decoding_bytes=limits.max_decoding_bytes,
        fill_deadline_s=settings.origin.deadline_s,
        breaker_failures=settings.origin.breaker_failures,
        breaker_open_s=settings.origin.breaker_open_s,
        origin_after_grace_ns=int(settings.origin.origin_after_grace_s * NS_PER_S),
    )


def _gid(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise ConfigError(f"group (CACHESVC_GROUP): no group named {group!r} on this host") from exc
