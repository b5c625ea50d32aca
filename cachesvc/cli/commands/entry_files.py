"""Writes entries to files, and reads files as the fields of an entry.

An entry's .safetensors file is the received blob, byte for byte, with its images (their PIL mode in
its metadata). Only reading a BF16 field needs torch: numpy has no BF16.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc_format.blob import ITEM_BYTES

if TYPE_CHECKING:
    from cachesvc_client import Entry

SUFFIXES = (".png", ".npy", ".safetensors")


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


def read_fields(files: Iterable[str]) -> dict[str, Any]:
    """Return the fields that `FILE` and `FIELD=FILE` arguments hold.

    FIELD=, otherwise the file's name, names the field of a PNG or .npy file; a .safetensors file
    holds any number of fields. Ends the command at a file that cannot be read.
    """
    fields: dict[str, Any] = {}
    for argument in files:
        name, separator, rest = argument.partition("=")
        path = Path(rest if separator else argument)
        try:
            _check_regular(path)
            found = dict(_fields_of(path, name if separator else path.stem))
        except Exception as exc:  # noqa: BLE001 any error of a library is the file's fault
            fail(f"{path}: cannot be read: {_one_line(exc)}", ExitCode.USAGE)
        twice = sorted(fields.keys() & found.keys())
        if twice:
            fail(f"{path}: {', '.join(twice)} is given by more than one file", ExitCode.USAGE)
        fields |= found
    return fields


def _check_regular(path: Path) -> None:
    # Reading a FIFO would wait for its writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("this is not a regular file")


def _one_line(exc: Exception) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return " ".join(text.split()) or type(exc).__name__


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


def _fields_of(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            yield name, image
    elif path.suffix == ".npy":
        import numpy as np

        # Open the file here: numpy leaves a file that it opens for a zip to the collector.
        with path.open("rb") as file:
            yield name, np.load(file, allow_pickle=False)
    elif path.suffix == ".safetensors":
        yield from _tensors_of(path)
    else:
        raise ValueError(f"the name must end in {', '.join(SUFFIXES)}")


def _tensors_of(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            modes = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                dtype = file.get_slice(name).get_dtype()
                if dtype not in ITEM_BYTES:
                    raise ValueError(f"{name} is {dtype}; an entry holds {', '.join(ITEM_BYTES)}")
                if dtype == "BF16":
                    yield name, _bf16(path, name)
                    continue
                array = file.get_tensor(name)
                yield name, _image(array) if f"{name}.mode" in modes else array
    except SafetensorError as exc:
        raise ValueError(str(exc)) from exc


def _bf16(path: Path, name: str) -> Any:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(name)
    except ImportError as exc:
        raise ValueError(
            f"{name} is BF16; reading BF16 needs torch: pip install torch beside this command"
        ) from exc


def _image(pixels: Any) -> Any:
    from PIL import Image

    try:
        return Image.fromarray(pixels)  # (H, W) is L; 2, 3, 4 channels are LA, RGB, RGBA
    except TypeError as exc:
        raise ValueError(f"no image has shape {pixels.shape} and type {pixels.dtype}") from exc
