"""Fetches entries ahead of their use, within bounds, whether or not the caller stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cachesvc.core.errors import CacheError, InvalidRequest, Overloaded
from cachesvc.core.keys import EntryKey
from cachesvc.engine.get import Getter, ReadRequest
from cachesvc.engine.state import State

# Live misses have the other fill slots to themselves.
CONCURRENT_KEYS = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """`failed` is the key that has just failed, with its reason; None if none has."""

    done: int
    total: int
    failed: tuple[EntryKey, str] | None = None


class Warmer:
    """Runs warm-ups in tasks of their own."""

    def __init__(self, state: State, getter: Getter) -> None:
        self._state = state
        self._getter = getter
        self._running = 0

    def warm(self, requests: list[ReadRequest]) -> AsyncIterator[Progress]:
        """Start fetching, and return the progress to watch. A caller that leaves stops nothing.

        Raises:
            InvalidRequest: more keys than limits.max_warm_keys.
            Overloaded: too many warm-ups are running.
        """
        limits = self._state.limits
        if len(requests) > limits.max_warm_keys:
            raise InvalidRequest(
                f"a warm-up may name {limits.max_warm_keys} keys (limits.max_warm_keys)",
                reason="TOO_MANY_KEYS",
            )
        if self._running >= limits.max_concurrent_warmups:
            raise Overloaded("too many warm-ups are running", reason="TOO_MANY_WARMUPS")
        self._running += 1
        # Bounded by the number of keys.
        progress: asyncio.Queue[Progress] = asyncio.Queue()
        self._state.spawn(self._run(self._share(requests), progress), name="warm")
        return _watch(progress)

    def _share(self, requests: list[ReadRequest]) -> list[ReadRequest]:
        """Take at most half of each L1 namespace; the rest of the entries go to L2 only."""
        taken: Counter[str] = Counter()
        shared = []
        for request in requests:
            taken[request.key.namespace] += 1
            half = max(1, request.kind.max_entries // 2)
            to_memory = taken[request.key.namespace] <= half
            shared.append(
                ReadRequest(request.key, request.kind, request.owner, to_memory=to_memory)
            )
        return shared

    async def _run(self, requests: list[ReadRequest], progress: asyncio.Queue[Progress]) -> None:
        slots = asyncio.Semaphore(CONCURRENT_KEYS)
        done = 0

        async def fetch(request: ReadRequest) -> None:
            nonlocal done
            failed = None
            async with slots:
                try:
                    await self._getter.get(request)
                except CacheError as exc:
                    failed = (request.key, exc.reason)
            done += 1
            if done == len(requests):
                # Before the last progress: its reader may begin another warm-up.
                self._running -= 1
            progress.put_nowait(Progress(done, len(requests), failed))

        progress.put_nowait(Progress(0, len(requests)))
        try:
            await asyncio.gather(*(fetch(request) for request in requests))
        finally:
            if done < len(requests):
                self._running -= 1


async def _watch(progress: asyncio.Queue[Progress]) -> AsyncIterator[Progress]:
    while True:
        step = await progress.get()
        yield step
        if step.done == step.total:
            return
