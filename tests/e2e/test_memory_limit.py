"""Does a daemon report that its cgroup has too little memory, and refuse an L1 above the limit?"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import sample_objects
from tests.support.cgroups import real_group
from tests.support.daemons import Daemon
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import fresh_id

MIB = 1 << 20
JOIN = 'echo $$ > "$0/inner/cgroup.procs" && exec "$@"'


def test_a_limit_below_l1_and_the_process_is_an_error_of_the_log_with_the_numbers_and_a_gauge(
    tmp_path: Path,
) -> None:
    with real_group(500 * MIB) as group:
        settings = {"L1__MAX_BYTES": str(450 * MIB)}
        daemon = Daemon(tmp_path, settings, under=("sh", "-c", JOIN, str(group)))
        try:
            daemon.start()
            user = fresh_id("u")
            sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
            assert get_human(daemon.stub(), user).info.size_bytes > 0
            assert daemon.metrics()["cachesvc_cgroup_memory_limit_bytes"] == 500 * MIB
        finally:
            daemon.close()
    lines = [json.loads(line) for line in daemon.log_text().splitlines()]
    (said,) = [line for line in lines if line["event"] == "memory_limit_too_low"]
    assert (said["level"], said["cgroup"]) == ("error", str(group))
    assert (said["limit_bytes"], said["l1_max_bytes"]) == (500 * MIB, 450 * MIB)


def test_an_l1_that_exceeds_the_limit_ends_the_start(tmp_path: Path) -> None:
    with real_group(500 * MIB) as group:
        settings = {"L1__MAX_BYTES": "500MiB"}
        daemon = Daemon(tmp_path, settings, under=("sh", "-c", JOIN, str(group)))
        try:
            assert daemon.start_in_vain() == 2
        finally:
            daemon.close()
    assert "l1.max_bytes (CACHESVC_L1__MAX_BYTES) is 500 MiB" in daemon.log_text()
    assert not daemon.state_dir.exists()
