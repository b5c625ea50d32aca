"""Logs each invalidation and purge: who, what, when, and how it ended.

gRPC and HTTP both invalidate through this module, so that no invalidation lacks its line. The
logger is `audit`. Ids are written as a keyed hash: an id has the same hash in every line of this
installation, and only a holder of the key can test ids against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from cachesvc.core import durable
from cachesvc.core.access import Action, Principal, action_of
from cachesvc.core.errors import CacheError, ConfigError, Draining
from cachesvc.core.pseudonyms import KEY_BYTES, Pseudonyms
from cachesvc.core.scopes import Scope, ScopeKind
from cachesvc.edge import messages
from cachesvc.engine.cache import Cache
from cachesvc.engine.invalidate import Invalidated

KEY_FILE = "audit.key"
_EVENTS = {Action.INVALIDATE: "invalidated", Action.PURGE: "purged"}
# A namespace's name is no secret.
_PLAIN = frozenset({ScopeKind.NAMESPACE, ScopeKind.EVERYTHING})

# Independent of `log_level`: every invalidation is logged.
_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("info"))


class AuditedInvalidations:
    """The engine's invalidations, with a log line for each. `key` None = ids in the clear."""

    def __init__(self, cache: Cache, key: bytes | None) -> None:
        self._cache = cache
        self._pseudonyms = None if key is None else Pseudonyms(key)

    async def invalidate(
        self,
        caller: Principal,
        scope: Scope,
        changed_at_ns: int | None = None,
        *,
        erase: bool = False,
    ) -> Invalidated:
        """Invalidate what `scope` covers, for `caller`.

        Raises:
            PermissionDenied: none of its roles allows this scope.
            NotDurable: when `Cache.invalidate` does.
        """
        action = action_of(scope.kind)
        caller.check(action)
        line = _log.bind(
            logger="audit",
            who=caller.name,
            scope=scope.kind.value,
            what=self._shown(scope),
            changed_at=None if changed_at_ns is None else messages.moment(changed_at_ns),
            erase=erase,
        )
        invalidating = self._cache.invalidate(scope, changed_at_ns, erase=erase)
        # In its own task: a caller that leaves stops neither the invalidation nor its line.
        return await self._cache.outliving_its_caller(
            _with_line(invalidating, line, _EVENTS[action]), name="audited-invalidation"
        )

    def _shown(self, scope: Scope) -> str:
        if self._pseudonyms is None or scope.kind in _PLAIN:
            return scope.value
        if scope.kind is ScopeKind.KEY:
            namespace, _, entry_id = scope.value.partition("/")
            return f"{namespace}/{self._pseudonyms.of(entry_id)}"
        return self._pseudonyms.of(scope.value)


async def _with_line(
    invalidating: Coroutine[Any, Any, Invalidated], line: Any, event: str
) -> Invalidated:
    """Await the invalidation and log its outcome, also if it fails."""
    try:
        done = await invalidating
    except BaseException as exc:
        line.warning(event, outcome=_outcome(exc), removed=0)
        raise
    at = messages.moment(done.at.wall_ns)
    line.info(event, outcome="ok", removed=done.removed_count, at=at)
    return done


def _outcome(failure: BaseException) -> str:
    if isinstance(failure, CacheError):
        return failure.reason
    # No caller can cancel this task; only the end of a drain does.
    is_cancelled = isinstance(failure, asyncio.CancelledError)
    return Draining.default_reason if is_cancelled else CacheError.default_reason


def load_key(state_dir: Path) -> bytes:
    """Return this installation's key, made by the first start.

    Raises:
        ConfigError: the file cannot be read or written, or has the wrong size.
    """
    path = state_dir / KEY_FILE
    try:
        try:
            key = _read(path)
        except FileNotFoundError:
            key = secrets.token_bytes(KEY_BYTES)
            _write_new(path, key)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; the daemon keeps its audit key there") from exc
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path}: does not have {KEY_BYTES} bytes; remove it, and a start makes a new key"
        )
    return key


def _read(path: Path) -> bytes:
    # Do not follow a link, and do not wait for a FIFO.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, KEY_BYTES + 1)
    finally:
        os.close(fd)


def _write_new(path: Path, key: bytes) -> None:
    """Write the whole key or nothing: a crash must not leave half a key."""
    directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"{path.stem}.tmp"
    try:
        with contextlib.suppress(FileNotFoundError):  # of a start that died
            os.unlink(name, dir_fd=directory_fd)
        with durable.new_file(directory_fd, name, 0o600) as fd:
            durable.write(fd, key)
            durable.move(name, directory_fd, path.name, directory_fd)
    finally:
        os.close(directory_fd)
