"""What workers do: each function runs in a worker's process, with the worker's `Held`."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import mmap
import os
import random
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from cachesvc_client import (
    CacheClient,
    CacheServiceError,
    CacheUnavailable,
    LocalOptions,
    NotCached,
    PreconditionFailed,
)
from cachesvc_client import _kept as kept_module
from tests.local.board import Board
from tests.local.versioned import oldest_version_of, version_of, words_of
from tests.local.workers import Held

_POLL_S = 0.01

# ---- one Get


def get(held: Held, name: str, clothing_id: str) -> int:
    """Get a text, keep the entry under `name`, and return its version."""
    held.entries[name] = held.client.get_text(clothing_id)
    return version_of(held.entries[name])


def get_and_drop(held: Held, clothing_id: str) -> int:
    """Get a text and return its version."""
    return version_of(held.client.get_text(clothing_id))


def get_all(held: Held, clothing_ids: Sequence[str]) -> list[int]:
    return [get_and_drop(held, clothing_id) for clothing_id in clothing_ids]


def try_get(held: Held, clothing_id: str) -> str:
    """Get a text; return `served`, or the name of the error's class."""
    try:
        get_and_drop(held, clothing_id)
    except CacheServiceError as exc:
        return type(exc).__name__
    return "served"


def hit_times(held: Held, clothing_id: str, count: int) -> None:
    for _ in range(count):
        held.client.get_text(clothing_id)


# ---- kept entries


def drop(held: Held, *names: str) -> None:
    for name in names:
        del held.entries[name]


def version(held: Held, name: str) -> int:
    return version_of(held.entries[name])


def digest(held: Held, name: str) -> str:
    """Return a digest of the bytes of the entry under `name`."""
    return hashlib.sha256(held.entries[name].blob).hexdigest()


def is_mapped(held: Held, name: str) -> bool:
    """Return whether the entry came as a shared file, not inline."""
    return isinstance(held.entries[name].blob.obj, mmap.mmap)


def is_current(held: Held, name: str) -> bool:
    return held.entries[name].is_current()


def transport(held: Held) -> str:
    return held.client.transport


def write_word(held: Held, name: str, at: int, value: int) -> None:
    words_of(held.entries[name])[at] = value


def words(held: Held, name: str, at: Sequence[int]) -> list[int]:
    found = words_of(held.entries[name])
    return [int(found[index]) for index in at]


def word_count(held: Held, name: str) -> int:
    return len(words_of(held.entries[name]))


# ---- until a Get fails


@dataclass
class Ended:
    """`last_started_s` (monotonic) is when the last Get that was served had started."""

    served: int
    last_started_s: float
    error: str
    versions: set[int]


def get_until_it_fails(held: Held, clothing_id: str, flag: str) -> Ended:
    """Get the same text without a pause; the file `flag` is made after the first Get."""
    served, last_started_s, versions = 0, 0.0, set[int]()
    while True:
        started_s = time.monotonic()
        try:
            versions.add(version_of(held.client.get_text(clothing_id)))
        except CacheServiceError as exc:
            return Ended(served, last_started_s, type(exc).__name__, versions)
        served, last_started_s = served + 1, started_s
        if served == 1:
            Path(flag).touch()


def get_until_served(held: Held, clothing_id: str) -> float:
    """Get until a Get is served; return when that was (monotonic, s)."""
    while True:
        try:
            version_of(held.client.get_text(clothing_id))
        except CacheServiceError:
            time.sleep(_POLL_S)
        else:
            return time.monotonic()


@dataclass
class Spun:
    """What one reader of a coherence run saw. The content of all `gets` was checked."""

    gets: int = 0
    absent: int = 0
    stale: list[tuple[str, int, int]] = field(default_factory=list)

    def add(self, other: Spun) -> None:
        self.gets += other.gets
        self.absent += other.absent
        self.stale += other.stale


def spin(
    held: Held, board_path: str, clothing_ids: Sequence[str], *, reader: int, owner_id: str = ""
) -> Spun:
    """Get until the board ends; compare each version with the floor read before the Get.

    With an owner, the entries come from the origin, whose objects may change during a fill.
    """
    look = oldest_version_of if owner_id else version_of
    board, seen, choose = Board(Path(board_path)), Spun(), random.Random(reader)
    numbers = range(len(clothing_ids))
    while not board.is_over:
        key = choose.choice(numbers)
        floor = board.floor(key)
        try:
            entry = held.client.get_text(clothing_ids[key], owner_id)
        except (NotCached, PreconditionFailed):
            seen.absent += 1
            continue
        except CacheUnavailable:
            continue
        found = look(entry)
        seen.gets += 1
        board.count(reader, seen.gets)
        if found < floor:
            seen.stale.append((clothing_ids[key], found, floor))
    return seen


def spin_together(
    held: Held,
    board_path: str,
    clothing_ids: Sequence[str],
    owner_id: str,
    *,
    reader: int,
    clients: int,
    target: str,
    local: bool,
) -> Spun:
    """As `spin`, with many clients in threads of one process, for entries that come and go.

    `absent` counts the Gets that failed, because the entry was invalidated again and again, or the
    Get refused.
    """
    board = Board(Path(board_path))
    seen = [Spun() for _ in range(clients)]

    def work(number: int) -> None:
        choose, mine = random.Random(reader * clients + number), seen[number]
        with CacheClient(target, local=LocalOptions(enabled=local)) as client:
            while not board.is_over:
                key = choose.randrange(len(clothing_ids))
                floor = board.floor(key)
                try:
                    found = version_of(client.get_text(clothing_ids[key], owner_id))
                except CacheServiceError:
                    mine.absent += 1
                    continue
                mine.gets += 1
                board.count(reader * clients + number, mine.gets)
                if found < floor:
                    mine.stale.append((clothing_ids[key], found, floor))

    with ThreadPoolExecutor(clients) as pool:
        for ended in [pool.submit(work, number) for number in range(clients)]:
            ended.result()
    together = Spun()
    for one in seen:
        together.add(one)
    return together


def read_on(held: Held, board_path: str, clothing_ids: Sequence[str], *, reader: int) -> Spun:
    """As `spin`, for entries that may be erased under the reader, which keeps each key's last
    entry.

    A word of zero was erased. The reader reads its kept entries to the end, again and again.
    """
    board, seen, choose = Board(Path(board_path)), Spun(), random.Random(reader)
    while not board.is_over:
        clothing_id = choose.choice(clothing_ids)
        floor = board.floor(clothing_ids.index(clothing_id))
        try:
            held.entries[clothing_id] = held.client.get_text(clothing_id)
        except CacheServiceError:
            seen.absent += 1
            continue
        found = words_of(held.entries[clothing_id])
        oldest = int(found[found != 0].min(initial=floor))
        seen.gets += 1
        board.count(reader, seen.gets)
        if oldest < floor:
            seen.stale.append((clothing_id, oldest, floor))
        for entry in held.entries.values():
            words_of(entry).sum()
    return seen


def forget_the_link_count(held: Held) -> None:
    """Break this process's client: it believes that every kept file still has a name."""
    kept_module.os = SimpleNamespace(  # type: ignore[assignment,attr-defined]
        fstat=lambda _: SimpleNamespace(st_nlink=1), close=os.close
    )


# ---- the worker's process


def descriptors_below(held: Held, directory: str) -> int:
    """Return how many open descriptors are files below `directory`, deleted ones included."""
    return sum(target.startswith(f"{directory}/") for target in _descriptors())


def use_up_descriptors(held: Held, left: int) -> None:
    """Use up descriptors until only `left` are free."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + left, hard))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(2))
    for fd in taken[len(taken) - left :]:
        os.close(fd)


def set_wall_clock_off(held: Held, by_s: float) -> None:
    """Shift the client's wall clock."""
    offset_ns, real = int(by_s * 1e9), time.time_ns
    time.time_ns = lambda: real() + offset_ns


def imported(held: Held, module: str) -> bool:
    return module in sys.modules


def fork_and_get(held: Held, clothing_id: str, directory: str) -> tuple[int, int, str, int]:
    """Fork; return what the child reports: inherited descriptors, version, transport, exit code."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            inherited = sum(target.startswith(directory) for target in _descriptors())
            found = get_and_drop(held, clothing_id)
            os.write(writing, f"{inherited} {found} {held.client.transport}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        descriptors, version, how = said.read().split(maxsplit=2)
    _, status = os.waitpid(pid, 0)
    return int(descriptors), int(version), how, os.waitstatus_to_exitcode(status)


def _descriptors() -> list[str]:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return targets


def forget_client(held: Held, target: str) -> None:
    """Drop the client without closing it, and make a new one."""
    held.client = CacheClient(target)
    gc.collect()  # client and channel refer to each other
