"""Does anything that a working daemon writes say whose data it holds?

Promises 5 and 10, under load: callers with known ids, every kind of call and refusal, scrapes
throughout, the log at debug. Then the tests search all output for every id that was used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cachesvc.edge.statuses import OUTCOMES
from tests.support.daemons import running_daemon
from tests.support.mixed_load import MixedLoad, running_load, traces

MAX_SERIES = 300
ROUNDS = 12
CALLERS = 3
STATUSES = {code.name for code in OUTCOMES}
# The errors that a round causes.
EXPECTED = {"NOT_FOUND", "DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "ABORTED"}


@dataclass
class Observed:
    """All output of the daemon while the load ran."""

    load: MixedLoad
    scrapes: list[str] = field(default_factory=list)
    log: str = ""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with running_daemon(
        tmp_path_factory.mktemp("load"), {"LOG_LEVEL": "debug"}, is_forked=True
    ) as daemon:
        with running_load(daemon, CALLERS) as load:
            found = Observed(load)
            found.scrapes.append(daemon.http("/metrics")[1])
            for rounds in range(1, ROUNDS + 1):
                load.wait_for_rounds(rounds)
                found.scrapes.append(daemon.http("/metrics")[1])
        daemon.stop()
        found.log = daemon.log_text()
        yield found


def test_no_scrape_during_a_load_names_an_id(observed: Observed) -> None:
    """Promise 10."""
    assert len(observed.load.ids) >= ROUNDS * 5
    assert traces(observed.load, "\n".join(observed.scrapes)) == set()


def test_no_line_of_the_log_names_an_id(observed: Observed) -> None:
    """Promise 10."""
    assert "serving" in observed.log
    assert "stopped" in observed.log
    assert traces(observed.load, observed.log) == set()


def test_a_load_adds_no_series(observed: Observed) -> None:
    """Promise 5."""
    first, *later = (series_of(text) for text in observed.scrapes)
    assert len(first) <= MAX_SERIES
    assert all(series == first for series in later)


def test_calls_end_only_in_statuses_of_the_list(observed: Observed) -> None:
    """Promise 5."""
    assert observed.load.statuses == EXPECTED
    assert observed.load.statuses <= STATUSES
    counted = dict(statuses_of(observed.scrapes[-1]))
    assert counted.keys() == STATUSES
    assert {code for code, calls in counted.items() if calls} == {"OK", *EXPECTED}


def series_of(text: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def statuses_of(text: str) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(text):
        if family.name == "cachesvc_call_statuses":
            for sample in family.samples:
                yield sample.labels["code"], sample.value
