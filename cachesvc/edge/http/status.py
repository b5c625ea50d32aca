"""The state of the cache as JSON, for the status page and for people, without entries' bytes.

Sizes are bytes, spans seconds, moments RFC 3339. docs/http.md has every key.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from cachesvc.core.access import Action, Principal
from cachesvc.core.clock import NS_PER_S, Now
from cachesvc.core.entry import Row
from cachesvc.core.events import Eviction, Invalidation
from cachesvc.core.scopes import ScopeKind
from cachesvc.core.tier import Tier
from cachesvc.edge import messages
from cachesvc.edge.http.history import History
from cachesvc.edge.http.routes import Route
from cachesvc.edge.http.status_report import StatusReport
from cachesvc.engine.cache import Cache
from cachesvc.tiers.memory import MemoryEntry
from cachesvc_proto.v1 import cache_pb2 as pb


class StatusRoutes:
    """Reads only."""

    def __init__(self, cache: Cache, report: StatusReport, history: History) -> None:
        self._cache = cache
        self._report = report
        self._history = history
        self._read = messages.RequestReader(cache.kinds)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/status", Action.OBSERVE, self._status),
            Route("GET", "/api/history", Action.OBSERVE, self._recent_history),
            Route("GET", "/api/events", Action.OBSERVE, self._events),
            Route("GET", "/api/key/{namespace}/{id}", Action.FIND, self._key),
        ]

    async def _status(self, _: web.Request, caller: Principal) -> web.Response:
        return web.json_response({**await self._report.json(), "caller": _caller(caller)})

    async def _recent_history(self, _: web.Request, _caller: Principal) -> web.Response:
        return web.json_response(self._history.json())

    async def _events(self, _: web.Request, caller: Principal) -> web.Response:
        events = self._cache.events
        names_ids = caller.may(Action.FIND)
        return web.json_response(
            {
                "evictions": [_eviction(e, names_ids) for e in reversed(events.evictions)],
                "invalidations": [
                    _invalidation(i, names_ids) for i in reversed(events.invalidations)
                ],
            }
        )

    async def _key(self, request: web.Request, _: Principal) -> web.Response:
        parts = request.match_info
        key = self._read.key(pb.EntryKey(namespace=parts["namespace"], id=parts["id"]))
        found = await self._cache.inspect(key)
        now = self._cache.clock.read()
        held = {Tier.MEMORY: found.memory, Tier.DISK: found.disk}
        return web.json_response(
            {
                "namespace": key.namespace,
                "id": key.id,
                "kind": self._cache.kinds.of(key.namespace).name,
                "filling": found.is_filling,
                "tiers": [
                    {"tier": tier, **_copy(entry, now)}
                    for tier, entry in held.items()
                    if entry is not None
                ],
            }
        )


def _caller(caller: Principal) -> dict[str, Any]:
    """Return the caller and its rights, so that a page offers nothing else."""
    return {
        "name": caller.name,
        "roles": sorted(role.value for role in caller.roles),
        "may": [action.value for action in Action if caller.may(action)],
    }


def _copy(held: MemoryEntry | Row, now: Now) -> dict[str, Any]:
    meta = held.meta
    return {
        "owner_id": meta.owner,
        "size_bytes": meta.size_bytes,
        "generation": str(meta.generation),  # more digits than a JavaScript number keeps
        "kind_version": meta.kind_version,
        "filled_at": messages.moment(meta.begun_ns),
        "origin_time": messages.moment(meta.origin_ns),
        "age_s": _span_s(now.steady_ns - meta.confirmed_ns),
        "expires_in_s": _span_s(held.expires_ns - now.steady_ns),
        "accesses": held.accesses,
    }


def _eviction(event: Eviction, names_ids: bool) -> dict[str, Any]:
    return {
        "at": messages.moment(event.wall_ns),
        "tier": event.tier,
        "namespace": event.key.namespace,
        "id": event.key.id if names_ids else None,
        "reason": event.cause.value,
        "size_bytes": event.size_bytes,
        "age_s": round(event.age_s, 3),
    }


def _invalidation(event: Invalidation, names_ids: bool) -> dict[str, Any]:
    scope = event.scope
    is_public = names_ids or scope.kind is ScopeKind.NAMESPACE
    return {
        "at": messages.moment(event.wall_ns),
        "scope": scope.kind.value,
        "target": scope.value if is_public else None,
        "removed_count": event.removed_count,
    }


def _span_s(span_ns: int) -> float:
    return round(max(0, span_ns) / NS_PER_S, 3)
