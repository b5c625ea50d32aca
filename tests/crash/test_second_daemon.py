"""Promise 10: does a second daemon on the first one's paths end at once, and harm nothing?"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.local.versioned import put_version, version_of
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id
from tests.support.server_processes import ReservedPort

CONFIGURATION_ERROR = 2
SHARED = ("STATE_DIR", "GRPC__SOCKET", "GRPC__LISTEN", "HTTP__LISTEN")
PAUSE_S = 0.01


def get_until(over: threading.Event, target: str, text: str) -> int:
    """Get again and again; every Get must be served. Return the number of Gets."""
    served = 0
    with CacheClient(target, wait_s=0) as client:
        while not over.wait(PAUSE_S):
            assert version_of(client.get_text(text)) == 1
            client.stats()  # a local hit alone would not call the daemon
            served += 1
    return served


def test_a_second_daemon_in_any_of_the_firsts_places_ends_with_2_and_the_first_serves_every_call(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    """tests/e2e/test_lifecycle.py has the L2 root and the runtime directory."""
    port = ReservedPort()
    first = new_daemon(is_forked=False, GRPC__LISTEN=f"127.0.0.1:{port.number}")
    places = {**first.settings, "GRPC__SOCKET": str(first.socket)}
    text, over = fresh_id("text"), threading.Event()
    with CacheClient(first.target) as client:
        put_version(client, text, 1)
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(get_until, over, first.target, text)
        try:
            codes = {name: _start_in_vain(tmp_path / name, {name: places[name]}) for name in SHARED}
        finally:
            over.set()
        assert codes == dict.fromkeys(SHARED, CONFIGURATION_ERROR)
        assert served.result() > len(SHARED)
    port.release()
    # A call on a new connection: the socket's name still leads to the first daemon.
    with CacheClient(first.target, wait_s=0) as client:
        assert version_of(client.get_text(text)) == 1


def _start_in_vain(folder: Path, settings: dict[str, str]) -> int:
    folder.mkdir()
    second = Daemon(folder, settings)
    try:
        code = second.start_in_vain()
        assert "Traceback" not in second.log_text()
    finally:
        second.close()
    return code
