"""Promises 1, 2 and 5: do accounts, catalog and files agree after any calls in any order?

A hypothesis state machine makes one call after another of the real engine and tiers, and waits
until the work behind each answer has ended. A model knows for each key what a Get may be
served. After each step L1's and L2's accounts equal the sizes of their files, the catalog names
exactly the files that exist, and every limit holds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog.testing
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from cachesvc.core.entry import Row
from cachesvc.core.errors import CacheError, NoSuchObject
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.put import PutHeader
from cachesvc.tiers.disk_files import BLOCK_BYTES, Location, stored_bytes
from tests.simulation.circuit import NEVER
from tests.simulation.history import History
from tests.simulation.parts import KINDS, SHORT, Trouble, blob_of, moments_of
from tests.simulation.scheduler import VirtualLoop
from tests.simulation.world import GRACE_NS, MORE_KEYS, Host, Life, new_origin, owners_of
from tests.support.engine.house import LIMITS

T = TypeVar("T")
ONE_YEAR_NS = 365 * 24 * 3600 * 1_000_000_000
SIZES_BYTES = (SHORT, 2500, 6000)
L1_BYTES = 20_000
L2_BLOCKS = 6
SCOPES = (
    *(key_scope(key) for key in MORE_KEYS),
    subject_scope(Subject.USER, "ann", KINDS),
    subject_scope(Subject.CLOTHING, "coat", KINDS),
    Scope(ScopeKind.OWNER, "bob"),
    Scope(ScopeKind.NAMESPACE, "upper"),
    Scope(ScopeKind.EVERYTHING),
)
a_key = st.sampled_from(MORE_KEYS)


class Model:
    """What a Get of each key may be served: the entry cached last, or one that is read later."""

    def __init__(self) -> None:
        self._cached: dict[EntryKey, tuple[int, str]] = {}

    def keep(self, key: EntryKey, moment: int, owner: str) -> None:
        self._cached[key] = (moment, owner)

    def remove(self, scope: Scope) -> None:
        covered = [key for key, (_, owner) in self._cached.items() if scope.covers(key, owner)]
        for key in covered:
            del self._cached[key]

    def allows(self, key: EntryKey, moment: int, call_began: int) -> bool:
        """Return whether the entry was read during the call or cached last.

        Evictions and expiry need no rule: after them the Get reads the origin.
        """
        return moment > call_began or moment == self._cached.get(key, (0, ""))[0]


class CacheMachine(RuleBasedStateMachine):
    """One host.

    `lost` are rows whose file is gone: it was damaged, or unlinked because the catalog refused
    the write.
    """

    @initialize(seed=st.integers(0, 1 << 30))
    def start(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="cachesvc-test-"))
        self.history, self.model = History(), Model()
        self.origin = new_origin(self.history, self.choose)
        self.origin.sizes_bytes = SIZES_BYTES
        self.host = Host(
            L2_BLOCKS,
            replace(LIMITS, breaker_failures=NEVER, origin_after_grace_ns=GRACE_NS),
            L1_BYTES,
        )
        self.lost: set[Location] = set()
        self.damaged: set[Location] = set()
        self.live(0, 0)
        for key in MORE_KEYS:
            self.upload(key, first_owner=True)

    def live(self, began_ns: int, wall_off_ns: int) -> None:
        loop = VirtualLoop(self.choose, began_ns)
        self.life = Life(self.folder, self.host, self.origin, loop, self.choose, wall_off_ns)

    def teardown(self) -> None:
        if hasattr(self, "life"):
            self.life.kill()
            shutil.rmtree(self.folder)

    def do(self, work: Coroutine[Any, Any, T]) -> T | CacheError:
        """Run one call and the work behind its answer; return the answer or the error."""

        async def to_the_end() -> T | CacheError:
            try:
                answer: T | CacheError = await work
            except CacheError as exc:
                # Otherwise the traceback and this frame keep each other alive, with their blobs.
                answer = exc.with_traceback(None)
            await self.life.settle()
            return answer

        failed_before = self.life.writes.failed
        answer = self.life.loop.run_until_complete(to_the_end())
        if self.life.writes.failed > failed_before:
            self.lost |= self.rows().keys() - self.files()
        return answer

    # ---- calls

    @rule(key=a_key, first_owner=st.booleans(), to_memory=st.booleans())
    def get(self, key: EntryKey, first_owner: bool, to_memory: bool) -> None:
        owner = owners_of(key)[0 if first_owner else -1]
        request = ReadRequest(key, KINDS.of(key.namespace), owner, to_memory=to_memory)
        began = self.history.moment()
        served = self.do(self.life.cache.get(request))
        if isinstance(served, NoSuchObject):
            told = [s for s in self.history.sources.values() if s.is_absent]
            assert any((s.key, s.owner) == (key, owner) for s in told)
        if isinstance(served, CacheError):
            return
        moment = min(moments_of(served.blob.view()))
        assert self.model.allows(key, moment, began), f"{moment} was served"
        self.model.keep(key, moment, served.meta.owner)

    @rule(key=a_key, ttl_s=st.sampled_from([None, 0.5, 1000.0]), size=st.sampled_from(SIZES_BYTES))
    def put(self, key: EntryKey, ttl_s: float | None, size: int) -> None:
        kind, owner, moment = KINDS.of(key.namespace), owners_of(key)[0], self.history.moment()
        header = PutHeader(key, kind, owner, ttl_s=ttl_s)

        async def store() -> None:
            async with self.life.cache.receive_put(header) as upload:
                upload.append(blob_of(kind, moment, size))
                await self.life.cache.store_put(upload)

        answer = self.do(store())
        if not isinstance(answer, CacheError):
            self.model.keep(key, moment, owner)

    @rule(keys=st.lists(a_key, min_size=3, max_size=8), restarts=st.booleans())
    def get_several(self, keys: list[EntryKey], restarts: bool) -> None:
        """Fill both tiers; after a restart L2 alone answers."""
        for key in keys:
            self.get(key, first_owner=True, to_memory=True)
        if restarts:
            self.restart()
            for key in keys:
                self.get(key, first_owner=True, to_memory=True)

    @rule(scope=st.sampled_from(SCOPES))
    def invalidate(self, scope: Scope) -> None:
        answer = self.do(self.life.cache.invalidate(scope))
        assert not isinstance(answer, CacheError)
        self.model.remove(scope)
        rows = self.rows().items()
        assert {at for at, row in rows if scope.covers(at.key, row.meta.owner)} <= self.lost

    # ---- the world

    @rule(key=a_key, first_owner=st.booleans())
    def upload(self, key: EntryKey, first_owner: bool) -> None:
        owner = owners_of(key)[0 if first_owner else -1]
        kind = KINDS.of(key.namespace)
        for member in kind.fields:
            self.origin.upload(kind.object_key(member, key, owner))

    @rule(what=st.sampled_from(["origin", "l2", "catalog"]), fails=st.booleans())
    def something_fails_or_works_again(self, what: str, fails: bool) -> None:
        match what:
            case "origin":
                self.origin.troubles = dict.fromkeys(MORE_KEYS, Trouble.AWAY) if fails else {}
            case "l2":
                self.life.files.is_full = fails
            case "catalog":
                self.life.writes.failing = fails

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 10.0, 1e6]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule(years=st.sampled_from([-1, 1]))
    def somebody_sets_the_clock(self, years: int) -> None:
        self.life.clock.wall_off_ns += years * ONE_YEAR_NS

    @rule(key=a_key)
    def evict_from_l1(self, key: EntryKey) -> None:
        self.life.memory.remove(key, Leaving.BYTES_LIMIT)

    @rule(blocks=st.integers(1, L2_BLOCKS))
    def evict_from_l2(self, blocks: int) -> None:
        self.do(self.life.disk.evict(blocks * BLOCK_BYTES))

    @rule()
    def upkeep(self) -> None:
        self.do(self.life.cache.upkeep.memory_step())
        self.do(self.life.cache.upkeep.disk_step())

    @rule(how=st.sampled_from(["flip", "cut", "remove"]), which=st.integers(0, 100))
    def damage(self, how: str, which: int) -> None:
        files = sorted(self.files())
        if not files:
            return
        at = files[which % len(files)]
        path = self.path_of(at)
        data = bytearray(path.read_bytes())
        if how == "remove":
            path.unlink()
            path.parent.rmdir()
            self.lost.add(at)
        else:
            self.damaged.add(at)
            data[which % len(data)] ^= how == "flip"
            path.write_bytes(data[: len(data) // 2] if how == "cut" else data)
        self.evict_from_l1(at.key)
        self.get(at.key, first_owner=True, to_memory=True)

    @rule()
    def restart(self) -> None:
        began_ns, wall_off_ns = self.life.loop.now_ns, self.life.clock.wall_off_ns
        self.life.kill()
        self.live(began_ns, wall_off_ns)
        self.do(self.life.sweep_litter())

    # ---- what must hold

    def rows(self) -> dict[Location, Row]:
        found = self.life.catalog.hottest(1000)
        return {Location(row.meta.key, row.meta.generation): row for row in found}

    def files(self) -> set[Location]:
        return self.life.l2_files()

    def path_of(self, at: Location) -> Path:
        folder = self.folder / "l2" / at.key.namespace / at.key.id
        return folder / f"{at.generation}.safetensors"

    @invariant()
    def l1_accounts_for_its_files(self) -> None:
        if not hasattr(self, "life"):
            return
        memory = self.life.memory
        # Upkeep does this twice a second. No answer is under way, so none holds a file.
        memory.spares.finish()
        memory.departures.step(self.life.state.clock.read().steady_ns)
        if memory.held_bytes:
            # An error and a frame that awaited it keep each other, and the frames of the last
            # answers, alive until the garbage collector runs.
            gc.collect()
            memory.departures.step(self.life.state.clock.read().steady_ns)
        sizes = {name: os.stat(self.folder / "l1" / name).st_size for name in self.l1_names()}
        assert sizes == {entry.blob.name: entry.size_bytes for entry in memory.index}
        assert memory.index.used_bytes == sum(sizes.values())
        assert memory.index.used_bytes + memory.held_bytes <= L1_BYTES
        for namespace, usage in memory.index.usage.items():
            assert usage.entries <= KINDS.of(namespace).max_entries

    def l1_names(self) -> list[str]:
        return os.listdir(self.folder / "l1")

    @invariant()
    def l2_accounts_for_its_files(self) -> None:
        if not hasattr(self, "life"):
            return
        rows, files = self.rows(), self.files()
        assert files <= rows.keys()
        assert rows.keys() - files <= self.lost
        sizes = {at: row.meta.size_bytes for at, row in rows.items()}
        for at in files - self.damaged:
            assert self.path_of(at).stat().st_size == sizes[at]
        assert self.life.disk.room.used_bytes == sum(stored_bytes(size) for size in sizes.values())
        assert self.life.disk.room.used_bytes <= L2_BLOCKS * BLOCK_BYTES
        assert os.listdir(self.folder / "l2" / ".tmp") == []

    @invariant()
    def nothing_is_left_of_what_has_ended(self) -> None:
        if hasattr(self, "life"):
            assert self.life.held_counts() == {}


EVERY_CHECK = list(HealthCheck)


def run_quietly(examples: int, steps: int, **more: Any) -> None:
    """Run so many examples, without the log lines about faults that the test causes."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=EVERY_CHECK,
        **more,
    )
    with structlog.testing.capture_logs():
        run_machine(CacheMachine, settings=chosen)


@pytest.mark.timeout(180)
def test_accounts_catalog_and_files_agree_after_every_step() -> None:
    run_quietly(40, 40, derandomize=True, phases=[Phase.generate])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_accounts_catalog_and_files_agree_after_fifty_thousand_steps() -> None:
    run_quietly(1000, 50)
    print("1,000 examples of up to 50 steps: accounts, catalog and files agreed")  # noqa: T201
