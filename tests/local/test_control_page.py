"""Does a worker trust any page other than a fresh one of a serving daemon?"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cachesvc_client import CacheClient, _control
from cachesvc_client._control import open_control_page
from tests.local.versioned import put_version, version_of
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

HEADER = struct.Struct("<8sII16sQ")
HEARTBEAT, HEARTBEAT_OFFSET = struct.Struct("<Q"), 32
PLACE, PLACE_OFFSET = struct.Struct("<5Q"), 40
PAGE_BYTES = 4096
SERVING, CLOSED = 1, 2
S = 1_000_000_000
Make = Callable[[Path], None]


def page(
    magic: bytes = b"cachesvc",
    version: int = 1,
    state: int = SERVING,
    boot_id: bytes = b"another daemon's",
    age_s: float = 0.0,
) -> bytes:
    # This clock starts at boot, which may be less than `age_s` ago.
    heartbeat_ns = max(0, time.monotonic_ns() - int(age_s * S))
    return HEADER.pack(magic, version, state, boot_id, heartbeat_ns).ljust(PAGE_BYTES, b"\0")


def settle(directory: Path, *, l1: Path | None = None, time_namespace: int = 0) -> None:
    """Write into the page in `directory` the inodes of the page itself and of `l1`."""
    control, files = (directory / "control").stat(), (l1 or directory / "l1").stat()
    place = (control.st_dev, control.st_ino, files.st_dev, files.st_ino, time_namespace)
    with (directory / "control").open("r+b") as written:
        written.seek(PLACE_OFFSET)
        written.write(PLACE.pack(*place))


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(PAGE_BYTES))


def nothing_at_all(path: Path) -> None:
    path.write_bytes(b"")


def too_short(path: Path) -> None:
    path.write_bytes(page()[:40])


def too_long(path: Path) -> None:
    path.write_bytes(page() + b"\0")


def another_magic(path: Path) -> None:
    path.write_bytes(page(magic=b"cachesvd"))


def a_newer_format(path: Path) -> None:
    path.write_bytes(page(version=2))


def a_closed_page(path: Path) -> None:
    path.write_bytes(page(state=CLOSED))


def an_unknown_state(path: Path) -> None:
    path.write_bytes(page(state=0))


def an_old_heartbeat(path: Path) -> None:
    path.write_bytes(page(age_s=1.0))


def a_heartbeat_in_the_future(path: Path) -> None:
    path.write_bytes(page(age_s=-3600.0))


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link_that_leads_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


CRAFTED: list[Make] = [
    garbage,
    nothing_at_all,
    too_short,
    too_long,
    another_magic,
    a_newer_format,
    a_closed_page,
    an_unknown_state,
    an_old_heartbeat,
    a_heartbeat_in_the_future,
    a_fifo,
    a_directory,
    a_link_that_leads_nowhere,
]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory where the next client looks for the daemon's files."""
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def get_twice(target: str, clothing_id: str) -> str:
    """Return the transport of a fresh client after two Gets, which must both be version 1."""
    with CacheClient(target) as reader:
        assert version_of(reader.get_text(clothing_id)) == 1
        assert version_of(reader.get_text(clothing_id)) == 1
        return reader.transport


@pytest.mark.parametrize("make", CRAFTED, ids=lambda make: make.__name__)
def test_with_a_page_that_is_none_answers_come_inline(
    daemon: Daemon, client: CacheClient, directory: Path, make: Make
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    make(directory / "control")
    assert get_twice(daemon.target, text).startswith("inline: ")


def test_a_link_to_the_daemons_own_page_is_not_followed(
    daemon: Daemon, client: CacheClient, directory: Path
) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    (directory / "control").symlink_to(daemon.runtime_dir / "control")
    assert get_twice(daemon.target, text).startswith("inline: ")


def test_a_fresh_page_of_another_daemon_is_found_out_by_its_boot_id(
    daemon: Daemon,
    client: CacheClient,
    directory: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Fresh for long enough on a busy machine.
    monkeypatch.setattr(_control, "HEARTBEAT_LIMIT_NS", 600 * S)
    text = fresh_id("text")
    put_version(client, text, 1)
    before = client.stats().requests.memory_hits
    (directory / "control").write_bytes(page())
    (directory / "l1").mkdir()
    settle(directory)
    how = get_twice(daemon.target, text)
    assert how == "inline: the control page that was found is another daemon's"
    assert caplog.messages == [f"answers are sent inline, not as shared files: {how[8:]}"]
    # The first Get was asked twice; the second did not try the files again.
    assert client.stats().requests.memory_hits == before + 3


def test_a_page_whose_heart_stopped_ends_the_local_hits_of_who_trusted_it(
    daemon: Daemon, client: CacheClient, directory: Path
) -> None:
    # A frozen copy of the daemon's own page, as a mount of another host would show it.
    text = fresh_id("text")
    put_version(client, text, 1)
    frozen = bytearray((daemon.runtime_dir / "control").read_bytes())
    HEARTBEAT.pack_into(frozen, HEARTBEAT_OFFSET, time.monotonic_ns() - S)
    (directory / "control").write_bytes(frozen)
    settle(directory, l1=daemon.runtime_dir / "l1")
    assert "is not serving" in get_twice(daemon.target, text)


@pytest.mark.parametrize(
    ("state", "age_s", "is_trusted"),
    [
        (SERVING, 0.0, True),
        (SERVING, 1.0, False),
        (SERVING, 3600.0, False),
        (SERVING, -3600.0, False),
        (CLOSED, 0.0, False),
        (0, 0.0, False),
    ],
    ids=["fresh", "a second old", "an hour old", "of the future", "closed", "unknown state"],
)
def test_only_a_fresh_heartbeat_of_a_serving_daemon_is_trusted(
    tmp_path: Path, state: int, age_s: float, is_trusted: bool
) -> None:
    (tmp_path / "control").write_bytes(page(state=state, age_s=age_s))
    directory_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        control = open_control_page(directory_fd)
        assert control is not None
        assert control.is_serving() is is_trusted
    finally:
        os.close(directory_fd)


def test_a_page_is_read_only_for_workers(daemon: Daemon, client: CacheClient) -> None:
    text = fresh_id("text")
    put_version(client, text, 1)
    client.get_text(text)
    control = client._local._control
    assert control is not None
    with pytest.raises(TypeError):
        control._page[0] = 0
