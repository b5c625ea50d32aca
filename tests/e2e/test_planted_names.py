"""Does a daemon that finds foreign things under its own names follow them? Promises 7 and 10.

In place of each name that it uses there is a link to a foreign file or directory, a link to a name
that does not exist, a FIFO, or a directory. The real daemon then either serves, or says in one line
why it cannot. Nothing outside its directories changes, and nothing is created there. It runs in
this process: opening a FIFO would hang here.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from cachesvc.app.daemon import Daemon
from cachesvc.config import HttpSettings, L2Settings, OriginSettings, Settings
from cachesvc.core.errors import ConfigError
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1 import cache_pb2_grpc
from tests.support import sample_objects

USER = "alice"
PLACES = [
    "runtime",
    "runtime/l1",
    "runtime/control",
    "runtime/.control.new",
    "runtime/cachesvc.sock",
    "runtime/admin.sock",
    "l2",
    "l2/.tmp",
    "l2/.quarantine",
    "l2/human_upper_body",
    f"l2/human_upper_body/{USER}",
    "state",
    "state/catalog.sqlite",
    "state/catalog.sqlite-wal",
    "state/catalog.sqlite-shm",
    "state/catalog.sqlite-journal",
    "state/audit.key",
    "state/audit.tmp",
]
KINDS = ["link to a file", "link to a directory", "link to nothing", "fifo", "directory"]

Tree = dict[str, tuple[int, int, int, bytes]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as name:
        yield Path(name)


@pytest.fixture
def outside(folder: Path) -> Path:
    """Return a tree that belongs to somebody else."""
    outside = folder / "outside"
    (outside / "directory").mkdir(parents=True)
    (outside / "file").write_bytes(b"somebody else's")
    (outside / "directory" / "42.safetensors").write_bytes(b"somebody else's too")
    return outside


def snapshot(tree: Path) -> Tree:
    """Return mode, inode, time of change and content of every file below `tree`."""
    found = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(tree))] = (
            status.st_mode,
            status.st_ino,
            status.st_ctime_ns,
            content,
        )
    return found


def plant(path: Path, kind: str, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
        (path / "not ours").write_bytes(b"")
    else:
        target = {"file": "file", "directory": "directory", "nothing": "not-there-yet"}
        path.symlink_to(outside / target[kind.rsplit(" ", 1)[1]])


def settings_of(folder: Path) -> Settings:
    origin = folder / "origin"
    sample_objects.put_in_folder(origin, sample_objects.person(USER))
    return Settings(
        runtime_dir=folder / "runtime",
        state_dir=folder / "state",
        l2=L2Settings(root=folder / "l2", free_floor_bytes=0),
        http=HttpSettings(listen="127.0.0.1:0"),
        origin=OriginSettings(kind="directory", path=origin),
    )


async def use(daemon: Daemon) -> None:
    """Fill, Put and invalidate, which write to every directory."""
    async with grpc.aio.insecure_channel(f"unix:{daemon.settings.socket_path}") as channel:
        stub = cache_pb2_grpc.CacheServiceStub(channel)  # type: ignore[no-untyped-call]
        request = pb.GetHumanRequest(user_id=USER, category=pb.HUMAN_CATEGORY_UPPER_BODY)
        answer = await stub.GetHuman(request, timeout=20, wait_for_ready=True)
        assert sample_objects.person(USER).matches(answer.entry.tensors)
        key = pb.EntryKey(namespace="human_upper_body", id=USER)

        async def messages() -> AsyncIterator[pb.PutRequest]:
            yield pb.PutRequest(header=pb.PutHeader(key=key))
            yield pb.PutRequest(data=sample_objects.person(USER).blob())

        await stub.Put(messages(), timeout=20)
        await stub.Invalidate(pb.InvalidateRequest(user_id=USER), timeout=20)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_what_is_planted_at_a_name_is_not_followed(
    place: str, kind: str, folder: Path, outside: Path
) -> None:
    settings = settings_of(folder)
    plant(folder / place, kind, outside)
    before = snapshot(outside)
    daemon = Daemon(settings)
    refusal = ""
    try:
        await daemon.start()
    except ConfigError as exc:
        refusal = str(exc)
    else:
        await use(daemon)
        await daemon.stop()
    if refusal:
        assert str(folder / place.split("/")[0]) in refusal
        assert "\n" not in refusal
    assert snapshot(outside) == before
