"""Does the virtual loop behave as asyncio's does, and repeat a seed's schedule exactly?"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.run import run_seed
from tests.simulation.scheduler import NothingLeftToRun, VirtualLoop

ROOT = Path(__file__).parents[2]
TRACE = "from tests.simulation.run import run_seed; print(run_seed(7).trace)"


def order_of(seed: int) -> list[int]:
    """Return the order in which a seed runs five tasks that are ready together."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(note(number) for number in range(5)))

    loop = VirtualLoop(random.Random(seed))
    loop.run_until_complete(main())
    loop.abandon()
    return order


def test_what_is_ready_runs_in_every_order_that_a_seed_can_pick() -> None:
    orders = {tuple(order_of(seed)) for seed in range(2000)}
    assert len(orders) == 120
    assert order_of(11) == order_of(11)


def test_a_seed_has_the_same_trace_in_another_process() -> None:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "4711",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
    }
    other = subprocess.run(
        [sys.executable, "-c", TRACE], capture_output=True, text=True, check=True, env=environment
    )
    assert other.stdout.strip() == run_seed(7).trace
    assert run_seed(8).trace != run_seed(7).trace


def test_an_hour_of_sleep_takes_no_time() -> None:
    loop = VirtualLoop(random.Random(1))
    began_s = time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600))
    assert 3600 <= loop.time() < 3600.001
    assert time.monotonic() - began_s < 60
    loop.abandon()


def test_timers_fire_in_the_order_of_their_times() -> None:
    fired: list[float] = []

    async def main(loop: VirtualLoop) -> None:
        for delay_s in (3.0, 1.0, 2.0):
            loop.call_later(delay_s, fired.append, delay_s)
        cancelled = loop.call_later(1.5, fired.append, 1.5)
        cancelled.cancel()
        await asyncio.sleep(4)

    loop = VirtualLoop(random.Random(1))
    loop.run_until_complete(main(loop))
    loop.abandon()
    assert fired == [1.0, 2.0, 3.0]


def test_the_results_and_errors_of_jobs_come_back_and_in_any_order() -> None:
    async def main() -> list[int | BaseException]:
        done: list[int | BaseException] = []

        async def work(number: int) -> None:
            done.append(await asyncio.to_thread(abs, -number))

        await asyncio.gather(*(work(number) for number in range(4)))
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return done

    orders = set()
    for seed in range(50):
        loop = VirtualLoop(random.Random(seed))
        done = loop.run_until_complete(main())
        loop.abandon()
        assert sorted(map(str, done)) == ["0", "1", "2", "3"]
        orders.add(tuple(done))
    assert len(orders) > 5


def test_a_cancelled_job_runs_all_the_same_in_some_schedules_and_in_others_not() -> None:
    async def main(ran: list[int]) -> None:
        job = asyncio.create_task(asyncio.to_thread(ran.append, 1))
        await asyncio.sleep(0)
        job.cancel()
        await asyncio.sleep(1)

    outcomes = set()
    for seed in range(50):
        ran: list[int] = []
        loop = VirtualLoop(random.Random(seed))
        loop.run_until_complete(main(ran))
        loop.abandon()
        outcomes.add(len(ran))
    assert outcomes == {0, 1}


def test_a_call_that_nobody_will_answer_is_found_at_once() -> None:
    loop = VirtualLoop(random.Random(1))

    async def hang() -> None:
        await loop.create_future()

    with pytest.raises(NothingLeftToRun, match="hang"):
        loop.run_until_complete(hang())
    loop.abandon()


def test_nothing_of_an_abandoned_loop_goes_on() -> None:
    went_on: list[str] = []
    loop = VirtualLoop(random.Random(1))

    async def stubborn() -> None:
        try:
            await asyncio.sleep(10)
            went_on.append("slept")
        finally:
            await asyncio.sleep(0)
            went_on.append("cleaned up")

    async def main() -> None:
        waiting = asyncio.create_task(stubborn())
        await asyncio.wait([waiting], timeout=1)

    loop.run_until_complete(main())
    loop.abandon()
    assert went_on == []
    assert loop.is_closed()
