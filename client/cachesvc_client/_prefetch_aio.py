"""Follows the warm-ups of a batch of try-ons in a task."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cachesvc_client._link_aio import AsyncLink
from cachesvc_client._warming_aio import begin
from cachesvc_client.answers import WarmProgress, WarmSummary, WarmTally
from cachesvc_client.requests import Call


def follow_all(
    link: AsyncLink, calls: Sequence[Call[WarmProgress]], timeout_s: float
) -> asyncio.Task[WarmSummary]:
    """Begin to follow `calls`, each for at most `timeout_s`, in a task of the running loop."""
    return begin(_summary_of(link, calls, timeout_s), "cachesvc-prefetch")


async def _summary_of(
    link: AsyncLink, calls: Sequence[Call[WarmProgress]], timeout_s: float
) -> WarmSummary:
    tally = WarmTally()
    # One person after the other: the daemon limits concurrent warm-ups.
    for number, call in enumerate(calls):
        async for progress in link.follow(call, timeout_s):
            tally.add(number, progress)
    return tally.summary()
