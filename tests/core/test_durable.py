"""Is a file there whole or not at all, whatever fails while it is written? Promises 2 and 5."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.core import durable


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_file_has_all_its_parts_and_its_name(folder: int, tmp_path: Path) -> None:
    with durable.new_file(folder, "new", 0o600) as fd:
        durable.write(fd, b"one", bytearray(b" two"))
        durable.move("new", folder, "kept", folder)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"kept": b"one two"}
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600


def test_what_fails_before_the_move_leaves_nothing(folder: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), durable.new_file(folder, "new", 0o600):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_disk_does_not_take_is_taken_away_again(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its final name by then, and its writer learns only of the failure."""

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "new").write_bytes(b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            durable.move("new", folder, "kept", folder)
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_that_takes_no_byte_and_says_no_error_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(os, "write", lambda fd, data: 0)
        with pytest.raises(OSError, match="No space"):
            durable.write_all(file.fileno(), b"data")
