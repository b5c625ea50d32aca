"""Promises 1, 2 and 9: are answers safe, whatever the disk does with unsynced changes?

All of L2's file calls go through the module `os` in two modules of `tiers/`; a double of `os`
(unsynced.py) keeps synced changes apart from unsynced ones. The power may go at each moment of a
workload: any subset of the unsynced changes is then on the disk, torn writes and lost directory
entries included. An engine is started on that disk, and examined.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core import durable
from cachesvc.tiers import directories, disk_files, files, quarantine, witness
from tests.crash.ledger import Event, Ledger
from tests.crash.life import BrokenPromise, Life
from tests.crash.swatches import KEYS
from tests.crash.unsynced import Moment, UnsyncedOs
from tests.support.refusing_catalog import RefusingCatalog

KEY, OTHER = KEYS[0], KEYS[1]
MOST_FOR_EVERY_SUBSET = 10
Workload = Callable[[Life], Coroutine[Any, Any, None]]


async def put_twice(life: Life) -> None:
    await life.put(KEY)
    await life.put(KEY)


async def put_and_invalidate(life: Life) -> None:
    await life.put(KEY)
    await life.invalidate(KEY)
    await life.put(KEY)


async def invalidate_without_a_catalog(life: Life) -> None:
    """The rows stay: only the files' absence makes the invalidation final."""
    await life.put(KEY)
    await life.put(OTHER)
    RefusingCatalog(life.house)
    await life.invalidate(KEY)


async def fill_over_and_over(life: Life) -> None:
    await life.refill(KEY)
    await life.house.settle()
    await life.refill(KEY)
    await life.house.settle()


async def everything(life: Life) -> None:
    for act in (life.put, life.replace, life.erase, life.refill, life.evict, life.put,
                life.invalidate, life.invalidate_wide, life.put):  # fmt: skip
        for key in (KEY, OTHER):
            await act(key)
            await life.house.settle()


@contextmanager
def on_tmpfs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as folder:
        yield Path(folder)


async def moments_of(
    workload: Workload, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Moment]:
    """Run the workload, and return every moment at which the power could go."""
    ledger = Ledger()

    def look() -> tuple[Ledger, dict[str, bytes]]:
        found = (folder / "state").glob("catalog.sqlite*")
        return deepcopy(ledger), {
            p.name: p.read_bytes() for p in found if p.suffix != ".sqlite-shm"
        }

    double = UnsyncedOs(folder / "l2", look)

    def tell(event: Event) -> None:
        ledger.apply(event)
        double.note()

    (folder / "l2").mkdir()
    with monkeypatch.context() as patched:
        for module in (durable, files, directories, disk_files, quarantine, witness):
            patched.setattr(module, "os", double)
        # A ledger of its own: each moment has what had been told by then.
        life = Life(folder, folder, Ledger(), tell, random.Random(1))
        life.house.disk_threads = 1
        life.open()
        await workload(life)
        await life.house.settle()
        await life.house.end()
    return double.moments


def cuts_of(moment: Moment, most: int, choose: random.Random) -> Iterator[tuple[bool, ...]]:
    """Yield the sets of pending changes that are kept: every subset, if there are at most `most`.

    Otherwise yield no change, all changes, and random subsets.
    """
    count = len(moment.pending)
    if 2**count <= most:
        yield from itertools.product((True, False), repeat=count)
        return
    yield (False,) * count
    yield (True,) * count
    for _ in range(most - 2):
        yield tuple(choose.random() < 0.5 for _ in range(count))


async def examine(moment: Moment, kept: tuple[bool, ...], folder: Path) -> None:
    """Start an engine on the files that a cut left. Raises BrokenPromise."""
    ledger, catalog = moment.seen
    moment.after_a_cut(kept).write_to(folder / "l2")
    (folder / "state").mkdir()
    for name, content in catalog.items():
        (folder / "state" / name).write_bytes(content)
    life = Life(folder, folder, deepcopy(ledger), lambda event: None, random.Random(1))
    life.open()
    try:
        await life.examine()
    except BrokenPromise as exc:
        lost = [change for change, is_kept in zip(moment.pending, kept, strict=True) if not is_kept]
        raise BrokenPromise(f"{exc}; lost: {lost}; last: {list(ledger.last)[-5:]}") from exc
    finally:
        await life.house.end()


async def examine_cuts(moments: list[Moment], most: int) -> int:
    """Examine every cut, `most` for each moment. Return the number of cuts."""
    choose, examined = random.Random(2), 0
    for moment in moments:
        for kept in cuts_of(moment, most, choose):
            with on_tmpfs() as folder:  # a power cut leaves nothing in the runtime directory
                await examine(moment, kept, folder)
            examined += 1
    print(f"{len(moments)} moments, {examined} cuts")  # noqa: T201 - the figures of the run
    return examined


@pytest.mark.parametrize(
    "most",
    [
        pytest.param(3, id="some"),
        pytest.param(
            2**MOST_FOR_EVERY_SUBSET,
            id="every",
            marks=[pytest.mark.slow, pytest.mark.timeout(1800)],
        ),
    ],
)
@pytest.mark.parametrize(
    "workload",
    [put_twice, put_and_invalidate, invalidate_without_a_catalog, fill_over_and_over],
    ids=lambda workload: workload.__name__,
)
async def test_any_subset_of_what_was_not_synced_keeps_what_was_answered(
    workload: Workload, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_tmpfs() as folder:
        moments = await moments_of(workload, folder, monkeypatch)
    few = [moment for moment in moments if len(moment.pending) <= MOST_FOR_EVERY_SUBSET]
    assert await examine_cuts(few, most) > len(few) > 20


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param(500, id="500"),
        pytest.param(5_000, id="5000", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
async def test_random_subsets_of_many_changes_keep_what_was_answered(
    cuts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = []
    for workload in (invalidate_without_a_catalog, everything):
        with on_tmpfs() as folder:
            moments += await moments_of(workload, folder, monkeypatch)
    many = [moment for moment in moments if len(moment.pending) > MOST_FOR_EVERY_SUBSET]
    assert await examine_cuts(many, max(3, -(-cuts // len(many)))) >= cuts
