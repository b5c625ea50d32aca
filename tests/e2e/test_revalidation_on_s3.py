"""What does an expired entry cost on a real S3? A proxy records the answers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.e2e.conftest import S3Setup
from tests.e2e.held_store import running_held_store
from tests.support import sample_objects
from tests.support.daemons import s3_settings, wait_until
from tests.support.grpc_calls import get_human, moment, refused
from tests.support.s3.servers import S3Server
from tests.support.sample_objects import fresh_id

pytestmark = pytest.mark.s3

MEMBERS = 4
WITHIN_S = 20.0
TTL_S = 0.5
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_ANSWER_WITHOUT_BODY = re.compile(rb"HTTP/1\.1 304 (?:(?!\r\n\r\n).)*\r\n\r\n", re.DOTALL)


@pytest.fixture
def short_lived(s3_server: S3Server, new_daemon: NewDaemon) -> Iterator[S3Setup]:
    """As `on_s3`, but a person expires at once."""
    bucket = s3_server.new_bucket()
    with running_held_store(s3_server.endpoint_url) as store:
        settings = s3_settings(s3_server, bucket, store.endpoint_url)
        settings["KINDS__HUMAN__TTL_HOURS"] = str(TTL_S / 3600)
        # Without grace, an object put before a call is older than an `origin_after` of now.
        settings["ORIGIN__ORIGIN_AFTER_GRACE_S"] = "0"
        daemon = new_daemon(environment=s3_server.credentials(), **settings)
        yield S3Setup(s3_server, bucket, store, daemon)
        daemon.kill()


def expired(setup: S3Setup, user: str) -> pb.EntryInfo:
    """Fill, and return once no tier serves the entry any more. Forgets the recorded answers."""
    stub = setup.daemon.stub()
    info = get_human(stub, user).info
    setup.daemon.wait_until_stored()
    key = pb.EntryKey(namespace="human_upper_body", id=user)
    wait_until(lambda: not stub.Inspect(pb.InspectRequest(key=key)).tiers, WITHIN_S)
    for answers in setup.store.answers:
        answers.clear()
    return info


def statuses(setup: S3Setup) -> list[bytes]:
    return [status for answers in setup.store.answers for status in _STATUS.findall(answers)]


def test_an_unchanged_person_costs_four_answers_and_no_byte_of_a_body(
    short_lived: S3Setup,
) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user)
    short_lived.put(person)
    before = expired(short_lived, user)
    renewed = get_human(short_lived.daemon.stub(), user)
    assert person.matches(renewed.tensors)
    assert renewed.info.generation == before.generation
    assert (renewed.info.tier, renewed.info.stale) == (pb.TIER_DISK, False)
    assert renewed.info.expires_at.ToNanoseconds() > before.expires_at.ToNanoseconds()
    assert statuses(short_lived) == [b"304"] * MEMBERS
    for answers in short_lived.store.answers:
        assert _ANSWER_WITHOUT_BODY.sub(b"", bytes(answers)) == b""
    metrics = short_lived.daemon.metrics()
    assert metrics['cachesvc_revalidations_total{outcome="unchanged"}'] == 1
    assert metrics["cachesvc_fills_total"] == 1


def test_a_person_with_one_changed_member_is_filled_anew_as_a_whole(short_lived: S3Setup) -> None:
    user = fresh_id("u")
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 50))
    short_lived.put(old)
    before = expired(short_lived, user)
    changed = next(key for key in new.objects if key.endswith("/mask.png"))
    short_lived.server.client().put_object(
        Bucket=short_lived.bucket, Key=changed, Body=new.objects[changed]
    )
    whole = sample_objects.Sample(
        {**old.objects, changed: new.objects[changed]}, {**old.values, "mask": new.values["mask"]}
    )
    refilled = get_human(short_lived.daemon.stub(), user)
    assert whole.matches(refilled.tensors)
    assert refilled.info.generation > before.generation
    assert statuses(short_lived).count(b"304") == MEMBERS - 1
    metrics = short_lived.daemon.metrics()
    assert metrics['cachesvc_revalidations_total{outcome="changed"}'] == 1


def test_a_renewal_lasts_over_a_crash(short_lived: S3Setup) -> None:
    """Both renewals, before and after the crash, cost no byte of a body."""
    user = fresh_id("u")
    person = sample_objects.person(user)
    short_lived.put(person)
    before = expired(short_lived, user)
    get_human(short_lived.daemon.stub(), user)
    short_lived.daemon.wait_until_stored()
    short_lived.daemon.restart()
    again = get_human(short_lived.daemon.stub(), user)
    assert person.matches(again.tensors)
    assert again.info.generation == before.generation
    assert b"200" not in statuses(short_lived)
    assert short_lived.daemon.metrics()["cachesvc_fills_total"] == 0


def test_an_unchanged_person_from_before_origin_after_is_outdated_without_a_body(
    short_lived: S3Setup,
) -> None:
    user = fresh_id("u")
    short_lived.put(sample_objects.person(user))
    expired(short_lived, user)
    after = moment(time.time())
    with refused() as refusal:
        get_human(short_lived.daemon.stub(), user, origin_after=after)
    assert refusal.status == (grpc.StatusCode.NOT_FOUND, "ORIGIN_OUTDATED")
    assert statuses(short_lived) == [b"304"] * MEMBERS


@pytest.mark.parametrize("crash_first", [False, True], ids=["release first", "kill -9 first"])
def test_an_invalidation_in_the_middle_of_conditional_requests_leaves_no_stale_byte(
    short_lived: S3Setup, crash_first: bool
) -> None:
    """Promise 1: S3 has answered "unchanged", and the answers are on their way."""
    user = fresh_id("u")
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 50))
    short_lived.put(old)
    expired(short_lived, user)
    daemon, stub = short_lived.daemon, short_lived.daemon.stub()
    short_lived.store.hold()
    request = pb.GetHumanRequest(user_id=user, category=pb.HUMAN_CATEGORY_UPPER_BODY)
    caller = stub.GetHuman.future(request, timeout=WITHIN_S)
    short_lived.store.wait_until_held(MEMBERS)
    short_lived.put(new)
    stub.Invalidate(pb.InvalidateRequest(user_id=user))
    if crash_first:
        daemon.kill()
        short_lived.store.release()
        daemon.start()
    else:
        short_lived.store.release()
        assert new.matches(caller.result().entry.tensors)
    assert new.matches(get_human(daemon.stub(), user).tensors)
    daemon.wait_until_stored()
    daemon.restart()
    assert new.matches(get_human(daemon.stub(), user).tensors)
