"""The link to the daemon: waiting, reconnecting, deadlines, threads, forks. Promise 9."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from cachesvc_client import (
    CacheClient,
    CacheUnavailable,
    DeadlineExceeded,
    LocalOptions,
    NotCached,
)
from cachesvc_client.testing import InMemoryCacheClient
from tests.client.support import values
from tests.client.support.processes import ServerProcess
from tests.client.support.scripted_server import Hold, ScriptedServer, refuse

DRAINING = refuse(grpc.StatusCode.UNAVAILABLE, "leaving", (("cachesvc-reason", "DRAINING"),))


def test_a_daemon_that_starts_later_is_waited_for(socket: Path) -> None:
    server = ScriptedServer(socket)
    InMemoryCacheClient(server.service).put_human("u1", **values.human())
    with CacheClient(str(socket), wait_s=20) as client, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.get_human, "u1")
        with server:
            assert pending.result(20).info.key.id == "u1"


def test_a_daemon_that_stays_away_is_unavailable_after_the_wait(socket: Path) -> None:
    with CacheClient(str(socket), wait_s=0.2) as client:
        with pytest.raises(CacheUnavailable, match=r"within 0\.2 s") as caught:
            client.get_human("u1")
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert str(socket) in caught.value.message


def test_without_a_wait_a_missing_daemon_is_unavailable_at_once(socket: Path) -> None:
    with CacheClient(str(socket), wait_s=0) as client, pytest.raises(CacheUnavailable):
        client.stats()


def test_a_restarted_daemon_is_found_again(server: ScriptedServer, client: CacheClient) -> None:
    client.put_human("u1", **values.human())
    assert client.get_human("u1").is_current()
    server.stop()
    server.start()
    assert client.get_human("u1").is_current()


def test_a_call_survives_the_kill_of_the_daemon_that_was_answering_it(socket: Path) -> None:
    with CacheClient(str(socket), wait_s=20) as client, ThreadPoolExecutor(1) as pool:
        with ServerProcess(socket, "hang") as first:
            pending = pool.submit(client.get_human, "u1")
            first.wait_for("called")
            first.kill()
        with ServerProcess(socket):
            assert pending.result(20).info.key.id == "u1"


def test_a_call_whose_daemon_is_stopped_is_asked_again(
    server: ScriptedServer, client: CacheClient
) -> None:
    client.put_human("u1", **values.human())
    hold = Hold()
    server.script("GetHuman", hold)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.get_human, "u1")
        hold.arrived.wait(20)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        hold.ended.wait(20)
        hold.release()
        stopper.join()
        server.start()
        assert pending.result(20).info.key.id == "u1"


def test_a_leaving_daemon_is_asked_again_until_its_successor_answers(
    server: ScriptedServer, client: CacheClient
) -> None:
    client.put_human("u1", **values.human())
    server.script("GetHuman", DRAINING, DRAINING)
    assert client.get_human("u1").info.key.id == "u1"
    assert server.calls.count("GetHuman") == 3


def test_a_daemon_that_never_finishes_leaving_is_unavailable(server: ScriptedServer) -> None:
    server.script("GetHuman", *[DRAINING] * 50)
    with CacheClient(server.target, wait_s=0.2) as c, pytest.raises(CacheUnavailable) as caught:
        c.get_human("u1")
    assert caught.value.reason == "DRAINING"


def test_a_streamed_get_starts_anew_after_a_broken_attempt(
    server: ScriptedServer, client: CacheClient
) -> None:
    client.put_human("u1", **values.human())
    server.script("Get", DRAINING)
    streamed = client.get("human_upper_body", "u1")
    assert bytes(streamed.blob) == bytes(client.get_human("u1").blob)


def test_a_put_is_sent_whole_again_with_the_time_of_its_first_attempt(
    server: ScriptedServer, client: CacheClient
) -> None:
    times: list[bytes] = []

    def drain(header: bytes, context: grpc.ServicerContext) -> bytes:
        times.append(header)
        return DRAINING(header, context)

    server.script("Put", drain, drain)
    stored = client.put_human("u1", **values.human())
    assert len(set(times)) == 1
    assert client.get_human("u1").info.generation == stored.generation


def test_a_warm_up_that_breaks_after_its_start_is_not_started_again(
    server: ScriptedServer, client: CacheClient
) -> None:
    server.script("Warm", DRAINING)
    assert [step.done for step in client.warm("u1", categories=["dresses"])] == [0, 1]
    assert server.calls == ["Warm", "Warm"]


def test_a_call_ends_at_its_deadline_and_not_at_the_wait(server: ScriptedServer) -> None:
    hold = Hold()
    server.script("GetHuman", hold)
    # Connected before, and without attaching: the deadline is for GetHuman alone.
    with CacheClient(server.target, wait_s=0, local=LocalOptions(enabled=False)) as client:
        client.stats()
        with pytest.raises(DeadlineExceeded):
            client.get_human("u1", timeout_s=1)
    assert hold.ended.wait(20)
    hold.release()


def test_a_fill_may_take_longer_than_the_wait(server: ScriptedServer) -> None:
    InMemoryCacheClient(server.service).put_human("u1", **values.human())
    hold = Hold()
    server.script("GetHuman", hold)
    with CacheClient(server.target, wait_s=0.001) as client, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.get_human, "u1")
        assert hold.arrived.wait(20)
        assert client.get_human("u1").info.key.id == "u1"
        assert not pending.done()
        hold.release()
        with pytest.raises(Exception, match="form that this client does not know"):
            pending.result(20)


def test_a_client_is_used_from_many_threads(server: ScriptedServer, client: CacheClient) -> None:
    people = {f"u{n}": values.human(n) for n in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda user: client.put_human(user, **people[user]), people))
        found = dict(zip(people, pool.map(client.get_human, people), strict=True))
    for user, person in people.items():
        assert found[user]["pose_tensor"].equal(person["pose_tensor"])


def test_closing_twice_is_harmless_and_entries_stay_valid(server: ScriptedServer) -> None:
    client = CacheClient(server.target)
    client.put_human("u1", **values.human())
    entry = client.get_human("u1")
    client.close()
    client.close()
    assert entry["pose_tensor"].shape == (1, 3, 64, 48)
    with pytest.raises(RuntimeError, match="closed"):
        client.get_human("u1")


def test_credentials_are_used_for_the_connection(server: ScriptedServer) -> None:
    local = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    with CacheClient(server.target, credentials=local) as client:
        assert client.stats().puts == 0
    # TLS to a server without TLS must fail, and not fall back to plain text.
    tls = grpc.ssl_channel_credentials()
    with (
        CacheClient(server.target, wait_s=0, credentials=tls) as client,
        pytest.raises(CacheUnavailable),
    ):
        client.stats()
    assert server.calls == ["Stats"]


FORK = """
import os, sys
from cachesvc_client import CacheClient, NotCached
client = CacheClient(sys.argv[1], wait_s=5)
for generation in range(3):
    assert client.get_human("u1").info.key.id == "u1"
    child = os.fork()
    if child:
        assert client.get_human("u1").is_current()
        status = os.waitpid(child, 0)[1]
        assert client.get_human("u1").is_current()
        os._exit(os.waitstatus_to_exitcode(status))
    for _ in range(20):
        assert client.get_human("u1").is_current()
client.close()
"""


def test_forked_children_start_anew_and_leave_the_parents_connection_alone(
    socket: Path,
) -> None:
    with ServerProcess(socket):
        ended = subprocess.run(
            [sys.executable, "-c", FORK, str(socket)],
            env={"PYTHONPATH": "client"},
            timeout=50,
            check=False,
        )
    assert ended.returncode == 0


AIO_FORK = """
import asyncio, os, sys
from cachesvc_client import AsyncCacheClient, CacheClient
async def use(client):
    return (await client.get_human("u1")).info.key.id
client = AsyncCacheClient(sys.argv[1])
assert asyncio.run(use(client)) == "u1"
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for use_again in (lambda: asyncio.run(use(client)), CacheClient(sys.argv[1]).stats):
    try:
        use_again()
    except RuntimeError as error:
        assert "fork" in str(error)
    else:
        os._exit(3)
os._exit(0)
"""


def test_a_child_of_a_process_that_used_asyncio_gets_a_clear_error(socket: Path) -> None:
    with ServerProcess(socket):
        ended = subprocess.run(
            [sys.executable, "-c", AIO_FORK, str(socket)],
            env={"PYTHONPATH": "client"},
            timeout=50,
            check=False,
        )
    assert ended.returncode == 0


def test_prefetch_gives_its_failure_to_whoever_asks(socket: Path) -> None:
    with CacheClient(str(socket), wait_s=0) as client:
        future = client.prefetch([("u1", "c1")])
        assert isinstance(future.exception(20), CacheUnavailable)


def test_leaving_a_warm_up_early_cancels_only_the_listening(
    server: ScriptedServer, client: CacheClient
) -> None:
    steps = client.warm("u1")
    assert next(steps).total == 3
    del steps
    with pytest.raises(NotCached):
        client.get_human("u1")
