"""What has the process imported that forks daemons and workers for tests? Imported there only.

It runs no test and starts no thread. See `forked_daemons` for what a fork shares with it.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# As in pytest's own process: this checkout's code, whatever is installed.
sys.path[:0] = [str(_ROOT), str(_ROOT / "client")]

from cachesvc.cli.serve import command  # noqa: E402

command.import_libraries()

import cachesvc.cli.serve.log_writer  # noqa: E402
import cachesvc.cli.serve.logs  # noqa: E402
import cachesvc.cli.serve.raw_stderr  # noqa: E402
import cachesvc.process  # noqa: E402, F401
import tests.local.steps  # noqa: E402, F401

# A fork's collector has no reason to visit, and so to copy, what is here.
gc.freeze()
