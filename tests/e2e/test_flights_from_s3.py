"""Do concurrent callers share one fill, and does an invalidation during it win?

A proxy holds S3's answers: the old bytes are on their way while a test cancels, invalidates,
overwrites or kills.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.e2e.conftest import S3Setup
from tests.support import sample_objects
from tests.support.daemons import wait_until
from tests.support.grpc_calls import TIMEOUT_S, get_human, refused
from tests.support.sample_objects import fresh_id

pytestmark = pytest.mark.s3

Code = grpc.StatusCode
MEMBERS = 4
CALLERS = 100
WITHIN_S = 20.0
# As `engine/get.py`: the contract's "at most 5 times".
MAX_FENCED = 5


def request_of(user: str) -> pb.GetHumanRequest:
    return pb.GetHumanRequest(user_id=user, category=pb.HUMAN_CATEGORY_UPPER_BODY)


def wait_for_waiters(setup: S3Setup, waiters: int) -> None:
    stub = setup.daemon.stub()
    wait_until(lambda: stub.Stats(pb.StatsRequest()).coalesced_waiters >= waiters, WITHIN_S)


def test_a_hundred_concurrent_misses_cost_one_set_of_origin_reads(on_s3: S3Setup) -> None:
    """Promise 4."""
    user = fresh_id("u")
    person = sample_objects.person(user)
    on_s3.put(person)
    stub = on_s3.daemon.stub()
    on_s3.store.hold()
    calls = [stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S) for _ in range(CALLERS)]
    wait_for_waiters(on_s3, CALLERS - 1)
    on_s3.store.release()
    answers = {call.result().entry.tensors for call in calls}
    assert len(answers) == 1
    assert person.matches(answers.pop())
    metrics = on_s3.daemon.metrics()
    assert metrics["cachesvc_fills_total"] == 1
    assert metrics['cachesvc_origin_requests_total{outcome="ok"}'] == MEMBERS
    assert metrics["cachesvc_coalesced_waiters_total"] == CALLERS - 1


def test_a_waiter_that_leaves_does_not_cancel_the_fill_and_the_first_one_neither(
    on_s3: S3Setup,
) -> None:
    """Promise 4."""
    user = fresh_id("u")
    person = sample_objects.person(user)
    on_s3.put(person)
    stub = on_s3.daemon.stub()
    on_s3.store.hold()
    leader = stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S)
    on_s3.store.wait_until_held(MEMBERS)
    others = [stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S) for _ in range(4)]
    wait_for_waiters(on_s3, 4)
    leader.cancel()
    others[0].cancel()
    # A later caller still joins the flight of the remaining callers.
    others.append(stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S))
    wait_for_waiters(on_s3, 5)
    on_s3.store.release()
    for call in others[1:]:
        assert person.matches(call.result().entry.tensors)
    assert on_s3.daemon.metrics()["cachesvc_fills_total"] == 1


def test_a_call_ends_at_its_deadline_and_its_fill_goes_on(on_s3: S3Setup) -> None:
    """Promise 4."""
    user = fresh_id("u")
    on_s3.put(sample_objects.person(user))
    stub = on_s3.daemon.stub()
    on_s3.store.hold()
    patient = stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S)
    on_s3.store.wait_until_held(MEMBERS)
    with refused() as refusal:
        stub.GetHuman(request_of(user), timeout=0.2)
    assert refusal.code is Code.DEADLINE_EXCEEDED
    on_s3.store.release()
    assert patient.result().entry.info.tier == pb.TIER_ORIGIN
    assert get_human(stub, user).info.tier == pb.TIER_MEMORY


def test_a_fill_that_nobody_waits_for_any_more_is_kept(on_s3: S3Setup) -> None:
    user = fresh_id("u")
    on_s3.put(sample_objects.person(user))
    stub = on_s3.daemon.stub()
    on_s3.store.hold()
    caller = stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S)
    on_s3.store.wait_until_held(MEMBERS)
    assert caller.cancel()
    on_s3.store.release()
    key = pb.EntryKey(namespace="human_upper_body", id=user)
    wait_until(lambda: bool(stub.Inspect(pb.InspectRequest(key=key)).tiers), WITHIN_S)
    assert get_human(stub, user).info.tier == pb.TIER_MEMORY
    assert on_s3.daemon.metrics()["cachesvc_fills_total"] == 1


def test_a_hit_does_not_wait_for_a_fill_that_hangs(on_s3: S3Setup) -> None:
    """Promise 8."""
    cached, slow = fresh_id("u"), fresh_id("u")
    on_s3.put(sample_objects.person(cached), sample_objects.person(slow))
    stub = on_s3.daemon.stub()
    get_human(stub, cached)
    on_s3.store.hold()
    hanging = stub.GetHuman.future(request_of(slow), timeout=TIMEOUT_S)
    on_s3.store.wait_until_held(MEMBERS)
    assert get_human(stub, cached).info.tier == pb.TIER_MEMORY
    assert not hanging.done()
    on_s3.store.release()
    assert hanging.result().entry.tensors


@pytest.mark.parametrize("crash_first", [False, True], ids=["release first", "kill -9 first"])
def test_an_invalidation_in_the_middle_of_a_fill_leaves_no_stale_byte(
    on_s3: S3Setup, crash_first: bool
) -> None:
    """Promise 1."""
    user = fresh_id("u")
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 50))
    on_s3.put(old)
    daemon, stub = on_s3.daemon, on_s3.daemon.stub()
    on_s3.store.hold()
    caller = stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S)
    on_s3.store.wait_until_held(MEMBERS)
    on_s3.put(new)
    stub.Invalidate(pb.InvalidateRequest(user_id=user))
    if crash_first:
        daemon.kill()
        on_s3.store.release()
        daemon.start()
    else:
        on_s3.store.release()
        assert new.matches(caller.result().entry.tensors), "the waiter moves to a fresh flight"
        # The fenced flight is counted when it ends; the fresh one may answer before.
        wait_until(lambda: daemon.metrics()["cachesvc_fenced_fills_total"] >= 1, TIMEOUT_S)
    assert new.matches(get_human(stub, user).tensors)
    daemon.wait_until_stored()
    daemon.restart()
    assert new.matches(get_human(stub, user).tensors)


def test_a_fill_that_loses_to_invalidations_again_and_again_is_aborted(on_s3: S3Setup) -> None:
    user = fresh_id("u")
    on_s3.put(sample_objects.person(user))
    stub = on_s3.daemon.stub()
    on_s3.store.hold()
    caller = stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S)
    for _ in range(MAX_FENCED + 1):
        on_s3.store.wait_until_held(MEMBERS)
        stub.Invalidate(pb.InvalidateRequest(user_id=user))
    with refused() as refusal:
        caller.result()
    assert refusal.status == (Code.ABORTED, "FILL_FENCED")
    on_s3.store.release()
    assert get_human(stub, user).tensors


def test_sigterm_lets_fills_end_refuses_new_calls_and_exits_with_0(on_s3: S3Setup) -> None:
    """Promise 9."""
    user, other = fresh_id("u"), fresh_id("u")
    person = sample_objects.person(user)
    on_s3.put(person, sample_objects.person(other))
    daemon, stub = on_s3.daemon, on_s3.daemon.stub()
    on_s3.store.hold()
    caller = stub.GetHuman.future(request_of(user), timeout=TIMEOUT_S)
    on_s3.store.wait_until_held(MEMBERS)
    daemon.terminate()
    wait_until(lambda: daemon.http("/readyz")[0] == 503, WITHIN_S)
    assert daemon.http("/livez")[0] == 200
    with refused() as refusal:
        stub.GetHuman(request_of(other), timeout=TIMEOUT_S)
    assert refusal.status == (Code.UNAVAILABLE, "DRAINING")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(daemon.wait)
        on_s3.store.release()
        assert person.matches(caller.result().entry.tensors)
        assert ended.result() == 0
    daemon.start()
    assert get_human(stub, user).info.tier == pb.TIER_DISK, "the answered entry was stored too"
