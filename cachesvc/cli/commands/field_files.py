"""Which fields do files hold?

A file's ending says how it is read. PNGs and pickles are read as the daemon reads the origin's
objects, so both take the same files. Only reading a BF16 field needs torch: numpy has no BF16.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc_format.blob import (
    ITEM_BYTES,
    MAX_HEAD_BYTES,
    BlobError,
    read_layout,
)
from cachesvc_format.foreign import MAX_LOOKED_AT_BYTES, Family, Found, name_of

# What the endings of a family's files are, for a file with another ending.
_ENDINGS = {
    Family.PNG: (".png",),
    Family.TORCH: (".pkl", ".pt", ".pth"),
    Family.ARRAY: (".npy",),
    Family.SAFETENSORS: (".safetensors",),
}
_NPZ = ".npz"


def read_fields(files: Iterable[str]) -> dict[str, Any]:
    """Return the fields that `FILE` and `FIELD=FILE` arguments hold.

    FIELD=, otherwise the file's name, names the field of a file that holds one; a .safetensors file
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


def _fields_of(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        found = _found_in(path)
        remedy = _remedy(found) if found else None
        if found and remedy:
            raise ValueError(f"it is {found.name}: {remedy}")
        what = f"it is {found.name}; " if found else ""
        raise ValueError(f"{what}this command takes files that end in {', '.join(_READERS)}")
    return reader(path, name)


def _found_in(path: Path) -> Found | None:
    with path.open("rb") as file:
        return name_of(file.read(MAX_LOOKED_AT_BYTES))


def _check_content(path: Path, family: Family, reads: str) -> None:
    """Refuse a file whose content is another format than its ending's."""
    found = _found_in(path)
    if found is None or (found.family is family and _NPZ not in found.name):
        return
    remedy = _remedy(found)
    what = f"it is {found.name}, and a {path.suffix} file holds {reads}"
    raise ValueError(f"{what}: {remedy}" if remedy else what)


def _remedy(found: Found) -> str | None:
    """Return what makes a file of this format one that the command takes, if anything does."""
    if _NPZ in found.name:
        return "save one array of it as .npy"
    if found.family is Family.IMAGE:
        return "save it as PNG"
    endings = _ENDINGS.get(found.family)
    return f"rename it to {' or '.join(endings)}" if endings else None


def _image_in(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    from cachesvc.codec.images import decode_png, plan_png

    data = path.read_bytes()
    plan_png(data)
    yield name, decode_png(data)


def _tensor_in(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    from cachesvc.codec.pickles import decode_pickle

    yield name, decode_pickle(path.read_bytes())


def _array_in(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    import numpy as np

    _check_content(path, Family.ARRAY, "one numpy array")
    # Open the file here: numpy leaves a file that it opens for a zip to the collector.
    with path.open("rb") as file:
        _check_array(file, path.stat().st_size)
        file.seek(0)
        yield name, np.load(file, allow_pickle=False)


def _check_array(file: IO[bytes], size_bytes: int) -> None:
    import numpy as np

    try:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
    except ValueError as exc:
        raise ValueError("its header is no numpy array's, or is cut short") from exc
    if dtype.hasobject:
        raise ValueError("it holds Python objects: save an array of numbers")
    wanted_bytes = file.tell() + math.prod(shape) * dtype.itemsize
    if size_bytes < wanted_bytes:
        raise ValueError(f"it is cut short: it has {size_bytes:,} of {wanted_bytes:,} bytes")


def _tensors_in(path: Path, _: str) -> Iterator[tuple[str, Any]]:
    from safetensors import SafetensorError, safe_open

    _check_content(path, Family.SAFETENSORS, "tensors of safetensors")
    try:
        with safe_open(path, "np") as file:
            modes = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                dtype = file.get_slice(name).get_dtype()
                if dtype not in ITEM_BYTES:
                    raise ValueError(
                        f"{name} is {dtype}, and an entry holds {', '.join(ITEM_BYTES)}: "
                        "convert it to one of these"
                    )
                if dtype == "BF16":
                    yield name, _bf16(path, name)
                    continue
                array = file.get_tensor(name)
                yield name, _image(name, array) if f"{name}.mode" in modes else array
    except SafetensorError as exc:
        raise ValueError(_why_no_safetensors(path)) from exc


def _why_no_safetensors(path: Path) -> str:
    """Return what is wrong in our own words: safetensors' errors are for its developers."""
    with path.open("rb") as file:
        head = file.read(MAX_HEAD_BYTES)
    try:
        read_layout(memoryview(head), path.stat().st_size)
    except BlobError as exc:
        return str(exc)
    return "its header is not one of safetensors"


def _bf16(path: Path, name: str) -> Any:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(name)
    except ImportError as exc:
        raise ValueError(
            f"{name} is BF16; reading BF16 needs torch: pip install torch beside this command"
        ) from exc


def _image(name: str, pixels: Any) -> Any:
    from PIL import Image

    try:
        return Image.fromarray(pixels)  # (H, W) is L; 2, 3, 4 channels are LA, RGB, RGBA
    except TypeError as exc:
        raise ValueError(
            f"{name}: no image has shape {pixels.shape} and type {pixels.dtype}"
        ) from exc


_READERS: dict[str, Callable[[Path, str], Iterator[tuple[str, Any]]]] = {
    ".png": _image_in,
    ".pkl": _tensor_in,
    ".pt": _tensor_in,
    ".pth": _tensor_in,
    ".npy": _array_in,
    ".safetensors": _tensors_in,
}
