"""A process whose calls are interrupted by exceptions of a signal's handler, at any moment.

`python -m tests.local.interrupted TARGET WHAT ROUNDS SEED` prints how many calls were interrupted,
how many descriptors the process has more than before, and which. It fails if a later call hangs.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cachesvc_client import CacheClient, CacheServiceError, LocalOptions

USERS = ("u1", "u2")
LONGEST_S = 20.0
CALL_S = 10.0
# A signal arrives so long after its time.
TIMER_S = 50e-6


class Interrupted(Exception):
    """What a timeout's handler raises; KeyboardInterrupt takes the same way."""


def _raise(*_: object) -> None:
    raise Interrupted


@contextmanager
def _hits(target: str) -> Iterator[Callable[[], Any]]:
    with CacheClient(target) as client:
        client.get_human(USERS[0])
        yield lambda: client.get_human(USERS[0])
        _still_works(client)


@contextmanager
def _tryons(target: str) -> Iterator[Callable[[], Any]]:
    with CacheClient(target) as client:
        client.get_tryon(USERS[0], "c1")
        yield lambda: client.get_tryon(USERS[0], "c1")
        _still_works(client)


@contextmanager
def _opens(target: str) -> Iterator[Callable[[], Any]]:
    """Each Get opens a file and drops another."""
    with CacheClient(target, local=LocalOptions(max_entries=1)) as client:
        users = iter(lambda: random.choice(USERS), None)
        yield lambda: client.get_human(next(users))
        _still_works(client)


@contextmanager
def _inline(target: str) -> Iterator[Callable[[], Any]]:
    with CacheClient(target, local=LocalOptions(enabled=False)) as client:
        yield lambda: client.get_human(USERS[0])
        _still_works(client)


@contextmanager
def _streams(target: str) -> Iterator[Callable[[], Any]]:
    with CacheClient(target, local=LocalOptions(enabled=False)) as client:
        yield lambda: client.get("human_upper_body", USERS[0])
        _still_works(client)


@contextmanager
def _puts(target: str) -> Iterator[Callable[[], Any]]:
    with CacheClient(target) as client:
        entry = client.get_human(USERS[0])
        person: dict[str, Any] = {
            name: entry.image(name) for name in ("human_img", "mask", "mask_gray")
        }
        person["pose_tensor"] = entry.numpy()["pose_tensor"]
        yield lambda: client.put_human("interrupted", **person)
        _still_works(client)


@contextmanager
def _clients(target: str) -> Iterator[Callable[[], Any]]:
    """Connect, look, and close: each round has a client of its own."""

    def live() -> None:
        # A call that was interrupted goes on until its deadline, and holds its client.
        with CacheClient(target, timeout_s=CALL_S) as client:
            client.get_human(USERS[0])

    yield live


WHATS = {
    "hits": _hits,
    "tryons": _tryons,
    "opens": _opens,
    "inline": _inline,
    "streams": _streams,
    "puts": _puts,
    "clients": _clients,
}


def _still_works(client: CacheClient) -> None:
    """Fail unless another thread gets an entry: no lock is held."""
    got = []
    thread = threading.Thread(target=lambda: got.append(client.get_human(USERS[1])), daemon=True)
    thread.start()
    thread.join(LONGEST_S)
    if not got:
        faulthandler.dump_traceback(all_threads=True)
    assert got, "a call hangs after the interruptions"
    assert client.get_human(USERS[0]).info.key.id == USERS[0]


def descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
    return found


def _median_s(step: Callable[[], Any]) -> float:
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return sorted(times)[10]


def main() -> None:
    target, what, rounds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    random.seed(seed)
    with WHATS[what](target) as step:  # what gRPC opens once stays open
        step()
    gc.collect()
    before = descriptors()
    signal.signal(signal.SIGALRM, _raise)
    interrupted = 0
    with WHATS[what](target) as step:
        usual_s = _median_s(step)
        longest_s = 1.2 * usual_s + TIMER_S
        for _ in range(rounds):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-6, longest_s))
                step()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
            except CacheServiceError as error:
                # gRPC may turn an exception in its own callbacks into a call's status.
                signal.setitimer(signal.ITIMER_REAL, 0)
                sys.stderr.write(f"{error}\n")
    gc.collect()
    ends = time.monotonic() + LONGEST_S
    while (more := len(descriptors()) - len(before)) > 0 and time.monotonic() < ends:
        time.sleep(0.05)  # gRPC closes its sockets in a thread of its own
        gc.collect()
        gc.collect()  # an interrupted call that went on may have held its client until now
    left = [path for number, path in descriptors().items() if number not in before]
    sys.stdout.write(f"{interrupted} {max(more, 0)} {sorted(left) if more > 0 else []}\n")


if __name__ == "__main__":
    main()
