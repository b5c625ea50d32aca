"""The main job, end to end: a try-on from a real S3, then from memory, from disk, after crashes."""

from __future__ import annotations

import pickle

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.e2e.conftest import S3Setup
from tests.support import sample_objects
from tests.support.daemons import s3_settings
from tests.support.grpc_calls import TIMEOUT_S, get_human, refused
from tests.support.s3.servers import S3Server
from tests.support.sample_objects import REAL, SMALL, Sample, Save, Sizes, fresh_id, torch_save

pytestmark = pytest.mark.s3

Code = grpc.StatusCode
ALL_MEMORY = [pb.TIER_MEMORY] * 3
ALL_DISK = [pb.TIER_DISK] * 3
ALL_ORIGIN = [pb.TIER_ORIGIN] * 3


class TryOn:
    """One person and another user's garment, at the origin and as the daemon serves them."""

    def __init__(
        self, setup: S3Setup, sizes: Sizes = SMALL, seed: int = 1, save: Save = pickle.dumps
    ) -> None:
        self.daemon = setup.daemon
        self.user, self.owner, self.clothing = fresh_id("u"), fresh_id("o"), fresh_id("c")
        self.parts: dict[str, Sample] = {
            "human": sample_objects.person(self.user, seed=seed, sizes=sizes, save=save),
            "garment": sample_objects.garment(
                self.clothing, self.owner, seed=seed, sizes=sizes, save=save
            ),
            "text": sample_objects.text(
                self.clothing, self.owner, seed=seed, sizes=sizes, save=save
            ),
        }
        setup.put(*self.parts.values())

    def fetch_tiers(self) -> list[int]:
        """Get all parts, check every value against torch and Pillow, and return the tiers that
        served.
        """
        request = pb.GetTryOnRequest(
            user_id=self.user,
            category=pb.HUMAN_CATEGORY_UPPER_BODY,
            clothing_id=self.clothing,
            owner_id=self.owner,
        )
        answer = self.daemon.stub().GetTryOn(request, timeout=TIMEOUT_S)
        entries = {"human": answer.human, "garment": answer.garment, "text": answer.text}
        for part, sample in self.parts.items():
            assert sample.matches(entries[part].tensors), part
        return [entry.info.tier for entry in entries.values()]


@pytest.mark.parametrize("save", [pickle.dumps, torch_save], ids=["pickle.dumps", "torch.save"])
def test_a_try_on_comes_from_s3_once_and_then_from_memory(on_s3: S3Setup, save: Save) -> None:
    try_on = TryOn(on_s3, save=save)
    assert try_on.fetch_tiers() == ALL_ORIGIN
    assert try_on.fetch_tiers() == ALL_MEMORY
    metrics = on_s3.daemon.metrics()
    assert metrics["cachesvc_fills_total"] == 3
    assert metrics['cachesvc_origin_requests_total{outcome="ok"}'] == 11


def test_a_real_size_try_on_survives_a_restart_and_a_crash_on_disk(on_s3: S3Setup) -> None:
    """Promise 6."""
    try_on = TryOn(on_s3, REAL)
    assert try_on.fetch_tiers() == ALL_ORIGIN
    assert on_s3.daemon.stop() == 0
    on_s3.daemon.start()
    assert try_on.fetch_tiers() == ALL_DISK
    on_s3.daemon.restart()
    assert try_on.fetch_tiers() == ALL_DISK
    assert try_on.fetch_tiers() == ALL_MEMORY
    assert on_s3.daemon.metrics()["cachesvc_fills_total"] == 0


def test_without_s3_what_is_cached_is_served_and_the_rest_is_unavailable(
    on_s3: S3Setup, s3_server: S3Server
) -> None:
    """Promise 3."""
    user, other = fresh_id("u"), fresh_id("u")
    on_s3.put(sample_objects.person(user), sample_objects.person(other))
    stub = on_s3.daemon.stub()
    get_human(stub, user)
    on_s3.daemon.wait_until_stored()
    s3_server.stop_serving()
    try:
        with refused() as refusal:
            get_human(stub, other)
        assert get_human(stub, user).info.tier == pb.TIER_MEMORY
        on_s3.daemon.restart()
        assert get_human(on_s3.daemon.stub(), user).info.tier == pb.TIER_DISK
    finally:
        s3_server.start_serving()
    assert refusal.code is Code.UNAVAILABLE
    assert refusal.reason.startswith("ORIGIN_")
    if s3_server.kind == "ceph":  # moto loses its objects when it ends
        assert get_human(on_s3.daemon.stub(), other).info.tier == pb.TIER_ORIGIN


def test_wrong_s3_credentials_are_a_failed_precondition_and_not_a_miss(
    s3_server: S3Server, new_daemon: NewDaemon
) -> None:
    """Promise 3."""
    if s3_server.kind != "ceph":
        pytest.skip(f"{s3_server.kind} checks no signature")
    bucket, user = s3_server.new_bucket(), fresh_id("u")
    wrong = {**s3_server.credentials(), "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    daemon = new_daemon(environment=wrong, **s3_settings(s3_server, bucket))
    with refused() as refusal:
        get_human(daemon.stub(), user)
    assert refusal.status == (Code.FAILED_PRECONDITION, "ORIGIN_BAD_CREDENTIALS")
    assert wrong["AWS_SECRET_ACCESS_KEY"] not in refusal.message + daemon.log_text()


def test_an_object_that_is_absent_at_s3_is_not_found_and_named(on_s3: S3Setup) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user)
    pose = f"users/{user}/vton-cache/upper/pose_tensor.pkl"
    del person.objects[pose]
    on_s3.put(person)
    with refused() as refusal:
        get_human(on_s3.daemon.stub(), user)
    assert refusal.status == (Code.NOT_FOUND, "NO_SUCH_OBJECT")
    assert list(refusal.detail.object_keys) == [pose]
