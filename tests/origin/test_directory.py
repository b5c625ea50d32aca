"""Which faults can only a folder have? Paths that lead outside, odd files, unfinished writes.

Promise 10.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cachesvc.core.errors import HostBusy, NoSuchObject, OriginDenied, OriginUnavailable
from cachesvc.origin.directory import DirectoryOrigin
from tests.support.descriptors import no_descriptors_left

UNFINISHED = ".cachesvc-unfinished"
SECRET = b"outside the root"
LOCKING_WRITER = """\
import fcntl, sys
file = open(sys.argv[1], "wb")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root, with a file beside it that no key may reach."""
    (tmp_path / "secret.png").write_bytes(SECRET)
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
async def origin(root: Path) -> AsyncIterator[DirectoryOrigin]:
    origin = DirectoryOrigin(root)
    yield origin
    await origin.close()


async def refused(origin: DirectoryOrigin, object_key: str) -> bool:
    """Return whether reading and writing are both refused because of the key."""
    for call in (origin.read(object_key), origin.write(object_key, b"x")):
        with pytest.raises(OriginDenied) as caught:
            await call
        assert caught.value.reason == "ORIGIN_KEY_REFUSED"
    return True


@pytest.mark.parametrize(
    "object_key",
    [
        "",
        "/",
        "/etc/passwd",
        "../secret.png",
        "users/../../secret.png",
        "users/..",
        "./photo.png",
        "users//photo.png",
        "users/",
        "a\0b",
        "a" * 256,
        "users/" + "é" * 128,
        "\ud800.png",
        f"{UNFINISHED}/photo.png",
    ],
)
async def test_a_key_that_is_no_plain_path_is_refused(
    origin: DirectoryOrigin, root: Path, object_key: str
) -> None:
    assert await refused(origin, object_key)
    assert list(root.iterdir()) == []
    assert (root.parent / "secret.png").read_bytes() == SECRET


async def test_a_link_instead_of_a_file_is_not_read_through(
    origin: DirectoryOrigin, root: Path
) -> None:
    (root / "photo.png").symlink_to(root.parent / "secret.png")

    with pytest.raises(OriginDenied):
        await origin.read("photo.png")


async def test_a_link_instead_of_a_file_is_replaced_and_not_written_through(
    origin: DirectoryOrigin, root: Path
) -> None:
    (root / "photo.png").symlink_to(root.parent / "secret.png")

    await origin.write("photo.png", b"photo")

    assert (await origin.read("photo.png")).data == b"photo"
    assert (root.parent / "secret.png").read_bytes() == SECRET


async def test_a_link_instead_of_a_folder_is_refused(origin: DirectoryOrigin, root: Path) -> None:
    (root / "users").symlink_to(root.parent)

    assert await refused(origin, "users/secret.png")
    assert (root.parent / "secret.png").read_bytes() == SECRET


async def test_a_link_instead_of_the_hidden_folder_is_refused(
    origin: DirectoryOrigin, root: Path
) -> None:
    (root / UNFINISHED).symlink_to(root.parent)

    with pytest.raises(OriginDenied):
        await origin.write("photo.png", b"photo")
    with pytest.raises(OriginDenied):
        await origin.start()

    assert (root.parent / "secret.png").read_bytes() == SECRET


async def test_a_link_as_the_root_itself_is_the_operators_choice(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    origin = DirectoryOrigin(link)

    await origin.write("photo.png", b"photo")

    assert (root / "photo.png").read_bytes() == b"photo"
    await origin.close()


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK], ids=["fifo", "socket"])
async def test_a_fifo_or_socket_in_the_folder_is_no_object_and_hangs_nobody(
    origin: DirectoryOrigin, root: Path, kind: int
) -> None:
    os.mknod(root / "photo.png", kind | 0o600)

    with pytest.raises(NoSuchObject):
        await origin.read("photo.png")


async def test_a_missing_root_is_unavailable_and_never_a_miss(root: Path) -> None:
    origin = DirectoryOrigin(root / "unmounted")

    for call in (
        origin.read("photo.png"),
        origin.write("photo.png", b"photo"),
        origin.check(),
    ):
        with pytest.raises(OriginUnavailable) as caught:
            await call
        assert str(root) not in caught.value.message
    assert not (root / "unmounted").exists()
    await origin.close()


async def test_a_folder_where_an_object_should_lie_is_refused(
    origin: DirectoryOrigin, root: Path
) -> None:
    await origin.write("users/photo.png", b"photo")

    for object_key in ("users", "users/photo.png/mask.png"):
        with pytest.raises(OriginDenied) as caught:
            await origin.write(object_key, b"x")
        assert caught.value.reason == "ORIGIN_KEY_REFUSED"
    assert names_of_unfinished(root) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_denied(origin: DirectoryOrigin, root: Path) -> None:
    (root / "photo.png").write_bytes(b"photo")
    (root / "photo.png").chmod(0)

    with pytest.raises(OriginDenied):
        await origin.read("photo.png")


async def test_files_that_other_programs_put_there_are_read(
    origin: DirectoryOrigin, root: Path
) -> None:
    (root / "users").mkdir()
    (root / "users" / "photo.png").write_bytes(b"photo")
    os.utime(root / "users" / "photo.png", (1_700_000_000, 1_700_000_000))

    found = await origin.read("users/photo.png")

    assert found.data == b"photo"
    assert found.stamp.last_modified_s == 1_700_000_000


@pytest.mark.parametrize(
    "modified_ns", [-(10**18), -1, 0, 10_413_792_000 * 10**9, (1 << 63) - 1], ids=str
)
async def test_a_file_of_any_time_is_read(
    origin: DirectoryOrigin, root: Path, modified_ns: int
) -> None:
    (root / "photo.png").write_bytes(b"photo")
    os.utime(root / "photo.png", ns=(modified_ns, modified_ns))
    assert (await origin.read("photo.png")).data == b"photo"


async def test_an_object_of_the_same_size_and_time_but_other_bytes_has_another_etag(
    origin: DirectoryOrigin, root: Path
) -> None:
    etags = set()
    for data in (b"photo 1", b"photo 2"):
        (root / "photo.png").write_bytes(data)
        os.utime(root / "photo.png", (1_700_000_000, 1_700_000_000))
        etags.add((await origin.read("photo.png")).stamp.etag)

    assert len(etags) == 2


async def test_a_write_leaves_nothing_unfinished(origin: DirectoryOrigin, root: Path) -> None:
    await asyncio.gather(*(origin.write("photo.png", bytes([i]) * 1000) for i in range(20)))

    assert names_of_unfinished(root) == []
    assert len((await origin.read("photo.png")).data) == 1000


async def test_a_write_that_fails_leaves_the_old_object_and_no_litter(
    origin: DirectoryOrigin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await origin.write("photo.png", b"old")

    def no_space(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", no_space)
        with pytest.raises(OriginUnavailable):
            await origin.write("photo.png", b"new")

    assert (await origin.read("photo.png")).data == b"old"
    assert names_of_unfinished(root) == []


async def test_start_removes_what_a_killed_writer_left_and_keeps_what_a_live_one_holds(
    origin: DirectoryOrigin, root: Path
) -> None:
    folder = root / UNFINISHED
    folder.mkdir()
    killed_writer = subprocess.Popen(
        [sys.executable, "-c", LOCKING_WRITER, str(folder / "killed")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with killed_writer, (folder / "live").open("wb") as live_writer:
        assert killed_writer.stdout is not None
        assert killed_writer.stdout.readline() == b"locked\n"
        fcntl.flock(live_writer, fcntl.LOCK_EX)
        await origin.start()
        assert names_of_unfinished(root) == ["killed", "live"]

        killed_writer.send_signal(signal.SIGKILL)
        killed_writer.wait()
        await origin.start()

        assert names_of_unfinished(root) == ["live"]


async def test_added_latency_counts_against_the_deadline(root: Path) -> None:
    origin = DirectoryOrigin(root, added_latency_s=3600, deadline_s=0.01)

    for call in (origin.read("photo.png"), origin.write("photo.png", b"photo")):
        with pytest.raises(OriginUnavailable) as caught:
            await call
        assert caught.value.reason == "ORIGIN_TIMEOUT"
    await origin.close()


async def test_added_latency_holds_no_check_back(root: Path) -> None:
    origin = DirectoryOrigin(root, added_latency_s=3600)

    await origin.check()

    await origin.close()


async def test_reads_leave_no_descriptor_open(origin: DirectoryOrigin, root: Path) -> None:
    await origin.write("users/photo.png", b"photo")
    (root / "link").symlink_to(root.parent)
    before = open_descriptors()

    for object_key in ("users/photo.png", "users", "absent", "link", "users/photo.png/x"):
        await asyncio.gather(origin.read(object_key), return_exceptions=True)

    assert open_descriptors() == before


def names_of_unfinished(root: Path) -> list[str]:
    return sorted(path.name for path in (root / UNFINISHED).iterdir())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_file_for_which_this_host_has_no_descriptor_is_not_the_origins_failure(
    tmp_path: Path,
) -> None:
    (tmp_path / "photo.png").write_bytes(b"bytes")
    origin = DirectoryOrigin(tmp_path)
    assert (await origin.read("photo.png")).data == b"bytes"
    with no_descriptors_left(), pytest.raises(HostBusy) as caught:
        await origin.read("photo.png")
    assert caught.value.reason == "HOST_RESOURCES"
    assert (await origin.read("photo.png")).data == b"bytes"
    await origin.close()
