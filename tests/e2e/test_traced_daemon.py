"""Does the daemon serve every call when it is started under a tracing library?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cachesvc_client import CacheClient, LocalOptions
from tests.client.support import values
from tests.support.daemons import Daemon


@pytest.mark.parametrize("library", ["opentelemetry", "sentry"])
def test_a_daemon_under_a_tracing_library_answers_streams_too(tmp_path: Path, library: str) -> None:
    """Both libraries await no handler that writes a stream by itself."""
    under = (sys.executable, "-m", "tests.support.tracing", library)
    daemon = Daemon(tmp_path, under=under)
    try:
        daemon.start()
        with CacheClient(daemon.target, local=LocalOptions(enabled=False)) as client:
            client.put_human("u1", **values.human())
            assert client.get_human("u1").info.key.id == "u1"
            assert client.get("human_upper_body", "u1").info.key.id == "u1"
            assert [step.done for step in client.warm("u1", categories=["upper_body"])] == [0, 1]
            assert client.invalidate(user_id="u1").removed_count == 1
    finally:
        daemon.close()
