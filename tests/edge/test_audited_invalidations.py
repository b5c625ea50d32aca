"""Does an invalidation have its audit line however it ends, whoever still waits for it?

Promise 10.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from cachesvc.core.access import Principal, Role
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import PermissionDenied
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.grpc.callers import ADMIN_SOCKET
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "user1")
EVERYTHING = Scope(ScopeKind.EVERYTHING)
# The last nanosecond that a Timestamp can express.
END_OF_TIME_NS = 253_402_300_800 * NS_PER_S - 1


def audited(logs: list[Any]) -> list[tuple[str, str, int]]:
    lines = [line for line in logs if line.get("logger") == "audit"]
    return [(line["event"], line["outcome"], line["removed"]) for line in lines]


async def begun_and_left(house: EngineHouse) -> None:
    """Begin to invalidate everything; the caller leaves while the unlink is held."""
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    unlinking = house.gates.stop("l2_unlink")
    invalidations = AuditedInvalidations(house.cache, None)
    caller = asyncio.create_task(invalidations.invalidate(ADMIN_SOCKET, EVERYTHING, erase=True))
    await unlinking.reached()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_an_invalidation_whose_caller_left_has_its_line(house: EngineHouse) -> None:
    with structlog.testing.capture_logs() as logs:
        await begun_and_left(house)
        house.gates.release_all()
        await house.settle()
    assert audited(logs) == [("purged", "ok", 1)]


async def test_an_invalidation_that_a_drain_cuts_short_has_its_line(house: EngineHouse) -> None:
    with structlog.testing.capture_logs() as logs:
        await begun_and_left(house)
        await house.cache.drain(deadline_s=0)
    assert audited(logs) == [("purged", "DRAINING", 0)]


async def test_a_change_at_the_end_of_time_removes_what_it_names(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    invalidations = AuditedInvalidations(house.cache, None)
    with structlog.testing.capture_logs() as logs:
        done = await invalidations.invalidate(ADMIN_SOCKET, key_scope(PERSON), END_OF_TIME_NS)
    assert done.removed_count == 1
    assert audited(logs) == [("invalidated", "ok", 1)]
    assert logs[-1]["changed_at"] == "9999-12-31T23:59:59.999999999Z"


async def test_who_may_not_remove_removes_nothing(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    invalidations = AuditedInvalidations(house.cache, None)
    with pytest.raises(PermissionDenied):
        await invalidations.invalidate(Principal("w", frozenset({Role.WORKER})), EVERYTHING)
    assert (await house.get(PERSON)).tier == "memory"
