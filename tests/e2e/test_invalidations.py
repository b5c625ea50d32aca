"""Is an entry gone for good that was invalidated, or replaced by a Put, also after kill -9?"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, running_daemon, wait_until
from tests.support.grpc_calls import TIMEOUT_S, get_human, put, refused
from tests.support.sample_objects import fresh_id

Code = grpc.StatusCode
NAMESPACE = "human_upper_body"
SCOPES: dict[str, Callable[[str], pb.InvalidateRequest]] = {
    "user_id": lambda user: pb.InvalidateRequest(user_id=user),
    "owner_id": lambda user: pb.InvalidateRequest(owner_id=user),
    "key": lambda user: pb.InvalidateRequest(key=pb.EntryKey(namespace=NAMESPACE, id=user)),
    "namespace": lambda _: pb.InvalidateRequest(namespace=NAMESPACE),
    "everything": lambda _: pb.InvalidateRequest(everything=True),
}


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon, which these tests kill and start again, one after the other."""
    with running_daemon(tmp_path_factory.mktemp("crashing"), is_forked=True) as running:
        yield running


@pytest.mark.parametrize("scope", SCOPES)
def test_an_acknowledged_invalidation_survives_a_kill_at_once(crashing: Daemon, scope: str) -> None:
    """Promise 1. The origin is empty by then, so any answer would be stale bytes."""
    user, stub = fresh_id("u"), crashing.stub()
    person = sample_objects.person(user)
    sample_objects.put_in_folder(crashing.origin_dir, person)
    get_human(stub, user)
    crashing.wait_until_stored()
    for object_key in person.objects:
        (crashing.origin_dir / object_key).unlink()
    assert get_human(stub, user).info.tier == pb.TIER_MEMORY

    removed = crashing.admin_stub().Invalidate(SCOPES[scope](user)).removed_count
    crashing.restart()

    assert removed >= 1
    with refused() as refusal:
        get_human(stub, user)
    assert refusal.status == (Code.NOT_FOUND, "NO_SUCH_OBJECT")


def test_an_invalidation_covers_its_scope_and_nothing_else(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    stub, admin = daemon.stub(), daemon.admin_stub()
    user, other = fresh_id("u"), fresh_id("u")
    clothing, foreign = fresh_id("c"), fresh_id("c")
    people = [sample_objects.person(user, part) for part in sample_objects.PARTS]
    sample_objects.put_in_folder(
        daemon.origin_dir,
        *people,
        sample_objects.person(other),
        sample_objects.garment(clothing, user),
        sample_objects.text(clothing, user),
        sample_objects.garment(foreign, other),
        sample_objects.text(foreign, other),
    )
    garments = [
        pb.WarmGarment(clothing_id=clothing),
        pb.WarmGarment(clothing_id=foreign, owner_id=other),
    ]
    everything = pb.WarmRequest(user_id=user, garments=garments)
    the_other = pb.WarmRequest(user_id=other, categories=[pb.HUMAN_CATEGORY_UPPER_BODY])
    for request, expected in (
        (pb.InvalidateRequest(user_id=user), 3),
        (pb.InvalidateRequest(clothing_id=clothing), 2),
        (pb.InvalidateRequest(owner_id=user), 5),
        (pb.InvalidateRequest(namespace="garment"), 2),
        (pb.InvalidateRequest(everything=True), 8),
    ):
        for warm in (everything, the_other):
            assert not [s for s in stub.Warm(warm, timeout=30) if s.HasField("failed")]
        assert admin.Invalidate(request).removed_count == expected
        assert admin.Invalidate(request).removed_count == 0
    # The files are unlinked behind the answers; their rows were deleted before.
    wait_until(lambda: daemon.l2_files() == [], within_s=20)


def test_a_put_survives_a_kill_at_once_and_replaces_older_bytes_for_good(
    crashing: Daemon,
) -> None:
    """Promise 1."""
    user, stub = fresh_id("u"), crashing.stub()
    old, new = (sample_objects.person(user, seed=seed).blob() for seed in (1, 60))
    put(stub, NAMESPACE, user, old)
    put(stub, NAMESPACE, user, new)
    crashing.restart()
    entry = get_human(stub, user)
    assert entry.info.tier == pb.TIER_DISK
    assert entry.tensors == new


def test_a_put_wins_over_what_the_origin_still_has(crashing: Daemon) -> None:
    user, stub = fresh_id("u"), crashing.stub()
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 60))
    sample_objects.put_in_folder(crashing.origin_dir, old)
    get_human(stub, user)
    put(stub, NAMESPACE, user, new.blob())
    assert new.matches(get_human(stub, user).tensors)
    crashing.restart()
    assert new.matches(get_human(stub, user).tensors)


def test_a_change_in_the_year_1_leaves_the_key_usable(new_daemon: NewDaemon) -> None:
    """A valid Timestamp whose nanoseconds do not fit into 64 bits."""
    daemon = new_daemon()
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    year_1 = Timestamp(seconds=-62_135_596_800)
    request = pb.InvalidateRequest(user_id=user, changed_at=year_1)
    call = stub.Invalidate.future(request, timeout=TIMEOUT_S)
    assert call.code() in (Code.OK, Code.INVALID_ARGUMENT)
    get_human(stub, user)
    daemon.wait_until_stored()
    daemon.restart()
    assert get_human(stub, user).info.tier == pb.TIER_DISK


def test_erase_zeroes_what_a_worker_still_has_mapped(daemon: Daemon) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    put(stub, NAMESPACE, user, sample_objects.person(user).blob())
    answer = get_human(stub, user, delivery=pb.DELIVERY_SHARED_FILE)
    with mapped_file(daemon.runtime_dir / answer.file.name) as mapped:
        assert any(mapped[:1024])
        stub.Invalidate(pb.InvalidateRequest(user_id=user, erase=True))
        assert not any(mapped[:])


def test_a_worker_keeps_its_mapping_over_an_eviction_and_a_kill(new_daemon: NewDaemon) -> None:
    """Promise 9."""
    daemon = new_daemon(KINDS__HUMAN__MAX_ENTRIES="1")
    stub, user = daemon.stub(), fresh_id("u")
    blob = sample_objects.person(user).blob()
    put(stub, NAMESPACE, user, blob)
    answer = get_human(stub, user, delivery=pb.DELIVERY_SHARED_FILE)
    with mapped_file(daemon.runtime_dir / answer.file.name) as mapped:
        put(stub, NAMESPACE, fresh_id("u"), blob)
        assert stub.Stats(pb.StatsRequest()).held_bytes == len(blob)
        daemon.restart()
        assert mapped[:] == blob


@contextmanager
def mapped_file(path: Path) -> Iterator[mmap.mmap]:
    """Map the file as a worker does: the mapping outlives its descriptor."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with mapped:
        yield mapped
