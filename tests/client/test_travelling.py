"""Does a client work in another process, and is what cannot travel refused with what can?"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    CacheServiceError,
    CacheUnavailable,
    LocalOptions,
    NotCached,
)
from cachesvc_client.errors import PartStatus
from cachesvc_client.testing import AsyncInMemoryCacheClient, InMemoryCacheClient
from tests.client.support import values
from tests.client.support.scripted_server import ScriptedServer
from tests.support.daemons import ROOT, Daemon

SETTINGS: dict[str, Any] = {
    "timeout_s": 7.0,
    "wait_s": 3.0,
    "token": "secret",
    "daemon_user": 12,
    "local": LocalOptions(max_entries=5),
}


@pytest.mark.parametrize("kind", [CacheClient, AsyncCacheClient])
@pytest.mark.parametrize(
    "again", [lambda c: pickle.loads(pickle.dumps(c)), copy.copy, copy.deepcopy]
)
def test_a_client_travels_as_its_settings(kind: Any, again: Any) -> None:
    client = kind("127.0.0.1:8443", **SETTINGS)
    found = again(client)
    assert type(found) is kind
    assert found is not client
    assert found._settings == client._settings
    assert {name: found._settings[name] for name in SETTINGS} == SETTINGS


def test_a_relative_target_leads_to_the_same_socket_from_elsewhere(
    socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(socket.parent)
    client = CacheClient("./s.sock")
    monkeypatch.chdir(tmp_path)
    with ScriptedServer(socket), pickle.loads(pickle.dumps(client)) as found:
        assert found.stats().puts == 0


def test_variables_are_read_where_a_client_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", "/run/here")
    sent = pickle.dumps(CacheClient())
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", "/run/there")
    assert "/run/there/cachesvc.sock" in repr(pickle.loads(sent))


def test_credentials_cannot_travel_and_the_error_says_what_can() -> None:
    client = CacheClient("127.0.0.1:8443", credentials=grpc.ssl_channel_credentials())
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"credentials=.*TlsFiles\(\.\.\.\) and token="):
            act(client)


@pytest.mark.parametrize("kind", [InMemoryCacheClient, AsyncInMemoryCacheClient])
def test_an_in_memory_client_stays_in_its_process(kind: Any) -> None:
    with pytest.raises(TypeError, match="entries are in this process"):
        pickle.dumps(kind())


def test_an_entry_says_what_to_send_instead() -> None:
    client = InMemoryCacheClient()
    client.put_human("u1", **values.human())
    entry = client.get_human("u1")
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"'u1'\) cannot be pickled .* send its key"):
            act(entry)
    assert pickle.loads(pickle.dumps(entry.info)) == entry.info
    pose = pickle.loads(pickle.dumps(entry["pose_tensor"].clone()))
    assert pose.equal(entry["pose_tensor"])
    mask = pickle.loads(pickle.dumps(entry.image("mask")))
    assert mask.tobytes() == entry.image("mask").tobytes()


def test_errors_travel_whole() -> None:
    error = NotCached(
        "absent",
        reason="NO_SUCH_OBJECT",
        object_keys=("a.png",),
        parts=(PartStatus("human", grpc.StatusCode.NOT_FOUND, "NO_SUCH_OBJECT", "absent"),),
    )
    error.missing = ("human",)
    for sent in (error, CacheUnavailable("away"), CacheServiceError("odd")):
        found = pickle.loads(pickle.dumps(sent))
        assert type(found) is type(sent)
        assert vars(found) == vars(sent)
        assert str(found) == str(sent)


def _pose_of(client: CacheClient, user: str) -> torch.Tensor:
    return client.get_human(user)["pose_tensor"].clone()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_client_works_in_a_process_that_is_started_anew(daemon: Daemon, method: str) -> None:
    """After its use here: the other process connects and attaches by itself."""
    user, person = values.fresh_id("user"), values.human()
    with CacheClient(daemon.target) as client:
        client.put_human(user, **person)
        client.get_human(user)
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_pose_of, (client, user)).equal(person["pose_tensor"])
        assert client.get_human(user).is_current()


class _Poses(Dataset[torch.Tensor]):
    """A dataset as users write it: with its client."""

    def __init__(self, client: CacheClient, users: list[str]) -> None:
        self._client = client
        self._users = users

    def __len__(self) -> int:
        return len(self._users)

    def __getitem__(self, at: int) -> torch.Tensor:
        return self._client.get_human(self._users[at])["pose_tensor"].clone()


def _sizes_of_batches(target: str, method: str) -> list[int]:
    users = [values.fresh_id("user") for _ in range(4)]
    with CacheClient(target) as client:
        for user in users:
            client.put_human(user, **values.human())
        loader = DataLoader(
            _Poses(client, users), batch_size=2, num_workers=1, multiprocessing_context=method
        )
        return [batch.shape[0] for batch in loader]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_client_works_in_the_workers_of_a_data_loader(daemon: Daemon, method: str) -> None:
    """In a process of its own: one that has used asyncio gRPC may not be forked."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(_sizes_of_batches, daemon.target, method).result(50) == [2, 2]


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_greenlets_in_the_place_of_threads_are_refused_at_once(
    library: str, moment: str, server: ScriptedServer
) -> None:
    script = GREENLETS.format(patch=PATCHES[library])
    ended = subprocess.run(
        [sys.executable, "-c", script, server.target, moment],
        env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
        timeout=40,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"{library} has replaced this process's threads" in ended.stdout


def test_gevent_that_leaves_threads_alone_takes_no_call_from_the_client(daemon: Daemon) -> None:
    user = values.fresh_id("user")
    with CacheClient(daemon.target) as client:
        client.put_human(user, **values.human())
    script = (
        "from gevent import monkey; monkey.patch_all(thread=False)\n"
        "import sys\n"
        "from cachesvc_client import CacheClient\n"
        "with CacheClient(sys.argv[1]) as client:\n"
        "    print([client.get_human(sys.argv[2]).info.key.id for _ in range(3)])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, daemon.target, user],
        env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
        timeout=40,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.returncode) == (f"{[user] * 3}\n", 0), ended.stderr


PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
GREENLETS = """
import sys
if sys.argv[2] == "before":
    {patch}
from cachesvc_client import CacheClient
try:
    client = CacheClient(sys.argv[1])
    client.stats()
    {patch}
    client.stats()
except RuntimeError as error:
    print(error)
"""


def test_without_asyncio_the_asyncio_client_says_so_at_once() -> None:
    with pytest.raises(RuntimeError, match="needs asyncio's running event loop"):
        AsyncCacheClient("127.0.0.1:1").get_human("u1").send(None)
