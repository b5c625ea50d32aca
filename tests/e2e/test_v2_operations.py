"""Do the commands that V2's operators run still work while the daemon runs?"""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.debian import why_missing
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import fresh_id

EIGHT_DAYS_S = 8 * 24 * 3600
CATEGORIES = (
    ("upper", pb.HUMAN_CATEGORY_UPPER_BODY),
    ("lower", pb.HUMAN_CATEGORY_LOWER_BODY),
    ("dresses", pb.HUMAN_CATEGORY_DRESSES),
)


def run_in_l2(daemon: Daemon, command: str) -> str:
    """Run a command of V2's runbook literally."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=daemon.l2_root,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.strip()


def delete_what_is_a_week_old(daemon: Daemon) -> None:
    """V2's cron job, as it runs a week later."""
    old = time.time() - EIGHT_DAYS_S
    for folder, _, names in os.walk(daemon.l2_root):
        for name in names:
            os.utime(os.path.join(folder, name), (old, old))
    run_in_l2(daemon, f"find {daemon.l2_root} -type f -mtime +7 -delete")
    assert run_in_l2(daemon, "find . -type f | wc -l") == "0"


def test_v2s_clean_up_by_age_costs_refills_and_nothing_else(new_daemon: NewDaemon) -> None:
    if (reason := why_missing("find")) is not None:
        pytest.skip(reason)
    daemon = new_daemon(KINDS__HUMAN__MAX_ENTRIES="1")
    evicted, cached = fresh_id("u"), fresh_id("u")
    people = {user: sample_objects.person(user) for user in (evicted, cached)}
    sample_objects.put_in_folder(daemon.origin_dir, *people.values())
    stub = daemon.stub()
    for user in people:
        get_human(stub, user)
    daemon.wait_until_stored()

    delete_what_is_a_week_old(daemon)

    assert get_human(stub, cached).info.tier == pb.TIER_MEMORY
    refilled = get_human(stub, evicted)
    assert refilled.info.tier == pb.TIER_ORIGIN
    assert people[evicted].matches(refilled.tensors)
    daemon.wait_until_stored()
    daemon.restart()
    assert get_human(stub, evicted).info.tier == pb.TIER_DISK
    again = get_human(stub, cached)
    assert again.info.tier == pb.TIER_ORIGIN
    assert people[cached].matches(again.tensors)


def test_an_invalidation_is_acknowledged_after_v2s_clean_up(new_daemon: NewDaemon) -> None:
    """Promise 1."""
    daemon = new_daemon()
    user, stub = fresh_id("u"), daemon.stub()
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 60))
    sample_objects.put_in_folder(daemon.origin_dir, old)
    get_human(stub, user)
    daemon.wait_until_stored()
    delete_what_is_a_week_old(daemon)
    sample_objects.put_in_folder(daemon.origin_dir, new)
    assert stub.Invalidate(pb.InvalidateRequest(user_id=user)).removed_count == 1
    assert new.matches(get_human(stub, user).tensors)


def test_counting_directories_counts_entries_and_du_sees_their_bytes(
    new_daemon: NewDaemon,
) -> None:
    daemon = new_daemon()
    users, stub = [fresh_id("u") for _ in range(3)], daemon.stub()
    for user in users:
        for part, category in CATEGORIES:
            sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user, part))
            get_human(stub, user, category)
    daemon.wait_until_stored()
    count = "find human_* -mindepth 1 -type d | wc -l"
    assert run_in_l2(daemon, count) == "9"
    kib = int(run_in_l2(daemon, "du -sk .").split()[0])
    assert kib * 1024 >= sum(path.stat().st_size for path in daemon.l2_files()) > 9 * 30_000
    assert run_in_l2(daemon, "du -sh .")

    stub.Invalidate(pb.InvalidateRequest(user_id=users[0], erase=True))  # waits for the unlinks

    assert run_in_l2(daemon, count) == "6"


def test_files_that_are_not_ours_are_never_deleted(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    user, stub = fresh_id("u"), daemon.stub()
    v2_files = [
        daemon.l2_root / "human_upper_body" / user / "human_img.png",
        daemon.l2_root / "human_upper_body" / fresh_id("u") / "pose_tensor.pkl",
        daemon.l2_root / "garment" / "notes.txt",
    ]
    for path in v2_files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"V2's own")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(stub, user)
    daemon.restart()
    daemon.admin_stub().Invalidate(pb.InvalidateRequest(everything=True))
    daemon.stop()
    assert all(path.read_bytes() == b"V2's own" for path in v2_files)
