"""Does a client that nobody closes leave its files without a word?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cachesvc_client import CacheClient
from tests.client.support import values
from tests.support.daemons import Daemon

ROOT = Path(__file__).parents[2]
SCRIPT = """
import gc, sys
from cachesvc_client import CacheClient
client = CacheClient(sys.argv[1])
client.get_human("u1")
del client
gc.collect()
"""


def test_a_client_that_is_dropped_closes_its_files_without_a_warning(daemon: Daemon) -> None:
    with CacheClient(daemon.target) as client:
        client.put_human("u1", **values.human())
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, daemon.target],
        env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
