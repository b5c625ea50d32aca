"""Follows the warm-ups of a batch of try-ons in a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from cachesvc_client._link import Link
from cachesvc_client.answers import WarmProgress, WarmSummary, WarmTally
from cachesvc_client.requests import Call


def follow_all(
    link: Link, calls: Sequence[Call[WarmProgress]], timeout_s: float
) -> Future[WarmSummary]:
    """Begin to follow `calls`, each for at most `timeout_s`, in a daemon thread."""
    future: Future[WarmSummary] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            summary = _summary_of(link, calls, timeout_s)
        except Exception as exc:  # noqa: BLE001 - the future's waiter gets it
            future.set_exception(exc)
        else:
            future.set_result(summary)

    threading.Thread(target=run, name="cachesvc-prefetch", daemon=True).start()
    return future


def _summary_of(link: Link, calls: Sequence[Call[WarmProgress]], timeout_s: float) -> WarmSummary:
    tally = WarmTally()
    # One person after the other: the daemon limits concurrent warm-ups.
    for number, call in enumerate(calls):
        for progress in link.follow(call, timeout_s):
            tally.add(number, progress)
    return tally.summary()
