"""Who removed what, when, and how did it end? One line for each invalidation and purge.

Every edge removes through here, so that nothing is removed without its line. The
logger is `audit`. Ids are written as a keyed hash: the same id has the same word in
every line of this installation, and nobody without the key can try ids against it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import structlog

from cachesvc.core.access import Action, Principal, action_of
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import CacheError, ConfigError
from cachesvc.core.scopes import Scope, ScopeKind
from cachesvc.engine.cache import Cache
from cachesvc.engine.removals import Invalidated

KEY_FILE = "audit.key"
_KEY_BYTES = 32
_HASH_BYTES = 8
_EVENTS = {Action.INVALIDATE: "invalidated", Action.PURGE: "purged"}
# What a namespace is called is nobody's secret.
_PLAIN = frozenset({ScopeKind.NAMESPACE, ScopeKind.EVERYTHING})

# Whatever `log_level` is: what was removed is always said.
_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("info"))


class AuditedRemovals:
    """The engine's invalidations, with a line for each. `key` None = ids in the clear."""

    def __init__(self, cache: Cache, key: bytes | None) -> None:
        self._cache = cache
        self._key = key

    async def invalidate(
        self,
        caller: Principal,
        scope: Scope,
        changed_at_ns: int | None = None,
        *,
        erase: bool = False,
    ) -> Invalidated:
        """Remove what `scope` covers, for `caller`.

        Raises:
            PermissionDenied: none of its roles allows this scope.
            NotDurable: as the engine's.
        """
        action = action_of(scope.kind)
        line = _log.bind(
            logger="audit",
            who=caller.name,
            scope=scope.kind.value,
            what=self._shown(scope),
            changed_at=_iso(changed_at_ns),
            erase=erase,
        )
        try:
            caller.check(action)
            done = await self._cache.invalidate(scope, changed_at_ns, erase=erase)
        except CacheError as exc:
            line.warning(_EVENTS[action], outcome=exc.reason, removed=0)
            raise
        line.info(
            _EVENTS[action], outcome="ok", removed=done.removed_count, at=_iso(done.at.wall_ns)
        )
        return done

    def _shown(self, scope: Scope) -> str:
        if self._key is None or scope.kind in _PLAIN:
            return scope.value
        if scope.kind is ScopeKind.KEY:
            namespace, _, entry_id = scope.value.partition("/")
            return f"{namespace}/{self._hashed(entry_id)}"
        return self._hashed(scope.value)

    def _hashed(self, value: str) -> str:
        assert self._key is not None
        return hashlib.blake2b(value.encode(), key=self._key, digest_size=_HASH_BYTES).hexdigest()


def load_key(state_dir: Path) -> bytes:
    """Return this installation's key, made by the first start.

    Raises:
        ConfigError: it cannot be read or written.
    """
    path = state_dir / KEY_FILE
    try:
        try:
            key = _read(path)
        except FileNotFoundError:
            key = secrets.token_bytes(_KEY_BYTES)
            _write_new(path, key)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; it belongs to state_dir") from exc
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{path}: not a key of {_KEY_BYTES} bytes; remove it for a new one")
    return key


def _read(path: Path) -> bytes:
    # A link is not followed, and a FIFO not waited for.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, _KEY_BYTES + 1)
    finally:
        os.close(fd)


def _write_new(path: Path, key: bytes) -> None:
    """Write it whole or not at all: a crash in between must not leave half a key."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _iso(wall_ns: int | None) -> str | None:
    if wall_ns is None:
        return None
    return datetime.fromtimestamp(wall_ns / NS_PER_S, UTC).isoformat()
