"""Is a file of a folder origin read whole while another process writes it in place?

The writers are real processes. Each version of the file repeats one byte value, so that a mixture
of two versions, or a part of one, shows. Promise 2.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from cachesvc.core.errors import OriginUnavailable
from cachesvc.origin.directory import DirectoryOrigin
from cachesvc.origin.whole_reads import QUIET_NS, Watch

SIZE = 64 * 16384
READS_AT_ONCE, ROUNDS = 16, 1
NOBODY = 65534
_LOOP = """
import itertools, mmap, os, sys, time
path = sys.argv[1]
pieces = range(64)
opened = open(path, "r+b")
shared = mmap.mmap(opened.fileno(), 0) if "mmap" in sys.argv else None
opened.close()
def version(n):
    return bytes([n % 250 + 1]) * 16384
print("writing", flush=True)
for n in itertools.count():
"""
WRITERS = {
    "truncates and writes": """
    with open(path, "wb", buffering=0) as file:
        for _ in pieces: file.write(version(n))
""",
    "writes over": """
    with open(path, "r+b", buffering=0) as file:
        for _ in pieces: file.write(version(n))
""",
    "writes slowly": """
    with open(path, "wb", buffering=0) as file:
        for _ in pieces:
            file.write(version(n))
            time.sleep(0.002)
""",
    "pauses between versions": """
    with open(path, "wb", buffering=0) as file:
        for _ in pieces: file.write(version(n))
    time.sleep(0.05)
""",
    "writes through a mapping": """
    for i in pieces: shared[i * 16384 : (i + 1) * 16384] = version(n)
""",
}


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that other users may read too."""
    folder = Path(tempfile.mkdtemp(prefix="cachesvc-test-", dir="/dev/shm"))
    folder.chmod(0o755)
    (folder / "photo.png").write_bytes(b"\1" * SIZE)
    (folder / "photo.png").chmod(0o644)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def written_by(root: Path, how: str) -> Iterator[None]:
    command = [sys.executable, "-c", _LOOP + WRITERS[how], str(root / "photo.png")]
    if "mapping" in how:
        command.append("mmap")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == b"writing\n"
            yield
        finally:
            writer.kill()


@contextmanager
def being(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


async def torn_reads(root: Path) -> int:
    """Return how many reads gave anything but one whole version."""
    origin, torn = DirectoryOrigin(root), 0
    for _ in range(ROUNDS):
        reads = (origin.read("photo.png") for _ in range(READS_AT_ONCE))
        for found in await asyncio.gather(*reads, return_exceptions=True):
            if isinstance(found, BaseException):
                assert isinstance(found, OriginUnavailable)
                assert found.reason == "ORIGIN_OBJECT_CHANGING"
            elif len(found.data) != SIZE or len(set(found.data)) != 1:
                torn += 1
    await origin.close()
    return torn


@pytest.mark.parametrize("how", list(WRITERS))
async def test_a_read_beside_a_writer_is_whole_or_refused(root: Path, how: str) -> None:
    with written_by(root, how):
        assert await torn_reads(root) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("how", [how for how in WRITERS if "mapping" not in how])
async def test_where_the_kernel_grants_no_lease_a_read_is_whole_or_refused(
    root: Path, how: str
) -> None:
    with written_by(root, how), being(NOBODY):
        assert await torn_reads(root) == 0


@pytest.mark.parametrize("user", ["owner", "stranger"])
async def test_what_was_written_a_moment_ago_is_read_once_its_writer_is_done(
    root: Path, user: str
) -> None:
    if user == "stranger" and os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    origin = DirectoryOrigin(root)
    (root / "photo.png").write_bytes(b"\2" * SIZE)
    with being(NOBODY) if user == "stranger" else nullcontext():
        assert set((await origin.read("photo.png")).data) == {2}
    await origin.close()


async def test_a_reader_delays_a_writer_and_survives_its_call_for_the_lease(root: Path) -> None:
    """By default the kernel sends SIGIO for a broken lease, which would end this process."""
    with written_by(root, "pauses between versions"):
        assert await torn_reads(root) == 0
    origin = DirectoryOrigin(root)
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(origin.read("photo.png") for _ in range(8)), return_exceptions=True)
    assert len(os.listdir("/proc/self/fd")) == before
    with (root / "photo.png").open("r+b") as writer:  # would block if a lease were left
        writer.write(b"\3")
    await origin.close()


def test_a_file_is_quiet_by_its_own_times_or_by_as_long_as_it_was_watched(root: Path) -> None:
    path = root / "photo.png"
    status = path.stat()
    changed_ns = status.st_ctime_ns
    assert not Watch().is_quiet(status, 0, changed_ns + QUIET_NS - 1)
    assert Watch().is_quiet(status, 0, changed_ns + QUIET_NS)
    # A server whose clock is ahead of this host's.
    watch, wall_ns = Watch(), changed_ns - 3600 * 10**9
    assert [watch.is_quiet(status, at, wall_ns) for at in (0, QUIET_NS - 1, QUIET_NS)] == [
        False,
        False,
        True,
    ]
    path.write_bytes(b"other")
    assert not watch.is_quiet(path.stat(), QUIET_NS, wall_ns)
