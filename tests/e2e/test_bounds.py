"""Does the daemon stay within its limits, and serve also when a disk or tmpfs is full?"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, wait_until
from tests.support.grpc_calls import get_human, put, refused
from tests.support.sample_objects import REAL, Sample, fresh_id, torch_save

MIB = 1 << 20
FILLS = 100
MAX_PRIVATE_BYTES = 150 * MIB
Mount = Callable[[str], Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount small filesystems that can really be full. Needs root."""
    with ExitStack() as stack:

        def make(size: str) -> Path:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-full-"))
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.skip("there is no mount command")
            if done.returncode:
                pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            return Path(folder)

        yield make


def fill_up(folder: Path) -> None:
    """Write until there is no space left."""
    with (folder / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(64 * 1024))
        except OSError:
            return


def test_l2_evicts_the_least_recently_used_and_stays_below_its_limit(
    new_daemon: NewDaemon,
) -> None:
    """Promise 5. A small person takes 32 KiB of L2: 1 MiB holds 32 of them."""
    daemon = new_daemon(L2__MAX_BYTES=str(MIB), KINDS__HUMAN__MAX_ENTRIES="1")
    stub = daemon.stub()
    users = [fresh_id("u") for _ in range(40)]
    for user in users:
        sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
        get_human(stub, user)
        daemon.wait_until_stored()
    assert daemon.stub().Stats(pb.StatsRequest()).disk.evictions > 0
    assert daemon.l2_allocated_bytes() <= MIB
    assert get_human(stub, users[-2]).info.tier == pb.TIER_DISK
    assert get_human(stub, users[0]).info.tier == pb.TIER_ORIGIN


def test_an_entry_larger_than_l2_is_served_from_memory_all_the_same(
    new_daemon: NewDaemon,
) -> None:
    """Promise 5."""
    daemon = new_daemon(L2__MAX_BYTES=str(MIB))
    user, stub = fresh_id("u"), daemon.stub()
    person = sample_objects.person(user, sizes=REAL)
    sample_objects.put_in_folder(daemon.origin_dir, person)
    assert person.matches(get_human(stub, user).tensors)
    assert get_human(stub, user).info.tier == pb.TIER_MEMORY
    daemon.wait_until_stored()
    assert daemon.l2_files() == []
    assert daemon.metrics()["cachesvc_disk_rejections_total"] == 1


def test_a_full_disk_makes_the_cache_smaller_but_never_wrong_and_never_down(
    mount: Mount, new_daemon: NewDaemon
) -> None:
    """Promises 1 and 5: invalidations are still acknowledged, and survive a kill."""
    disk = mount("8m")
    settings = {"L2__ROOT": str(disk / "l2"), "STATE_DIR": str(disk / "state")}
    daemon = new_daemon(KINDS__HUMAN__MAX_ENTRIES="2", **settings)
    stub = daemon.stub()
    stored, later = fresh_id("u"), fresh_id("u")
    old, new = (sample_objects.person(stored, seed=seed) for seed in (1, 60))
    unstored = sample_objects.person(later)
    sample_objects.put_in_folder(daemon.origin_dir, old, unstored)
    get_human(stub, stored)
    daemon.wait_until_stored()
    fill_up(disk)

    assert unstored.matches(get_human(stub, later).tensors)
    assert get_human(stub, later).info.tier == pb.TIER_MEMORY
    sample_objects.put_in_folder(daemon.origin_dir, new)
    stub.Invalidate(pb.InvalidateRequest(user_id=stored))
    assert new.matches(get_human(stub, stored).tensors)
    daemon.restart()
    assert new.matches(get_human(stub, stored).tensors)
    (disk / "ballast").unlink()
    daemon.restart()
    assert new.matches(get_human(stub, stored).tensors)


def test_a_full_tmpfs_is_served_from_the_heap_if_the_settings_allow_it(
    mount: Mount, new_daemon: NewDaemon
) -> None:
    """Promise 5."""
    memory = mount("4m")
    daemon = new_daemon(RUNTIME_DIR=str(memory / "run"), L1__ALLOW_HEAP="true")
    user, small = fresh_id("u"), fresh_id("u")
    large_person = sample_objects.person(user, sizes=REAL)
    small_person = sample_objects.person(small)
    sample_objects.put_in_folder(daemon.origin_dir, large_person, small_person)
    stub = daemon.stub()
    assert large_person.matches(get_human(stub, user).tensors)
    daemon.wait_until_stored()
    assert get_human(stub, user).info.tier == pb.TIER_DISK
    fill_up(memory)
    entry = get_human(stub, small, delivery=pb.DELIVERY_SHARED_FILE)
    assert small_person.matches(entry.tensors), "an entry without a file is sent inline"
    put(stub, "human_dresses", small, small_person.blob())
    stub.Invalidate(pb.InvalidateRequest(user_id=user))
    daemon.wait_until_stored()
    assert daemon.l1_bytes() == 0


def test_evicted_bytes_that_nobody_reads_leave_tmpfs_at_once(
    mount: Mount, new_daemon: NewDaemon
) -> None:
    """Promise 5: an unlinked file may still take room, so the test asks the filesystem itself."""
    memory, limit_bytes = mount("256m"), 32 * MIB
    daemon = new_daemon(
        RUNTIME_DIR=str(memory / "run"),
        L1__MAX_BYTES=str(limit_bytes),
        L1__SPARE_BYTES="0",  # otherwise spare files would take room here
    )
    stub, template = daemon.stub(), sample_objects.person("template", sizes=REAL)
    sample_objects.put_in_folder(daemon.origin_dir, template)
    for _ in range(10):
        user = fresh_id("u")
        _link(daemon.origin_dir, template, user)
        get_human(stub, user)
        assert _used_bytes(memory) <= limit_bytes + MIB
        get_human(stub, user, delivery=pb.DELIVERY_SHARED_FILE)
        stub.Invalidate(pb.InvalidateRequest(user_id=user))
        wait_until(lambda: _used_bytes(memory) < MIB, within_s=20)


def _used_bytes(folder: Path) -> int:
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def test_too_small_a_tmpfs_is_refused_at_the_start_with_its_remedy(
    mount: Mount, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path, {"RUNTIME_DIR": str(mount("4m") / "run")})
    try:
        assert daemon.start_in_vain() == 2
        assert "CACHESVC_L1__MAX_BYTES" in daemon.log_text()
    finally:
        daemon.close()


def test_a_call_beyond_the_limit_of_flights_is_exhausted(new_daemon: NewDaemon) -> None:
    """Promise 5."""
    daemon = new_daemon(LIMITS__MAX_FLIGHTS="1", ORIGIN__ADDED_LATENCY_MS="4000")
    user, other, stub = fresh_id("u"), fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    first = stub.GetHuman.future(
        pb.GetHumanRequest(user_id=user, category=pb.HUMAN_CATEGORY_UPPER_BODY), timeout=30
    )
    wait_until(lambda: stub.Stats(pb.StatsRequest()).flights == 1, within_s=20)
    with refused() as refusal:
        get_human(stub, other)
    assert refusal.status == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_FLIGHTS")
    assert first.result().entry.tensors


@pytest.mark.timeout(180)
def test_a_hundred_real_fills_leave_at_most_150_mb_of_private_memory_and_no_torch(
    new_daemon: NewDaemon, record_property: Callable[[str, object], None]
) -> None:
    """Promise 5. Half of the tensors are torch.save files, so that both readers are used."""
    daemon = new_daemon(is_forked=False)
    stub, idle_bytes = daemon.stub(), daemon.private_bytes()
    templates = [
        sample_objects.person("template-of-pickles", sizes=REAL),
        sample_objects.person("template-of-files", sizes=REAL, save=torch_save),
    ]
    sample_objects.put_in_folder(daemon.origin_dir, *templates)
    for number in range(FILLS):
        user = fresh_id("u")
        _link(daemon.origin_dir, templates[number % 2], user)
        assert get_human(stub, user).info.tier == pb.TIER_ORIGIN
    daemon.wait_until_stored()
    beyond_l1_bytes = daemon.private_bytes() - daemon.l1_bytes()
    record_property("idle_bytes", idle_bytes)
    record_property("beyond_l1_bytes", beyond_l1_bytes)
    assert daemon.metrics()["cachesvc_fills_total"] == FILLS
    assert beyond_l1_bytes <= MAX_PRIVATE_BYTES
    assert not [name for name in daemon.mapped_files() if "torch" in name]


def _link(origin: Path, template: Sample, user: str) -> None:
    """Give `user` the template's objects as hard links."""
    for object_key in template.objects:
        _, _, rest = object_key.split("/", 2)
        path = origin / "users" / user / rest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(origin / object_key)
