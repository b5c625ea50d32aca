"""Is an unusable directory reported as the same clear error at each start?

Promise 9: an operator who starts the daemon again sees what is still wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.debian import why_missing

# A group that the process is not in: giving a directory to it needs CAP_CHOWN.
FOREIGN_GID = 54321
OPEN_TWICE = f"""
import os, sys
from pathlib import Path
from cachesvc.core.errors import ConfigError
from cachesvc.tiers import files
before = os.listdir("/proc/self/fd")
for _ in range(2):
    try:
        files.open_directory(Path(sys.argv[1]), mode=0o750, gid={FOREIGN_GID})
    except ConfigError as exc:
        print(exc)
assert os.listdir("/proc/self/fd") == before, "a descriptor was left open"
"""


def test_a_group_that_the_daemon_is_not_in_is_the_same_error_at_each_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_TWICE, tmp_path / "run"]
    if os.geteuid() == 0:
        if (reason := why_missing("setpriv")) is not None:
            pytest.skip(f"root may give a directory to any group; {reason}")
        command = ["setpriv", "--bounding-set=-chown", *command]
    environment = os.environ | {"PYTHONPATH": "."}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    message = f"{tmp_path}/run: cannot be given to group {FOREIGN_GID}: Operation not permitted"
    first, second = done.stdout.splitlines()
    assert first.startswith(message)
    assert second == first
    assert not (tmp_path / "run").exists()
