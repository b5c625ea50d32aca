"""Would a leak be seen? Slopes and counts of invented processes, which are known. Promise 5."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.soak.growth import Sample, slope_of
from tests.soak.run import Soaked, Track
from tests.soak.servers import THREADS_THAT_COME_LATER

STILL = Sample(calls=0, private_bytes=0, descriptors=20, threads=10, tasks=5)


def track(server: str, bytes_per_call: float, *, noise_bytes: float = 0.0, seed: int = 1) -> Track:
    """Return the track of 100,000 calls, whose first half grows by another 50 MB."""
    chance = random.Random(seed)
    samples = [
        Sample(
            calls,
            int(
                70e6
                + min(calls, 50_000) * 1000
                + calls * bytes_per_call
                + chance.gauss(0, noise_bytes)
            ),
            20,
            10,
            5,
        )
        for calls in range(0, 100_001, 250)
    ]
    return Track(server, samples, {"ok": 100_000}, 100_000, STILL, STILL)


def test_what_fills_up_in_the_first_half_is_no_slope() -> None:
    assert slope_of(track("cachesvc", 0.0).samples).bytes_per_call == pytest.approx(0.0, abs=0.1)


def test_nine_of_ten_intervals_hold_the_slope_that_is_there() -> None:
    def holds(seed: int) -> bool:
        found = slope_of(track("cachesvc", 7.0, noise_bytes=200_000, seed=seed).samples)
        assert 0 < found.margin < 15
        return abs(found.bytes_per_call - 7.0) < found.margin

    assert sum(holds(seed) for seed in range(50)) >= 45


def test_too_few_samples_are_said_and_not_judged() -> None:
    with pytest.raises(ValueError, match="too few"):
        slope_of(track("cachesvc", 0.0).samples[:20])


def test_a_leak_of_fifty_bytes_a_call_is_a_complaint() -> None:
    leaking = Soaked(track("cachesvc", 50.0), track("echo", 5.0), 60.0)
    assert leaking.slope().bytes_per_call == pytest.approx(45.0, abs=0.1)
    assert [complaint.split(" ")[0] for complaint in leaking.complaints()] == ["45.0"]


def test_what_the_echo_server_needs_as_well_is_no_complaint() -> None:
    assert Soaked(track("cachesvc", 50.0), track("echo", 45.0), 60.0).complaints() == []


@pytest.mark.parametrize("what", ["descriptors", "threads", "tasks"])
def test_one_that_is_left_over_is_a_complaint(what: str) -> None:
    leaking = track("cachesvc", 0.0)
    more = 1 + (THREADS_THAT_COME_LATER if what == "threads" else 0)
    leaking.end = replace(STILL, **{what: getattr(STILL, what) + more})
    complaints = Soaked(leaking, track("echo", 0.0), 60.0).complaints()
    assert complaints == [f"cachesvc has 1 {what} more than at the start"]


def test_a_call_that_ended_as_none_should_is_a_complaint() -> None:
    broken = track("cachesvc", 0.0)
    broken.ended["internal"] = 2
    assert Soaked(broken, track("echo", 0.0), 60.0).complaints() == ["2 calls ended as internal"]
