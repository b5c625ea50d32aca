"""Does each scrape see the worst lateness of the event loop, and is it forgotten in a minute?"""

from __future__ import annotations

from cachesvc.engine.upkeep import LAG_WINDOW_S, LoopLag

START_S = 1000.0


def test_the_worst_of_a_window_is_kept() -> None:
    lag = LoopLag()
    for late_s in (0.001, 0.25, 0.002):
        lag.step(START_S, START_S + late_s)
    assert lag.worst_s == 0.25


def test_it_is_still_seen_in_the_next_window_and_forgotten_in_the_one_after() -> None:
    lag = LoopLag()
    lag.step(START_S, START_S + 0.25)
    second_s = START_S + 0.25 + LAG_WINDOW_S
    lag.step(second_s, second_s)
    assert lag.worst_s == 0.25
    third_s = second_s + LAG_WINDOW_S
    lag.step(third_s, third_s)
    assert lag.worst_s == 0.0


def test_a_loop_that_stood_still_for_minutes_says_so() -> None:
    lag = LoopLag()
    lag.step(START_S, START_S)
    lag.step(START_S + 1, START_S + 300)
    assert lag.worst_s == 299.0
