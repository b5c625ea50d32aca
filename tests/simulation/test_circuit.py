"""Does the judge of the circuit object to a breaker that breaks a rule, and only to that?

The breaker behind the judge refuses the fills that a test chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import CacheError, HostBusy, NoSuchObject, OriginDenied, OriginUnavailable
from cachesvc.core.keys import EntryKey
from cachesvc.engine.breaker import Asking, OriginBreaker
from tests.simulation.circuit import REFUSED, WatchedBreaker
from tests.support.engine.house import LIMITS

ANN, BEA, COAT, HAT = (EntryKey("upper", name) for name in ("ann", "bea", "coat", "hat"))
OPEN_S = 5.0


class ObedientBreaker(OriginBreaker):
    """Refuses every fill if `refuses`, and none otherwise."""

    def __init__(self) -> None:
        super().__init__(2, OPEN_S, lambda: 0)
        self.refuses = False

    @contextmanager
    def asking(self, key: EntryKey) -> Iterator[Asking]:
        if self.refuses:
            raise OriginUnavailable("refused", reason=REFUSED)
        yield Asking()


class Watched:
    """Two entries that fail open its circuit. Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._breaker = ObedientBreaker()
        limits = replace(LIMITS, breaker_failures=2, breaker_open_s=OPEN_S)
        self.watched = WatchedBreaker(self._breaker, limits, lambda: int(self.now_s * NS_PER_S))

    def ask(self, key: EntryKey, error: CacheError | None = None) -> None:
        """Let a fill through, which ends with `error`, or with an entry."""
        self._breaker.refuses = False
        with suppress(CacheError), self.watched.asking(key):
            if error is not None:
                raise error

    def fail(self, *keys: EntryKey) -> None:
        for key in keys:
            self.ask(key, OriginUnavailable("away"))

    def refuse(self, key: EntryKey) -> None:
        self._breaker.refuses = True
        with pytest.raises(OriginUnavailable), self.watched.asking(key):
            pass

    @property
    def is_allowed(self) -> bool:
        return self.watched.problems == []


@pytest.fixture
def breaker() -> Watched:
    return Watched()


def test_a_fill_is_not_refused_while_the_circuit_is_closed(breaker: Watched) -> None:
    breaker.fail(ANN, ANN)
    breaker.refuse(BEA)
    assert not breaker.is_allowed


def test_a_fill_is_refused_once_several_entries_could_not_ask(breaker: Watched) -> None:
    breaker.fail(ANN, BEA)
    breaker.refuse(COAT)
    assert breaker.is_allowed


def test_no_fill_is_let_through_while_the_circuit_is_open(breaker: Watched) -> None:
    breaker.fail(ANN, BEA)
    breaker.ask(COAT)
    assert not breaker.is_allowed


@pytest.mark.parametrize(
    "answer", [None, NoSuchObject("absent"), OriginDenied("denied")], ids=lambda error: repr(error)
)
def test_no_fill_is_refused_after_an_answer(breaker: Watched, answer: CacheError | None) -> None:
    breaker.fail(ANN, BEA)
    breaker.now_s += OPEN_S
    breaker.ask(COAT, answer)
    breaker.refuse(HAT)
    assert not breaker.is_allowed


def test_a_fill_that_says_nothing_of_the_origin_does_not_close_the_circuit(
    breaker: Watched,
) -> None:
    breaker.fail(ANN)
    breaker.ask(COAT, HostBusy("no slot"))
    breaker.fail(BEA)
    breaker.refuse(COAT)
    assert breaker.is_allowed


def test_a_fill_is_refused_while_a_probe_is_under_way_and_not_afterwards(
    breaker: Watched,
) -> None:
    breaker.fail(ANN, BEA)
    breaker.now_s += OPEN_S
    with suppress(HostBusy), breaker.watched.asking(COAT):
        breaker.refuse(HAT)
        assert breaker.is_allowed
        raise HostBusy("no slot")
    breaker.refuse(HAT)
    assert not breaker.is_allowed


def test_a_probe_that_takes_long_keeps_nobody_out(breaker: Watched) -> None:
    breaker.fail(ANN, BEA)
    breaker.now_s += OPEN_S
    with breaker.watched.asking(COAT):
        breaker.now_s += OPEN_S
        breaker.refuse(HAT)
    assert not breaker.is_allowed


def test_an_entry_whose_probe_failed_lets_others_go_first(breaker: Watched) -> None:
    breaker.fail(ANN, BEA)
    breaker.now_s += OPEN_S
    breaker.fail(COAT)
    breaker.refuse(COAT)
    assert breaker.is_allowed
    breaker.fail(COAT)
    assert not breaker.is_allowed


def test_the_failure_of_a_fill_from_before_the_opening_prolongs_nothing(breaker: Watched) -> None:
    with suppress(OriginUnavailable), breaker.watched.asking(COAT):
        breaker.fail(ANN, BEA)
        breaker.now_s += OPEN_S
        raise OriginUnavailable("away")
    breaker.refuse(HAT)
    assert not breaker.is_allowed
