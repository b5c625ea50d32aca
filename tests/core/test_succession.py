"""Does a successor wait exactly as long as workers may trust an earlier daemon? Promise 1."""

from __future__ import annotations

import pytest

from cachesvc.core.succession import WAIT_NS, Predecessor, acknowledge_from_ns

LOCKED_NS = 10**18
A, B = b"a" * 16, b"b" * 16


def test_the_first_daemon_on_a_root_waits_for_nobody() -> None:
    assert acknowledge_from_ns(Predecessor(False, b"", 0), None, LOCKED_NS) == 0


def test_a_closed_predecessor_is_not_waited_for() -> None:
    assert acknowledge_from_ns(Predecessor(True, A, 0), A, LOCKED_NS) <= LOCKED_NS


@pytest.mark.parametrize("closed", [None, B])
def test_a_predecessor_elsewhere_is_waited_for(closed: bytes | None) -> None:
    """In this directory there is only the page of an older daemon, not the predecessor's."""
    assert acknowledge_from_ns(Predecessor(True, A, 0), closed, LOCKED_NS) == LOCKED_NS + WAIT_NS


@pytest.mark.parametrize("closed", [None, b"", A])
def test_a_lost_catalog_names_nobody_and_so_everybody(closed: bytes | None) -> None:
    assert acknowledge_from_ns(Predecessor(True, b"", 0), closed, LOCKED_NS) == LOCKED_NS + WAIT_NS


def test_a_wait_that_a_successor_did_not_outlive_is_waited_out() -> None:
    """A in X dies | B in Y has to wait, and dies | C in Y closes B's page, and waits for A's too"""
    b_waits_for = LOCKED_NS - 10**8 + WAIT_NS
    assert acknowledge_from_ns(Predecessor(True, B, b_waits_for), B, LOCKED_NS) == b_waits_for


def test_a_clock_that_went_back_does_not_prolong_the_wait() -> None:
    far = LOCKED_NS + 10**15
    assert acknowledge_from_ns(Predecessor(True, B, far), B, LOCKED_NS) == LOCKED_NS + WAIT_NS
