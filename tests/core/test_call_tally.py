"""Is each call counted once, under its status, outcome and time?"""

from __future__ import annotations

from cachesvc.core.call_tally import CallTally

OUTCOMES = {"OK": "ok", "NOT_FOUND": "refused", "ABORTED": "refused", "INTERNAL": "failed"}


def new_tally() -> CallTally:
    return CallTally(("Get", "Put"), OUTCOMES, (0.1, 1.0))


def test_outcomes_are_the_sums_of_their_codes() -> None:
    tally = new_tally()
    for code in ("OK", "NOT_FOUND", "ABORTED", "OK", "OK"):
        tally.by_rpc["Get"].count(code, 0.0)
    assert tally.by_outcome("Get") == {"ok": 3, "refused": 2, "failed": 0}
    assert tally.by_outcome("Put") == {"ok": 0, "refused": 0, "failed": 0}


def test_codes_are_the_sums_of_all_rpcs() -> None:
    tally = new_tally()
    tally.by_rpc["Get"].count("OK", 0.0)
    tally.by_rpc["Put"].count("OK", 0.0)
    tally.by_rpc["Put"].count("INTERNAL", 0.0)
    assert tally.by_code() == {"OK": 2, "NOT_FOUND": 0, "ABORTED": 0, "INTERNAL": 1}


def test_a_time_at_a_bound_is_within_it_and_a_long_one_is_in_the_rest() -> None:
    get = new_tally().by_rpc["Get"]
    for seconds in (0.0, 0.1, 0.11, 1.0, 50.0):
        get.count("OK", seconds)
    assert get.buckets == [2, 2, 1]
    assert get.total_s == 0.0 + 0.1 + 0.11 + 1.0 + 50.0
