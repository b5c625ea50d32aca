"""Are the reasons reported why a daemon is not ready, and is each change reported once?"""

from __future__ import annotations

from cachesvc.core.problems import Problems


def test_nothing_set_is_ready() -> None:
    assert Problems().current() == {}


def test_each_part_has_its_own_problem() -> None:
    problems = Problems()
    problems.set("catalog", "cannot be written")
    problems.set("invalidations", "not durable")
    problems.clear("catalog")
    assert problems.current() == {"invalidations": "not durable"}


def test_watchers_hear_of_changes_and_not_of_repetitions() -> None:
    problems, heard = Problems(), list[dict[str, str]]()
    end = problems.watch(lambda: heard.append(problems.current()))
    problems.clear("catalog")
    problems.set("catalog", "full")
    problems.set("catalog", "full")
    problems.set("catalog", "read-only")
    problems.clear("catalog")
    end()
    problems.set("catalog", "full")
    assert heard == [{"catalog": "full"}, {"catalog": "read-only"}, {}]


def test_what_is_handed_out_is_a_copy() -> None:
    problems = Problems()
    problems.current()["catalog"] = "changed by its reader"
    assert problems.current() == {}
