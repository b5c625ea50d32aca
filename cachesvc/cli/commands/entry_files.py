"""Writes entries to files.

An entry's .safetensors file is the received blob, byte for byte, with its images (their PIL mode in
its metadata). `field_files.py` reads such a file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachesvc.cli.conventions.exits import fail

if TYPE_CHECKING:
    from cachesvc_client import Entry


def write(entries: dict[str, Entry], folder: Path, *, force: bool) -> list[Path]:
    """Write each part's blob and images into `folder`; return the paths.

    If a file exists and `force` is False, ends the command before writing anything.
    """
    files = dict(_files(entries, folder))
    taken = [str(path) for path in files if path.exists() or path.is_symlink()]
    if taken and not force:
        fail(f"{', '.join(taken)} exists; --force overwrites existing files")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, data in files.items():
            _write_private(path, data, force=force)
    except OSError as exc:
        fail(f"{exc.filename or folder}: cannot be written: {exc.strerror}")
    return list(files)


def _files(entries: dict[str, Entry], folder: Path) -> Iterator[tuple[Path, Any]]:
    for part, entry in entries.items():
        yield folder / f"{part}.safetensors", entry.blob
        for field in entry.layout.values():
            if field.mode is not None:
                png = io.BytesIO()
                entry.image(field.name).save(png, "PNG", compress_level=1)
                yield folder / f"{field.name}.png", png.getbuffer()


def _write_private(path: Path, data: Any, *, force: bool) -> None:
    """Write a file that only its owner may read: it may be a person's photo."""
    how = os.O_NOFOLLOW if force else os.O_EXCL
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    with os.fdopen(fd, "wb") as file:
        # The mode above is only for a new file. On another user's file this fails, unchanged.
        os.fchmod(fd, 0o600)
        file.truncate(0)
        file.write(data)
