"""Parsers of files on the host: settings, grants, and both sides' control page."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cachesvc.config import load
from cachesvc.config.access import read_grants
from cachesvc.core.errors import ConfigError
from cachesvc.tiers.control import close_predecessor
from cachesvc_client import _control
from cachesvc_format.control_page import NAME, PAGE_BYTES
from tests.fuzz.parser import Parser


class _Folder:
    """A folder for the whole run; its file is written again for each input."""

    def __init__(self) -> None:
        # In shared memory, because the disk is not tested here.
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-fuzz-")
        self.path = Path(self._folder.name)

    def write(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path


_FOLDER = _Folder()


def _read_settings(data: bytes) -> None:
    settings = load(_FOLDER.write("cachesvc.toml", data))
    assert settings.build_kinds().all


def _read_access(data: bytes) -> None:
    read_grants(_FOLDER.write("access.toml", data))


def _read_control_page(data: bytes) -> None:
    """The input's first byte says whether the file has a page's size: few inputs have it
    themselves.
    """
    page = data[1:]
    if data[:1] > b"\x10":
        page = page[:PAGE_BYTES].ljust(PAGE_BYTES, b"\0")
    _FOLDER.write(NAME, page)
    directory_fd = os.open(_FOLDER.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = _control.open_control_page(directory_fd)
        if found is not None:
            found.is_serving()
        close_predecessor(directory_fd)
        # Whatever the page was before, once it is closed no worker may have a local hit by it.
        assert found is None or not found.is_serving()
    finally:
        os.close(directory_fd)


PARSERS = (
    Parser("settings", _read_settings, (ConfigError,)),
    Parser("access_file", _read_access, (ConfigError,), 2048),
    Parser("control_page", _read_control_page, (), PAGE_BYTES + 2),
)
