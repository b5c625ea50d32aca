"""The daemon's side of local delivery: files' names, and hits without a call.

The protocol and why it is coherent: docs/local-delivery.md.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from cachesvc import __version__
from cachesvc.core.clock import NS_PER_S, Now
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.keys import EntryKey
from cachesvc.edge import messages
from cachesvc.engine.cache import Cache
from cachesvc.engine.flight import Served
from cachesvc_format.control_page import L1_DIRECTORY
from cachesvc_proto.v1 import cache_pb2 as pb

log = structlog.get_logger()
T = TypeVar("T")
# A worker reports once a second the hits of its kept entries, 256 by default.
MAX_REPORTED_KEYS = 1000
# Counting a key takes up to 30 us, and hits wait meanwhile.
REPORTED_AT_ONCE = 50
# A caller may send any version, and any number of versions.
MAX_LOGGED_VERSIONS = 16
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")
# A worker opens a named file in well under a millisecond. On a busy host its thread may have to
# wait for a processor first.
OPENED_WITHIN_NS = NS_PER_S
# A worker reports once a second. Its counts are added to counters of 63 and 64 bits.
MAX_REPORTED_HITS = (1 << 31) - 1


class LocalDelivery:
    """Answers for callers on this host. `may_share` says whether they can use a file."""

    def __init__(
        self, cache: Cache, runtime_dir: Path, boot_id: bytes, may_share: Callable[[], bool]
    ) -> None:
        self._cache = cache
        self._may_share = may_share
        self._runtime_dir = runtime_dir
        self._boot_id = boot_id
        self._grace = messages.duration(cache.limits.origin_after_grace_ns)
        self._read = messages.RequestReader(cache.kinds)
        self._versions: set[str] = set()
        self._names_files = True
        self._last_named_ns = -OPENED_WITHIN_NS

    def attach(self, request: pb.AttachRequest) -> pb.AttachResponse:
        self._log_once(request.client_version)
        return pb.AttachResponse(
            runtime_dir=str(self._runtime_dir), boot_id=self._boot_id, version=__version__
        )

    def _log_once(self, version: str) -> None:
        if version in self._versions or len(self._versions) == MAX_LOGGED_VERSIONS:
            return
        if _VERSION.fullmatch(version):
            self._versions.add(version)
            log.info("client_attached", client_version=version)

    def describe(self, served: Served, entry: pb.Entry, now: Now) -> None:
        """Name the file of `served` in `entry`, if it has one."""
        entry.boot_id = self._boot_id
        if served.blob.shared_name is not None and self._names_files and self._may_share():
            self._last_named_ns = now.steady_ns
            left_ns = served.expires_ns - now.steady_ns
            file = pb.SharedFile(
                name=f"{L1_DIRECTORY}/{served.blob.shared_name}",
                expires_in=messages.duration(left_ns),
                origin_grace=self._grace,
            )
            entry.file.CopyFrom(file)

    def stop_naming_files(self) -> None:
        """Send every answer inline from now on: the control page is about to close.

        A is a caller, D the daemon.

            A: Get | D: SIGTERM, closes the page | D: names a file | A: finds the page closed,
            asks again, inline | D: refuses new calls
        """
        self._names_files = False

    async def until_files_were_opened(self) -> None:
        """Return once callers had the time to open the files that were named last."""
        assert not self._names_files
        opened_by_ns = self._last_named_ns + OPENED_WITHIN_NS
        left_ns = opened_by_ns - self._cache.clock.read().steady_ns
        if left_ns > 0:
            await asyncio.sleep(left_ns / NS_PER_S)

    async def report(self, request: pb.ReportHitsRequest) -> pb.ReportHitsResponse:
        """Count a worker's local hits. Raises InvalidRequest, and then counts none of them."""
        if len(request.hits) > MAX_REPORTED_KEYS:
            raise InvalidRequest(
                f"report at most {MAX_REPORTED_KEYS} keys in one call", reason="TOO_MANY_KEYS"
            )
        if any(hit.count > MAX_REPORTED_HITS for hit in request.hits):
            raise InvalidRequest(
                f"report at most {MAX_REPORTED_HITS} hits of a key", reason="INVALID_COUNT"
            )
        hits: list[tuple[EntryKey, int, int]] = []
        for some in _slices(request.hits):
            hits += [(self._read.key(hit.key), hit.generation, hit.count) for hit in some]
            await asyncio.sleep(0)
        counted = 0
        for few in _slices(hits):
            counted += sum(self._cache.count_local_hits(*hit) for hit in few)
            await asyncio.sleep(0)
        return pb.ReportHitsResponse(counted=counted)


def _slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `values` in slices, between which the caller lets other tasks run."""
    for at in range(0, len(values), REPORTED_AT_ONCE):
        yield values[at : at + REPORTED_AT_ONCE]
